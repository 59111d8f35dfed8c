"""The network on patches of ears: both in one batch, and further patches where a tumor is larger than one."""

import dataclasses
import functools
from typing import TYPE_CHECKING

import numpy as np

from crossmoda import device as devices
from crossmoda import weights
from crossmoda.anatomy import template
from crossmoda.anatomy.ear_frame import EarFrame, patch_grid
from crossmoda.anatomy.sampling import moved
from crossmoda.errors import InputError
from crossmoda.inference.settings import Settings
from crossmoda.network.features import CONTRASTS, features, normalized
from crossmoda.volume import Grid, Volume
from crossmoda.volume.grid import Box

if TYPE_CHECKING:
    import torch

#: A tumor within this distance of the edge of the patch is probably cut, voxels.
_EDGE = 1
#: How far a further patch is moved, voxels (14 mm).
_STEP = 20
#: Percentiles of the brightness of an ear's patch in T2: bone and air, the darkest two fifths; brain; fluid.
_BONE, _BRAIN, _FLUID = 2, 70, 98
#: Voxels of T2 at least this bright, from brain (0) to fluid (1), are fluid: schwannomas are darker.
_FLUID_BRIGHTNESS = 0.7
#: A voxel whose brightness lies between fluid and tumor is fluid from this share of fluid on, one between bone and
#: tumor is bone up to this share of tumor (docs/validation/network.md, "Decisions chosen on other people").
_SHARE_OF_FLUID, _SHARE_OF_TUMOR = 0.45, 0.4
#: A face of a patch: axis (z, y, x) and direction.
Face = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class EarPrediction:
    """What the network says about one ear, in its canonical patch."""

    frame: EarFrame
    probabilities: np.ndarray
    """(label, z, y, x)"""
    covered: np.ndarray
    """bool: which voxels of the patch lie in the scan"""
    grid: Grid = dataclasses.field(default_factory=patch_grid)
    """of the patch, canonical LPS mm"""
    contrast: str = "T1"
    """of the scan, ``"T1"`` or ``"T2"``"""
    image: np.ndarray | None = None
    """the patch (z, y, x) of the scan"""

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel."""
        return self.grid.voxel_volume_mm3

    def marked(self, value: int) -> np.ndarray:
        """Return where a structure is the most probable label inside the scan, bool (z, y, x)."""
        return self.covered & (self.probabilities.argmax(axis=0) == value)

    def fluid(self, mask: np.ndarray) -> np.ndarray:
        """Return what is fluid in T2 rather than the tissue that a mask marks, bool (z, y, x); nothing in T1.

        Where a voxel holds fluid and a tumor, its brightness tells the share of either.
        """
        image = self._t2
        if image is None:
            return np.zeros(self.covered.shape, bool)
        _, brain, fluid = self._levels
        bright: np.ndarray = image - brain >= _FLUID_BRIGHTNESS * max(fluid - brain, 1e-6)
        tissue = image[mask & ~bright]
        if not len(tissue):
            return bright
        tumor = float(np.median(tissue))
        return bright | (image >= tumor + _SHARE_OF_FLUID * (fluid - tumor))

    def bone(self, tissue: np.ndarray) -> np.ndarray:
        """Return what is bone or air in T2 rather than a tissue (mask, without :meth:`fluid`); nothing in T1."""
        image = self._t2
        if image is None or not tissue.any():
            return np.zeros(self.covered.shape, bool)
        bone, tumor = self._levels[0], float(np.median(image[tissue]))
        dark: np.ndarray = image <= bone + _SHARE_OF_TUMOR * (tumor - bone)
        return dark

    @property
    def _t2(self) -> np.ndarray | None:
        """The patch if it is of a T2."""
        return self.image if self.contrast == "T2" and self.covered.any() else None

    @functools.cached_property
    def _levels(self) -> list[float]:
        """Brightness of bone and air, brain, and fluid."""
        assert self.image is not None
        return [float(value) for value in np.percentile(self.image[self.covered], [_BONE, _BRAIN, _FLUID])]

    def touched(self, mask: np.ndarray) -> list[Face]:
        """Return the faces of the patch that a mask reaches where the scan goes on."""
        reached = mask & self.covered
        ends = ((axis, direction) for axis in range(3) for direction in (-1, 1))
        return [end for end in ends if reached[_outermost(end)].any()]

    def points(self, mask: np.ndarray) -> np.ndarray:
        """Return the positions (n, 3) of a mask of the patch in the scan, LPS mm."""
        return self.frame.to_scan(self.grid.points(mask))

    def gap_to_porus_mm(self, mask: np.ndarray) -> float:
        """Return the least distance of a mask to the opening of the canal."""
        apart = self.grid.points(mask) - template.load().landmarks["porus"]
        return float(np.linalg.norm(apart, axis=1).min())

    def holds(self, mask: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Return which points (n, 3) in the scan, LPS mm, a mask of the patch holds, bool (n,)."""
        index = np.rint(self.grid.to_index(self.frame.to_canonical(points))).astype(int)[:, ::-1]
        inside = np.all((index >= 0) & (index < mask.shape), axis=1)
        held = np.zeros(len(points), bool)
        held[inside] = mask[tuple(index[inside].T)]
        return held


def _outermost(face: Face) -> tuple[slice, ...]:
    """Return the outermost layers at a face."""
    axis, direction = face
    outer = slice(None, _EDGE) if direction < 0 else slice(-_EDGE, None)
    return tuple(outer if a == axis else slice(None) for a in range(3))


def predict_patches(
    model: weights.TrainedNetwork,
    image: Volume,
    frames: list[EarFrame],
    contrast: str,
    settings: Settings,
    device: str,
) -> tuple[list[EarPrediction], list[str]]:
    """Return the prediction of each ear, both in one batch, and the fallbacks.

    Args:
        model: a network that sees ears.
        image: the scan.
        frames: of its ears.
        contrast: ``"T1"`` or ``"T2"``, as :class:`crossmoda.anatomy.ear_frame.EarFrames` states it.
        settings: of the prediction.
        device: where to compute.

    Raises:
        InputError: probabilities are not finite.

    """
    grid = patch_grid()
    patches = [frame.sample(image, grid) for frame in frames]
    probabilities, fallbacks = _probabilities(model, patches, contrast, settings, device)
    ears = [
        EarPrediction(frame, values, covered(frame, grid, image.grid), grid, contrast, patch.array)
        for frame, values, patch in zip(frames, probabilities, patches, strict=True)
    ]
    return ears, fallbacks


def extend(
    ear: EarPrediction,
    faces: list[Face],
    model: weights.TrainedNetwork,
    image: Volume,
    settings: Settings,
    device: str,
) -> tuple[EarPrediction, list[str]]:
    """Return an ear predicted in a larger region, by further patches moved towards these faces, and the fallbacks.

    Where patches overlap, each counts by the distance to its edge. Parts of the region that no patch reaches are
    background.
    """
    shape = np.asarray(ear.grid.shape)
    steps = [np.zeros(3, int)] + [direction * _STEP * np.eye(3, dtype=int)[axis] for axis, direction in faces]
    low, high = np.min(steps, axis=0), np.max(steps, axis=0) + shape
    canvas = ear.grid.crop(_box(low, high))
    patches = [ear.frame.sample(image, ear.grid.crop(_box(step, step + shape))) for step in steps[1:]]
    further, fallbacks = _probabilities(model, patches, ear.contrast, settings, device)
    reach = _distance_to_edge(ear.grid.shape)
    total = np.zeros((len(ear.probabilities), *canvas.shape), np.float32)
    weight = np.zeros(canvas.shape, np.float32)
    for step, values in zip(steps, [ear.probabilities, *further], strict=True):
        box = _box(step - low, step - low + shape)
        total[(slice(None), *box)] += values * reach
        weight[box] += reach
    total /= np.maximum(weight, 1e-6)
    total[0][weight == 0] = 1
    reached = covered(ear.frame, canvas, image.grid) & (weight > 0)
    whole = ear.frame.sample(image, canvas).array
    return EarPrediction(ear.frame, total, reached, canvas, ear.contrast, whole), fallbacks


def _box(first: np.ndarray, stop: np.ndarray) -> Box:
    return tuple(slice(int(a), int(b)) for a, b in zip(first, stop, strict=True))


def _distance_to_edge(shape: tuple[int, int, int]) -> np.ndarray:
    """Return the distance of each voxel to the nearest face, at least 1, in voxels."""
    axes = [np.minimum(np.arange(n), np.arange(n)[::-1]) + 1.0 for n in shape]
    return np.minimum.reduce(np.meshgrid(*axes, indexing="ij")).astype(np.float32)


def _probabilities(
    model: weights.TrainedNetwork, patches: list[Volume], contrast: str, settings: Settings, device: str
) -> tuple[np.ndarray, list[str]]:
    """Return the probabilities (patch, label, z, y, x), and the fallbacks."""
    import torch

    batch = torch.stack([torch.from_numpy(normalized(patch.array)) for patch in patches])
    fallbacks: list[str] = []
    try:
        probabilities = _softmax(model, batch, contrast, settings, device)
    except RuntimeError as error:
        if device == "cpu" or not devices.ran_out_of_memory(error):
            raise
        devices.free_unused_memory()
        fallbacks = ["out of memory: predicted on the CPU"]
        probabilities = _softmax(model, batch, contrast, settings, "cpu")
    if not np.isfinite(probabilities).all():
        raise InputError("Predicted probabilities are not finite. Download the weights again, or train again.")
    return probabilities, fallbacks


def _softmax(
    model: weights.TrainedNetwork, batch: "torch.Tensor", contrast: str, settings: Settings, device: str
) -> np.ndarray:
    """Return the probabilities (ear, label, z, y, x) of normalized patches (ear, z, y, x)."""
    import torch

    network = model.network.to(device)

    def logits_of(patches: "torch.Tensor") -> "torch.Tensor":
        result: torch.Tensor = network(features(patches.to(device), model.settings.inputs, CONTRASTS[contrast])).float()
        return result

    with torch.inference_mode():
        logits = logits_of(batch)
        if settings.flips:  # the ear moved by a voxel, not mirrored: no ear looks like its mirror image
            shifted = torch.nn.functional.pad(batch, (1, 0, 1, 0, 1, 0), mode="replicate")[:, :-1, :-1, :-1]
            back = torch.nn.functional.pad(logits_of(shifted)[..., 1:, 1:, 1:], (0, 1, 0, 1, 0, 1), mode="replicate")
            logits = (logits + back) / 2
        return logits.softmax(dim=1).cpu().numpy()


def covered(frame: EarFrame, grid: Grid, scan: Grid) -> np.ndarray:
    """Return which voxels of a canonical grid lie in the scan, bool (z, y, x)."""
    z, y, x = np.meshgrid(*(np.arange(count) for count in grid.shape), indexing="ij")
    index = moved(scan.physical_to_index @ frame.matrix @ grid.index_to_physical, np.stack([x, y, z], axis=-1))
    return np.all((index > -0.5) & (index < np.asarray(scan.size) - 0.5), axis=-1)
