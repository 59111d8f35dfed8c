"""The intrameatal and the extrameatal part of a tumor, by the plane of the porus or by labels.

The consensus on reporting vestibular schwannomas (Kanzaki et al. 2003, Otology & Neurotology 24:642) states the size as
the largest extrameatal diameter in the axial plane, and reports a tumor within the canal as intrameatal.
"""

import dataclasses

import numpy as np

from crossmoda.anatomy import template
from crossmoda.anatomy.ear_frame import EarFrame
from crossmoda.measurement.axial import AxialDiameters, HalfSpace, axial_diameters
from crossmoda.volume.grid import Volume

#: Values of an array of tumor parts.
INTRAMEATAL, EXTRAMEATAL = 1, 2
#: A tumor that reaches less far beyond the plane of the porus is intrameatal, mm: the error of the plane
#: (docs/validation/measures.md).
WITHIN_MM = 2.0


@dataclasses.dataclass(frozen=True)
class MeatalParts:
    """Both parts of a tumor."""

    intrameatal_mm3: float
    extrameatal_mm3: float
    extrameatal: AxialDiameters | None
    """diameters of the extrameatal part; None for an intrameatal tumor"""
    plane: HalfSpace | None
    """the plane of the porus with the extrameatal half space; None where labels state the parts"""

    @property
    def is_intrameatal(self) -> bool:
        """Whether the tumor lies within the canal."""
        return self.extrameatal is None


def porus_plane(frame: EarFrame) -> HalfSpace:
    """Return the plane through the porus of an ear, perpendicular to the canal, with the extrameatal half space.

    It follows the rigid frame, which a tumor in the canal does not displace.
    """
    marks = template.load().landmarks
    porus, fundus = frame.to_scan(np.stack([marks["porus"], marks["fundus"]]))
    return HalfSpace(porus, (porus - fundus) / np.linalg.norm(porus - fundus))


def split_by_plane(tumor: Volume, plane: HalfSpace) -> MeatalParts:
    """Return the parts of a tumor (bool) on both sides of a plane; voxels that it cuts are divided."""
    grid = tumor.grid
    depth = plane.depth_mm(grid.points(tumor.array))
    width_mm = float(np.abs(plane.normal @ grid.axes) @ grid.spacing)
    beyond_mm3 = float(np.clip(0.5 + depth / width_mm, 0, 1).sum()) * grid.voxel_volume_mm3
    total_mm3 = len(depth) * grid.voxel_volume_mm3
    if float(depth.max()) + width_mm / 2 < WITHIN_MM:
        return MeatalParts(total_mm3, 0.0, None, plane)
    return MeatalParts(total_mm3 - beyond_mm3, beyond_mm3, axial_diameters(tumor, plane), plane)


def split_by_labels(tumor: Volume, parts: np.ndarray) -> MeatalParts:
    """Return the parts of a tumor (bool) that an array (z, y, x) of 1 intrameatal and 2 extrameatal states."""
    outside = tumor.array & (parts == EXTRAMEATAL)
    voxel_mm3 = tumor.grid.voxel_volume_mm3
    inside_mm3 = float(np.count_nonzero(tumor.array & (parts == INTRAMEATAL))) * voxel_mm3
    outside_mm3 = float(np.count_nonzero(outside)) * voxel_mm3
    return MeatalParts(inside_mm3, outside_mm3, axial_diameters(tumor.with_array(outside)), None)
