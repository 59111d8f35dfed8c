"""The comparison of a scan with a previous one, in the worker's process."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from crossmoda.errors import InputError


def growth(
    folder: str,
    scans: dict[str, str],
    names: dict[str, str],
    labels: dict[str, str],
    dates: dict[str, str],
    weights: str,
    device: str,
    criterion: str,
    progress,
) -> dict:
    """Compare two scans; return table, sentences, alignment (LPS, mm), label maps as files, and the values of a plot.

    Args:
        folder: receives the label maps.
        scans: files by ``"previous"`` and ``"scan"``, as the following ones.
        names: as the user knows the scans.
        labels: files of corrected labels; those of other scans are missing.
        dates: YYYY-MM-DD, empty where it is not known.
        weights: a file; empty: bundled weights.
        device: see :func:`crossmoda.device.choose`.
        criterion: of growth.
        progress: callback(fraction, message).

    """
    import numpy as np

    from crossmoda import growth as engine
    from crossmoda import weights as models
    from crossmoda.growth import files

    order = list(scans)
    stated = _dates(dates, names)
    numbered = {number: labels[key] for number, key in enumerate(order) if key in labels}
    points, notes = engine.read_time_points([scans[key] for key in order], stated, numbered)
    points = [dataclasses.replace(point, name=names[key]) for point, key in zip(points, order, strict=True)]
    settings = engine.Settings(device=device, criterion=criterion)
    model = models.load(Path(weights) if weights else models.bundled())
    result = engine.measure_growth(points, model, settings, progress)
    content = files.as_json(result, [*notes, *result.notes])
    label_maps = {key: str(Path(folder) / f"{key}.npy") for key in order}
    for point, file in zip(result.points, label_maps.values(), strict=True):
        np.save(file, point.label_map.array)
    return {
        "columns": list(files.COLUMNS),
        "rows": files.table(content),
        "sentences": content["sentences"],
        "notes": content["notes"],
        "matrix": result.points[1].matrix.tolist(),
        "label_maps": label_maps,
        "plot": _plot(result, settings),
    }


def _dates(dates: Mapping[str, str], names: Mapping[str, str]) -> list[str]:
    """Return the dates in the order of the scans; none where both are unknown."""
    missing = [names[key] for key, date in dates.items() if not date]
    if len(missing) == 1:
        raise InputError(f"No date: {missing[0]}. State the dates of both scans in “Growth”.")
    if not missing and dates["previous"] > dates["scan"]:
        raise InputError(
            f"The previous scan ({dates['previous']}) is later than the scan ({dates['scan']}). Exchange them."
        )
    return [] if missing else list(dates.values())


def _plot(result, settings) -> dict:
    """Return the volumes of each ear over time (mL) with their intervals, and the criterion."""
    from crossmoda.measurement.growth import DAYS_PER_YEAR

    dates = [each.point.date for each in result.points]
    title, times = "scan", [float(number) for number in range(1, len(dates) + 1)]
    if all(dates):
        title = "time since the first scan [years]"
        times = [(date - dates[0]).days / DAYS_PER_YEAR for date in dates]
    chosen, ears = settings.chosen(), {}
    for side in result.sides:
        sizes = [each.sizes.get(side) for each in result.points]
        limit = None
        if sizes[0] is not None and not chosen.is_linear:
            limit = sizes[0].volume_mm3 * (1 + chosen.least / 100) / 1000
        ears[side] = {
            "volume": [size.volume_mm3 / 1000 if size else 0.0 for size in sizes],
            "low": [size.interval_mm3[0] / 1000 if size else None for size in sizes],
            "high": [size.interval_mm3[1] / 1000 if size else None for size in sizes],
            "criterion": [limit] * len(sizes),
        }
    return {"title": title, "times": times, "ears": ears}
