"""Training samples drawn from stored ears: contrast, resolution, pose and artifacts are new in each of them.

Domain randomization in the sense of Billot et al. (SynthSeg, Medical Image Analysis 2023) beside physical contrasts:
balanced SSFP, turbo spin echo, enhanced T1. The ear is scanned in slices of any orientation and thickness, and sampled
back into the canonical patch, as a real scan is.
"""

import dataclasses
import functools

import numpy as np
from heads import BRIGHTEST, SPACING_MM, StoredEar, box_grid
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from crossmoda.anatomy import ear_frame
from crossmoda.network import features
from crossmoda.simulation.kernels import displaced, in_slabs, jit, mapped, trilinear
from crossmoda.simulation.tissues import PROPERTIES, Contrast, Tissue, draw_contrast
from crossmoda.volume import Grid

#: How often each contrast is drawn.
CONTRASTS = {"ssfp": 0.35, "tse": 0.3, "cet1": 0.2, "random": 0.15}
#: Jitter of the frame: standard deviation and limit, mm and degrees.
SHIFT_MM, TURN_DEG = (1.5, 4.0), (3.0, 8.0)
#: The size of an ear relative to the simulation.
SIZE_RANGE = (0.9, 1.2)
_PERIOD = 64


@dataclasses.dataclass(frozen=True)
class Sample:
    """A patch as the network sees it, before normalization."""

    image: np.ndarray
    """(z, y, x) float32; outside the scan its least value"""
    label: np.ndarray
    """(z, y, x) uint8"""
    contrast: str
    """of the simulation, or real T1, real T2"""

    @property
    def contrast_input(self) -> float:
        """Value of the contrast for the network (:data:`crossmoda.network.features.CONTRASTS`); 0 for a random one."""
        if self.contrast == "random":
            return 0.0
        return features.CONTRASTS["T1" if self.contrast in ("cet1", "real T1") else "T2"]


@functools.cache
def _noises() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    both = []
    for sigma in (0.9, 5.0):
        noise = gaussian_filter(rng.standard_normal((_PERIOD,) * 3, dtype=np.float32), sigma, mode="wrap")
        both.append(noise / noise.std())
    return both[0], both[1]


@jit
def _paint(tissues, shares, images, signal, texture, curves, fine, coarse, offset, void, out, start, stop):
    period = fine.shape[0]
    for k in range(start, stop):
        for j in range(out.shape[1]):
            for i in range(out.shape[2]):
                a, b, c = (k + offset[0]) % period, (j + offset[1]) % period, (i + offset[2]) % period
                grain = 0.6 * fine[a, b, c] + 0.8 * coarse[a, b, c]
                hole = void * min(max(coarse[b, c, a] - 0.6, 0.0), 1.0)
                one, two = shares[0, k, j, i], shares[1, k, j, i]
                total = np.float32(0)
                for n in range(3):
                    share = one if n == 0 else two if n == 1 else 255 - one - two
                    if share > 0:
                        tissue = tissues[n, k, j, i]
                        if tissue == 23:
                            value = curves[0, images[0, k, j, i]] + curves[1, images[1, k, j, i]]
                            if images[1, k, j, i] > 150:
                                value *= 1 - hole
                        else:
                            value = signal[tissue]
                            if tissue == 7:
                                value *= 1 - hole
                        total += share * value * max(1 + texture[tissue] * grain, np.float32(0.05))
                out[k, j, i] = total / 255


@jit
def _scan(matrix, field, base, profile, out, start, stop):
    """Average ``base`` over the slice profile at each voxel of a scan; ``matrix`` leads from its index to mm."""
    origin, step = field[1], 0.6
    for k in range(start, stop):
        for j in range(out.shape[1]):
            for i in range(out.shape[2]):
                total = np.float32(0)
                for s in range(len(profile)):
                    x, y, z = mapped(matrix, i, j, k + (s + 0.5) / len(profile) - 0.5)
                    x, y, z = displaced(field, x, y, z)
                    total += profile[s] * trilinear(
                        base, (x - origin[0]) / step, (y - origin[1]) / step, (z - origin[2]) / step
                    )
                out[k, j, i] = total


@jit
def _patch(to_scan, to_anatomy, field, scan, kept, tumor, cochlea, outside, image, label, start, stop):
    origin, step = field[1], 0.6
    for k in range(start, stop):
        for j in range(image.shape[1]):
            for i in range(image.shape[2]):
                x, y, z = mapped(to_scan, i, j, k)
                if z < kept[0] or z > kept[1] or x < kept[2] or x > kept[3]:
                    image[k, j, i] = outside
                    continue
                image[k, j, i] = trilinear(scan, x, y, z)
                x, y, z = mapped(to_anatomy, i, j, k)
                x, y, z = displaced(field, x, y, z)
                u, v, w = (x - origin[0]) / step, (y - origin[1]) / step, (z - origin[2]) / step
                if trilinear(tumor, u, v, w) < 0:
                    label[k, j, i] = 1
                elif trilinear(cochlea, u, v, w) < 0:
                    label[k, j, i] = 2


def draw(ear: StoredEar, rng: np.random.Generator) -> Sample:
    """Draw a sample of an ear."""
    contrast = str(rng.choice(list(CONTRASTS), p=list(CONTRASTS.values())))
    painted = paint(ear, contrast, rng)
    return scan(painted, ear.tumor, ear.cochlea, rng, contrast)


def paint(ear: StoredEar, contrast: str, rng: np.random.Generator) -> np.ndarray:
    """Return an image of the whole box in a contrast, white matter about 1."""
    signal, texture, curves = _signals(contrast, rng)
    images = ear.images if len(ear.images) else np.zeros((2, *ear.tumor.shape), np.uint8)
    out = np.empty(ear.tumor.shape, np.float32)
    offset = rng.integers(0, _PERIOD, 3)
    void = float(rng.uniform(0.2, 0.9)) if rng.random() < 0.3 and contrast != "cet1" else 0.0
    fine, coarse = _noises()
    arguments = ear.tissues, ear.shares, images, signal, texture, curves, fine, coarse, offset, void, out
    in_slabs(len(out), lambda a, b: _paint(*arguments, a, b))
    if rng.random() < 0.5:
        out = gaussian_filter(out, rng.uniform(0.3, 1.0), truncate=2.5)
    return np.maximum(out, 0) ** np.float32(rng.uniform(0.75, 1.3)) if rng.random() < 0.4 else out


def _signals(contrast: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return signal and texture of each tissue, and the curves of both images of a real base (2, 256)."""
    drawn = draw_contrast(rng, spread=rng.uniform(0.03, 0.15))
    levels = np.linspace(0, BRIGHTEST, 256)
    curves = np.zeros((2, 256))
    if contrast == "cet1":
        signal, curves[0] = drawn.cet1.copy(), levels * (1 + rng.uniform(-0.15, 0.15) * (levels - 1))
    elif contrast == "ssfp":
        signal, curves[1] = drawn.hrt2.copy(), levels * (1 + rng.uniform(-0.07, 0.07) * (levels - 1) * (3.8 - levels))
    elif contrast == "tse":
        signal = _turbo_spin_echo(rng)
        fluid = signal[Tissue.CSF]
        knots = [0, 0.3, 0.95, 1.3, 3.75, BRIGHTEST]
        gray = rng.uniform(1.1, 1.5)
        curves[1] = np.interp(levels, knots, [0, rng.uniform(0.1, 0.5), 1.0, min(gray, fluid), fluid, fluid * 1.05])
    else:
        signal, curves = _random_signals(drawn, levels, rng)
    cells, fat = [Tissue.AIR_CELLS], [Tissue.FAT, Tissue.MARROW]
    if rng.random() < 0.2:
        signal[cells] = rng.uniform(0.2, 1.0) * signal[Tissue.CSF]
    if rng.random() < 0.3:
        signal[fat] *= rng.uniform(0.1, 0.7)
    if rng.random() < 0.1:
        signal[Tissue.LABYRINTH] *= rng.uniform(0.2, 0.9)
    if rng.random() < 0.5 and contrast != "cet1":
        signal[[Tissue.ARTERY, Tissue.VENOUS_SINUS]] *= rng.uniform(0.0, 0.6, 2)
    signal[Tissue.TUMOR] *= np.exp(rng.normal(0, 0.22))
    signal[Tissue.TUMOR_CYST] *= np.exp(rng.normal(0, 0.2))
    signal *= np.exp(rng.normal(0, 0.06, len(signal)))
    texture = drawn.texture * rng.uniform(0.5, 2.0)
    texture[Tissue.TUMOR] = rng.uniform(0.03, 0.3)
    signal, texture = np.append(signal, 0.0), np.append(texture, rng.uniform(0.02, 0.1))
    return signal.astype(np.float32), texture.astype(np.float32), curves.astype(np.float32)


def _turbo_spin_echo(rng: np.random.Generator) -> np.ndarray:
    """Return signals of a T2-weighted turbo spin echo, white matter = 1."""
    table = np.array([dataclasses.astuple(PROPERTIES[tissue]) for tissue in Tissue]).T
    density, t1, t2, left_t1 = table[0], table[1], table[2], table[4]
    spread = rng.uniform(0.03, 0.15)
    t2 = t2 * np.exp(spread * rng.standard_normal(len(t2)))
    repetition, echo = rng.uniform(2500, 6000), rng.uniform(70, 120)
    # Short T2 of fat is refocused by the train of pulses.
    t2[[Tissue.FAT, Tissue.MARROW]] *= rng.uniform(1.2, 2.2)
    signal = density * (1 - np.exp(-repetition / t1)) * np.exp(-echo / t2) * left_t1
    signal[[Tissue.ARTERY, Tissue.VENOUS_SINUS]] *= rng.uniform(0.0, 0.5, 2)
    return signal / signal[Tissue.WHITE]


def _random_signals(drawn: Contrast, levels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return random signals, similar ones within the brain, and random curves."""
    signal = rng.uniform(0.05, 2.0, len(drawn.hrt2))
    brain = [Tissue.GRAY, Tissue.WHITE, Tissue.CEREBELLAR_CORTEX, Tissue.CEREBELLAR_WHITE, Tissue.BRAINSTEM]
    signal[brain] = rng.uniform(0.4, 1.4) + rng.normal(0, 0.12, len(brain))
    signal[[Tissue.AIR, Tissue.CORTICAL_BONE, Tissue.AIR_CELLS]] = rng.uniform(0, 0.5) + rng.uniform(0, 0.1, 3)
    knots = np.linspace(0, 1, 7)
    curves = np.zeros((2, len(levels)))
    which = int(rng.random() < 0.7)
    top = 3.9 if which else 2.2
    tone = np.cumsum(rng.uniform(0, 1, 7))
    tone = (tone / tone[-1] if rng.random() < 0.7 else 1 - tone / tone[-1]) * rng.uniform(1, 2.5)
    curves[which] = np.interp(np.clip(levels / top, 0, 1), knots, tone)
    signal[Tissue.CSF] = np.interp(0.95 if which else 0.12, knots, tone)
    signal[Tissue.LABYRINTH] = signal[Tissue.CSF] * rng.uniform(0.7, 1.1)
    return np.maximum(signal, 0.0), curves


def scan(
    painted: np.ndarray,
    tumor: np.ndarray,
    cochlea: np.ndarray,
    rng: np.random.Generator,
    contrast: str,
    *,
    real: bool = False,
) -> Sample:
    """Scan a painted box with random geometry and artifacts, and return the patch.

    ``real``: the box shows a real scan, which has slices of its own: it stays as it is, or is put into thick slices,
    most of them axial.
    """
    grid, box = ear_frame.patch_grid(), box_grid()
    center = np.asarray(ear_frame.PATCH_CENTER)
    anatomy = _jitter(rng, center)
    field = _elastic(rng), np.asarray(box.origin), 18.0
    index_to_mm, shape = _scan_geometry(rng, grid, real)
    thickness = np.linalg.norm(index_to_mm[:3, 2])
    samples = max(1, round(thickness / SPACING_MM))
    image = np.empty(shape, np.float32)
    matrix = np.ascontiguousarray((anatomy @ index_to_mm)[:3])
    profile = np.full(samples, 1 / samples, np.float32)
    in_slabs(shape[0], lambda a, b: _scan(matrix, field, painted, profile, image, a, b))
    image = _degraded(image, rng)
    kept = np.array([-0.5, shape[0] - 0.5, -0.5, shape[2] - 0.5])
    if rng.random() < 0.15:
        edge = int(rng.integers(4))
        inward = rng.uniform(0.05, 0.35) * (shape[0] if edge < 2 else shape[2])
        kept[edge] += inward if edge % 2 == 0 else -inward
    result, label = np.empty(grid.shape, np.float32), np.zeros(grid.shape, np.uint8)
    to_scan = np.ascontiguousarray((np.linalg.inv(index_to_mm) @ grid.index_to_physical)[:3])
    to_anatomy = np.ascontiguousarray((anatomy @ grid.index_to_physical)[:3])
    arguments = to_scan, to_anatomy, field, image, kept, tumor, cochlea, float(image.min()), result, label
    in_slabs(len(label), lambda a, b: _patch(*arguments, a, b))
    return Sample(result, label, contrast)


def _jitter(rng: np.random.Generator, center: np.ndarray) -> np.ndarray:
    """Return the 4 x 4 matrix from the frame with its error to the anatomy: pose and size."""
    shift = np.clip(rng.normal(0, SHIFT_MM[0], 3), -SHIFT_MM[1], SHIFT_MM[1])
    angles = np.clip(rng.normal(0, TURN_DEG[0], 3), -TURN_DEG[1], TURN_DEG[1])
    size = rng.uniform(*SIZE_RANGE) * np.exp(rng.normal(0, 0.03, 3))
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() / size
    matrix[:3, 3] = center - matrix[:3, :3] @ center + shift
    return matrix


def _elastic(rng: np.random.Generator) -> np.ndarray:
    """Return a smooth random displacement (z, y, x, 3) mm on a grid of 18 mm over the box."""
    return rng.normal(0, rng.uniform(0.2, 1.2), (6, 6, 6, 3)).clip(-2.5, 2.5)


def _scan_geometry(rng: np.random.Generator, patch: Grid, real: bool) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Return the 4 x 4 matrix from scan indices (x, y, z) to frame mm, and the shape of a scan around the patch."""
    axial = 0.9 if real else 0.6
    orientation = int(rng.choice(3, p=[axial, (1 - axial) / 2, (1 - axial) / 2]))
    axes = np.eye(3)[:, [(0, 1, 2), (0, 2, 1), (1, 2, 0)][orientation]]
    turn = Rotation.from_euler("xyz", rng.normal(0, 8, 3), degrees=True).as_matrix()
    axes = turn @ axes
    choices = [rng.uniform(0.5, 1.0), rng.uniform(1.0, 1.6), rng.uniform(1.6, 4.2)]
    thick = float(rng.choice(choices, p=[0.35, 0.3, 0.35]))
    if real:
        thick = 0.6 if rng.random() < 0.5 else rng.uniform(1.5, 5.0)
    pixel = rng.uniform(0.5, 1.0) if thick > 0.8 else thick * rng.uniform(0.8, 1.2)
    spacing = np.array([pixel, pixel, thick])
    extent = np.abs(axes).T @ (np.asarray(patch.size) * patch.spacing[0])
    count = np.ceil(extent / spacing).astype(int) + 2
    center = np.asarray(ear_frame.PATCH_CENTER) + axes @ (rng.uniform(-0.5, 0.5, 3) * spacing)
    matrix = np.eye(4)
    matrix[:3, :3] = axes * spacing
    matrix[:3, 3] = center - matrix[:3, :3] @ ((count - 1) / 2)
    return matrix, tuple(int(n) for n in count[::-1])


def _degraded(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an image with coil sensitivity, noise and, sometimes, ringing or motion."""
    axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in image.shape]
    slope, bend = rng.normal(0, 0.2, 3), rng.normal(0, 0.12, 3)
    exponents = [np.exp(a * axis + b * axis**2) for axis, a, b in zip(axes, slope, bend, strict=True)]
    image = image * (exponents[0][:, None, None] * exponents[1][:, None] * exponents[2]).astype(np.float32)
    if rng.random() < 0.15:  # sharpened or ringing in plane
        image = image + np.float32(rng.uniform(0.2, 0.8)) * (image - gaussian_filter(image, (0, 1.0, 1.0), truncate=2))
    if rng.random() < 0.05:  # motion along an axis
        ghost = np.roll(image, int(rng.integers(3, 12)), axis=int(rng.integers(1, 3)))
        image = image + np.float32(rng.uniform(0.05, 0.2)) * ghost
    deviation = np.float32(rng.uniform(0.01, 0.09))
    real = image + deviation * rng.standard_normal(image.shape, dtype=np.float32)
    if rng.random() < 0.5:
        return real
    return np.hypot(real, deviation * rng.standard_normal(image.shape, dtype=np.float32))
