"""The report of one patient: key images, measures, provenance and warnings on one page, without a name."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossmoda import labels, output, printing
from crossmoda.dataset.scan_date import date_in_header, header_of
from crossmoda.errors import InputError
from crossmoda.figures import window
from crossmoda.measurement.files import COLUMNS, FileMeasures, as_json, table
from crossmoda.measurement.measures import TumorMeasures
from crossmoda.measurement.surface import Line
from crossmoda.report import Report
from crossmoda.volume import Grid, Volume, resample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Side of a key image and distance of its samples, mm; length of the scale bar.
_SIDE_MM, _STEP_MM, _BAR_MM = 60.0, 0.3, 10.0
#: The planes: name, axes of a picture's columns and rows in LPS, and the directions of the slice's axes.
_PLANES = {"axial": (0, 1, 1), "coronal": (0, 2, -1), "sagittal": (1, 2, -1)}
_COLORS = {"axial diameter": "#ffd166", "perpendicular": "#9ad1ff"}


@dataclasses.dataclass(frozen=True)
class About:
    """What the report states beside the measures."""

    record: Mapping[str, Any]
    """provenance of the segmentation; empty where it is not known"""
    warning: str = ""
    """of the model card"""
    date: str = ""
    """of the scan"""
    patient: str = ""
    """name and ID; empty unless the user asks for them"""
    reviewer: str = ""
    """who corrected the segmentation"""


def about_scan(scan: Path, identify: bool) -> tuple[str, str]:
    """Return date and patient of a scan: of its DICOM header; the file name of any other, if it is to be identified."""
    header = header_of(scan)
    if header is None:
        return "", scan.name if identify else ""
    date = date_in_header(header)
    name = ", ".join(str(header.get(key)) for key in ("PatientName", "PatientID") if header.get(key))
    return date.isoformat() if date else "", name if identify else ""


def files_of(path: Path, pdf: bool = False) -> list[Path]:
    """Return the files of a report: the page, its measures as JSON and CSV, and the page as PDF."""
    return [path, *(path.with_suffix(ending) for ending in (".json", ".csv", *([".pdf"] if pdf else [])))]


def refuse_replacing(path: Path, pdf: bool = False) -> None:
    """Refuse a page beside which files with the names of its measures exist that are not those of a report.

    Raises:
        InputError: there is such a file.

    """
    _, details, *others = files_of(path, pdf)
    with contextlib.suppress(OSError, ValueError):
        content = output.read_json(details)
        if isinstance(content, dict) and {"tumors", "cochleae", "provenance"} <= content.keys():
            return
    for file in (details, *others):
        if file.exists():
            raise InputError(f"Not of a report, and would be replaced by one: {file}. Choose another output.")


def write_report(
    result: FileMeasures,
    path: Path | str,
    about: About,
    *,
    pdf: bool = False,
    further: Sequence[Callable[[Report], None]] = (),
) -> list[Path]:
    """Write the report (.html), and the measures beside it as JSON and CSV, together.

    Args:
        result: measures with their scan.
        path: output, ending in ``.html``.
        about: what else is stated.
        pdf: whether to write the page as PDF, too.
        further: functions that add further sections after the measures.

    Returns:
        The files.

    Raises:
        InputError: the path has another ending or cannot be written, a file that is not of a report would be replaced,
            or there is no browser that writes a PDF.

    """
    path = Path(path)
    output.check_ending(path, ".html")
    refuse_replacing(path, pdf)
    measures, grid = result.measures, result.label_map.grid
    report = Report("Vestibular schwannoma: measures", " ".join(measures.sentences))
    _images_section(report, result)
    for tumor in measures.tumors:
        report.section(f"Tumor, {tumor.side}", str(tumor.koos) if tumor.koos else "")
        report.table(["measure", "value"], _tumor_rows(tumor, grid))
    if measures.cochleae:
        report.section("Cochleae")
        rows = [
            [item.side, f"{item.volume_mm3:.0f}", f"{item.diameter_3d.length_mm:.1f}"] for item in measures.cochleae
        ]
        report.table(["side", "volume [mm³]", "3D diameter [mm]"], rows)
    for add in further:
        add(report)
    if measures.notes:
        report.section("Notes", " ".join(measures.notes))
    _provenance_section(report, about, grid)
    page = report.html()
    printed = printing.pdf_of(page) if pdf else b""
    files = files_of(path, pdf)
    with output.together():
        output.write_text(files[0], page)
        output.write_json(files[1], {**as_json(measures, grid), "provenance": _record(about)})
        output.write_csv(files[2], COLUMNS, table(measures, grid))
        if pdf:
            with output.atomic(files[3]) as temporary:
                temporary.write_bytes(printed)
    return files


def _record(about: About) -> dict[str, Any]:
    """Return the provenance, without the names of files where the patient is not to be identified."""
    record = dict(about.record)
    if not about.patient:
        inputs = record.get("inputs", {})
        record["inputs"] = {
            role: {key: value for key, value in entry.items() if key != "name"} for role, entry in inputs.items()
        }
    return record


def _tumor_rows(tumor: TumorMeasures, grid: Grid) -> list[list[str]]:
    """Return measures and values in words; what is not known is left out."""
    low, high = tumor.interval_mm3 or (None, None)
    interval = f" ({low:.0f} to {high:.0f})" if low is not None and high is not None else ""
    rows = [["volume [mm³]" + (" with its 90 % interval" if interval else ""), f"{tumor.volume_mm3:.0f}{interval}"]]
    if tumor.parts is not None:
        rows.append(["largest extrameatal diameter, axial (Kanzaki et al. 2003)", tumor.parts.size])
        rows.append(["intrameatal volume [mm³]", f"{tumor.parts.intrameatal_mm3:.0f}"])
        rows.append(["extrameatal volume [mm³]", f"{tumor.parts.extrameatal_mm3:.0f}"])
    rows += [
        ["largest axial diameter [mm]", f"{tumor.axial.largest.length_mm:.1f}"],
        ["perpendicular to it [mm]", f"{tumor.axial.perpendicular.length_mm:.1f}"],
        ["craniocaudal extent [mm]", f"{tumor.craniocaudal_mm:.1f}"],
        ["largest diameter in 3D [mm]", f"{tumor.diameter_3d.length_mm:.1f}"],
    ]
    rows += [[f"gap to the {side} cochlea [mm]", f"{gap:.1f}"] for side, gap in tumor.gaps_mm.items()]
    if tumor.koos is not None:
        rows.append(["Koos grade, suggested", f"{tumor.koos.grade} (suggested; to be confirmed)"])
    return rows


def _images_section(report: Report, result: FileMeasures) -> None:
    if result.scan is None or not result.measures.tumors:
        return
    report.section("Key images", "Radiological convention: the patient's right is on the left of the picture.")
    for tumor in result.measures.tumors:
        caption = (
            f"Tumor, {tumor.side}: largest axial diameter (yellow) and perpendicular (blue). Bar: {_BAR_MM:.0f} mm."
        )
        report.figure(key_images(result.scan, result.label_map, tumor), caption)


def key_images(scan: Volume, label_map: Volume, tumor: TumorMeasures) -> "list[Figure]":
    """Draw the axial plane of the largest diameter, and the coronal and sagittal plane through its middle."""
    from matplotlib.figure import Figure

    center = (tumor.axial.largest.start + tumor.axial.largest.stop) / 2
    side_mm = max(_SIDE_MM, tumor.diameter_3d.length_mm + 20)
    limits, figures = window(scan.array), []
    for name in _PLANES:
        figures.append(Figure(figsize=(3.2, 3.2), dpi=130))
        axes = figures[-1].add_axes((0, 0, 1, 1))
        plane = plane_through(center, side_mm, name)
        _draw(axes, scan, label_map, plane, name, limits)
        axes.text(8, plane.size[1] - 10, name, color="white", fontsize=9)
        if name == "axial":
            _draw_line(axes, tumor.axial.largest, plane, _COLORS["axial diameter"])
            _draw_line(axes, tumor.axial.perpendicular, plane, _COLORS["perpendicular"])
    return figures


def plane_through(center: np.ndarray, side_mm: float, name: str) -> Grid:
    """Return the grid of one LPS slice around a point; rows of sagittal and coronal planes run downwards."""
    column, row, sign = _PLANES[name]
    axes = np.zeros((3, 3))
    axes[column, 0], axes[row, 1] = 1, sign
    axes[:, 2] = np.cross(axes[:, 0], axes[:, 1])
    count = round(side_mm / _STEP_MM)
    origin = center - axes[:, :2] @ np.full(2, _STEP_MM * (count - 1) / 2)
    return Grid((count, count, 1), (_STEP_MM,) * 3, tuple(origin.tolist()), tuple(axes.ravel().tolist()))


def _draw(axes: "Axes", scan: Volume, label_map: Volume, plane: Grid, name: str, limits: tuple[float, float]) -> None:
    picture = resample(scan, plane, outside=float(scan.array.min())).array[0]
    axes.imshow(picture, cmap="gray", vmin=limits[0], vmax=limits[1], interpolation="bilinear")
    for structure in labels.STRUCTURES:
        mask = label_map.with_array((label_map.array == structure.value).astype(np.float32))
        level = resample(mask, plane).array[0]
        if (level > 0.5).any():
            color = tuple(component / 255 for component in structure.color)
            axes.contour(level, levels=[0.5], colors=[color], linewidths=1.2)
    count = plane.size[0]
    end = count - 10
    axes.plot([end - _BAR_MM / _STEP_MM, end], [count - 10] * 2, color="white", linewidth=2.5, solid_capstyle="butt")
    if name != "sagittal":
        axes.text(8, 16, "R", color="white", fontsize=9)
    axes.set_axis_off()


def _draw_line(axes: "Axes", line: Line, plane: Grid, color: str) -> None:
    index = plane.to_index(np.stack([line.start, line.stop]))
    axes.plot(index[:, 0], index[:, 1], color=color, linewidth=1.3, marker="o", markersize=2.5)


def _provenance_section(report: Report, about: About, grid: Grid) -> None:
    record = about.record
    inputs: Mapping[str, Mapping[str, str]] = record.get("inputs", {})
    day, _, time = str(record.get("created", "")).partition("T")
    rows: Sequence[tuple[str, str]] = [
        ("patient", about.patient),
        ("date of the scan", about.date),
        ("grid of the scan", str(grid)),
        ("corrected by", about.reviewer),
        ("segmented", f"{day} {time[:5]}, CrossModa {record.get('crossmoda', '')}" if day else ""),
        ("weights, SHA-256", inputs.get("weights", {}).get("sha256", "")[:16]),
        ("scan, SHA-256", inputs.get("image", {}).get("sha256", "")[:16]),
    ]
    report.section("Scan, model and provenance", about.warning)
    report.table(["", ""], [row for row in rows if row[1]])
