"""All measures of a segmentation: a row per tumor and per cochlea."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from crossmoda import labels
from crossmoda.anatomy import laterality
from crossmoda.anatomy.ear_frame import EarFrame, EarFrames
from crossmoda.anatomy.laterality import UNKNOWN_SIDE
from crossmoda.measurement import koos, surface
from crossmoda.measurement.axial import AxialDiameters, HalfSpace, axial_diameters
from crossmoda.measurement.interval import AROUND_MM, VolumeInterval, uncertain_volume
from crossmoda.measurement.koos import KoosSuggestion
from crossmoda.measurement.meatus import MeatalParts, porus_plane, split_by_labels, split_by_plane
from crossmoda.measurement.surface import Line, face_centers, gap_mm
from crossmoda.volume.grid import Box, Volume
from crossmoda.volume.masks import bounding_box, components

#: A smaller tumor is probably a stray mark, mm3.
_SMALLEST_MM3 = 12.0


@dataclasses.dataclass(frozen=True)
class TumorMeasures:
    """The measures of the vestibular schwannoma of one ear."""

    side: str
    """``"left"``, ``"right"`` (the patient's) or ``"unknown"``"""
    volume_mm3: float
    interval_mm3: tuple[float, float] | None
    """of the volume; None without probabilities of a calibrated network"""
    axial: AxialDiameters
    """within one of the patient's axial planes"""
    craniocaudal_mm: float
    diameter_3d: Line
    gaps_mm: dict[str, float]
    """side of a cochlea -> gap to it; 0 where they touch"""
    parts: MeatalParts | None
    """None without ear frames and labeled parts"""
    koos: KoosSuggestion | None
    """None without ear frames"""

    @property
    def extrameatal_mm(self) -> float | None:
        """The consensus size, the largest extrameatal diameter in the axial plane: 0 intrameatal, None unknown."""
        if self.parts is None:
            return None
        return self.parts.extrameatal.largest.length_mm if self.parts.extrameatal else 0.0

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        size = f"{self.axial.largest.length_mm:.1f} mm in the axial plane"
        if self.parts is not None:
            size = f"{self.parts.size}, {size}" if self.parts.is_intrameatal else self.parts.size
        side = "side unknown" if self.side == UNKNOWN_SIDE else self.side
        return f"VS {self.volume_mm3 / 1000:.2f} mL, {side}, {size}; check the outline."


@dataclasses.dataclass(frozen=True)
class CochleaMeasures:
    """The measures of one cochlea."""

    side: str
    volume_mm3: float
    diameter_3d: Line


@dataclasses.dataclass(frozen=True)
class Measures:
    """The measures of a segmentation."""

    tumors: tuple[TumorMeasures, ...]
    """left before right; empty without a tumor"""
    cochleae: tuple[CochleaMeasures, ...]
    notes: tuple[str, ...]
    """what a reader has to know"""

    @property
    def sentences(self) -> tuple[str, ...]:
        """The result in one sentence per tumor."""
        return tuple(tumor.sentence for tumor in self.tumors) or ("No tumor.",)


def measure(
    label_map: Volume,
    frames: EarFrames | None = None,
    *,
    parts: np.ndarray | None = None,
    planes: Mapping[str, HalfSpace] | None = None,
    probability: np.ndarray | None = None,
    card: Mapping[str, Any] | None = None,
    region: Box | None = None,
) -> Measures:
    """Measure the tumors and the cochleae of a label map.

    Args:
        label_map: with the values of :data:`crossmoda.labels.VALUES`, in any orientation.
        frames: the ear frames of its scan; None: no plane of the porus.
        parts: 1 intrameatal, 2 extrameatal, (z, y, x), where labels state the parts of the tumor.
        planes: the plane of the porus of an ear by side, instead of that of its frame.
        probability: of the tumor, (z, y, x), by the network of ``card``; None: no interval of the volume.
        card: the model card.
        region: the box that holds all that is labeled, and on which ``parts`` and ``probability`` lie; None: the grid.

    """
    middle_mm = float(label_map.grid.center[0])
    if region is None:
        region = bounding_box(label_map.array > 0, label_map.grid.voxels(AROUND_MM))
        parts, probability = (None if values is None else values[region] for values in (parts, probability))
    label_map = label_map.crop(region)
    tumors, cochleae = (
        laterality.by_side(label_map, value, frames, middle_mm) for value in (labels.VS, labels.COCHLEA)
    )
    faces = {side: face_centers(mask) for side, mask in cochleae.items()}
    interval = VolumeInterval.of(card or {})
    notes = [] if frames is None else list(frames.notes)
    planes, rows = planes or {}, []
    for side, mask in tumors.items():
        frame = next((frame for frame in frames.accepted if frame.side == side), None) if frames else None
        row = _tumor(side, mask, faces, _parts(mask, parts, planes.get(side), frame), frame)
        if interval is not None and probability is not None:
            limits = interval.around(row.volume_mm3, uncertain_volume(mask, probability))
            row = dataclasses.replace(row, interval_mm3=limits)
        rows.append(row)
        notes += _notes(side, mask, row.volume_mm3)
    notes += [f"Plane of the porus not used: no tumor on the {side} side." for side in planes if side not in tumors]
    measured = (
        CochleaMeasures(side, _volume_mm3(mask), surface.largest_diameter(mask)) for side, mask in cochleae.items()
    )
    return Measures(tuple(rows), tuple(measured), tuple(notes))


def _parts(
    tumor: Volume, parts: np.ndarray | None, plane: HalfSpace | None, frame: EarFrame | None
) -> MeatalParts | None:
    """Return the parts of a tumor by labels, else by the plane that is given, else by that of the ear frame.

    The plane of a person counts as exact; its normal may point either way if there is an ear frame.
    """
    if parts is not None and parts[tumor.array].any():
        return split_by_labels(tumor, parts)
    located = porus_plane(frame) if frame is not None else None
    if plane is not None:
        is_flipped = located is not None and plane.normal @ located.normal < 0
        return split_by_plane(tumor, plane.complement if is_flipped else plane, error_mm=0)
    return split_by_plane(tumor, located) if located is not None else None


def _tumor(
    side: str, tumor: Volume, cochleae: Mapping[str, np.ndarray], parts: MeatalParts | None, frame: EarFrame | None
) -> TumorMeasures:
    """Return the measures of a tumor (bool), without an interval; cochleae by side as face centers (n, 3)."""
    axial = axial_diameters(tumor)
    assert axial is not None, "a tumor has voxels"
    faces = face_centers(tumor)
    gaps = {ear: gap for ear, points in cochleae.items() if (gap := gap_mm(faces, points)) is not None}
    return TumorMeasures(
        side,
        _volume_mm3(tumor),
        None,
        axial,
        surface.craniocaudal_extent_mm(tumor),
        surface.largest_diameter(tumor),
        gaps,
        parts,
        koos.suggest(parts, koos.gap_to_brainstem_mm(tumor, frame)) if parts and frame else None,
    )


def _volume_mm3(mask: Volume) -> float:
    return float(np.count_nonzero(mask.array)) * mask.grid.voxel_volume_mm3


def _notes(side: str, mask: Volume, volume_mm3: float) -> list[str]:
    """Return what a reader of a tumor's measures has to know."""
    notes = []
    _, count = components(mask.array[bounding_box(mask.array)])
    if count > 1:
        notes.append(f"The tumor ({side}) has {count} separate pieces: volumes are of all, diameters of one.")
    if volume_mm3 < _SMALLEST_MM3:
        notes.append(f"The tumor ({side}) has {volume_mm3:.2g} mm3 only: check that it is no stray mark.")
    if side == UNKNOWN_SIDE:
        notes.append("The side of the tumor is unknown: label both cochleae, or give the scan.")
    return notes
