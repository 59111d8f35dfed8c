"""Train the network that sees one ear on stored ears of simulated heads (:mod:`heads`).

    python train.py HEADS OUTPUT --seconds 4800

Every sample is drawn anew (:mod:`samples`). Writes ``last.safetensors`` (average of the recent weights) with its model
card and ``curve.csv`` every few minutes, and resumes from them. ``--real`` and ``--people`` add real scans as
backgrounds with implanted tumors (:mod:`real`); ``--check`` names people whose ears are only for validation.
"""

import argparse
import csv
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import real
import torch
from heads import StoredEar, read
from samples import Sample, draw
from torch.utils.data import DataLoader, IterableDataset

from crossmoda import device, network, preprocessing, weights
from crossmoda.evaluation import dice
from crossmoda.network.features import features, normalized
from crossmoda.training import losses

#: Seeds below this are for validation.
FIRST_LEARNED = 20010
IGNORED = 255
#: Weight of what is marked where there is nothing, and the voxels from which on it counts in proportion.
_ABSENT, _ABSENT_VOXELS = 0.15, 10.0
_COMPACT_MM3 = 500.0
#: How many samples on a real background show a finding that is no schwannoma.
_OTHERS = 0.3
PEAK, _DECAY, _AVERAGE = 2.5e-3, 1e-4, 0.99


def stored(folder: Path, *, learned: bool) -> list[Path]:
    """Return the ears for training or for validation."""
    paths = sorted(folder.glob("*.ear"))
    return [path for path in paths if (int(path.name.split("_")[0]) >= FIRST_LEARNED) == learned]


def prepared(sample: Sample, inputs: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features and label of a sample."""
    image = torch.from_numpy(normalized(sample.image))
    return features(image, inputs, sample.contrast_input).to(torch.bfloat16), torch.from_numpy(sample.label)


class Stream(IterableDataset):
    """Endless random samples."""

    def __init__(self, folder: Path, backgrounds: list[real.Background], options: argparse.Namespace) -> None:
        """Remember where the ears are."""
        self.folder, self.backgrounds = folder, backgrounds
        self.inputs, self.seed, self.share = options.inputs, options.seed, options.real_share

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Draw samples."""
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        real_ears = real.endless(self.backgrounds, rng)
        while True:
            paths = stored(self.folder, learned=True)  # heads may still be added
            ear = read(paths[rng.integers(len(paths))])
            if self.backgrounds and rng.random() < self.share:
                while ear.about["tumor_mm3"] > _COMPACT_MM3 and rng.random() < 0.5:  # compact ones are the hard ones
                    ear = read(paths[rng.integers(len(paths))])
                other = _with_tumor(paths, rng) if rng.random() < _OTHERS else None
                sample = real.draw(next(real_ears), ear, rng, other)
            else:
                sample = draw(ear, rng)
            yield prepared(sample, self.inputs)


def _with_tumor(paths: list[Path], rng: np.random.Generator) -> StoredEar:
    """Return a random ear that has a tumor."""
    while not (ear := read(paths[rng.integers(len(paths))])).about["tumor"]:
        pass
    return ear


def widened(state: dict[str, torch.Tensor], model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the state of a network with fewer input channels for a model: it ignores the further ones at first."""
    wanted = model.state_dict()
    first = next(iter(state))
    further = wanted[first].shape[1] - state[first].shape[1]
    zeros = state[first].new_zeros(len(state[first]), further, *state[first].shape[2:])
    return state | {first: torch.cat([state[first], zeros], dim=1)}


def mixed_precision() -> torch.autocast:
    """Return the context of 16-bit floats, on processors that multiply them fast (others take fifty times as long)."""
    return torch.autocast("cpu", torch.bfloat16, enabled=device.has_fast_bfloat16())


def objective(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return cross entropy plus the Dice loss of each ear, or, where it has no such structure, of what is marked.

    Where a structure is absent the Dice loss has no slope to speak of, and a healthy canal of a thousand voxels would
    hardly count in the cross entropy: there the logarithm of the marked volume counts.
    """
    confidence = (label != IGNORED).float()
    label = torch.where(label == IGNORED, 0, label).long()
    probabilities = logits.softmax(dim=1)[:, 1:] * confidence[:, None]
    truth = torch.stack([label == value for value in range(1, logits.shape[1])], dim=1).float()
    axes = (2, 3, 4)
    marked, real = probabilities.sum(axes), truth.sum(axes)
    overlap = 1 - (2 * (probabilities * truth).sum(axes) + 1) / (marked + real + 1)
    absent = _ABSENT * torch.log1p(marked / _ABSENT_VOXELS)
    return losses.cross_entropy(logits, label, confidence) + torch.where(real > 0, overlap, absent).mean()


@dataclasses.dataclass(frozen=True)
class Step:
    """A step of a training."""

    number: int
    """from 1"""
    done: float
    """share of the training, 1 for the last step"""
    loss: float


def fit(
    model: torch.nn.Module,
    average: torch.nn.Module,
    stream: Iterable[tuple[torch.Tensor, torch.Tensor]],
    peak: float,
    done: Callable[[int], float],
) -> Iterator[Step]:
    """Train a model and its running average step by step, with half a cosine of the share that is done after a step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=_DECAY)
    for number, (image, label) in enumerate(stream):
        share = min(done(number), 1.0)
        rate = min(share / 0.03 + 0.02, 1.0) * (0.5 + 0.5 * math.cos(math.pi * share)) + 0.01
        for group in optimizer.param_groups:
            group["lr"] = peak * rate
        model.train()
        with mixed_precision():
            logits = model(image.float())
        loss = objective(logits.float(), label)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        keep = min(_AVERAGE, (1 + number) / (10 + number))
        with torch.no_grad():
            for kept, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
                kept.mul_(keep).add_(new, alpha=1 - keep) if kept.is_floating_point() else kept.copy_(new)
        yield Step(number + 1, share, loss.item())
        if share >= 1:
            break


@torch.inference_mode()
def validate(model: torch.nn.Module, held_out: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float]:
    """Return mean Dice of both structures, missed tumors, and false tumors in healthy ears."""
    scores: dict[str, list[float]] = {"vs": [], "cochlea": [], "missed": [], "false": []}
    for image, label in held_out:
        with mixed_precision():
            found = model(image[None].float()).argmax(1)[0].numpy()
        truth = label.numpy()
        if (truth == 1).any():
            scores["vs"].append(dice(found == 1, truth == 1))
            scores["missed"].append(float(scores["vs"][-1] < 0.1))
        else:
            scores["false"].append(float((found == 1).sum() * 0.343 > 20))
        if (truth == 2).any():
            scores["cochlea"].append(dice(found == 2, truth == 2))
    return {name: round(float(np.mean(values)), 4) for name, values in scores.items() if values}


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("heads", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seconds", type=float, default=4800)
    parser.add_argument("--inputs", default="all", choices=list(network.INPUTS))
    parser.add_argument("--preset", default="default", choices=("default", "paper"))
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", type=Path, help="folder of shared data with real_t2")
    parser.add_argument("--people", type=Path, help="folder of further real scans, pNN_studyN_T2W.nii.gz")
    parser.add_argument("--real-share", type=float, default=0.4, help="how many samples have a real background")
    parser.add_argument("--check", type=Path, help="real scans of people for validation only")
    parser.add_argument("--initial", type=Path)
    parser.add_argument("--threads", type=int, default=1, help="of the network; samples are drawn in another process")
    parser.add_argument("--peak", type=float, default=PEAK)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    settings = network.Settings(preset=options.preset, width=options.width, field="ear", inputs=options.inputs)
    model = network.build(settings)
    if options.initial:
        model.load_state_dict(widened(weights.load(options.initial).network.state_dict(), model))
    average = network.build(settings).eval()
    average.load_state_dict(model.state_dict())
    checking = stored(options.heads, learned=False)
    held_out = [prepared(draw(read(p), np.random.default_rng([1, n])), options.inputs) for n, p in enumerate(checking)]
    backgrounds = real.backgrounds(options.real, options.people) if options.real else []
    unseen = real.people(options.check) if options.check else []
    real_held_out = [
        prepared(real.draw(ear, read(p), np.random.default_rng([2, n])), options.inputs)
        for n, (ear, p) in enumerate(itertools.product(unseen, checking))
    ]
    stream = DataLoader(Stream(options.heads, backgrounds, options), batch_size=2, num_workers=1, prefetch_factor=4)
    rows: list[dict] = []
    recent: list[float] = []
    start = saved = time.monotonic()
    used = time.process_time()
    for step in fit(model, average, stream, options.peak, lambda _: (time.monotonic() - start) / options.seconds):
        recent.append(step.loss)
        if time.monotonic() - saved > 240 or step.done >= 1:
            saved = time.monotonic()
            minutes = (time.process_time() - used) / 60
            row = {"step": step.number, "seconds": round(saved - start), "cpu_minutes": round(minutes, 1)}
            row |= {"loss": round(float(np.mean(recent)), 4), **validate(average, held_out)}
            if real_held_out:
                row |= {f"real_{name}": value for name, value in validate(average, real_held_out).items()}
            recent = []
            rows.append(row)
            print(row, flush=True)
            with (options.output / "curve.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
                writer.writerows(rows)
            training = {"steps": step.number, "seed": options.seed, "processor_minutes": minutes, "curve": row}
            card = weights.new_card(settings, preprocessing.Preparation(), training=training)
            weights.save(options.output / "last.safetensors", average.state_dict(), card, half=True)


if __name__ == "__main__":
    main()
