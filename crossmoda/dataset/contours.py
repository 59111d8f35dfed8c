"""Contours of public data sets, rasterized to label maps.

Two formats: the contour JSON of the Vestibular-Schwannoma-SEG collection (Shapey et al., Scientific Data 2021) and
DICOM RTSTRUCT. Both contain closed planar polygons in patient coordinates (LPS, mm). A voxel belongs to a structure if
its center lies inside the polygons of its slice; polygons on one slice combine by the even-odd rule: a polygon inside
another is a hole.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crossmoda import output, structure_names
from crossmoda.errors import InputError, cannot_read
from crossmoda.volume.dicom import is_dicom
from crossmoda.volume.grid import Box, Grid, Volume, box_from

#: Name of a structure in the file -> its polygons, each (points, 3), LPS mm.
Contours = dict[str, list[np.ndarray]]

_EXPORT = "Copy or export it again"
_CONTOURED_IMAGE = "Select the image on which the contours were drawn"
#: Largest distance of contours in one plane, as a fraction of the slice spacing.
_SAME_PLANE = 0.1


def read_contours(path: Path | str) -> Contours:
    """Read a contour JSON file or a DICOM RTSTRUCT.

    Raises:
        InputError: the file is missing, damaged or of another format.

    """
    path = Path(path)
    if not path.is_file():
        raise cannot_read(path, "the file does not exist", "Check the path")
    contours = _read_rtstruct(path) if is_dicom(path) else _read_json(path)
    for name, polygons in contours.items():
        if not all(np.isfinite(polygon).all() for polygon in polygons):
            raise cannot_read(path, f"a point of a contour of {name} is not a number", _EXPORT)
    return contours


def _read_json(path: Path) -> Contours:
    try:
        entries = output.read_json(path)
        contours: Contours = {}
        for entry in entries:
            polygons = [np.asarray(polygon, float).reshape(-1, 3) for polygon in entry["LPS_contour_points"]]
            contours.setdefault(str(entry["structure_name"]), []).extend(polygons)
        return contours
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as cause:
        raise cannot_read(
            path,
            "not a contour file",
            "Select a contour JSON of the Vestibular-Schwannoma-SEG collection (a list with structure_name and "
            "LPS_contour_points) or a DICOM RTSTRUCT",
        ) from cause


def _read_rtstruct(path: Path) -> Contours:
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about values that violate the standard: the relevant ones are checked
            dataset = pydicom.dcmread(path)
            modality = dataset.get("Modality")
            contours = _contours_of(dataset, path) if modality == "RTSTRUCT" else {}
    except InputError:
        raise
    except Exception as cause:  # damaged bytes end pydicom with errors of many kinds
        raise cannot_read(path, "damaged or incomplete RTSTRUCT", _EXPORT) from cause
    if not modality:
        raise cannot_read(path, "DICOM without a modality", _EXPORT)
    if modality != "RTSTRUCT":
        raise cannot_read(path, f"DICOM of the modality {str(modality)[:40]}", "Select an RTSTRUCT")
    return contours


def _contours_of(dataset: Any, path: Path) -> Contours:
    """Return the closed contours of an RTSTRUCT; incomplete ones are refused, since nobody would notice an omission."""
    structures = [(roi.ROINumber, str(roi.ROIName or "").strip()) for roi in dataset.StructureSetROISequence]
    names = dict(structures)
    if len(names) < len(structures):
        raise cannot_read(path, "two structures with the same number, which makes their names doubtful", _EXPORT)
    contours: Contours = {}
    for roi in dataset.get("ROIContourSequence") or []:
        for contour in roi.get("ContourSequence") or []:
            if not contour.ContourGeometricType:
                raise ValueError("possibly a closed contour")
            if not str(contour.ContourGeometricType).upper().startswith("CLOSED"):
                continue
            name = names.get(roi.ReferencedROINumber)
            if not name:
                reason = f"contours of a structure without a name (number {roi.ReferencedROINumber})"
                raise cannot_read(path, reason, "Name it, such as VS or cochlea")
            points = np.asarray(contour.ContourData, float).reshape(-1, 3)
            if len(points) != (contour.get("NumberOfContourPoints") or len(points)):
                raise cannot_read(path, f"missing points in a contour of {name}", _EXPORT)
            contours.setdefault(name, []).append(points)
    return contours


def rasterize(
    contours: Mapping[str, Iterable[np.ndarray]],
    grid: Grid,
    path: Path | str = "the contours",
) -> Volume:
    """Return the label map (uint8) of contours on a grid.

    Names are matched by :mod:`crossmoda.structure_names`; other organs and earlier volumes are omitted. Where
    structures overlap, the later one of the table wins (the cochlea, which is smaller).

    Args:
        contours: polygons (points, 3) by structure name, LPS mm.
        grid: the grid of the contoured image, in any orientation.
        path: the file of the contours.

    Raises:
        InputError: a name is not known, none is that of a structure, one fills no voxel, or the contours lie outside
            the image or across its slices.

    """
    mapping = structure_names.mapping_for(path)
    known: dict[int, list[tuple[str, list[np.ndarray]]]] = defaultdict(list)
    unknown = []
    for name, polygons in contours.items():
        value = structure_names.value_of(name, structure_names.structure_of_name(name), mapping)
        polygons = list(polygons)
        if value is None and polygons:
            unknown.append(name)
        elif value:
            known[value].append((name, polygons))
    structure_names.refuse_unknown(unknown, path)
    if not any(polygons for named in known.values() for _, polygons in named):
        raise InputError(
            f"No contour is named as a vestibular schwannoma or a cochlea: {', '.join(contours) or 'none'}. "
            "Rename the contours to VS and cochlea."
        )
    array = np.zeros(grid.shape, np.uint8)
    for value in sorted(known):
        for name, polygons in known[value]:  # polygons of a name combine, names of a value are joined
            mask = _mask(polygons, grid)
            if polygons and not mask.any():
                raise InputError(f"The contours fill no voxel of the image: {name}. {_CONTOURED_IMAGE}.")
            array[mask] = value
    return Volume(array, grid)


def box_with(contours: Mapping[str, Iterable[np.ndarray]], grid: Grid) -> Box:
    """Return the voxels (z, y, x) of a grid and those around contours beyond it, as far as the grid is wide.

    Args:
        contours: polygons (points, 3) by structure name, LPS mm.
        grid: the grid of a label that may be cropped.

    """
    points = [point for polygons in contours.values() for polygon in polygons for point in polygon]
    size = np.asarray(grid.size)
    index = grid.to_index(np.array(points)) if points else np.zeros((1, 3))
    first = np.clip(np.floor(index.min(axis=0)), -size, 0)
    stop = np.clip(np.ceil(index.max(axis=0)) + 1, size, 2 * size)
    return box_from(first[::-1], (stop - first)[::-1])


def _mask(polygons: list[np.ndarray], grid: Grid) -> np.ndarray:
    """Return the mask (z, y, x) of polygons that combine by the even-odd rule in each plane.

    Each slice takes the nearest contour plane within half the distance of two planes (at least half a slice): contours
    may be drawn on thinner or thicker slices than those of the grid.
    """
    indices = [grid.to_index(polygon) for polygon in polygons if len(polygon) >= 3]
    if not indices:
        return np.zeros(grid.shape, bool)
    axis = _slice_axis(indices, grid)
    in_plane = [number for number in range(3) if number != axis]
    count = grid.size[axis]
    planes = _planes(indices, axis)
    levels = np.array(sorted(planes))
    outside = np.count_nonzero((levels < -0.75) | (levels > count - 0.25))
    if outside:
        raise InputError(f"Contour planes outside the image: {outside} of {len(levels)}. {_CONTOURED_IMAGE}.")
    _refuse_far([index[:, in_plane] for index in indices], np.asarray(grid.size)[in_plane])
    reach = max(0.5, float(np.median(np.diff(levels))) / 2 if len(levels) > 1 else 0.5) + 1e-3
    # Array axes are (z, y, x): the slice axis, then the in-plane axes from the slower to the faster.
    stack = np.zeros((count, grid.size[in_plane[1]], grid.size[in_plane[0]]), bool)
    for number in range(count):
        nearest = levels[np.argmin(np.abs(levels - number))]
        if abs(nearest - number) <= reach:
            for index in planes[nearest]:
                _toggle(stack[number], index[:, in_plane])
    return np.moveaxis(stack, 0, 2 - axis)


def _refuse_far(indices: list[np.ndarray], size: np.ndarray) -> None:
    """Refuse contours that miss their slice of ``size`` pixels, or exceed it by more than its width."""
    missed = [bool(((index.max(0) < -1) | (index.min(0) > size)).any()) for index in indices]
    strayed = [bool(((index.min(0) < -size) | (index.max(0) > 2 * size)).any()) for index in indices]
    outside = np.count_nonzero(np.logical_or(missed, strayed))
    if outside:
        raise InputError(f"Contours outside the image: {outside} of {len(indices)}. {_CONTOURED_IMAGE}.")


def _planes(indices: list[np.ndarray], axis: int) -> dict[float, list[np.ndarray]]:
    """Return the polygons by the slice position (continuous index) of their plane."""
    planes: dict[float, list[np.ndarray]] = {}
    for index in sorted(indices, key=lambda index: float(index[:, axis].mean())):
        level = float(index[:, axis].mean())
        plane = next((known for known in reversed(planes) if level - known < _SAME_PLANE), level)
        planes.setdefault(plane, []).append(index)
    return planes


def _slice_axis(indices: list[np.ndarray], grid: Grid) -> int:
    """Return the axis of the grid (0 x, 1 y, 2 z) across which the polygons are flat."""
    # A plane slightly oblique to the slices (contours of a registered scan) is accepted.
    spread_mm = [max(float(np.ptp(index[:, axis])) for index in indices) * grid.spacing[axis] for axis in range(3)]
    axis = int(np.argmin(spread_mm))
    if spread_mm[axis] > max(1.5 * grid.spacing[axis], 1.0):
        raise InputError(
            f"The contours do not lie in the slices of the image: {spread_mm[axis]:.1f} mm across them. "
            f"{_CONTOURED_IMAGE}."
        )
    return axis


def _toggle(section: np.ndarray, polygon: np.ndarray) -> None:
    """Invert the pixels (y, x) whose center lies inside a polygon of continuous indices (x, y).

    A scan line through the pixel centers of each row crosses the outline an even number of times; pixels between an odd
    and the following even crossing are inside. An edge counts with its lower end only, so that shared corners
    count once.
    """
    x, y = polygon[:, 0], polygon[:, 1]
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    first = max(0, int(np.ceil(y.min())))
    last = min(section.shape[0] - 1, int(np.floor(y.max())))
    columns = np.arange(section.shape[1])
    for row in range(first, last + 1):
        crossed = (y <= row) != (next_y <= row)
        if not crossed.any():
            continue
        share = (row - y[crossed]) / (next_y[crossed] - y[crossed])
        crossings = np.sort(x[crossed] + share * (next_x[crossed] - x[crossed]))
        section[row] ^= np.searchsorted(crossings, columns, side="right") % 2 == 1
