"""The command ``crossmoda measure``."""

from pathlib import Path

import click

from crossmoda import output
from crossmoda.anatomy import markups as shapes
from crossmoda.cli.framework import PATH, echo, echo_json, files, path_option, progress_bar, structure_option
from crossmoda.dataset.scan_selection import scan_of_label
from crossmoda.errors import InputError
from crossmoda.steps.measure import STEP


@click.command()
@click.argument("label", type=PATH)
@files(STEP, "scan")
@path_option("--probability", help="Probability map of the tumor, for the interval of its volume.")
@files(STEP, "weights", "planes", "markups")
@path_option("--report-dicom", help="DICOM structured report (.dcm, TID 1500), for a DICOM SEG and its series.")
@click.option("--json", "as_json", is_flag=True, help="Print all measures as JSON, positions in LPS mm.")
@click.option("--csv", "as_csv", is_flag=True, help="Print a table with a row per tumor and cochlea.")
@structure_option
def command(
    label: Path,
    scan: Path | None,
    probability: Path | None,
    weights: Path | None,
    markups: Path | None,
    planes: Path | None,
    report_dicom: Path | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """LABEL is a label map, a segmentation (.seg.nrrd, DICOM SEG), or contours with their --scan.

    The scan of a DICOM label may be anywhere in the folder of its study.
    Axial diameters lie in planes perpendicular to the patient's superior axis, whatever the orientation of the slices.
    """
    from crossmoda import export, measurement

    if as_json and as_csv:
        raise InputError("Both --json and --csv are given. Choose one of them.")
    if markups is not None:
        shapes.check_ending(markups)
    porus_planes = measurement.read_porus_planes(planes) if planes is not None else None
    output.check_apart([markups, report_dicom], [label, scan, probability, weights, planes])
    segmentation = None
    if report_dicom is not None:
        output.check_ending(report_dicom, export.ENDING)
        if scan is None:
            raise InputError("A DICOM report refers to the scan. Give the DICOM series with --scan.")
        segmentation = export.read_own_segmentation(label)
    scan = scan_of_label(scan, label) if scan is not None else None
    with progress_bar() as progress:
        result = measurement.measure_files(label, scan, probability, weights, progress, porus_planes)
    measures, grid = result.measures, result.label_map.grid
    with output.together():
        if markups is not None:
            measurement.write_markups(measures, markups)
        if report_dicom is not None and scan is not None:
            export.write_dicom_report(measures, segmentation, scan, report_dicom)
    if as_json:
        echo_json(measurement.as_json(measures, grid))
        return
    if as_csv:
        echo(output.csv_text(measurement.COLUMNS, measurement.table(measures, grid)).rstrip("\n"))
        return
    for sentence in measures.sentences:
        echo(sentence)
    for row in measurement.table(measures, grid) if measures.tumors or measures.cochleae else []:
        echo(" ".join(str(value) for value in row[:2] if value))
        for name, value in zip(measurement.COLUMNS[2:], row[2:], strict=True):
            if value is not None and row[0] != "no tumor":
                echo(f"  {name:<28} {f'{value:.2f}' if isinstance(value, float) else value}")
    for koos in (tumor.koos for tumor in measures.tumors if tumor.koos):
        echo(koos)
    for note in measures.notes:
        echo(f"Note: {note}")
    for path in (markups, report_dicom):
        if path is not None:
            echo(path)
