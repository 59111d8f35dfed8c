"""Label propagation: the noisy label of one target from a folder of atlases."""

import contextlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from crossmoda import dataset, deeds, fusion, labels, output, propagation, volume
from crossmoda import device as devices
from crossmoda.dataset.named_cases import case_of_file
from crossmoda.dataset.results import PROVENANCE
from crossmoda.errors import InputError
from crossmoda.parameters import from_arguments
from crossmoda.progress import Progress, part, report
from crossmoda.steps.declaration import File, Result, StepDeclaration

#: The columns of the table: one row per atlas. The file of its transform is relative to the folder of registrations.
COLUMNS = ("atlas", "side", "mirrored", "quality", "fate", "why", "transform")


def run(values: Mapping[str, Any], progress: Progress | None = None) -> dict[str, Any]:
    """Propagate the atlases to the target; write the outputs together.

    Raises:
        InputError: the target or the atlases cannot be used, or an output cannot be written.

    """
    outputs = [values[file.name] for file in STEP.outputs]
    output.check_apart(outputs, [values["target"]])
    processor = devices.choose(values["device"])
    target = dataset.Case(case_of_file(values["target"]), dataset.HRT2, values["target"])
    atlases = dataset.open_dataset(values["atlases"]).sources
    if not atlases:
        raise InputError(f"No labeled ceT1 scan in {values['atlases']}. Add atlases to the folder.")
    with contextlib.ExitStack() as stack:
        folder = values["registrations"] or stack.enter_context(tempfile.TemporaryDirectory(prefix="crossmoda-"))
        result = propagation.propagate(
            target,
            atlases,
            folder,
            from_arguments(propagation.Settings, values),
            part(progress, 0.0, 0.97),
            registration=from_arguments(deeds.Settings, values),
            fusion_settings=from_arguments(fusion.Settings, values),
        )
        report(progress, 0.97, "writing the outputs")
        with output.together():
            _write(values, result)
    fates = [_fate(outcome) for outcome in result.outcomes]
    voxels = np.bincount(result.label_map.array.ravel(), minlength=len(labels.VALUES))
    voxel_mm3 = result.label_map.grid.voxel_volume_mm3
    report(progress, 1.0, "done")
    return {
        "contributed": fates.count("contributed"),
        "excluded": fates.count("excluded"),
        "side": result.tumor_side or "",
        "side_certainty": round(result.side_certainty, 4),
        "vs_volume_mm3": round(float(voxels[labels.VS] * voxel_mm3), 2),
        "cochlea_volume_mm3": round(float(voxels[labels.COCHLEA] * voxel_mm3), 2),
        "reused": sum(
            (result.reused or item.reused) and fate != "excluded"
            for item, fate in zip(result.outcomes, fates, strict=True)
        ),
        "processor": devices.describe(processor),
        "notes": " ".join(result.notes),
    }


def _write(values: Mapping[str, Any], result: propagation.PropagationResult) -> None:
    """Write the outputs that are asked for."""
    if label := values["label"]:
        if label.name.lower().endswith(".seg.nrrd"):
            provenance = output.read_json(result.folder / PROVENANCE)
            volume.write_segmentation(result.label_map, label, provenance)
        else:
            volume.write(result.label_map, label)
    if values["confidence"]:
        volume.write(result.read_confidence(), values["confidence"])
    if values["disagreement"]:
        volume.write(result.read_disagreement(), values["disagreement"])
    if values["table"]:
        output.write_text(values["table"], table(result))


def table(result: propagation.PropagationResult) -> str:
    """Return the quality and the fate of each atlas as CSV with :data:`COLUMNS`."""
    rows = []
    for item in result.outcomes:
        quality = None if item.quality is None else f"{item.quality:.4f}"
        transform = result.transform(item)
        file = transform.relative_to(result.folder).as_posix() if transform.is_file() else ""
        rows.append([item.atlas, item.tumor_side, item.mirrored, quality, _fate(item), item.excluded, file])
    return output.csv_text(COLUMNS, rows)


def _fate(outcome: propagation.AtlasOutcome) -> str:
    """Return whether an atlas contributed to a structure, was registered without contributing, or was excluded."""
    if outcome.excluded:
        return "excluded"
    return "contributed" if outcome.contributes_to else "registered"


STEP = StepDeclaration(
    module="CrossModaPropagate",
    title="CrossModa Propagate",
    description="Propagates the labels of ceT1 atlases to an unlabeled T2 target: finds the tumor side, registers each "
    "atlas (deeds), fuses the best-matching ones and reports the confidence. Not a medical device.",
    acknowledgements="Methods: M. P. Heinrich and colleagues, IEEE TMI 2013; S. K. Warfield, K. H. Zou, W. M. Wells, "
    "IEEE TMI 2004.",
    inputs=(
        File("target", "image", "Scan to be labeled", required=True),
        File("atlases", "folder", "Data set whose labeled ceT1 scans are the atlases", required=True),
        File("registrations", "folder", "Folder of the registrations, reused by the next run"),
    ),
    outputs=(
        File("label", "label", "Fused label map on the target's grid"),
        File("confidence", "image", "Probability of the fused label (0 to 1)"),
        File("disagreement", "image", "Entropy of the atlases' labels (0: all equal, 1: all different)"),
        File("table", "table", "Quality and fate of each atlas"),
    ),
    settings=(propagation.Settings, fusion.Settings, deeds.Settings),
    results=(
        Result("contributed", int, "Contributing atlases", "Number of atlases used for at least one structure"),
        Result("excluded", int, "Excluded atlases", "Number of atlases excluded; the table lists the reasons"),
        Result("side", str, "Tumor side", "Patient side of the tumor; empty if uncertain"),
        Result("side_certainty", float, "Certainty of the tumor side", "Probability of the tumor side (0.5 to 1)"),
        Result("vs_volume_mm3", float, "Tumor volume (mm3)", "Volume of the vestibular schwannoma"),
        Result("cochlea_volume_mm3", float, "Cochlea volume (mm3)", "Volume of the cochleae"),
        Result("reused", int, "Reused registrations", "Number of registrations reused from an earlier run"),
        Result("processor", str, "Processor", "Processor of the registrations"),
        Result("notes", str, "Notes", "Messages for the user"),
    ),
    run=run,
)
