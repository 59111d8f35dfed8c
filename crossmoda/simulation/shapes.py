"""Real tumor shapes from expert label maps, placed into the canonical frame."""

import functools
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates, zoom

from crossmoda.anatomy.cochlea import mean_cochlea
from crossmoda.errors import InputError
from crossmoda.labels import COCHLEA, VS
from crossmoda.simulation.lesion import FUNDUS, PORUS, Lesion, draw_cysts, mass_effect
from crossmoda.volume import Grid, read_label_map

#: Spacing of the smoothed surface of a label map, mm.
STEP_MM = 0.5


@functools.lru_cache(maxsize=4)
def shape_files(folder: Path) -> tuple[Path, ...]:
    """Return the label maps of a folder that contain both a tumor and a cochlea.

    Raises:
        InputError: there are none.

    """
    files = []
    for path in sorted([*folder.glob("*.nii.gz"), *folder.glob("*.nii"), *folder.glob("*.nrrd")]):
        # One label map per patient: VS-SEG has the same for T1 and T2.
        if "T2wspace" not in path.name and {VS, COCHLEA} <= set(np.unique(_read(path)[0]).tolist()):
            files.append(path)
    if not files:
        raise InputError(f"No label map with tumor (1) and cochlea (2): {folder}. Select a folder of such label maps.")
    return tuple(files)


def _read(path: Path) -> tuple[np.ndarray, Grid]:
    label_map = read_label_map(path)
    return label_map.array, label_map.grid


def real_lesion(rng: np.random.Generator, folder: Path | str, volume_ratio: float) -> Lesion:
    """Draw a patient from ``folder`` and return the tumor in the canonical frame of one side (x lateral).

    The cochlea is aligned with the canonical one, and the lateral end of the tumor with the axis of the canal.
    ``volume_ratio`` is how much smaller (or larger) things are in the canonical frame than in the subject.
    """
    files = shape_files(Path(folder).resolve())
    array, grid = _read(files[int(rng.integers(len(files)))])
    positions = {value: grid.points(array == value) for value in (VS, COCHLEA)}
    cochlea = positions[COCHLEA].mean(0)
    scale, canonical = volume_ratio ** (1 / 3), mean_cochlea().center
    # The cochlea is lateral to the tumor, which determines the side.
    flip = np.array([np.sign(cochlea[0] - positions[VS][:, 0].mean()) or 1.0, 1.0, 1.0])
    placed = (positions[VS] - cochlea) * flip * scale + canonical
    lateral = placed[placed[:, 0] >= np.quantile(placed[:, 0], 0.9)].mean(0)
    along = np.clip((lateral[0] - PORUS[0]) / (FUNDUS[0] - PORUS[0]), 0, 1)
    shift = np.clip(PORUS + along * (FUNDUS - PORUS) - lateral, -4, 4) * np.array([0, 1, 1])

    surface, corner, spacing = _surface(array == VS, grid)
    inverse = np.linalg.inv(grid.axes)

    def distance(points: np.ndarray) -> np.ndarray:
        patient = ((points - shift - canonical) / scale) * flip + cochlea
        index = ((patient - grid.origin) @ inverse.T - corner) / spacing
        where = [index[..., axis] for axis in (2, 1, 0)]
        return scale * map_coordinates(surface, where, order=1, mode="nearest")

    placed = placed + shift
    free = placed[placed[:, 0] < PORUS[0]]
    volume = len(placed) * grid.voxel_volume_mm3 * scale**3
    part = len(free) / len(placed)
    center = free.mean(0) if part > 0.1 else placed.mean(0)
    radius = (3 * max(part, 0.05) * volume / (4 * np.pi)) ** (1 / 3)
    reach = placed.min(0) - 3, placed.max(0) + 3
    cysts = draw_cysts(rng, center, radius, volume)
    return Lesion(distance, volume, center, radius, mass_effect(rng, center, radius), cysts, reach)


def _surface(mask: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a smooth signed distance (mm) that encloses the mask's volume, its corner (mm along the axes) and
    spacing.
    """
    padded = np.pad(mask, 6)
    sampling = grid.spacing_zyx
    signed = distance_transform_edt(~padded, sampling) - distance_transform_edt(padded, sampling)
    factors = np.array(sampling) / STEP_MM
    fine = zoom(signed, factors, order=1, grid_mode=True, mode="nearest")
    spacing = (np.array(padded.shape) * sampling / np.array(fine.shape))[::-1]
    fine = gaussian_filter(fine, 0.6 / STEP_MM)
    count = round(mask.sum() * grid.voxel_volume_mm3 / np.prod(spacing))
    fine = fine - np.partition(fine.ravel(), count)[count]
    corner = -6 * np.array(grid.spacing) - np.array(grid.spacing) / 2 + spacing / 2
    return fine.astype(np.float32), corner, spacing
