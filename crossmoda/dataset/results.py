"""The layout of a folder of results: ``RESULTS/<id>/`` for each target, and ``prediction/`` in it for the network's."""

from pathlib import Path

from crossmoda import cache, labels
from crossmoda.dataset.case_id import id_of_file
from crossmoda.errors import InputError

NOISY_LABEL = "noisy_label.nii.gz"
NOISY_SEGMENTATION = "noisy_label.seg.nrrd"
CONFIDENCE = "confidence.nii.gz"
DISAGREEMENT = "disagreement.nii.gz"
ATLASES = "atlases.csv"
PROVENANCE = "provenance.json"

#: The folder of a target's prediction, and its files.
PREDICTION = "prediction"
LABEL_MAP = "label_map.nii.gz"
SEGMENTATION = "label_map.seg.nrrd"
UNCERTAINTY = "uncertainty.nii.gz"


def record_beside(segmentation: Path) -> Path:
    """Return where the provenance of a segmentation lies that is no part of a folder of results."""
    return segmentation.with_name(f"{id_of_file(segmentation)}.{PROVENANCE}")


def probability(structure: labels.Structure) -> str:
    """Return the file name of a structure's probability map, in either folder."""
    return f"probability_{structure.key}.nii.gz"


PROBABILITIES = tuple(probability(structure) for structure in labels.STRUCTURES)
#: The files of a propagation.
PROPAGATION_FILES = (
    NOISY_LABEL,
    NOISY_SEGMENTATION,
    CONFIDENCE,
    *PROBABILITIES,
    DISAGREEMENT,
    ATLASES,
    PROVENANCE,
)
#: The files of a prediction.
PREDICTION_FILES = (LABEL_MAP, SEGMENTATION, *PROBABILITIES, UNCERTAINTY, PROVENANCE)


def refuse_unfinished(file: Path) -> None:
    """Raise :class:`InputError` if a result is not of the run that was finished in its folder, or was changed."""
    if not cache.is_intact(file.parent):
        raise InputError(f"Unfinished, edited or damaged result: {file}. Run its step again.")


def label_to_review(folder: Path | str) -> Path:
    """Return the label map of a target that is reviewed: the noisy label, else the prediction.

    Args:
        folder: ``RESULTS/<id>``.

    Raises:
        InputError: there is neither.

    """
    folder = Path(folder)
    for file in (folder / NOISY_LABEL, folder / PREDICTION / LABEL_MAP):
        if file.is_file():
            refuse_unfinished(file)
            return file
    raise InputError(f"No label to review: {folder}. Run crossmoda propagate or crossmoda predict first.")
