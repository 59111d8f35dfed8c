"""Figures of registrations, fused labels and segmentations (matplotlib).

Slices are shown in radiological convention: the patient's right is on the left of the picture, anterior is up in an
axial slice, superior is up in a coronal one. Volumes are first turned to the nearest LPS axes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import SimpleITK as sitk

from crossmoda.labels import COCHLEA, STRUCTURES, VS
from crossmoda.volume import Volume
from crossmoda.volume.masks import bounding_box

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXIAL, CORONAL = 0, 1


@dataclasses.dataclass(frozen=True)
class View:
    """A window of a slice of a volume."""

    axis: int
    """0 axial, 1 coronal"""
    index: int
    rows: slice = dataclasses.field(default_factory=lambda: slice(None))
    columns: slice = dataclasses.field(default_factory=lambda: slice(None))

    def of(self, array: np.ndarray) -> np.ndarray:
        """Return the view (rows, columns) of an array (z, y, x)."""
        plane: np.ndarray = np.take(array, self.index, axis=self.axis)[self.rows, self.columns]
        return plane


def oriented(volume: Volume) -> Volume:
    """Return the volume with its axes turned to the nearest of left, posterior, superior (no resampling)."""
    return Volume.from_sitk(sitk.DICOMOrient(volume.to_sitk(), "LPS"))


def center_of(mask: np.ndarray) -> tuple[int, int, int] | None:
    """Return the voxel (z, y, x) nearest to the center of a mask, or None when it is empty."""
    voxels = np.argwhere(mask)
    if not len(voxels):
        return None
    z, y, x = voxels[np.argmin(((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1))]
    return int(z), int(y), int(x)


def full_view(label_map: np.ndarray, axis: int = AXIAL) -> View:
    """Return the whole slice through the VS, else through the cochleae, else through the middle."""
    for value in (VS, COCHLEA):
        center = center_of(label_map == value)
        if center is not None:
            return View(axis, center[axis])
    return View(axis, label_map.shape[axis] // 2)


def close_views(label_map: Volume, margin_mm: float = 12.0) -> dict[str, View]:
    """Return axial windows around each structure: the VS, and the cochlea of each side."""
    array = label_map.array
    is_right = np.arange(array.shape[2]) < array.shape[2] // 2
    regions: dict[str, np.ndarray] = {"VS": array == VS}
    regions |= {"cochlea, right": (array == COCHLEA) & is_right, "cochlea, left": (array == COCHLEA) & ~is_right}
    views = {}
    for name, mask in regions.items():
        center = center_of(mask)
        if center is None:
            continue
        margin = [round(margin_mm / spacing) for spacing in label_map.grid.spacing_zyx[1:]]
        rows, columns = bounding_box(mask[center[0]], margin)
        views[name] = View(AXIAL, center[0], rows, columns)
    return views


def window(array: np.ndarray) -> tuple[float, float]:
    """Return the gray window (low, high): the 1st and 99.7th percentile of the values above the lowest one."""
    values = array[array > array.min()]
    if not values.size:
        return float(array.min()), float(array.max()) + 1.0
    low, high = np.percentile(values, [1.0, 99.7])
    return float(low), float(max(high, low + 1e-6))


def checkerboard(first: np.ndarray, second: np.ndarray, tiles: int = 8) -> np.ndarray:
    """Return a 2D checkerboard of two slices of the same shape, each scaled to 0..1 by its own window."""
    scaled = []
    for plane in (first, second):
        low, high = window(plane)
        scaled.append(np.clip((plane - low) / (high - low), 0, 1))
    edge = max(1, max(first.shape) // tiles)
    rows, columns = np.indices(first.shape) // edge
    return np.where((rows + columns) % 2 == 0, *scaled)


def _show(axes: "Axes", plane: np.ndarray, volume: Volume, view: View, **options: Any) -> None:
    vertical, horizontal = (spacing for axis, spacing in enumerate(volume.grid.spacing_zyx) if axis != view.axis)
    origin: Literal["upper", "lower"] = "upper" if view.axis == AXIAL else "lower"
    axes.imshow(plane, origin=origin, aspect=vertical / horizontal, interpolation="bilinear", **options)
    axes.set_axis_off()


def show_image(axes: "Axes", volume: Volume, view: View) -> None:
    """Draw the view of an image in gray."""
    low, high = window(volume.array)
    _show(axes, view.of(volume.array), volume, view, cmap="gray", vmin=low, vmax=high)


def show_heat(axes: "Axes", volume: Volume, view: View, maximum: float) -> Any:
    """Draw the view of a map (0 to ``maximum``) in colors over the image; zero is transparent."""
    plane = np.ma.masked_less_equal(view.of(volume.array), 0.02 * maximum)
    _show(axes, plane, volume, view, cmap="inferno", vmin=0, vmax=maximum, alpha=0.8)
    return axes.images[-1]


def show_contours(axes: "Axes", label_map: Volume, view: View, *, reference: bool = False) -> None:
    """Draw the outline of every structure: in its color, or dashed white for a reference."""
    plane = view.of(label_map.array)
    for structure in STRUCTURES:
        mask = plane == structure.value
        if mask.any() and not mask.all():
            color = "white" if reference else tuple(component / 255 for component in structure.color)
            width, style = (1.0, "dashed") if reference else (1.4, "solid")
            axes.contour(mask, levels=[0.5], colors=[color], linewidths=width, linestyles=style)


def _figure(rows: int, columns: int, width: float = 3.2, heights: Sequence[float] = ()) -> tuple["Figure", np.ndarray]:
    """Make axes ``width`` inches wide; ``heights`` are the heights of the rows in widths (default: square)."""
    from matplotlib.figure import Figure

    heights = heights or [1.0] * rows
    figure = Figure(figsize=(columns * width, sum(heights) * width + 0.3 * rows), layout="constrained", dpi=110)
    return figure, figure.subplots(rows, columns, squeeze=False, height_ratios=heights)


def registration_figure(target: Volume, before: Volume, after: Volume, labels: Mapping[str, Volume]) -> "Figure":
    """Draw a registration: checkerboards of target and atlas, and label contours, before and after it.

    Args:
        target: the fixed image.
        before: the moving image resampled on the target's grid by the headers only.
        after: the moving image warped on the target's grid.
        labels: the atlas's label map on the target's grid, ``{"before": ..., "after": ...}``.

    """
    target = oriented(target)
    volumes = {"before": oriented(before), "after": oriented(after)}
    maps = {key: oriented(label_map) for key, label_map in labels.items()}
    views = [full_view(maps["after"].array, axis) for axis in (AXIAL, CORONAL)]
    depth, height, width = np.asarray(target.array.shape) * target.grid.spacing_zyx
    figure, axes = _figure(2, 4, heights=(height / width, depth / width))
    for row, (name, view) in enumerate(zip(("axial", "coronal"), views, strict=True)):
        for column, key in enumerate(("before", "after")):
            board = checkerboard(view.of(target.array), view.of(volumes[key].array))
            _show(axes[row, column], board, target, view, cmap="gray", vmin=0, vmax=1)
            axes[row, column].set_title(f"{key}, {name}", fontsize=9)
            show_image(axes[row, column + 2], target, view)
            show_contours(axes[row, column + 2], maps[key], view)
            absence = "" if (view.of(maps[key].array) > 0).any() else ": none in this slice"
            axes[row, column + 2].set_title(f"atlas labels {key}{absence}", fontsize=9)
    return figure


def fusion_figure(target: Volume, votes: Sequence[Volume], fused: Volume, disagreement: Volume) -> "Figure":
    """Draw a fusion close to each structure: outlines of all atlases, fused label, disagreement."""
    target, fused, disagreement = oriented(target), oriented(fused), oriented(disagreement)
    votes = [oriented(vote) for vote in votes]
    views = close_views(fused) or {"middle": full_view(fused.array)}
    figure, axes = _figure(len(views), 3)
    maximum = max(float(disagreement.array.max()), 1e-6)
    for row, (name, view) in enumerate(views.items()):
        for column in range(3):
            show_image(axes[row, column], target, view)
        for vote in votes:
            show_contours(axes[row, 0], vote, view)
        show_contours(axes[row, 1], fused, view)
        heat = show_heat(axes[row, 2], disagreement, view, maximum)
        axes[row, 0].set_title(f"{name}: {len(votes)} atlases", fontsize=9)
        axes[row, 1].set_title("fused label", fontsize=9)
        axes[row, 2].set_title("disagreement (entropy)", fontsize=9)
    figure.colorbar(heat, ax=axes[:, 2].tolist(), shrink=0.7)
    return figure


def segmentation_figure(image: Volume, label_map: Volume, reference: Volume | None = None) -> "Figure":
    """Draw a segmentation and its optional reference (dashed white): a whole slice, and close to each structure."""
    image, label_map = oriented(image), oriented(label_map)
    reference = oriented(reference) if reference is not None else None
    guide = reference if reference is not None else label_map
    views = {"axial": full_view(guide.array), **close_views(guide)}
    figure, axes = _figure(2, len(views))
    for column, (name, view) in enumerate(views.items()):
        for row in (0, 1):
            show_image(axes[row, column], image, view)
        show_contours(axes[1, column], label_map, view)
        if reference is not None:
            show_contours(axes[1, column], reference, view, reference=True)
        axes[0, column].set_title(name, fontsize=9)
    return figure
