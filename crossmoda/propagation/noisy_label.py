"""The files of a noisy label: the label map, its confidence, and the contribution of each atlas."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossmoda import labels, volume
from crossmoda.dataset import results
from crossmoda.fusion import Performance
from crossmoda.output import csv_text, write_json, write_text
from crossmoda.progress import Progress, report
from crossmoda.propagation.label_fusion import NoisyLabel
from crossmoda.propagation.registrations import folder_name
from crossmoda.propagation.target import Target
from crossmoda.volume import Volume


@dataclasses.dataclass(frozen=True)
class AtlasOutcome:
    """The contribution of one atlas, or the reason why it was excluded."""

    atlas: str
    tumor_side: str | None = None
    """on the target"""
    mirrored: bool = False
    quality: float | None = None
    contributes_to: str = ""
    """structures"""
    seconds: float = 0.0
    reused: bool = False
    excluded: str = ""
    """reason; empty if the atlas was used"""


def write(
    folder: Path,
    target: Target,
    label: NoisyLabel,
    table: str,
    provenance: Mapping[str, Any],
    progress: Progress | None = None,
) -> Volume:
    """Write :data:`~crossmoda.dataset.results.PROPAGATION_FILES` on the target's whole grid; return the label map."""
    grid = target.image.grid

    def whole(array: np.ndarray, outside: float = 0.0) -> Volume:
        full = np.full(grid.shape, outside, array.dtype)
        full[target.box] = array
        return Volume(full, grid)

    report(progress, 0.0, "writing the label map")
    label_map = whole(label.label_map)
    volume.write(label_map, folder / results.NOISY_LABEL)
    volume.write_segmentation(label_map, folder / results.NOISY_SEGMENTATION, provenance)
    maps = {results.CONFIDENCE: whole(label.confidence, 1.0), results.DISAGREEMENT: whole(label.fusion.disagreement)}
    for index, structure in enumerate(labels.STRUCTURES, start=1):
        maps[results.probability(structure)] = whole(label.posterior[index])
    for number, (name, item) in enumerate(maps.items()):
        report(progress, 0.2 + 0.8 * number / len(maps), f"writing {name}")
        volume.write(item, folder / name)
    write_text(folder / results.ATLASES, table)
    write_json(folder / results.PROVENANCE, dict(provenance))
    return label_map


def table(outcomes: Sequence[AtlasOutcome], performance: Mapping[str, Performance]) -> str:
    """Return the outcome of each atlas as CSV; ``performance`` is that of the fused registrations (names)."""
    measures = [(kind, structure) for structure in labels.STRUCTURES for kind in ("sensitivity", "specificity")]
    columns = [field.name for field in dataclasses.fields(AtlasOutcome)]
    rows = []
    for outcome in outcomes:
        rater = None if outcome.excluded else performance.get(folder_name(outcome.atlas, outcome.mirrored))
        numbers = [getattr(rater, kind)[structure.value] if rater else None for kind, structure in measures]
        rows.append([_cell(value) for value in [*dataclasses.astuple(outcome), *numbers]])
    return csv_text([*columns, *(f"{kind}_{structure.key}" for kind, structure in measures)], rows)


def _cell(value: Any) -> Any:
    return f"{value:.4f}" if isinstance(value, float) and not np.isnan(value) else value
