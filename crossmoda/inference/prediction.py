"""Prediction of a scan: label map, probability maps and uncertainty on the scan's own grid."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crossmoda import device as devices
from crossmoda import labels, preprocessing, provenance, weights
from crossmoda.anatomy import plausibility
from crossmoda.anatomy.ear_frame import EarFrames
from crossmoda.errors import InputError
from crossmoda.inference import coverage
from crossmoda.inference.ears import predict_ears
from crossmoda.inference.probabilities import predict_probabilities
from crossmoda.inference.settings import Settings
from crossmoda.measurement import Measures, as_json, measure
from crossmoda.progress import Progress, part, report
from crossmoda.volume import Grid, Volume
from crossmoda.volume.grid import Box


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The segmentation of a scan, on the scan's own grid."""

    label_map: Volume
    """uint8"""
    region_probabilities: np.ndarray
    """(label, z, y, x), float32, background first, in ``region``; their sum is 1"""
    provenance: dict[str, Any]
    measures: Measures = dataclasses.field(default_factory=lambda: Measures((), (), ()))
    """of tumors and cochleae"""
    frames: EarFrames | None = None
    """ear frames of the scan, by a network that sees ears"""
    region: Box = (slice(None),) * 3
    """the part of the scan outside of which all is certain background"""

    @functools.cached_property
    def probabilities(self) -> np.ndarray:
        """The probabilities (label, z, y, x) of the whole scan, float32, background first; their sum is 1."""
        background = self._whole(self.region_probabilities[labels.BACKGROUND], 1.0)
        others = (self._whole(values) for values in self.region_probabilities[labels.BACKGROUND + 1 :])
        return np.stack([background, *others])

    @functools.cached_property
    def uncertainty(self) -> Volume:
        """Return the entropy of the probabilities, float32, 0 (certain) to 1 (all labels equally probable)."""
        return self.label_map.with_array(self._whole(entropy(self.region_probabilities)))

    def probability(self, structure: labels.Structure) -> Volume:
        """Return the probability map of a structure."""
        return self.label_map.with_array(self._whole(self.region_probabilities[structure.value]))

    def _whole(self, inside: np.ndarray, outside: float = 0.0) -> np.ndarray:
        """Return values of the region (z, y, x) on the whole scan."""
        result = np.full(self.label_map.array.shape, outside, inside.dtype)
        result[self.region] = inside
        return result


def predict(
    image: Volume,
    model: weights.TrainedNetwork | Path | str | None = None,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    progress: Progress | None = None,
    *,
    inputs: dict[str, Path] | None = None,
) -> Prediction:
    """Segment a scan.

    Args:
        image: the scan, in any orientation, of any real type.
        model: trained weights, as a path or from :func:`crossmoda.weights.load`; None: bundled weights.
        inputs: files of the scan, for the provenance.

    Raises:
        InputError: the weights cannot be used, the scan has no contrast, or a network of ears finds no ear in it.

    """
    report(progress, 0.0, "loading the network")
    files = dict(inputs or {})
    if not isinstance(model, weights.TrainedNetwork):
        files["weights"] = Path(model or weights.bundled())
        model = weights.load(files["weights"])
    device = devices.choose(settings.device)
    record = provenance.Record("predict", settings, files, devices.describe(device))
    if model.settings.field == "ear":
        ears = predict_ears(model, image, settings, device, part(progress, 0.1, 0.95))
        probabilities, inside, fallbacks, notes = ears.probabilities, ears.label_map, ears.fallbacks, ears.notes
        region = ears.region
        frames: EarFrames | None = ears.frames
    else:
        probabilities, inside, fallbacks = _predict_scan(model, image, settings, device, progress)
        region = tuple(slice(0, count) for count in image.grid.shape)
        notes, frames = list(fallbacks), None
    report(progress, 0.95, "measuring")
    label_map = np.zeros(image.grid.shape, np.uint8)
    label_map[region] = inside
    segmentation = image.with_array(label_map)
    measures = measure(segmentation, frames, probability=probabilities[labels.VS], card=model.card, region=region)
    report(progress, 1.0, "segmented")
    mean_probability = _mean_probability(inside, probabilities)
    voxel_mm3 = image.grid.voxel_volume_mm3
    volumes = {item.key: round(float((inside == item.value).sum()) * voxel_mm3, 2) for item in labels.STRUCTURES}
    notes += coverage.notes(model.card, image.grid, volumes["VS"])
    finished = record.finish(
        fallbacks=fallbacks,
        notes=[*notes, *_warnings(mean_probability, model.card.get(weights.DOUBTFUL, {}), inside, image.grid)],
        network=model.card["network"],
        volumes_mm3=volumes,
        mean_probability=mean_probability,
        measures=as_json(measures, image.grid),
    )
    return Prediction(segmentation, probabilities, finished, measures, frames, region)


def _predict_scan(
    model: weights.TrainedNetwork, image: Volume, settings: Settings, device: str, progress: Progress | None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return probabilities and label map of a network that sees the scan as it is, and the fallbacks."""
    report(progress, 0.1, "preparing the scan")
    image = image.with_array(image.array.astype(np.float32, copy=False))
    try:
        prepared = preprocessing.prepare(image, None, model.preparation)
    except MemoryError as cause:
        raise InputError("Not enough memory to prepare this scan. Close other programs.") from cause
    report(progress, 0.3, "segmenting")
    probabilities, fallbacks = predict_probabilities(
        model.network, prepared.image.array, settings, device, progress, model.settings.inputs
    )
    report(progress, 0.8, "resampling to the scan's grid")
    probabilities = prepared.restore(probabilities)
    probabilities = probabilities / np.maximum(probabilities.sum(axis=0, keepdims=True), 1e-6)
    label_map = probabilities.argmax(axis=0).astype(np.uint8)
    if not settings.keep_all:
        label_map = plausibility.plausible(label_map, probabilities, image.grid)
    return probabilities, label_map, fallbacks


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Return the entropy over the first axis, divided by its maximum: 0 to 1, float32."""
    result = np.empty(probabilities.shape[1:], np.float32)
    for number in range(len(result)):  # slice by slice: the terms of a large scan need several times its memory
        values = probabilities[:, number]
        terms = -values * np.log(np.clip(values, 1e-12, 1))
        result[number] = (terms.sum(axis=0) / np.log(len(probabilities))).clip(0, 1)
    return result


def _mean_probability(label_map: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return the mean probability within each structure; 0 if it is absent."""
    within = {item.key: probabilities[item.value][label_map == item.value] for item in labels.STRUCTURES}
    return {key: round(float(values.mean()), 3) if len(values) else 0.0 for key, values in within.items()}


def _warnings(
    mean_probability: Mapping[str, float], doubtful_below: Mapping[str, float], label_map: np.ndarray, grid: Grid
) -> list[str]:
    """Return warnings about absent and doubtful structures."""
    if not any(mean_probability.values()):
        return ["no schwannoma and no cochlea was found: check that the scan shows the inner ears"]
    if not mean_probability["VS"]:
        return ["no schwannoma was found"]
    reasons = []
    if mean_probability["VS"] < doubtful_below.get("VS", 0.0):
        reasons.append(f"mean probability {mean_probability['VS']:.2f}, typical of false positives")
    if not plausibility.beside_a_cochlea(label_map, grid):
        reasons.append("no cochlea next to it")
    return [f"the schwannoma is doubtful ({', and '.join(reasons)}): check it in the scan"] if reasons else []
