"""The files of a noisy label: the label map, how sure it is, and what each atlas contributed."""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossmoda import labels, volume
from crossmoda.fusion import Performance
from crossmoda.output import write_json, write_text
from crossmoda.progress import Progress, report
from crossmoda.propagation.atlases import folder_name
from crossmoda.propagation.label_fusion import Consensus
from crossmoda.propagation.target import Target
from crossmoda.volume import Volume

LABEL_MAP = "noisy_label.nii.gz"
#: The files of a propagation, in its folder.
OUTPUTS = (
    LABEL_MAP,
    "noisy_label.seg.nrrd",
    "confidence.nii.gz",
    *(f"probability_{structure.key}.nii.gz" for structure in labels.STRUCTURES),
    "disagreement.nii.gz",
    "atlases.csv",
    "provenance.json",
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one atlas."""

    atlas: str
    tumor_side: str | None
    mirrored: bool
    quality: float | None
    speaks_about: str
    """the structures about which it was believed"""
    seconds: float
    reused: bool
    dropped: str
    """why it was dropped; empty if it was used"""


def write(
    folder: Path,
    target: Target,
    consensus: Consensus,
    table: str,
    provenance: Mapping[str, Any],
    progress: Progress | None = None,
) -> Volume:
    """Write :data:`OUTPUTS` on the target's whole grid; return the label map."""
    grid = target.image.grid

    def whole(array: np.ndarray, outside: float = 0.0) -> Volume:
        full = np.full(grid.shape, outside, array.dtype)
        full[target.box] = array
        return Volume(full, grid)

    report(progress, 0.0, "writing the label map")
    label_map = whole(consensus.label_map)
    volume.write(label_map, folder / LABEL_MAP)
    volume.write_segmentation(label_map, folder / "noisy_label.seg.nrrd", provenance)
    maps = {
        "confidence": whole(consensus.confidence, 1.0),
        "disagreement": whole(consensus.fusion.disagreement),
    }
    for index, structure in enumerate(labels.STRUCTURES, start=1):
        maps[f"probability_{structure.key}"] = whole(consensus.posterior[index])
    for number, (name, item) in enumerate(maps.items()):
        report(progress, 0.2 + 0.8 * number / len(maps), f"writing {name}")
        volume.write(item, folder / f"{name}.nii.gz")
    write_text(folder / "atlases.csv", table)
    write_json(folder / "provenance.json", dict(provenance))
    return label_map


def table(outcomes: Sequence[Outcome], performance: Mapping[str, Performance]) -> str:
    """Return what became of each atlas as CSV; ``performance`` is that of the registrations (names) fused."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    measures = [(kind, structure) for structure in labels.STRUCTURES for kind in ("sensitivity", "specificity")]
    columns = [field.name for field in dataclasses.fields(Outcome)]
    writer.writerow([*columns, *(f"{kind}_{structure.key}" for kind, structure in measures)])
    for outcome in outcomes:
        each = None if outcome.dropped else performance.get(folder_name(outcome.atlas, outcome.mirrored))
        numbers = [getattr(each, kind)[structure.value] if each else None for kind, structure in measures]
        writer.writerow([_cell(value) for value in [*dataclasses.astuple(outcome), *numbers]])
    return stream.getvalue()


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
