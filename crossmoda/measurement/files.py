"""Measures of label files, and their files: JSON, CSV, Slicer markups."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crossmoda import volume
from crossmoda.anatomy import ear_frame, markups
from crossmoda.anatomy.laterality import SIDES, UNKNOWN_SIDE
from crossmoda.dataset.label_reading import read_label_and_parts
from crossmoda.errors import InputError
from crossmoda.measurement.axial import HalfSpace, slice_number
from crossmoda.measurement.measures import Measures, TumorMeasures, measure
from crossmoda.measurement.surface import Line
from crossmoda.progress import Progress
from crossmoda.volume import Grid, Volume

#: Side of the plane of the porus as it is shown, mm.
_PLANE_MM = 25.0


@dataclasses.dataclass(frozen=True)
class FileMeasures:
    """The measures of a label file."""

    measures: Measures
    label_map: Volume
    scan: Volume | None


def measure_files(
    label: Path | str,
    scan: Path | str | None = None,
    probability: Path | str | None = None,
    weights: Path | str | None = None,
    progress: Progress | None = None,
    planes: Mapping[str, HalfSpace] | None = None,
) -> FileMeasures:
    """Measure a label file.

    Args:
        label: any kind of label (:func:`crossmoda.dataset.label_reading.read_label`).
        scan: its scan, in which the ears are located; None: no plane of the porus.
        probability: the tumor's probability map on the grid of the label; None: no interval of the volume.
        weights: the weights that predicted it; None: bundled weights.
        progress: called with the fraction done.
        planes: the plane of the porus by side (``"left"``, ``"right"``), such as one that a person moved.

    Raises:
        InputError: a file cannot be read, or the grids differ.

    """
    image = volume.read_scan(scan) if scan is not None else None
    label_map, parts = read_label_and_parts(label, image.grid if image is not None else None)
    if image is not None and not label_map.grid.same_as(image.grid):
        difference = label_map.grid.difference_to(image.grid)
        raise InputError(f"Label and scan lie on different grids: {difference}. Give the scan that was labeled.")
    values, card = None, None
    if probability is not None:
        from crossmoda import weights as models

        map_ = volume.read(probability)
        if not map_.grid.same_as(label_map.grid):
            difference = map_.grid.difference_to(label_map.grid)
            raise InputError(f"Probability map and label lie on different grids: {difference}. Predict them together.")
        values, card = map_.array, models.read_tensors(weights or models.bundled())[1]
    frames = ear_frame.ear_frames(image, progress=progress) if image is not None else None
    measures = measure(label_map, frames, parts=parts, planes=planes, probability=values, card=card)
    return FileMeasures(measures, label_map, image)


def read_porus_planes(path: Path | str) -> dict[str, HalfSpace]:
    """Return the planes of the porus of a markups file by side, which their names have ("left porus").

    Raises:
        InputError: the file cannot be read, or a plane names no side or one twice.

    """
    planes: dict[str, HalfSpace] = {}
    for name, (center, normal) in markups.read_planes(path).items():
        sides = set(name.lower().split()) & {*SIDES, UNKNOWN_SIDE}
        if len(sides) != 1 or sides & planes.keys():
            raise InputError(f"Plane of unclear side in {path}: {name}. Name planes “left porus” and “right porus”.")
        planes[sides.pop()] = HalfSpace.at(center.tolist(), normal.tolist())
    return planes


def as_json(measures: Measures, grid: Grid) -> dict[str, Any]:
    """Return the measures as JSON content: lengths in mm, volumes in mm3, positions LPS mm."""
    return {
        "sentences": list(measures.sentences),
        "tumors": [_tumor_json(tumor, grid) for tumor in measures.tumors],
        "cochleae": [
            {
                "side": cochlea.side,
                "volume_mm3": round(cochlea.volume_mm3, 2),
                "diameter_3d": _line_json(cochlea.diameter_3d),
            }
            for cochlea in measures.cochleae
        ],
        "notes": list(measures.notes),
    }


def _tumor_json(tumor: TumorMeasures, grid: Grid) -> dict[str, Any]:
    parts, koos = tumor.parts, tumor.koos
    return {
        "side": tumor.side,
        "volume_mm3": round(tumor.volume_mm3, 2),
        "volume_interval_mm3": [round(value, 2) for value in tumor.interval_mm3] if tumor.interval_mm3 else None,
        "axial_diameter": {
            **_line_json(tumor.axial.largest),
            "slice": slice_number(grid, tumor.axial.largest),
        },
        "perpendicular_diameter": _line_json(tumor.axial.perpendicular),
        "craniocaudal_mm": round(tumor.craniocaudal_mm, 2),
        "diameter_3d": _line_json(tumor.diameter_3d),
        "gaps_to_cochleae_mm": {side: round(gap, 2) for side, gap in tumor.gaps_mm.items()},
        "meatus": {
            "intrameatal_mm3": round(parts.intrameatal_mm3, 2),
            "extrameatal_mm3": round(parts.extrameatal_mm3, 2),
            "is_intrameatal": parts.is_intrameatal,
            "extrameatal_diameter": _line_json(parts.extrameatal.largest) if parts.extrameatal else None,
            "extrameatal_diameter_limits_mm": [round(limit, 2) for limit in parts.limits_mm],
            "porus_plane": {"point_mm": markups.rounded(parts.plane.point), "normal": _unit(parts.plane.normal)}
            if parts.plane
            else None,
        }
        if parts
        else None,
        "koos_suggested": {"grade": koos.grade, "reason": koos.reason} if koos else None,
    }


def _line_json(line: Line) -> dict[str, Any]:
    ends = markups.rounded(line.start), markups.rounded(line.stop)
    return {"length_mm": round(line.length_mm, 2), "start_mm": ends[0], "stop_mm": ends[1]}


def _unit(normal: np.ndarray) -> list[float]:
    return [round(float(value), 5) for value in normal]


#: Columns of the table: heading with unit, and the value of a tumor.
COLUMNS = (
    "structure", "side", "volume [mm3]", "volume [mL]", "volume, low [mm3]", "volume, high [mm3]",
    "axial diameter [mm]", "axial slice", "perpendicular diameter [mm]", "craniocaudal extent [mm]",
    "3D diameter [mm]", "extrameatal diameter [mm]", "extrameatal diameter, low [mm]",
    "extrameatal diameter, high [mm]", "intrameatal volume [mm3]", "extrameatal volume [mm3]",
    "gap to left cochlea [mm]", "gap to right cochlea [mm]", "suggested Koos grade",
)  # fmt: skip


def table(measures: Measures, grid: Grid) -> list[list[object]]:
    """Return the rows of :data:`COLUMNS`: tumors, then cochleae; None where a measure is not known."""
    rows = [_tumor_row(tumor, grid) for tumor in measures.tumors]
    if not rows:
        rows = [["no tumor", None, 0.0, 0.0, *[None] * (len(COLUMNS) - 4)]]
    for cochlea in measures.cochleae:
        row: list[object] = [None] * len(COLUMNS)
        row[:4] = "cochlea", cochlea.side, round(cochlea.volume_mm3, 2), round(cochlea.volume_mm3 / 1000, 4)
        row[COLUMNS.index("3D diameter [mm]")] = round(cochlea.diameter_3d.length_mm, 2)
        rows.append(row)
    return rows


#: Columns of a table with one row per case.
CASE_COLUMNS = (
    "tumors", *COLUMNS[1:], "volume of the other tumor [mm3]", "left cochlea [mm3]", "right cochlea [mm3]", "notes",
)  # fmt: skip


def case_row(measures: Measures, grid: Grid) -> list[object]:
    """Return the row of :data:`CASE_COLUMNS` of a case: its tumor, of two tumors the larger one, and both cochleae."""
    tumors = sorted(measures.tumors, key=lambda tumor: -tumor.volume_mm3)
    row = _tumor_row(tumors[0], grid)[1:] if tumors else [None] * (len(COLUMNS) - 1)
    cochleae = {cochlea.side: round(cochlea.volume_mm3, 2) for cochlea in measures.cochleae}
    other = round(tumors[1].volume_mm3, 2) if len(tumors) > 1 else None
    return [len(tumors), *row, other, cochleae.get("left"), cochleae.get("right"), " ".join(measures.notes)]


def _tumor_row(tumor: TumorMeasures, grid: Grid) -> list[object]:
    low, high = tumor.interval_mm3 or (None, None)
    parts = tumor.parts
    values: Iterable[object] = (
        "VS",
        tumor.side,
        tumor.volume_mm3,
        tumor.volume_mm3 / 1000,
        low,
        high,
        tumor.axial.largest.length_mm,
        slice_number(grid, tumor.axial.largest),
        tumor.axial.perpendicular.length_mm,
        tumor.craniocaudal_mm,
        tumor.diameter_3d.length_mm,
        tumor.extrameatal_mm,
        *(parts.limits_mm if parts else (None, None)),
        parts.intrameatal_mm3 if parts else None,
        parts.extrameatal_mm3 if parts else None,
        tumor.gaps_mm.get("left"),
        tumor.gaps_mm.get("right"),
        f"{tumor.koos.grade} (suggested)" if tumor.koos else None,
    )
    return [round(value, 4) if isinstance(value, float) else value for value in values]


def write_markups(measures: Measures, path: Path | str) -> None:
    """Write the diameters as lines and the planes of the porus as planes for Slicer (.mrk.json).

    Raises:
        InputError: the path does not end in ``.mrk.json``, or the file cannot be written.

    """
    shapes = []
    for tumor in measures.tumors:
        lines = {"axial diameter": tumor.axial.largest, "perpendicular diameter": tumor.axial.perpendicular}
        if tumor.parts and tumor.parts.extrameatal:
            lines["extrameatal diameter"] = tumor.parts.extrameatal.largest
        shapes += [markups.line(f"{tumor.side} {name}", line.start, line.stop) for name, line in lines.items()]
        if tumor.parts and tumor.parts.plane:
            plane = tumor.parts.plane
            shapes.append(markups.plane(f"{tumor.side} porus", plane.point, plane.normal, _PLANE_MM))
    markups.write(shapes, path)
