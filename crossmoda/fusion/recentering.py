"""Recentering: the votes about a small structure, moved to the structure in the target's image.

A registration is smooth and underestimates the target's individual anatomy, and all atlases do so in the same
direction: their mean label is sharp but off by some tenths of a millimeter. The mean of the warped images shows this
with much less noise than each of them. So the target around the structure is modeled by a curve of the mean image's
intensities and by the votes, whatever the contrasts; the estimate is the small affine displacement of both that
explains the target best (Gauss-Newton for the linear Gaussian model; a prior limits the displacement where the image
shows none).

This is for structures that look alike in everybody, such as the cochlea in its bone. An atlas's tumor tells little
about the appearance of the target's.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from crossmoda.volume.grid import Box
from crossmoda.volume.masks import bounding_box

#: The modeled region: voxels within this distance, mm, of votes of at least this fraction.
REACH_MM, _VOTE = 1.5, 0.3
#: Prior standard deviation of the displacement, mm: of its mean, and of its change along each axis over the structure's
#: radius. The votes' centers were 0.10 to 0.16 mm off along each axis.
DISPLACEMENT_MM = 0.15
#: Errors of neighboring voxels are correlated: this volume counts as one observation, mm3.
SAMPLE_MM3 = 10.0
#: Degree of the polynomial from the mean image's intensities to the target's: bone and fluid are dark on one contrast,
#: dark and bright on the other.
_DEGREE = 3
#: Larger displacements (mm) mean that the model does not fit.
_LARGEST_MM = 0.75
_ROUNDS, _CONVERGED_MM = 12, 0.005
#: Minimum number of modeled voxels.
_LEAST_VOXELS = 100


@dataclasses.dataclass(frozen=True)
class Displacement:
    """An affine displacement of the voxels of a box."""

    box: Box
    """the part of the array that moves"""
    coefficients: np.ndarray
    """(4, 3): its mean and its change over ``radius_mm`` along z, y, x; each in mm along z, y, x"""
    center_mm: np.ndarray
    """where the displacement is its mean, (z, y, x), from the box's first voxel"""
    radius_mm: float
    spacing_zyx: np.ndarray

    @property
    def center(self) -> tuple[float, ...]:
        """The structure's center, (z, y, x), in voxels of the array."""
        inside = self.center_mm / self.spacing_zyx
        return tuple(side.start + float(position) for side, position in zip(self.box, inside, strict=True))

    def sources(self, index: np.ndarray) -> np.ndarray:
        """Return the positions in the box, (3, n), whose values move to ``index``, (3, n)."""
        position_mm = index * self.spacing_zyx[:, None]
        return index - (self.coefficients.T @ self.basis(position_mm)) / self.spacing_zyx[:, None]

    def basis(self, position_mm: np.ndarray) -> np.ndarray:
        """Return the factors of the coefficients, (4, n), at positions (3, n)."""
        relative = (position_mm - self.center_mm[:, None]) / self.radius_mm
        return np.concatenate([np.ones((1, position_mm.shape[1])), relative])

    def move(self, array: np.ndarray) -> np.ndarray:
        """Return the array (z, y, x) with the content of the box moved."""
        moved = array.copy()
        part = array[self.box]
        index = np.indices(part.shape).reshape(3, -1)
        moved[self.box] = _sample(part, self.sources(index)).reshape(part.shape)
        return moved


def find_displacement(
    target: np.ndarray,
    votes: np.ndarray,
    others: Sequence[np.ndarray],
    images: Sequence[np.ndarray],
    weights: Sequence[np.ndarray],
    spacing_zyx: Sequence[float],
) -> Displacement | None:
    """Return the displacement of the votes about a structure; None where the images do not determine it.

    All arrays are (z, y, x).

    Args:
        target: the target's image.
        votes: the probability of the structure.
        others: the probabilities of the other structures.
        images: the atlases' images on the target, on any scale.
        weights: of each atlas at each voxel; 0 where its image is unknown.
        spacing_zyx: voxel size, mm.

    """
    spacing = np.asarray(spacing_zyx, float)
    region = np.sum(weights, axis=0) > 0
    if not (region & (votes >= _VOTE)).any():
        return None
    region &= ndimage.distance_transform_edt(votes < _VOTE, spacing) <= REACH_MM
    if np.count_nonzero(region) < _LEAST_VOXELS:
        return None
    room = [int(np.ceil((REACH_MM + _LARGEST_MM) / size)) for size in spacing]
    box = bounding_box(region, room)
    region = region[box]
    image = _mean_image([item[box] for item in images], [item[box] for item in weights], region)
    features = [image**degree for degree in range(1, _DEGREE + 1)] + [votes[box], *(item[box] for item in others)]
    features = [item for item in features if item[region].std() > 1e-3]
    values = target[box][region].astype(float)
    if not features or values.std() == 0:
        return None
    position = np.argwhere(region).T * spacing[:, None]
    center = np.average(position, axis=1, weights=votes[box][region])
    radius = np.sqrt(np.average(((position - center[:, None]) ** 2).sum(axis=0), weights=votes[box][region]))
    start = Displacement(box, np.zeros((4, 3)), center, float(radius), spacing)
    return _fit(values, features, region, start)


def _mean_image(images: Sequence[np.ndarray], weights: Sequence[np.ndarray], region: np.ndarray) -> np.ndarray:
    """Return the weighted mean of the images, each standardized over the region; 0 where all are unknown."""
    total, mean = np.zeros(region.shape), np.zeros(region.shape)
    for image, weight in zip(images, weights, strict=True):
        values = image[region & (weight > 0)]
        deviation = values.std() if values.size else 0.0
        if deviation > 0:
            mean += weight * ((image - values.mean()) / deviation)
            total += weight
    return np.divide(mean, total, out=np.zeros_like(mean), where=total > 0)


def _fit(
    values: np.ndarray, features: list[np.ndarray], region: np.ndarray, start: Displacement
) -> Displacement | None:
    """Alternate the linear model of the target's values with Gauss-Newton steps of the displacement."""
    index = np.argwhere(region).T
    spacing = start.spacing_zyx
    basis = start.basis(index * spacing[:, None])
    observations = values.size * float(np.prod(spacing)) / SAMPLE_MM3
    prior = np.eye(start.coefficients.size) / DISPLACEMENT_MM**2
    displacement = start
    for _ in range(_ROUNDS):
        sources = displacement.sources(index)
        design = np.stack([*(_sample(item, sources) for item in features), np.ones(values.size)], axis=1)
        model = np.linalg.lstsq(design, values, rcond=None)[0]
        noise = float(np.mean((values - design @ model) ** 2))
        if noise <= 1e-12 * float(np.mean(values**2)):
            return displacement
        explained = np.tensordot(model[:-1], features, 1)
        slope = np.stack([_sample(item, sources) for item in np.gradient(explained, *spacing)])
        # Change of the values with each coefficient: the content moves, so against the slope.
        jacobian = -(basis[:, None] * slope[None]).reshape(-1, values.size).T
        columns = np.concatenate([design, jacobian], axis=1)
        precision = observations / (values.size * noise)
        normal, right = precision * columns.T @ columns, precision * columns.T @ values
        linear = design.shape[1]
        normal[linear:, linear:] += prior
        right[linear:] -= prior @ displacement.coefficients.ravel()
        step = np.linalg.lstsq(normal, right, rcond=None)[0][linear:].reshape(displacement.coefficients.shape)
        displacement = dataclasses.replace(displacement, coefficients=displacement.coefficients + step)
        if np.abs(displacement.coefficients).max() > _LARGEST_MM:
            return None
        if np.abs(step).max() < _CONVERGED_MM:
            return displacement
    return displacement


def _sample(array: np.ndarray, index: np.ndarray) -> np.ndarray:
    return ndimage.map_coordinates(array, index, order=1, mode="nearest")
