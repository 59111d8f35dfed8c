"""Measures of one segmentation: volumes, diameters, meatal parts."""

from collections.abc import Mapping
from typing import Any

from crossmoda import measurement, output
from crossmoda.anatomy import markups
from crossmoda.progress import Progress
from crossmoda.steps.declaration import File, Result, StepDeclaration


def run(values: Mapping[str, Any], progress: Progress | None = None) -> dict[str, Any]:
    """Measure the label map; write the outputs together.

    Raises:
        InputError: label map and scan cannot be read or lie on different grids, or an output cannot be written.

    """
    inputs = [values[file.name] for file in STEP.inputs]
    planes = measurement.read_porus_planes(values["planes"]) if values["planes"] is not None else None
    table, shapes = values["table"], values["markups"]
    output.check_apart([table, shapes], inputs)
    if shapes is not None:
        markups.check_ending(shapes)
    result = measurement.measure_files(
        values["label_map"], values["scan"], values["vs_probability"], values["weights"], progress, planes
    )
    measures, grid = result.measures, result.label_map.grid
    with output.together():
        if table is not None:
            output.write_csv(table, measurement.COLUMNS, measurement.table(measures, grid))
        if shapes is not None:
            measurement.write_markups(measures, shapes)
    return {
        "tumors": len(measures.tumors),
        "vs_mm3": round(sum(tumor.volume_mm3 for tumor in measures.tumors), 2),
        "axial_mm": round(max((tumor.axial.largest.length_mm for tumor in measures.tumors), default=0.0), 2),
        "summary": " ".join(measures.sentences),
        "koos_suggested": " ".join(str(tumor.koos) for tumor in measures.tumors if tumor.koos),
        "notes": " ".join(measures.notes),
    }


STEP = StepDeclaration(
    module="CrossModaMeasure",
    title="CrossModa Measure",
    description="Measures a segmented vestibular schwannoma as it is reported: volume, axial diameters, craniocaudal "
    "extent, intra- and extrameatal part, gaps to the cochleae. Check every result: not a medical device.",
    acknowledgements="Conventions: J. Kanzaki and colleagues, Otology & Neurotology 2003; W. T. Koos and colleagues, "
    "Journal of Neurosurgery 1998.",
    inputs=(
        File("label_map", "label", "Schwannoma (1) and cochlea (2)", required=True),
        File("scan", "image", "Scan of the label map, whose ears divide the tumor at the porus"),
        File("vs_probability", "image", "Probability of the schwannoma, for the interval of its volume"),
        File("planes", "markups", "Planes of the porus to divide at, named “left porus” or “right porus”"),
        File("weights", "weights", "Weights that made the probability map, instead of the bundled ones"),
    ),
    outputs=(
        File("table", "table", "All measures, a row per tumor and cochlea"),
        File("markups", "markups", "Diameters as lines, and the planes of the porus"),
    ),
    settings=(),
    results=(
        Result("tumors", int, "Tumors", "Number of ears with a tumor"),
        Result("vs_mm3", float, "Tumor volume (mm3)", "Volume of the vestibular schwannoma"),
        Result("axial_mm", float, "Axial diameter (mm)", "Largest axial diameter; 0 without a tumor"),
        Result("summary", str, "Summary", "One sentence per tumor"),
        Result("koos_suggested", str, "Koos grade, suggested", "Suggested grade with its reason; confirm it"),
        Result("notes", str, "Notes", "Messages for the user"),
    ),
    run=run,
)
