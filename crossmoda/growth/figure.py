"""Pictures of growth: volumes over time with intervals and criterion, and the outlines of the aligned scans."""

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from crossmoda import labels
from crossmoda.figures import window
from crossmoda.growth.patient import MeasuredTimePoint, PatientGrowth
from crossmoda.measurement.report import plane_through
from crossmoda.volume import Volume, resample
from crossmoda.volume.transforms import affine_transform

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Colors of the sides, and of the first and the last outline.
_SIDES = {"left": "#1f77b4", "right": "#d1495b", "unknown": "#566473"}
_OUTLINES = ("#ffd166", "#e6503c")
_SIDE_MM = 56.0


def volume_figure(content: Mapping[str, Any]) -> "Figure":
    """Draw the volumes over time, the interval of each, and the band within which a tumor counts as stable.

    Args:
        content: of growth.json, with a tumor at a time point at least.

    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained", dpi=110)
    axes = figure.subplots()
    points = content["time_points"]
    dates = [datetime.date.fromisoformat(point["date"]) for point in points if point["date"]]
    is_dated = len(dates) == len(points)
    times: list[Any] = list(dates) if is_dated else list(range(1, len(points) + 1))
    for side, color in _SIDES.items():
        tumors = [
            (time, tumor)
            for time, point in zip(times, points, strict=True)
            for tumor in point["tumors"]
            if tumor["side"] == side
        ]
        if not tumors:
            continue
        volumes = np.array([tumor["volume_mm3"] for _, tumor in tumors]) / 1000
        limits = np.array([tumor["volume_interval_mm3"] for _, tumor in tumors]) / 1000
        when, errors = [time for time, _ in tumors], np.abs(limits.T - volumes)
        axes.errorbar(when, volumes, yerr=errors, color=color, marker="o", capsize=4, label=f"{side}, 95 % interval")
        criterion = content["criterion"]
        if criterion["unit"] == "%":
            band = volumes[0] * (1 + np.array([-1, 1]) * criterion["least"] / 100)
            name = f"{side}, changed by less than {criterion['least']:g} %"
            axes.axhspan(*band, color=color, alpha=0.12, linewidth=0, label=name)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("volume [mL]")
    if is_dated:
        margin = max((max(dates) - min(dates)) * 0.08, datetime.timedelta(days=10))
        axes.set_xlim(min(times) - margin, max(times) + margin)
        axes.set_xticks(times, [date.isoformat() for date in dates], rotation=20 if len(times) > 4 else 0)
    else:
        axes.set_xticks(times, [f"scan {number}" for number in times])
        axes.set_xlim(0.5, len(times) + 0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def outline_figure(result: PatientGrowth, side: str) -> "Figure":
    """Draw the first and the last scan of a tumor, aligned, in the axial plane of its largest diameter.

    Both outlines are in both pictures.
    """
    from matplotlib.figure import Figure

    shown = [result.points[0], result.points[-1]]
    tumors = [tumor for each in reversed(result.points) for tumor in each.measures.tumors if tumor.side == side]
    center = (tumors[0].axial.largest.start + tumors[0].axial.largest.stop) / 2
    plane = plane_through(center, max(_SIDE_MM, tumors[0].diameter_3d.length_mm + 24), "axial")
    figure = Figure(figsize=(7.2, 3.9), layout="constrained", dpi=110)
    numbers = (0, len(result.points) - 1)
    for axes, each, number in zip(figure.subplots(1, 2), shown, numbers, strict=True):
        transform = affine_transform(each.matrix)
        scan = each.point.scan
        low, high = window(scan.array)
        picture = resample(scan, plane, transform, outside=float(scan.array.min())).array[0]
        axes.imshow(picture, cmap="gray", vmin=low, vmax=high, interpolation="bilinear")
        for outlined, color in zip(shown, _OUTLINES, strict=True):
            level = resample(_tumor_of(outlined), plane, affine_transform(outlined.matrix)).array[0]
            if (level > 0.5).any():
                axes.contour(level, levels=[0.5], colors=[color], linewidths=1.3)
        axes.set_title(result.title(number), fontsize=9)
        axes.set_axis_off()
    return figure


def _tumor_of(measured: MeasuredTimePoint) -> Volume:
    label_map = measured.label_map
    return label_map.with_array((label_map.array == labels.VS).astype(np.float32))
