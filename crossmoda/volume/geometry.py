"""Where voxels are: grids and volumes in physical space (ITK's LPS, mm)."""

import dataclasses
import functools

import numpy as np
import SimpleITK as sitk


@dataclasses.dataclass(frozen=True)
class Grid:
    """Where the voxels of a volume are: exactly ITK's geometry, in ITK's order (x, y, z), LPS, mm."""

    size: tuple[int, int, int]
    """voxels along x, y, z"""
    spacing: tuple[float, float, float]
    """mm along x, y, z"""
    origin: tuple[float, float, float]
    """LPS position of the center of the first voxel, mm"""
    direction: tuple[float, ...]
    """3 x 3 direction cosines, row by row; column k is the direction of axis k"""

    def __str__(self) -> str:
        """Return size and spacing in words, for messages."""
        spacing = " x ".join(f"{value:.4g}" for value in self.spacing)
        return f"{' x '.join(map(str, self.size))} voxels of {spacing} mm"

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the array, (z, y, x)."""
        return self.size[::-1]

    @property
    def spacing_zyx(self) -> tuple[float, float, float]:
        """The spacing in the order of the array, mm."""
        return self.spacing[::-1]

    @property
    def voxel_volume_mm3(self) -> float:
        """The volume of one voxel."""
        return float(np.prod(self.spacing))

    @functools.cached_property
    def index_to_physical(self) -> np.ndarray:
        """The 4 x 4 matrix from index (x, y, z) to LPS mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.reshape(self.direction, (3, 3)) * np.asarray(self.spacing)
        matrix[:3, 3] = self.origin
        return matrix

    @functools.cached_property
    def physical_to_index(self) -> np.ndarray:
        """The 4 x 4 matrix from LPS mm to continuous index (x, y, z)."""
        return np.linalg.inv(self.index_to_physical)

    def same_as(self, other: "Grid", tolerance: float = 1e-3) -> bool:
        """Whether both grids place every voxel at the same position (up to ``tolerance`` voxels)."""
        if self.size != other.size:
            return False
        to_index = self.physical_to_index @ other.index_to_physical
        corners = np.array([[x, y, z, 1.0] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
        corners[:, :3] *= np.asarray(self.size) - 1
        return bool(np.abs(corners @ to_index.T - corners).max() <= tolerance)

    @classmethod
    def of(cls, image: sitk.Image) -> "Grid":
        """Return the grid of a SimpleITK image."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


@dataclasses.dataclass(frozen=True)
class Volume:
    """An image or a label map: an array (z, y, x) and the grid it lies on."""

    array: np.ndarray
    grid: Grid

    def to_sitk(self) -> sitk.Image:
        """Return a SimpleITK image with the same voxels and grid."""
        image = sitk.GetImageFromArray(self.array)
        image.SetSpacing(self.grid.spacing)
        image.SetOrigin(self.grid.origin)
        image.SetDirection(self.grid.direction)
        return image

    @classmethod
    def from_sitk(cls, image: sitk.Image) -> "Volume":
        """Make a volume from a SimpleITK image."""
        return cls(sitk.GetArrayFromImage(image), Grid.of(image))

    def with_array(self, array: np.ndarray) -> "Volume":
        """Return another array on the same grid."""
        return Volume(array, self.grid)
