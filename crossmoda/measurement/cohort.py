"""The measures of a cohort: many scans are segmented and measured into one table."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crossmoda import batch, inference, labels, output
from crossmoda.dataset import results as layout
from crossmoda.measurement.files import COLUMNS, measure_files, table
from crossmoda.progress import Progress, part

if TYPE_CHECKING:
    from crossmoda.dataset import Case

#: The table in the folder of the results.
FILE = "measures.csv"


def segment_and_measure(
    cases: "Sequence[Case]",
    folder: Path | str,
    weights_path: Path | str | None = None,
    settings: inference.Settings | None = None,
    progress: Progress | None = None,
) -> tuple[Path, dict[str, str]]:
    """Segment scans into ``folder/<id>/prediction`` and write ``folder/measures.csv``.

    The table has a row per tumor, and one for each scan without a tumor or with a problem, which is its note.
    Finished predictions are reused.

    Args:
        cases: the scans.
        folder: receives the results.
        weights_path: the weights; None: bundled weights.
        settings: of the network; None: defaults.
        progress: callback(fraction, message); raise ``Cancelled`` to abort. Finished predictions remain.

    Returns:
        The table, and the reason for each failure by case ID.

    Raises:
        InputError: the weights cannot be used, or the folder cannot be written.

    """
    predictions, failures = inference.predict_all(cases, folder, weights_path, settings, part(progress, 0.0, 0.8))

    schwannoma = next(structure for structure in labels.STRUCTURES if structure.value == labels.VS)

    def measure(case: "Case", step: Progress | None) -> list[list[object]]:
        prediction = predictions[case.id]
        probability = prediction.folder / layout.probability(schwannoma)
        result = measure_files(prediction.folder / layout.LABEL_MAP, case.image, probability, weights_path, step)
        notes = " ".join([*prediction.notes, *result.measures.notes])
        rows = table(result.measures, result.label_map.grid)
        return [[case.id, *row, notes] for row in rows if row[0] != "cochlea"]

    segmented = [case for case in cases if case.id in predictions]
    measured, unmeasured = batch.for_each(segmented, measure, part(progress, 0.8, 1.0))
    failures = {**failures, **unmeasured}
    rows = [row for case in cases for row in measured.get(case.id, [])]
    rows += [[name, *[None] * len(COLUMNS), reason] for name, reason in failures.items()]
    path = Path(folder) / FILE
    output.write_csv(path, ("case", *COLUMNS, "notes"), rows)
    return path, failures
