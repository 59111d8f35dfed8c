"""The command ``crossmoda export``."""

from pathlib import Path

import click

from crossmoda import output as files
from crossmoda import volume
from crossmoda.cli.framework import (
    PATH,
    echo,
    echo_json,
    json_option,
    open_data,
    path_option,
    progress_bar,
    structure_option,
)
from crossmoda.dataset.case import CET1, HRT2
from crossmoda.dataset.scan_selection import scan_of_label
from crossmoda.errors import InputError


@click.command()
@click.argument("source", type=PATH)
@path_option("-o", "--output", required=True, help="DICOM SEG (.dcm), or the new folder of the data set.")
@click.option("--format", "form", type=click.Choice(["dicom", "nnunet", "bids"]), help="Format. [default: by SOURCE]")
@path_option("--scan", help="DICOM series of the label, for a DICOM SEG.")
@click.option("--corrected", is_flag=True, help="Mark the segments of a DICOM SEG as corrected by a person.")
@path_option("--results", help="Results whose noisy labels or predictions are exported where a scan has no label.")
@click.option("--modality", type=click.Choice([HRT2, CET1]), default=HRT2, show_default=True, help="Scans of SOURCE.")
@json_option
@structure_option
def command(
    source: Path,
    output: Path,
    form: str | None,
    scan: Path | None,
    corrected: bool,
    results: Path | None,
    modality: str,
    as_json: bool,
) -> None:
    """SOURCE is a label (.seg.nrrd, .nii.gz, ...) that becomes a DICOM SEG, or a data set.

    A data set becomes an nnU-Net v2 raw data set (OUTPUT is named like Dataset501_CrossModa) or BIDS with derivatives:
    all scans of a modality with their corrected labels, else their labels in --results.
    """
    is_label = output.name.lower().endswith(".dcm") or source.is_file()
    if (form or ("dicom" if is_label else "nnunet")) == "dicom":
        _export_dicom(source, output, scan, corrected)
        count = 1
    else:
        count = _export_data_set(source, output, form or "nnunet", results, modality)
    if as_json:
        echo_json({"output": output, "labeled_scans": count})
        return
    echo("1 labeled scan" if count == 1 else f"{count} labeled scans")
    echo(output)


def _export_dicom(label: Path, output: Path, scan: Path | None, is_corrected: bool) -> None:
    from crossmoda import export
    from crossmoda.dataset.label_reading import read_label

    if scan is None:
        raise InputError("A DICOM SEG refers to the scan. Give its DICOM series with --scan.")
    files.check_ending(output, export.ENDING)
    files.check_apart([output], [label, scan])
    scan = scan_of_label(scan, label)
    export.check_series(scan)
    grid = volume.read_scan(scan).grid
    label_map = read_label(label, grid)
    if not label_map.grid.same_as(grid):
        difference = label_map.grid.difference_to(grid)
        raise InputError(f"Label and scan lie on different grids: {difference}. Give the series that was labeled.")
    export.write_dicom_segmentation(label_map, scan, output, is_corrected=is_corrected)


def _export_data_set(folder: Path, output: Path, form: str, results: Path | None, modality: str) -> int:
    from crossmoda.export import export_training_data, labeled_cases

    cases, labels, unlabeled = labeled_cases(open_data(folder), results, modality)
    for case_id in unlabeled:
        echo(f"Note: no label, left out: {case_id}", err=True)
    with progress_bar() as progress:
        written = export_training_data(cases, labels, output, form, progress)
    return len(written) // 2
