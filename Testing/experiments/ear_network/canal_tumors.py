"""Compact tumors in the internal auditory canal, for the training of the bundled weights.

The tumors that :func:`crossmoda.simulation.lesion.draw_lesion` draws begin at the porus, and few of the patients whose
contours lend theirs have one that lies deep in the canal with fluid before it.
"""

from pathlib import Path

import numpy as np

from crossmoda import labels, volume
from crossmoda.anatomy.cochlea import mean_cochlea
from crossmoda.simulation.lesion import FUNDUS, PORUS

#: Their volumes, mm3; logarithms are uniform.
SMALLEST_MM3, LARGEST_MM3 = 40.0, 350.0
#: How far the middle lies within the canal at least, and how far the end may lie beyond the fundus, mm.
_INSIDE_MM, _BEYOND_MM = 2.0, 2.0
#: Voxels (x, y, z) of the label map and their spacing, mm; the cochlea's middle lies at ``_MIDDLE``.
_SIZE, _STEP_MM, _MIDDLE = (90, 80, 80), 0.4, (65, 35, 40)


def draw_canal_tumor(seed: int, folder: Path) -> float:
    """Write the label map of a tumor, with a mark for the cochlea, to ``folder`` and return its volume in mm3.

    An uneven ellipsoid lies along the canal (canonical frame, x lateral), its middle anywhere between porus and fundus.
    """
    rng = np.random.default_rng([seed, 13])
    wanted = float(np.exp(rng.uniform(np.log(SMALLEST_MM3), np.log(LARGEST_MM3))))
    canal = FUNDUS - PORUS
    length = float(np.linalg.norm(canal))
    towards = canal / length + 0.15 * rng.standard_normal(3)
    axes = np.linalg.qr(np.column_stack([towards, rng.standard_normal((3, 2))]))[0].T
    relative = np.exp([rng.uniform(0.1, 0.8), *rng.normal(0, 0.12, 2)])
    semi_axes = relative * (wanted / (4 / 3 * np.pi * relative.prod())) ** (1 / 3)
    deepest = max(length + _BEYOND_MM - semi_axes[0], _INSIDE_MM)
    center = PORUS + canal / length * rng.uniform(_INSIDE_MM, deepest)
    cochlea = mean_cochlea().center
    origin = cochlea - _STEP_MM * np.array(_MIDDLE)
    z, y, x = np.meshgrid(*(_STEP_MM * np.arange(n) for n in reversed(_SIZE)), indexing="ij")
    points = np.stack([x, y, z], axis=-1) + origin
    away = (points - center) @ axes.T / semi_axes
    radius = np.linalg.norm(away, axis=-1)
    for lobe, phase in zip(1.5 * rng.standard_normal((5, 3)), rng.uniform(0, 2 * np.pi, 5), strict=True):
        radius += 0.06 * np.cos(away @ lobe + phase)
    label = np.zeros(radius.shape, np.uint8)
    label[np.linalg.norm(points - cochlea, axis=-1) < 1.0] = labels.COCHLEA
    label[radius < np.partition(radius.ravel(), round(wanted / _STEP_MM**3))[round(wanted / _STEP_MM**3)]] = labels.VS
    if not (folder / "shape.nii.gz").exists():
        grid = volume.Grid(_SIZE, (_STEP_MM,) * 3, tuple(origin.tolist()), (1, 0, 0, 0, 1, 0, 0, 0, 1))
        folder.mkdir(parents=True, exist_ok=True)
        volume.write(volume.Volume(label, grid), folder / "shape.nii.gz")
    return wanted
