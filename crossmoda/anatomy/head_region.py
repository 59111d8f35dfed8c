"""Where the temporal bones lie in a scan of the head, from nothing but the head's outline and symmetry.

The labyrinths lie on both sides of the middle, a little behind the middle between nose and occiput, and about five
sixths of the head's breadth below the vertex (in the ICBM152 average head: 25 mm lateral, 10 mm behind the middle,
130 mm below the vertex of a head 155 mm broad). A scan that does not reach the vertex is a slab that was planned
on the internal auditory canals, so there the middle of the stack is taken.
"""

import numpy as np
from scipy import ndimage

from crossmoda.volume.grid import Volume

#: mm between the sample points on which the outline is looked for.
_STEP_MM = 4.0
#: How far the labyrinths lie behind the middle of the head, as a fraction of its length.
_BEHIND_MIDDLE = 0.06
#: How far the labyrinths lie below the vertex, as a multiple of the head's breadth.
_BELOW_VERTEX = 0.83
#: Plausible breadth of a head, mm (beyond it the outline is cut by the field of view or holds something else).
_BREADTH_MM = (130.0, 170.0)
#: The half height of the head above its largest section, mm.
_HALF_HEIGHT_MM = 95.0


def foreground(array: np.ndarray, spacing_zyx: tuple[float, float, float]) -> np.ndarray:
    """Return the mask of the head: what is brighter than air, largest piece, holes filled.

    Args:
        array: image (z, y, x).
        spacing_zyx: mm.

    """
    smooth = ndimage.gaussian_filter(array, [2.0 / value for value in spacing_zyx])
    top = np.percentile(smooth, 99)
    bottom = smooth.min()
    clipped = np.clip(smooth, bottom, top)
    # Otsu's threshold separates bright from dark tissue where fluid or fat is bright; air lies well below it.
    mask = clipped > bottom + 0.5 * (_otsu(clipped) - bottom)
    mask = ndimage.binary_opening(mask, iterations=1)
    pieces, count = ndimage.label(mask)
    if count == 0:
        return np.ones(array.shape, bool)
    mask = pieces == 1 + np.argmax(ndimage.sum_labels(mask, pieces, np.arange(1, count + 1)))
    return np.stack([ndimage.binary_fill_holes(section) for section in mask])


def _otsu(values: np.ndarray) -> float:
    """Return the threshold that separates two classes of values best (Otsu, IEEE Trans. SMC 1979)."""
    try:
        counts, edges = np.histogram(values, bins=256)
    except ValueError:  # they differ by less than 256 numbers
        return float(values.mean())
    centers = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sum_below = np.cumsum(counts * centers)
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = sum_below / below - (sum_below[-1] - sum_below) / above
    between = np.nan_to_num(below * above * gap**2)
    return float(centers[int(np.argmax(between))])


def temporal_bones(volume: Volume) -> tuple[float, float, float]:
    """Return the index (x, y, z) midway between the two labyrinths of a head scan in LPS axis order.

    Args:
        volume: head scan whose axes point nearly to the left, to the back and up.

    """
    spacing = np.asarray(volume.grid.spacing_zyx)
    stride = np.maximum(1, np.round(_STEP_MM / spacing)).astype(int)
    smooth = ndimage.uniform_filter(volume.array, stride.tolist())
    first, step_mm = np.minimum(stride, smooth.shape) // 2, spacing * stride
    coarse = smooth[tuple(slice(int(start), None, int(step)) for start, step in zip(first, stride, strict=True))]
    mask = foreground(coarse, tuple(step_mm.tolist()))

    section_mm2 = mask.sum(axis=(1, 2)) * step_mm[1] * step_mm[2]
    z_mm = _height(section_mm2, mask, step_mm, volume.array.shape[0] * spacing[0])
    level = np.arange(mask.shape[0]) * step_mm[0] + first[0] * spacing[0]
    near = np.abs(level - z_mm) <= 30.0
    slab = mask[near] if mask[near].any() else mask
    y_low, y_high = _extent(slab, 1)
    y = (y_low + y_high) / 2 + _BEHIND_MIDDLE * (y_high - y_low)
    x_low, x_high = _extent(slab, 2)
    even = np.sqrt(np.clip(coarse - coarse.min(), 0, np.percentile(coarse, 99) - coarse.min()))
    x = _middle(even[near] if near.any() else even, y, (x_low + x_high) / 2)
    return (float(x * stride[2] + first[2]), float(y * stride[1] + first[1]), float(z_mm / spacing[0] - 0.5))


def _extent(mask: np.ndarray, axis: int) -> tuple[float, float]:
    """Return the indices between which 98% of the mask lies along an axis: stray voxels do not count."""
    profile = mask.sum(axis=tuple(other for other in range(3) if other != axis)).astype(float)
    share = np.cumsum(profile) / max(profile.sum(), 1.0)
    return float(np.searchsorted(share, 0.01)), float(np.searchsorted(share, 0.99))


def _middle(image: np.ndarray, y: float, x: float) -> float:
    """Return where the plane of symmetry of the head crosses row y; x is where it is expected.

    The outline alone misleads where an auricle is cut off or the head is turned: the plane about which the image is
    most like its mirror image is looked for over turns and places near the middle of the outline.

    Args:
        image: slab (z, y, x) sampled every :data:`_STEP_MM`, intensities made even.
        y: row, index.
        x: the middle of the outline, index.

    """
    rows, columns = image.shape[1:]
    best, place = -np.inf, x
    for turn_deg in range(-15, 16, 3):
        turned = ndimage.rotate(image, turn_deg, axes=(1, 2), reshape=False, order=1)
        slope = np.tan(np.radians(turn_deg))
        for double in range(int(2 * x) - 10, int(2 * x) + 11):
            low, high = max(0, double - columns + 1), min(columns - 1, double)
            if high - low < columns // 2:
                continue
            part = turned[:, :, low : high + 1] - turned[:, :, low : high + 1].mean()
            # The correlation with the mirror image, which has the same mean and variance.
            alike = float(np.sum(part * part[:, :, ::-1]) / max(np.sum(part**2), 1e-12)) - 2e-4 * turn_deg**2
            if alike > best:
                shift = (double / 2 - (columns - 1) / 2) / np.cos(np.radians(turn_deg))
                best, place = alike, (columns - 1) / 2 + shift - slope * (y - (rows - 1) / 2)
    return place


def _height(section_mm2: np.ndarray, mask: np.ndarray, step_mm: np.ndarray, stack_mm: float) -> float:
    """Return how far above the lower end of the stack the labyrinths lie, mm."""
    largest = section_mm2.max()
    top = section_mm2[-1] / largest if largest else 1.0
    if top > 0.5:
        return stack_mm / 2
    present = np.flatnonzero(section_mm2 > 0.02 * largest)
    vertex_mm = (present[-1] + 1) * step_mm[0]
    if top > 0.02:  # the crown is cut off: a cap of a spheroid with this section
        vertex_mm += _HALF_HEIGHT_MM * (1 - np.sqrt(1 - top))
    broad = [np.ptp(np.flatnonzero(section.any(axis=0))) for section in mask if section.any()]
    breadth_mm = float(np.clip(np.percentile(broad, 75) * step_mm[2], *_BREADTH_MM))
    return float(np.clip(vertex_mm - _BELOW_VERTEX * breadth_mm, 0.0, stack_mm))
