"""Predictions of files, and of the cases of a data set into their results folders."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crossmoda import batch, cache, export, labels, locks, output, provenance, volume, weights
from crossmoda.dataset import results as layout
from crossmoda.errors import InputError
from crossmoda.inference.prediction import Prediction, predict
from crossmoda.inference.settings import Settings
from crossmoda.progress import Progress, part, report
from crossmoda.volume.writing import check_ending

if TYPE_CHECKING:
    from crossmoda.dataset import Case

#: Bump to invalidate cached predictions.
_REVISION = 3


def predict_files(
    image: Path | str,
    segmentation: Path | str,
    model: Path | str | None = None,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    progress: Progress | None = None,
    *,
    probabilities: Path | str | Mapping[str, Path | str] | None = None,
    uncertainty: Path | str | None = None,
    report_dicom: Path | str | None = None,
    keep_record: bool = True,
) -> Prediction:
    """Segment a scan file and write the results, as the command and the Slicer module do.

    Args:
        image: the scan: NIfTI, NRRD, MetaImage, or a DICOM folder.
        segmentation: output label map: ``.seg.nrrd`` (named and colored segments), NRRD, NIfTI, or ``.dcm``: a DICOM
            SEG that refers to the scan, a DICOM series.
        model: the weights; None: bundled weights.
        probabilities: output probability maps: a prefix (``PREFIX_VS.nii.gz``), or a path per structure key.
        uncertainty: output uncertainty map.
        report_dicom: output measures as a DICOM structured report, beside a DICOM SEG.
        keep_record: whether to write the provenance beside the segmentation, as ``NAME.provenance.json``. Existing
            outputs are then replaced only if they are listed there and unchanged; without it, they are replaced.

    Raises:
        InputError: the scan or the weights cannot be used, an output cannot be written, or would replace an input, or a
            file that is edited or of other software.

    """
    scan, target = Path(image), Path(segmentation)
    record = layout.record_beside(target) if keep_record else None
    maps = {structure: _probability_path(probabilities, structure) for structure in labels.STRUCTURES}
    files = {"segmentation": target, "uncertainty": uncertainty, "report": report_dicom}
    files |= {f"probability_{structure.key}": path for structure, path in maps.items()}
    output.check_apart([record, *files.values()], [scan, model])
    if record is not None:
        provenance.refuse_foreign(files.values(), record, scan)
    is_dicom = target.name.lower().endswith(export.ENDING)
    if is_dicom:
        export.check_series(scan)
    if report_dicom is not None:
        output.check_ending(report_dicom, export.ENDING)
        if not is_dicom:
            raise InputError(f"A DICOM report refers to a DICOM SEG, not to {target.name}. End the output in .dcm.")
    for path in (None if is_dicom else target, *maps.values(), uncertainty):
        if path is not None:
            check_ending(path)
    image_volume, _ = volume.read_typed_scan(scan, keep_small=True)  # only its ears are ever computed with
    result = predict(image_volume, model, settings, progress, inputs={"image": scan})
    with output.together():
        if target.name.lower().endswith(".seg.nrrd"):
            volume.write_segmentation(result.label_map, target, result.provenance)
        elif is_dicom:
            weights_sha256 = result.provenance["inputs"]["weights"]["sha256"]
            segmentation = export.write_dicom_segmentation(
                result.label_map, scan, target, result.frames, model=weights_sha256
            )
            if report_dicom is not None:
                export.write_dicom_report(result.measures, segmentation, scan, report_dicom)
        else:
            volume.write(result.label_map, target)
        for structure, path in maps.items():
            if path is not None:
                volume.write(result.probability(structure), path)
        if uncertainty is not None:
            volume.write(result.uncertainty, uncertainty)
        if record is not None:
            output.write_json(record, result.provenance | provenance.checksums_of_outputs(files, record))
    return result


@dataclasses.dataclass(frozen=True)
class StoredPrediction:
    """A prediction on disk."""

    folder: Path
    """contains :data:`~crossmoda.dataset.results.PREDICTION_FILES`"""
    volumes_mm3: dict[str, float]
    """volume of each structure"""
    notes: tuple[str, ...]
    """warnings and fallbacks"""
    reused: bool
    """whether an earlier prediction was reused"""


def predict_all(
    targets: "Sequence[Case]",
    folder: Path | str,
    weights_path: Path | str | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, StoredPrediction], dict[str, str]]:
    """Segment several scans, each into ``folder/<id>/prediction``; the failure of a scan does not stop the others.

    Finished predictions with the same scan, weights and settings are reused.

    Args:
        targets: the scans.
        folder: receives a folder per scan.
        weights_path: the weights; None: bundled weights.
        settings: None: defaults.
        progress: callback(fraction, message); raise ``Cancelled`` to abort. Finished predictions remain.

    Returns:
        The prediction of each case ID, and the reason for each failure.

    Raises:
        InputError: the weights cannot be used.

    """
    output.check_writable(folder, is_folder=True)
    report(progress, 0.0, "loading the network")
    path = Path(weights_path or weights.bundled())
    model = weights.load(path)

    def work(target: "Case", step: Progress | None) -> StoredPrediction:
        place = Path(folder) / target.id / layout.PREDICTION
        with locks.locked(place):
            return _predict_case(target, place, path, model, settings or Settings(), step)

    return batch.for_each(targets, work, progress)


def _predict_case(
    case: "Case",
    folder: Path,
    weights_path: Path,
    model: weights.TrainedNetwork,
    settings: Settings,
    progress: Progress | None,
) -> StoredPrediction:
    """Segment a scan into ``folder``, or reuse its prediction."""
    if not Path(case.image).exists():
        raise InputError(f"File not found: {case.image}. Check the path.")
    decisive = {name: value for name, value in dataclasses.asdict(settings).items() if name not in ("device", "tiles")}
    step = cache.CachedStep(
        folder,
        revision=_REVISION,
        image=provenance.checksum(case.image),
        weights=provenance.checksum(weights_path),
        settings=decisive,
    )
    results = step.results()
    if results is not None:
        report(progress, 1.0, "reused")
        return StoredPrediction(folder, results["volumes_mm3"], tuple(results["notes"]), True)
    step.begin(layout.PREDICTION_FILES)
    image = case.read_image()
    files = {"image": Path(case.image), "weights": weights_path}
    prediction = predict(image, model, settings, part(progress, 0.0, 0.7), inputs=files)
    maps = {layout.LABEL_MAP: prediction.label_map, layout.UNCERTAINTY: prediction.uncertainty}
    maps |= {layout.probability(item): prediction.probability(item) for item in labels.STRUCTURES}
    for number, (name, item) in enumerate(maps.items()):
        report(progress, 0.7 + 0.3 * number / len(maps), f"writing {name}")
        volume.write(item, folder / name)
    volume.write_segmentation(prediction.label_map, folder / layout.SEGMENTATION, prediction.provenance)
    output.write_json(folder / layout.PROVENANCE, prediction.provenance)
    summary = {name: prediction.provenance[name] for name in ("volumes_mm3", "notes")}
    step.finish(layout.PREDICTION_FILES, summary)
    report(progress, 1.0, "done")
    return StoredPrediction(folder, summary["volumes_mm3"], tuple(summary["notes"]), False)


def _probability_path(
    outputs: Path | str | Mapping[str, Path | str] | None, structure: labels.Structure
) -> Path | str | None:
    if outputs is None or isinstance(outputs, Mapping):
        return outputs.get(structure.key) if outputs else None
    return Path(outputs).with_name(f"{Path(outputs).name}_{structure.key}.nii.gz")
