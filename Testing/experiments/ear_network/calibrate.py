"""Choose temperature and calling rule of a trained network on the tuning set, and write the bundled weights.

    python calibrate.py RUN/last.safetensors TUNING --output crossmoda/weights/default.safetensors
    python calibrate.py crossmoda/weights/default.safetensors CLAIM --set claim      # the calibration error only

The temperature minimizes the cross entropy of all voxels of the patches; it is divided out of the classifier, so that
probabilities are calibrated as they are. The rule minimizes missed tumors plus marks in healthy ears; the limit below
which a tumor is doubtful is the one that nine tenths of the true tumors exceed.
"""

import argparse
import dataclasses
import itertools
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import shift

from crossmoda import labels, volume, weights
from crossmoda.anatomy.ear_frame import ear_frames, patch_grid
from crossmoda.evaluation import dice
from crossmoda.inference.ear_patches import EarPrediction, covered
from crossmoda.inference.ears import Calling, Candidate, decide
from crossmoda.network.features import CONTRASTS, features, normalized

#: Limits of the calling rule that are tried.
_VOLUMES_MM3, _PROBABILITIES = (5, 12, 20, 30, 40), (0.5, 0.6, 0.65, 0.7, 0.75)
LICENSE = "Apache-2.0"
DATA = (
    "simulated ears (phantom and ICBM152 2009c average head, MNI), tumors drawn and in the shapes of expert contours "
    "(Vestibular-Schwannoma-SEG, TCIA, CC BY 4.0), contrast and resolution drawn anew in each sample; "
    "tumors implanted into real T2 and T1 of eight people without a tumor (Lesjak et al. 2016, CC BY; "
    "VolumeRenderingData, MIT; niivue-demo-images, BSD 2-Clause)"
)
NOTES = (
    "Trained on simulated tumors only, never on a real vestibular schwannoma. For initializing a training on real data "
    "and for trying the software; not a medical device. Expect missed tumors on real scans; check every result."
)
COVERS = {
    "slice_mm": [0.4, 4.2],
    "pixel_mm": [0.3, 1.2],
    "tumor_mm3": [40, 18000],
    "scans": "T2 and contrast-enhanced T1 of heads, slices of 0.5 to 4 mm in any orientation, both ears or one",
    "findings": "no tumor, or schwannomas of 40 mm3 to 18 mL; the cochleae",
    "not_seen": "real schwannomas, post-operative ears, meningiomas, arachnoid cysts, metal, children",
}


@dataclasses.dataclass(frozen=True)
class Ear:
    """The logits of an ear and its truth."""

    case: str
    logits: np.ndarray
    truth: np.ndarray
    covered: np.ndarray
    image: np.ndarray
    contrast: str


def ears_of(model: weights.TrainedNetwork, image_path: Path, label_path: Path) -> list[list[Ear]]:
    """Return the ears of a scan."""
    image, label = volume.read(image_path), volume.read_label_map(label_path)
    found = []
    frames = ear_frames(image)
    for frame in frames.accepted:
        sampled = frame.sample(image).array
        patch = torch.from_numpy(normalized(sampled))[None]
        with torch.inference_mode():
            logits = (
                model.network(features(patch, model.settings.inputs, CONTRASTS[frames.contrast]))[0].float().numpy()
            )
        truth = frame.sample(label, patch_grid(), "label").array
        inside = covered(frame, patch_grid(), image.grid)
        found.append(Ear(image_path.name, logits.astype(np.float16), truth, inside, sampled, frames.contrast))
    return found


def best_temperature(ears: list[Ear]) -> float:
    """Return the temperature of the smallest cross entropy."""
    candidates = np.exp(np.linspace(np.log(0.5), np.log(4), 22))
    losses = np.zeros(len(candidates))
    for ear in ears:
        near = (torch.from_numpy(ear.logits.astype(np.float32)), torch.from_numpy(ear.truth).long())
        for number, temperature in enumerate(candidates):
            losses[number] += float(torch.nn.functional.cross_entropy((near[0] / temperature)[None], near[1][None]))
    return float(candidates[losses.argmin()])


def predictions(ears: list[Ear], temperature: float, tumor_logit: float = 0.0) -> list[EarPrediction]:
    """Return the ears as predictions, with an addition to the tumor's logit."""
    added = torch.tensor([0.0, tumor_logit, 0.0])[:, None, None, None]
    scaled = [torch.from_numpy(ear.logits.astype(np.float32)) / temperature + added for ear in ears]
    return [
        EarPrediction(None, values.softmax(0).numpy(), ear.covered, contrast=ear.contrast, image=ear.image)  # type: ignore[arg-type]
        for values, ear in zip(scaled, ears, strict=True)
    ]


def cochlea_up(ears: list[Ear]) -> float:
    """Return how much too high cochleae are placed on average, mm."""
    step = patch_grid().spacing[2]
    ups = []
    for ear in ears:
        found, true = (np.argwhere(mask == labels.COCHLEA) for mask in (ear.logits.argmax(axis=0), ear.truth))
        if len(found) and len(true):
            ups.append(step * (found[:, 0].mean() - true[:, 0].mean()))
    return round(float(np.mean(ups)), 2)


def best_bias(ears: list[Ear], temperature: float, up_mm: float) -> float:
    """Return what is to be added to the logit of the cochlea for the best mean Dice of the lowered cochleae."""
    lower = (0, -up_mm / patch_grid().spacing[2], 0, 0)
    scores: dict[float, list[float]] = {bias: [] for bias in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)}
    for ear in ears:
        true = ear.truth == labels.COCHLEA
        if not true.any():
            continue
        for bias, values in scores.items():
            logits = ear.logits.astype(np.float32) / temperature
            logits[labels.COCHLEA] += bias
            probabilities = torch.from_numpy(logits).softmax(0).numpy()
            found = shift(probabilities, lower, order=1)[labels.COCHLEA] > 0.5
            values.append(dice(found, true))
    means = {bias: float(np.mean(values)) for bias, values in scores.items()}
    print("cochlea Dice by bias:", {bias: round(mean, 3) for bias, mean in means.items()})
    return max(means, key=lambda bias: means[bias])


def calibration_error(pairs: list[tuple[EarPrediction, Ear]]) -> float:
    """Return the expected calibration error of the tumor's probability where it is between 0.02 and 0.98."""
    values = np.concatenate([one.probabilities[labels.VS].ravel() for one, _ in pairs])
    truths = np.concatenate([(ear.truth == labels.VS).ravel() for _, ear in pairs])
    chosen = (values > 0.02) & (values < 0.98)
    bins = np.minimum((values[chosen] * 10).astype(int), 9)
    error = 0.0
    for number in range(10):
        inside = bins == number
        if inside.any():
            error += inside.mean() * abs(values[chosen][inside].mean() - truths[chosen][inside].mean())
    return float(error)


def scale_logits(state: dict[str, torch.Tensor], factor: float) -> None:
    """Multiply the logits of a network."""
    for name in ("classifier.weight", "classifier.bias"):
        state[name] = state[name] * factor


def add_to_logit(state: dict[str, torch.Tensor], value: int, logit: float) -> None:
    """Add to the logit of a label: eight channels of the classifier, one per part of a voxel."""
    state["classifier.bias"][8 * value : 8 * value + 8] += logit


def main() -> None:
    """Calibrate and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("tuning", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--set", default="tuning", choices=("tuning", "claim"), help="whose heads are in the folder")
    parser.add_argument(
        "--limits",
        nargs=2,
        type=float,
        metavar=("MM3", "PROBABILITY"),
        help="least volume and probability, chosen on people for validation where rules are equal on heads",
    )
    parser.add_argument(
        "--tumor-logit", type=float, default=0.0, help="addition to the tumor's logit, chosen on people for validation"
    )
    parser.add_argument("--most", type=int, default=1000, help="number of scans of each modality")
    options = parser.parse_args()
    if options.set == "claim" and options.output:
        parser.error("Nothing is chosen on the claim set: leave out --output.")
    torch.set_num_threads(1)
    model = weights.load(options.weights)
    truth, sources = options.tuning / "truth", options.tuning / "source_training"
    targets = sorted(options.tuning.glob(f"target_validation/{options.set}_???_hrT2*"))
    enhanced = sorted(sources.glob(f"{options.set}_???_ceT1*"))
    scans = [(path, truth / path.name.replace("hrT2", "Label")) for path in targets[: options.most]]
    scans += [(path, sources / path.name.replace("ceT1", "Label")) for path in enhanced[: options.most]]
    heads = [ears_of(model, *pair) for pair in scans]
    everything = [ear for head in heads for ear in head]
    temperature = best_temperature(everything)
    up_mm = cochlea_up(everything)
    bias = best_bias(everything, temperature, up_mm)
    print(f"cochleae {up_mm} mm too high; bias {bias}")
    before, after = predictions(everything, 1.0), predictions(everything, temperature, options.tumor_logit)
    print(f"{len(scans)} scans, {len(everything)} ears; temperature {temperature:.2f}")
    for name, some in (("before", before), ("after", after)):
        print(f"expected calibration error {name}: {calibration_error(list(zip(some, everything, strict=True))):.3f}")
    found = [Candidate.of(one) for one in after]
    real = [ear.truth == labels.VS for ear in everything]
    hits = [bool((one.mask & mask).any()) for one, mask in zip(found, real, strict=True)]
    for ear, one, mask, hit in zip(everything, found, real, hits, strict=True):
        true_mm3 = mask.sum() * patch_grid().voxel_volume_mm3
        print(f"{ear.case} true {true_mm3:.0f} found {one.volume_mm3:.0f} mm3 p {one.probability:.3f} {'hit' * hit}")
    best: tuple[int, Calling] | None = None
    volumes, means = ([options.limits[0]], [options.limits[1]]) if options.limits else (_VOLUMES_MM3, _PROBABILITIES)
    for smallest, least, second in itertools.product(volumes, means, (0.8, 0.9)):
        rule = Calling(smallest_mm3=smallest, least_probability=least, second_probability=max(second, least))
        wrong = first = 0
        for head in heads:
            ears = range(first, first + len(head))
            first += len(head)
            for number, called in zip(ears, decide([found[n] for n in ears], rule) if head else (), strict=True):
                wrong += int(real[number].any() and not (called and hits[number]))
                wrong += int(called and not real[number].any())
        if best is None or wrong <= best[0]:  # of equal rules the strictest: real scans are stranger
            best = (wrong, rule)
    probabilities = [one.probability for one, hit in zip(found, hits, strict=True) if hit]
    assert best is not None
    print(f"rule {best[1]}: {best[0]} missed or falsely marked ears")
    doubtful = round(float(np.quantile(probabilities, 0.1)), 3) if probabilities else 0.0
    print(f"doubtful below {doubtful}")
    if options.output:
        rule = dataclasses.replace(best[1], cochlea_up_mm=up_mm)
        state = model.network.state_dict()
        scale_logits(state, 1 / temperature)
        add_to_logit(state, labels.COCHLEA, bias)
        add_to_logit(state, labels.VS, options.tumor_logit)
        about = {
            weights.CALLING: dataclasses.asdict(rule),
            weights.DOUBTFUL: {"VS": doubtful},
            weights.COVERS: COVERS,
            "data": DATA,
            "license": LICENSE,
            "notes": NOTES,
            "temperature": round(temperature, 3),
            "cochlea_logit": bias,
            "tumor_logit": options.tumor_logit,
        }
        weights.save(options.output, state, {**model.card, **about}, half=True)


if __name__ == "__main__":
    main()
