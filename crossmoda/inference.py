"""From a scan and trained weights to a label map, probabilities and uncertainty on the scan's own grid."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossmoda import batch, cache, labels, output, parameters, preprocessing, provenance, volume, weights
from crossmoda import device as devices
from crossmoda.anatomy import plausibility
from crossmoda.dataset import results
from crossmoda.errors import InputError
from crossmoda.parameters import parameter
from crossmoda.progress import Progress, part, report
from crossmoda.volume import Volume

if TYPE_CHECKING:
    import torch

    from crossmoda.dataset import Case

#: Bump to invalidate cached results.
_REVISION = 3

#: Tiles (z, y, x) and the margin on each side that neighboring tiles share, when memory runs out.
TILE = (32, 96, 96)
MARGIN = (8, 24, 24)
#: The deepest features of the network have this stride: tiles begin at its multiples.
_STRIDE = 8


@dataclasses.dataclass(frozen=True)
class Settings(parameters.Settings):
    """How to predict."""

    flips: bool = parameter(
        False, "Predict the mirrored scan as well and average: twice the time, for a slightly smoother result"
    )
    keep_all: bool = parameter(
        False,
        "Keep everything that was found; otherwise at most one schwannoma and two cochleae, one on each side, remain",
        advanced=True,
    )
    tiles: bool = parameter(
        False, "Work in tiles from the start, for little memory; otherwise only when memory runs out", advanced=True
    )
    device: str = parameter("auto", "Where to compute", choices=devices.CHOICES)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A segmentation of a scan; everything lies on the scan's own grid."""

    label_map: Volume
    """uint8"""
    probabilities: np.ndarray
    """(label, z, y, x), float32, background first; their sum is 1"""
    uncertainty: Volume
    """entropy of the probabilities, float32, 0 (sure) to 1 (all labels alike)"""
    provenance: dict[str, Any]

    def probability(self, structure: labels.Structure) -> Volume:
        """Return the probability map of one structure."""
        return self.label_map.with_array(self.probabilities[structure.value])


def predict(
    image: Volume,
    model: "weights.Model | Path | str | None" = None,
    settings: Settings = Settings(),
    progress: Progress | None = None,
    *,
    inputs: dict[str, Path] | None = None,
) -> Prediction:
    """Segment a scan.

    Args:
        image: the scan, in any orientation.
        model: trained weights: a path or what :func:`crossmoda.weights.load` returned; None: those that come with
            CrossModa.
        settings: how to predict.
        progress: told of the steps; cancels by raising ``Cancelled``.
        inputs: the files the scan came from, for the provenance.

    Raises:
        InputError: the weights cannot be used, or the scan has no contrast.

    """
    report(progress, 0.0, "loading the network")
    files = dict(inputs or {})
    if isinstance(model, weights.Model):
        trained = model
    else:
        files["weights"], trained = _load(model)
    device = devices.choose(settings.device)
    record = provenance.Record("predict", settings, files, devices.describe(device))
    report(progress, 0.1, "preparing the scan")
    try:
        prepared = preprocessing.prepare(image, None, trained.preparation)
    except MemoryError as cause:
        raise InputError("There is too little memory to prepare this scan; close other programs.") from cause
    report(progress, 0.3, "segmenting")
    found, fallbacks = _probabilities(trained.network, prepared.image.array, settings, device, progress)
    report(progress, 0.8, "restoring the scan's grid")
    full = _restored(prepared, found)
    label_map = full.argmax(axis=0).astype(np.uint8)
    if not settings.keep_all:
        label_map = plausibility.plausible(label_map, full, image.grid)
    report(progress, 1.0, "segmented")
    sureness = _sureness(label_map, full)
    about = record.finish(
        fallbacks=fallbacks,
        notes=[*fallbacks, *_doubts(sureness, trained.card.get(weights.DOUBTFUL, {}), label_map, image)],
        network=trained.card["network"],
        volumes_mm3=_volumes(label_map, image),
        mean_probability=sureness,
    )
    return Prediction(image.with_array(label_map), full, image.with_array(entropy(full)), about)


def predict_files(
    image: Path | str,
    segmentation: Path | str,
    model: Path | str | None = None,
    settings: Settings = Settings(),
    progress: Progress | None = None,
    *,
    probabilities: Path | str | Mapping[str, Path | str] | None = None,
    uncertainty: Path | str | None = None,
    keep_record: bool = True,
) -> Prediction:
    """Segment a file and write the results; what the command and the Slicer module do.

    Args:
        image: the scan: NIfTI, NRRD, MetaImage, or a DICOM folder.
        segmentation: the label map is written here: ``.seg.nrrd`` (named and colored segments), NRRD or NIfTI.
        model: the weights; None: those that come with CrossModa.
        settings: how to predict.
        progress: told of the steps; cancels by raising ``Cancelled``.
        probabilities: prefix of the probability maps, one per structure (``PREFIX_VS.nii.gz``), or a path for each
            structure's key; None: none.
        uncertainty: where the uncertainty map goes; None: nowhere.
        keep_record: whether the provenance is written beside the segmentation, as ``NAME.provenance.json``.

    """
    scan, target = Path(image), Path(segmentation)
    record = target.with_name(_stem(target) + ".provenance.json") if keep_record else None
    maps = {structure: _probability_path(probabilities, structure) for structure in labels.STRUCTURES}
    output.check_apart([target, record, *maps.values(), uncertainty], [scan, model])
    result = predict(volume.read(scan), model, settings, progress, inputs={"image": scan})
    with output.together():
        if target.name.lower().endswith(".seg.nrrd"):
            volume.write_segmentation(result.label_map, target, result.provenance)
        else:
            volume.write(result.label_map, target)
        if record is not None:
            output.write_json(record, result.provenance)
        for structure, path in maps.items():
            if path is not None:
                volume.write(result.probability(structure), path)
        if uncertainty is not None:
            volume.write(result.uncertainty, uncertainty)
    return result


@dataclasses.dataclass(frozen=True)
class Predicted:
    """A prediction on disk."""

    folder: Path
    """holds :data:`results.PREDICTION_FILES`"""
    volumes_mm3: dict[str, float]
    """of each structure"""
    notes: tuple[str, ...]
    """what a user should know"""
    reused: bool
    """whether it was found finished"""


def predict_all(
    targets: "Sequence[Case]",
    folder: Path | str,
    weights: Path | str | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Predicted], dict[str, str]]:
    """Segment several scans, each into ``folder/<id>/prediction``; what fails does not stop the rest.

    A second run with the same scans, weights and settings takes what is finished from there.

    Args:
        targets: the scans to be segmented.
        folder: receives one folder per scan.
        weights: a path; None: those that come with CrossModa.
        settings: how to predict; None: the default.
        progress: told what is done; may cancel. What is finished stays.

    Returns:
        The prediction of each scan's id, and why the others failed.

    Raises:
        InputError: the weights cannot be used.

    """
    report(progress, 0.0, "loading the network")
    path, model = _load(weights)

    def work(target: "Case", step: Progress | None) -> Predicted:
        place = Path(folder) / target.id / results.PREDICTION
        return _predict_case(target, place, path, model, settings or Settings(), step)

    return batch.for_each(targets, work, progress)


def _load(path: Path | str | None) -> "tuple[Path, weights.Model]":
    """Return trained weights and where they lie; None: those that come with CrossModa."""
    found = Path(path or weights.shipped())
    return found, weights.load(found)


def _predict_case(
    case: "Case", folder: Path, path: Path, model: "weights.Model", settings: Settings, progress: Progress | None
) -> Predicted:
    """Segment one scan into ``folder``, or find it finished there; ``path`` is that of the weights."""
    if not Path(case.image).exists():
        raise InputError(f"There is no file {case.image}; check the path.")
    decisive = {name: value for name, value in dataclasses.asdict(settings).items() if name not in ("device", "tiles")}
    step = cache.Step(
        folder,
        revision=_REVISION,
        image=provenance.checksum(case.image),
        weights=provenance.checksum(path),
        settings=decisive,
    )
    earlier = step.results()
    if earlier is not None:
        report(progress, 1.0, "found finished")
        return Predicted(folder, earlier["volumes_mm3"], tuple(earlier["notes"]), True)
    image = case.read_image()
    files = {"image": Path(case.image), "weights": path}
    found = predict(image, model, settings, part(progress, 0.0, 0.7), inputs=files)
    step.begin()
    maps = {results.LABEL_MAP: found.label_map, results.UNCERTAINTY: found.uncertainty}
    maps |= {results.probability(item): found.probability(item) for item in labels.STRUCTURES}
    for number, (name, item) in enumerate(maps.items()):
        report(progress, 0.7 + 0.3 * number / len(maps), f"writing {name}")
        volume.write(item, folder / name)
    volume.write_segmentation(found.label_map, folder / results.SEGMENTATION, found.provenance)
    output.write_json(folder / results.PROVENANCE, found.provenance)
    about = {name: found.provenance[name] for name in ("volumes_mm3", "notes")}
    step.finish(results.PREDICTION_FILES, about)
    report(progress, 1.0, "done")
    return Predicted(folder, about["volumes_mm3"], tuple(about["notes"]), False)


def _probability_path(
    given: Path | str | Mapping[str, Path | str] | None, structure: labels.Structure
) -> Path | str | None:
    if given is None or isinstance(given, Mapping):
        return given.get(structure.key) if given else None
    return Path(given).with_name(f"{Path(given).name}_{structure.key}.nii.gz")


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Return the entropy over the first axis, divided by its largest value: 0 to 1, float32."""
    terms = -probabilities * np.log(np.clip(probabilities, 1e-12, 1))
    return (terms.sum(axis=0) / np.log(len(probabilities))).astype(np.float32).clip(0, 1)


def logits_of(network: "torch.nn.Module", features: "torch.Tensor") -> "torch.Tensor":
    """Return logits (1, class, z, y, x) of MIND features (12, z, y, x), padded for the network as far as it needs.

    Very small volumes are continued at their border, so that the deepest features keep several voxels along each axis.
    """
    import torch

    size = features.shape[1:]
    missing = [max(0, 2 * _STRIDE - extent) for extent in size]
    padding = [value for extent in reversed(missing) for value in (0, extent)]
    wide = torch.nn.functional.pad(features[None], padding, mode="replicate") if any(missing) else features[None]
    return network(wide)[:, :, : size[0], : size[1], : size[2]]


def _probabilities(
    network: "torch.nn.Module", image: np.ndarray, settings: Settings, device: str, progress: Progress | None
) -> tuple[np.ndarray, list[str]]:
    """Return probabilities (label, z, y, x) of a prepared image, and what had to be done to make them."""
    import torch

    from crossmoda import mind

    attempts = [(device, settings.tiles)]
    if not settings.tiles:
        attempts.append((device, True))
    if device == "cuda":
        attempts.append(("cpu", True))
    fallbacks: list[str] = []
    for where, tiled in attempts:
        if (where, tiled) != attempts[0]:
            note = f"memory ran out: in tiles on the {'GPU' if where == 'cuda' else 'CPU'}"
            fallbacks.append(note)
            report(progress, 0.3, note)
        try:
            with torch.inference_mode():
                total = functools.reduce(
                    torch.add,
                    (
                        _softmax(network.to(where), mind.mind_ssc(view), tiled).flip(axes)
                        for axes, view in _views(torch.from_numpy(image).to(where), settings.flips)
                    ),
                )
            found = (total / (2 if settings.flips else 1)).cpu().numpy()
            if not np.isfinite(found).all():  # else every voxel would be background
                raise InputError(
                    "The network gives no numbers on this scan, so that its weights must be damaged; copy them again, "
                    "or train again."
                )
            return found, fallbacks
        except RuntimeError as error:
            if not devices.ran_out_of_memory(error):
                raise
        if where == "cuda":
            devices.free_unused_memory()
    raise InputError("There is too little memory to segment this scan; close other programs.")


def _views(image: "torch.Tensor", flips: bool) -> "list[tuple[tuple[int, ...], torch.Tensor]]":
    """Return the image and, with ``flips``, its mirror image, each with the axes that undo the mirroring."""
    views: list[tuple[tuple[int, ...], torch.Tensor]] = [((), image)]
    if flips:
        views.append(((-1,), image.flip(-1)))
    return views


def _softmax(network: "torch.nn.Module", features: "torch.Tensor", tiled: bool) -> "torch.Tensor":
    """Return probabilities (label, z, y, x) of MIND features (12, z, y, x)."""
    import torch

    fast = features.is_cuda and torch.cuda.is_bf16_supported()
    with torch.autocast("cuda", torch.bfloat16, enabled=fast):
        if not tiled:
            return logits_of(network, features)[0].float().softmax(0)
        size = features.shape[1:]
        result = torch.empty((len(labels.VALUES), *size), device=features.device)
        starts = [range(0, extent, tile) for extent, tile in zip(size, TILE, strict=True)]
        for z in starts[0]:
            for y in starts[1]:
                for x in starts[2]:
                    _predict_tile(network, features, (z, y, x), result)
        return result


def _predict_tile(
    network: "torch.nn.Module", features: "torch.Tensor", start: tuple[int, int, int], result: "torch.Tensor"
) -> None:
    """Predict one tile with its margin and keep its inside."""
    outer, inner, kept = [], [], []
    for first, tile, margin, extent in zip(start, TILE, MARGIN, features.shape[1:], strict=True):
        low, last = max(0, first - margin), min(first + tile, extent)
        outer.append(slice(low, min(last + margin, extent)))
        inner.append(slice(first - low, last - low))
        kept.append(slice(first, last))
    logits = logits_of(network, features[(slice(None), *outer)])[0].float()
    result[(slice(None), *kept)] = logits.softmax(0)[(slice(None), *inner)]


def _restored(prepared: preprocessing.PreparedScan, probabilities: np.ndarray) -> np.ndarray:
    """Return probabilities on the scan's own grid; interpolation keeps their sum at 1."""
    full = prepared.restore(probabilities)
    return full / np.maximum(full.sum(axis=0, keepdims=True), 1e-6)


def _volumes(label_map: np.ndarray, image: Volume) -> dict[str, float]:
    voxel = image.grid.voxel_volume_mm3
    return {item.key: round(float((label_map == item.value).sum()) * voxel, 2) for item in labels.STRUCTURES}


def _sureness(label_map: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return the mean probability within each structure; 0 where it was not found."""
    within = {item.key: probabilities[item.value][label_map == item.value] for item in labels.STRUCTURES}
    return {key: round(float(values.mean()), 3) if len(values) else 0.0 for key, values in within.items()}


def _doubts(
    sureness: Mapping[str, float], doubtful_below: Mapping[str, float], label_map: np.ndarray, image: Volume
) -> list[str]:
    """Return what a user should know about a structure that was not found, or of which the network is not sure."""
    if not any(sureness.values()):
        return ["neither a schwannoma nor a cochlea was found: check that the scan shows the inner ears"]
    if not sureness["VS"]:
        return ["no schwannoma was found"]
    reasons = []
    if sureness["VS"] < doubtful_below.get("VS", 0.0):
        reasons.append(f"its mean probability is {sureness['VS']:.2f}, as that of marks where there is none")
    if not plausibility.beside_a_cochlea(label_map, image.grid):
        reasons.append("it lies beside no cochlea that was found")
    return [f"the schwannoma is doubtful ({' and '.join(reasons)}): look whether there is one"] if reasons else []


def _stem(path: Path) -> str:
    for ending in (".seg.nrrd", ".nii.gz"):
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.stem
