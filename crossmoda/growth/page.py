"""Growth on a page: of one patient, as a section of other reports, and as a table."""

from collections.abc import Mapping
from typing import Any

from crossmoda.growth import figure
from crossmoda.growth.patient import PatientGrowth
from crossmoda.report import Report


def page_of(result: PatientGrowth, content: Mapping[str, Any]) -> Report:
    """Return the page of a result."""
    page = Report("Vestibular schwannoma: growth", " ".join(content["sentences"]))
    add_change(page, content)
    if result.intervals:
        page.section("Aligned scans", "Outlines: first scan yellow, last scan red. The patient's right is on the left.")
        for side in result.sides:
            page.figure(
                figure.outline_figure(result, side), f"{side.capitalize()} tumor, axial plane of the first scan."
            )
    page.section("Scans")
    page.table(
        ["scan", "date", "segmented by", "alignment error [mm]"],
        [
            [
                each["name"], each["date"] or "", each["segmented_by"],
                f"{each['alignment']['error_mm']:.2f}" if each["alignment"] else "first scan",
            ]
            for each in content["time_points"]
        ],
    )  # fmt: skip
    if content["notes"]:
        page.section("Notes", " ".join(content["notes"]))
    return page


def add_change(page: Report, content: Mapping[str, Any]) -> None:
    """Add the section of a result's JSON content: criterion, volumes over time, and the table of changes."""
    page.section("Growth", f"Growth is {content['criterion']['text']}, beyond the repeatability of the measurement.")
    if not content["intervals"]:
        return
    page.figure(figure.volume_figure(content), "Volumes with their 95 % intervals of repeatability.")
    add_change_table(page, content)


def add_change_table(page: Report, content: Mapping[str, Any]) -> None:
    """Add the table of changes of a result's JSON content to the current section of a report."""
    rows = []
    for each in content["intervals"]:
        change, yearly, doubling, linear = (
            each[name] for name in ("change_percent", "percent_per_year", "doubling_years", "linear_mm")
        )
        volumes = [each[name] for name in ("volume_before_mm3", "volume_after_mm3")]
        rows.append(
            [
                each["side"],
                f"{each['from']} to {each['to']}",
                each["verdict"],
                " to ".join("none" if value is None else f"{value / 1000:.2f}" for value in volumes),
                f"{change['measured']:+.0f} ({change['low']:+.0f} to {change['high']:+.0f})" if change else "",
                f"{yearly['measured']:+.0f}" if yearly else "",
                _doubling(doubling) if doubling else "",
                f"{linear['measured']:+.1f}" if linear else "",
            ]
        )
    columns = [
        "side",
        "interval",
        "verdict",
        "volume [mL]",
        "change [%]",
        "a year [%]",
        "doubling [years]",
        "diameter [mm]",
    ]
    page.table(columns, rows, "Change with its 95 % interval of repeatability.")


def _doubling(years: Mapping[str, float | None]) -> str:
    """Return a doubling time in words: its lower limit where no growth is possible, too."""
    return f"{years['measured']:.1f}" if years["high"] is not None else f"over {years['low']:.1f}"
