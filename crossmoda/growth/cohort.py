"""Growth of the tumors of many patients: a folder of results for each, one table and one page."""

import csv
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmoda import batch, output, provenance, weights
from crossmoda.dataset.case import HRT2, Case
from crossmoda.dataset.case_id import safe_id
from crossmoda.dataset.results import record_beside
from crossmoda.errors import InputError, cannot_read, reason_of
from crossmoda.growth.files import COLUMNS, growth_files, table
from crossmoda.growth.page import add_change_table
from crossmoda.growth.settings import Settings
from crossmoda.inference.scan_files import is_image_folder, scans_of
from crossmoda.progress import Progress, report
from crossmoda.report import Report

if TYPE_CHECKING:
    from crossmoda.study.settings import ClusterSettings

COHORT_TABLE, COHORT_PAGE = "growth.csv", "growth.html"
#: The columns of a table of patients; further ones are ignored.
PATIENT_COLUMNS = ("patient", "date", "scan")


def patients_of(path: Path | str) -> dict[str, tuple[list[Path], list[str]]]:
    """Return scans and dates of each patient by an ID that is safe as a name of a folder.

    There are no dates where headers and names are to state them.

    Args:
        path: a folder with a folder of scans (image files or DICOM folders) per patient, or a CSV with
            :data:`PATIENT_COLUMNS`, paths relative to it.

    Raises:
        InputError: there is no patient, or the table has other columns or an incomplete row.

    """
    path = Path(path)
    patients: dict[str, tuple[list[Path], list[str]]] = {}
    if path.is_dir():
        for folder in sorted(item for item in path.iterdir() if item.is_dir() and not item.name.startswith(".")):
            items = sorted(item for item in folder.iterdir() if not item.name.startswith("."))
            scans = [item for item in items if item.is_dir()]
            if is_image_folder(folder) or (items and not scans):
                scans += scans_of([folder]).values()
            patients[safe_id(folder.name)] = scans, []
    else:
        for row in _rows(path):
            scans, dates = patients.setdefault(safe_id(row["patient"]), ([], []))
            scans.append(path.parent / row["scan"])
            dates.append(row["date"])
        patients = {name: (scans, dates if any(dates) else []) for name, (scans, dates) in patients.items()}
    if not patients:
        raise cannot_read(path, "no patients", "Give a folder with a folder per patient, or a table")
    return patients


def _rows(path: Path) -> Sequence[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in PATIENT_COLUMNS if name not in (reader.fieldnames or ())]
            rows = [] if missing else [{key: (row[key] or "").strip() for key in PATIENT_COLUMNS} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as cause:
        raise cannot_read(path, reason_of(cause), "Give a CSV file in UTF-8") from cause
    if missing:
        raise cannot_read(
            path, f"no column {', '.join(missing)}", f"Use the columns {','.join(PATIENT_COLUMNS)}, with commas"
        )
    for number, row in enumerate(rows, start=1):
        if not row["patient"] or not row["scan"]:
            raise cannot_read(path, f"no patient or no scan in row {number} below the header", "Complete the row")
    return rows


def growth_of_patients(
    patients: Path | str,
    folder: Path | str,
    model: Path | str | None = None,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    progress: Progress | None = None,
    cluster: "ClusterSettings | None" = None,
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Measure the growth of each patient into ``folder/PATIENT``; finished patients are reused.

    Args:
        patients: see :func:`patients_of`.
        folder: receives a folder per patient, :data:`COHORT_TABLE` and :data:`COHORT_PAGE`.
        model: the weights; None: bundled weights.
        settings: of the criterion.
        progress: callback(fraction, message); raise Cancelled to abort. Finished patients remain.
        cluster: where patients are measured as tasks on Dask; None: one after the other in this process.

    Returns:
        The result (:func:`crossmoda.growth.files.as_json`) of each patient, and the reason of each failure.

    Raises:
        InputError: the patients cannot be read, the folder cannot be written or lies among the patients, or its table
            or page is edited or of other software.

    """
    folder, listed = Path(folder), patients_of(patients)
    if Path(patients).is_dir() and folder.resolve().is_relative_to(Path(patients).resolve()):
        raise InputError(f"The results would lie among the patients: {folder}. Choose a folder outside of {patients}.")
    output.check_writable(folder, is_folder=True)
    pages = {"table": folder / COHORT_TABLE, "page": folder / COHORT_PAGE}
    beside = record_beside(pages["table"])
    provenance.refuse_foreign(pages.values(), beside)
    inputs = {"weights": Path(model or weights.bundled())}
    record = provenance.Record("growth", settings, inputs, settings.device)  # each patient's record names the processor

    jobs = {name: (scans, folder / name, dates, None, model, settings) for name, (scans, dates) in listed.items()}
    results, failures = _one_by_one(jobs, progress) if cluster is None else _as_tasks(jobs, cluster, progress)
    rows = [
        [name, *row]
        for name, content in results.items()
        for row in table(content) or [["", "", "", "", " ".join(content["sentences"])]]
    ]
    rows += [[name, "", "", "", "", f"failed: {cause}"] for name, cause in failures.items()]
    page = Report("Vestibular schwannoma: growth in a cohort", f"{len(results)} patients; {len(failures)} failed.")
    for name, content in results.items():
        page.section(name, " ".join(content["sentences"]))
        if content["intervals"]:
            add_change_table(page, content)
    if failures:
        page.section("Failed")
        page.table(["patient", "reason"], list(failures.items()))
    with output.together():
        output.write_csv(pages["table"], ["patient", *COLUMNS], rows)
        page.write(pages["page"])
        output.write_json(beside, record.finish(**provenance.checksums_of_outputs(pages, beside)))
    return results, failures


def _one_by_one(
    jobs: Mapping[str, tuple[Any, ...]], progress: Progress | None
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return the results and the failures of all patients, measured in this process."""
    cases = [Case(name, HRT2, next(iter(job[0]), Path())) for name, job in jobs.items()]
    measure: Callable[..., dict[str, Any]] = growth_files
    return batch.for_each(cases, lambda case, step: measure(*jobs[case.id], step), progress)


def _as_tasks(
    jobs: Mapping[str, tuple[Any, ...]], cluster: "ClusterSettings", progress: Progress | None
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return the results and the failures of all patients, measured on the workers of a cluster."""
    from crossmoda.study import tasks
    from crossmoda.study.cluster import connected
    from crossmoda.study.executor import Executor

    results: dict[str, dict[str, Any]] = {}
    failures: dict[str, str] = {}

    def shown() -> None:
        done = len(results) + len(failures)
        report(progress, done / len(jobs), f"{done} of {len(jobs)} patients")

    def store(name: str, result: Any) -> None:
        if isinstance(result, tasks.Failed):
            failures[name] = result.why
        else:
            results[name] = result
        shown()

    with connected(cluster, {}) as client:
        executor = Executor(client, cluster.retries, cluster.patience)
        try:
            for name, job in jobs.items():
                executor.submit(functools.partial(store, name), tasks.growth, *job, name="growth")
            executor.work(shown)
        except BaseException:
            executor.dismiss()
            raise
    return {name: results[name] for name in jobs if name in results}, failures
