"""The intrameatal and the extrameatal part of a tumor, by the plane of the porus or by labels.

The consensus on reporting vestibular schwannomas (Kanzaki et al. 2003, Otology & Neurotology 24:642) states the size as
the largest extrameatal diameter in the axial plane, and reports a tumor within the canal as intrameatal.

The diameter of what lies beyond a plane grows from nothing to the width of a blunt tumor within a millimeter, less than
the error of the plane. So it has limits: the diameters beyond the plane moved out of and into the canal by its error.
Being monotone in the position of the plane, the diameter lies between them wherever the plane lies between the two. A
tumor whose lower limit is 0 is reported as intrameatal, with the upper limit. Volumes are divided at the plane itself.
"""

import dataclasses

import numpy as np

from crossmoda.anatomy import template
from crossmoda.anatomy.ear_frame import EarFrame
from crossmoda.measurement.axial import AxialDiameters, HalfSpace, axial_diameters
from crossmoda.volume.grid import Volume

#: Values of an array of tumor parts.
INTRAMEATAL, EXTRAMEATAL = 1, 2
#: Distance of the plane of the porus from the true one that 95 % of ears do not exceed, mm
#: (docs/validation/measures.md).
PLANE_ERROR_MM = 2.0
#: Limits of a diameter that are nearer to each other are not stated in sentences, mm.
_WORTH_STATING_MM = 1.0


@dataclasses.dataclass(frozen=True)
class MeatalParts:
    """Both parts of a tumor."""

    intrameatal_mm3: float
    extrameatal_mm3: float
    extrameatal: AxialDiameters | None
    """diameters of the extrameatal part; None for a tumor that is reported as intrameatal"""
    plane: HalfSpace | None
    """the plane of the porus with the extrameatal half space; None where labels state the parts"""
    limits_mm: tuple[float, float]
    """of the largest extrameatal diameter, by the error of the plane"""

    @property
    def is_intrameatal(self) -> bool:
        """Whether the tumor ends within the canal, or less than the error of the plane beyond it."""
        return self.extrameatal is None

    @property
    def size(self) -> str:
        """The consensus size in words, with its limits where they are a millimeter apart."""
        low, high = self.limits_mm
        if self.extrameatal is None:
            return f"intrameatal or up to {high:.1f} mm extrameatal" if high else "intrameatal"
        limits = f" ({low:.1f} to {high:.1f})" if high - low >= _WORTH_STATING_MM else ""
        return f"{self.extrameatal.largest.length_mm:.1f} mm extrameatal{limits}"


def porus_plane(frame: EarFrame) -> HalfSpace:
    """Return the plane through the porus of an ear, perpendicular to the canal, with the extrameatal half space.

    It follows the rigid frame, which a tumor in the canal does not displace.
    """
    marks = template.load().landmarks
    porus, fundus = frame.to_scan(np.stack([marks["porus"], marks["fundus"]]))
    return HalfSpace(porus, (porus - fundus) / np.linalg.norm(porus - fundus))


def split_by_plane(tumor: Volume, plane: HalfSpace, error_mm: float = PLANE_ERROR_MM) -> MeatalParts:
    """Return the parts of a tumor (bool) on both sides of a plane with this error; voxels that it cuts are divided."""
    grid = tumor.grid
    depth = plane.depth_mm(grid.points(tumor.array))
    width_mm = float(np.abs(plane.normal @ grid.axes) @ grid.spacing)
    beyond_mm3 = float(np.clip(0.5 + depth / width_mm, 0, 1).sum()) * grid.voxel_volume_mm3
    total_mm3 = len(depth) * grid.voxel_volume_mm3
    low_mm, high_mm = (_length_mm(axial_diameters(tumor, plane.moved(shift))) for shift in (error_mm, -error_mm))
    extrameatal = axial_diameters(tumor, plane) if low_mm > 0 else None
    return MeatalParts(total_mm3 - beyond_mm3, beyond_mm3, extrameatal, plane, (low_mm, high_mm))


def split_by_labels(tumor: Volume, parts: np.ndarray) -> MeatalParts:
    """Return the parts of a tumor (bool) that an array (z, y, x) of 1 intrameatal and 2 extrameatal states."""
    outside = tumor.array & (parts == EXTRAMEATAL)
    voxel_mm3 = tumor.grid.voxel_volume_mm3
    inside_mm3 = float(np.count_nonzero(tumor.array & (parts == INTRAMEATAL))) * voxel_mm3
    outside_mm3 = float(np.count_nonzero(outside)) * voxel_mm3
    extrameatal = axial_diameters(tumor.with_array(outside))
    return MeatalParts(inside_mm3, outside_mm3, extrameatal, None, (_length_mm(extrameatal),) * 2)


def _length_mm(diameters: AxialDiameters | None) -> float:
    return diameters.largest.length_mm if diameters else 0.0
