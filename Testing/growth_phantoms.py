"""Two scans of a phantom for growth: the template's ears in several poses, with painted tumors that a stub segments."""

import numpy as np

from crossmoda import volume
from crossmoda.anatomy import template
from crossmoda.anatomy.ear_frame import EarFrame, EarFrames, patch_grid
from crossmoda.anatomy.sampling import moved
from crossmoda.growth import patient
from crossmoda.inference.ear_patches import EarPrediction, covered
from crossmoda.volume import Grid, Volume
from crossmoda.volume.transforms import affine_transform
from phantoms import AXIAL

MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])
CENTER = (24.0, 30.0, -43.0)
#: Intensity of a painted tumor.
TUMOR = 3000.0


def pose(degrees: float = 0.0, shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    matrix = np.eye(4)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix[:2, :2], matrix[:3, 3] = [[cosine, -sine], [sine, cosine]], shift
    return matrix


def frames_in(matrix: np.ndarray) -> EarFrames:
    ears = []
    for side, mirror in (("left", np.eye(4)), ("right", MIRROR)):
        landmarks = {name: moved(matrix @ mirror, point) for name, point in template.load().landmarks.items()}
        ears.append(EarFrame(side, matrix @ mirror, landmarks, 0.9, 1.0, 0.5))
    return EarFrames(ears[0], ears[1], "T2", 0.8)


def scan(matrix: np.ndarray, *tumors: tuple[str, float], seed: int = 0, slice_mm: float = 1.2) -> Volume:
    """Return the template's ears in a pose, made lopsided, with balls (side, radius in mm) as tumors."""
    grid = Grid((140, 100, round(62 / slice_mm)), (1.0, 1.0, slice_mm), (-70.0, -20.0, -76.0), AXIAL)
    origin, axes = moved(matrix, np.array(grid.origin)), matrix[:3, :3] @ grid.axes
    grid = Grid(grid.size, grid.spacing, tuple(origin.tolist()), tuple(axes.ravel().tolist()))
    image = template.load().ears["T2"]
    array = volume.resample(image, grid, affine_transform(np.linalg.inv(matrix))).array.astype(np.float32)
    still = moved(np.linalg.inv(matrix), grid.points(np.ones(grid.shape, bool))).reshape(*grid.shape, 3)
    for x, y, z, radius in ((40, 10, -40, 6), (-30, 40, -55, 7), (-45, 20, -35, 4), (25, 12, -60, 5), (45, 38, -48, 5)):
        array[np.linalg.norm(still - (x, y, z), axis=-1) < radius] *= 0.3
    array += np.random.default_rng(seed).normal(0, 4, grid.shape).astype(np.float32)
    for side, radius in tumors:
        center = np.array(CENTER) * ((1 if side == "left" else -1), 1, 1)
        share = np.clip(0.5 + radius - np.linalg.norm(still - center, axis=-1), 0, 1)
        array += (TUMOR - array) * share
    return Volume(array.astype(np.float32), grid)


FIRST, LATER = pose(3, (2, -1, 4)), pose(-6, (-12, 9, 20))


def stubbed(monkeypatch) -> dict[int, np.ndarray]:
    """Replace the network by a threshold and the search for the ears by their known poses; return how to state them."""
    poses: dict[int, np.ndarray] = {}

    def predict_patches(model, image, frames, contrast, settings, device):
        ears = []
        for frame in frames:
            share = np.clip((frame.sample(image).array - 1000) / (TUMOR - 1000), 0.001, 0.999)
            probabilities = np.stack([1 - share, share, np.zeros_like(share)]).astype(np.float32)
            ears.append(EarPrediction(frame, probabilities, covered(frame, patch_grid(), image.grid)))
        return ears, []

    def frames(image, label_map, progress=None):
        return frames_in(poses[id(image.array)])

    monkeypatch.setattr(patient, "predict_patches", predict_patches)
    monkeypatch.setattr(patient.ear_alignment, "labeled_ear_frames", frames)
    return poses
