"""The state of a training and one step of it. Imports torch: import it where a network is trained."""

import contextlib
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from crossmoda import device, labels, weights
from crossmoda import network as networks
from crossmoda.errors import InputError
from crossmoda.training import augmentation, losses, sampling
from crossmoda.training.recording import Recording
from crossmoda.training.sampling import Example

if TYPE_CHECKING:
    from crossmoda.training import Routine, Settings

#: Crops are not made smaller than this when memory runs out.
_SMALLEST = (16, 32, 32)
#: Volumes of up to this part of its memory in total lie on the GPU during training.
_RESIDENT_SHARE = 0.3
#: One cycle: the part of the training in which the learning rate rises, and where it starts and ends.
_RISE, _START, _END = 0.1, 0.1, 0.01
_CLIP = 1.0
_STRENGTHS = {"default": augmentation.Strength(), "paper": augmentation.PAPER}


class Learner:
    """A network, its optimizer, and where in its training it is."""

    def __init__(
        self, examples: Sequence[Example], routine: "Routine", settings: "Settings", initial: Path | str | None
    ):
        """Begin a training, from random weights or from ``initial`` ones."""
        self.routine = routine
        self.settings = settings
        self.network_settings = networks.Settings(preset=settings.preset, width=settings.width)
        self.device = device.choose(settings.device)
        self.fallbacks: list[str] = []
        self.network = self._begin(initial).to(self.device)
        self.optimizer = self._optimizer()
        self.examples = self._place(examples)
        self.crop = routine.crop or self._common_size(examples)
        counts = sum(torch.bincount(example.targets[0].flatten().long(), minlength=3) for example in examples)
        self.class_weights = losses.class_weights(counts, routine.rarity).to(self.device)  # type: ignore[arg-type]
        self.steps_per_epoch = math.ceil(len(examples) * routine.visits / routine.batch)
        self.step = 0
        self.seconds = 0.0
        self.processor_seconds = 0.0
        self.history: list[dict[str, Any]] = []
        self.best_dice = -1.0
        self.best_state: dict[str, torch.Tensor] | None = None
        self.best_metrics: dict[str, Any] | None = None
        self.validations = 0
        self.validations_without_gain = 0
        self._losses: list[float] = []
        self._drawn: tuple[int, tuple[int, int, int], sampling.Batch] | None = None
        self._recording: Recording | None = None
        self._records = True

    def _optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer; on CUDA one that a recorded step can hold."""
        parameters, rate, decay = self.network.parameters(), self.routine.learning_rate, self.routine.weight_decay
        if self.device != "cuda":
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
        there = torch.tensor(rate, device=self.device)
        return torch.optim.AdamW(parameters, lr=there, weight_decay=decay, fused=True, capturable=True)

    def _begin(self, initial: Path | str | None) -> torch.nn.Module:
        if initial is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.settings.seed)
                return networks.build(self.network_settings)
        model = weights.load(initial)
        if model.settings != self.network_settings:
            wanted, given = self.network_settings, model.settings
            raise InputError(
                f"The initial weights {Path(initial).name} are of preset {given.preset}, width {given.width:g}; "
                f"the training is of preset {wanted.preset}, width {wanted.width:g}. Choose the same."
            )
        return model.network

    def _place(self, examples: Sequence[Example]) -> list[Example]:
        size = sum(example.image.nbytes + example.targets.nbytes for example in examples)
        resident = self.device == "cuda" and size <= _RESIDENT_SHARE * device.memory_gib("cuda") * 2**30
        return [example.to(self.device) if resident else example for example in examples]

    @staticmethod
    def _common_size(examples: Sequence[Example]) -> tuple[int, int, int]:
        return tuple(max(example.image.shape[axis] for example in examples) for axis in (1, 2, 3))  # type: ignore[return-value]

    @property
    def fraction(self) -> float:
        """How much of the training is done, 0 to 1: by steps or, if it has a time limit, by seconds."""
        done = self.step / (self.routine.epochs * self.steps_per_epoch)
        return min(1.0, max(done, self.seconds / self.settings.seconds if self.settings.seconds else 0.0))

    @property
    def step_in_epoch(self) -> int:
        """The steps taken since the last epoch ended."""
        return self.step % self.steps_per_epoch

    @property
    def epoch_ended(self) -> bool:
        """Whether the last step was the last of its epoch."""
        return self.step_in_epoch == 0

    @property
    def learning_rate(self) -> float:
        """The learning rate now: constant, or one cycle (Smith & Topin, 2019) of a rise and half a cosine."""
        peak, done = self.routine.learning_rate, self.fraction
        if not self.routine.one_cycle:
            return peak
        if done < _RISE:
            return peak * (_START + (1 - _START) * done / _RISE)
        return peak * (_END + (1 - _END) * (1 + math.cos(math.pi * (done - _RISE) / (1 - _RISE))) / 2)

    def describe(self) -> str:
        """Return what a progress bar says."""
        recent = f", loss {np.mean(self._losses[-20:]):.3f}" if self._losses else ""
        dice = f", validation Dice {self.best_dice:.3f}" if self.best_dice >= 0 else ""
        note = f" ({self.fallbacks[-1]})" if self.fallbacks else ""
        return f"training, epoch {self.step // self.steps_per_epoch + 1}{recent}{dice}{note}"

    def take_step(self) -> None:
        """Learn from one batch; with too little memory, from smaller crops or on the CPU."""
        start, used = time.perf_counter(), time.process_time()
        while True:
            try:
                loss = self._learn()
                break
            except RuntimeError as error:
                if not device.ran_out_of_memory(error):
                    raise
                self._drawn = self._recording = None
                self.optimizer.zero_grad(set_to_none=True)
            self._shrink()
        if not math.isfinite(loss):
            raise InputError(
                f"The training diverged at step {self.step + 1}; choose a smaller learning rate than "
                f"{self.routine.learning_rate:g}."
            )
        self._losses.append(loss)
        self.step += 1
        self.seconds += time.perf_counter() - start
        self.processor_seconds += time.process_time() - used

    def _learn(self) -> float:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(self.learning_rate)
            else:
                group["lr"] = self.learning_rate
        self.network.train()
        loss = self._work_on(self._next_batch())
        if self.device == "cuda":
            self._draw_ahead()
        return loss.item()

    def _draw_ahead(self) -> None:
        """Draw the batch of the next step while the card is at work on this one."""
        try:
            self._drawn = self.step + 1, self.crop, self._draw(self.step + 1)
        except RuntimeError as error:  # too little memory: the next step meets that again, this one is taken
            if not device.ran_out_of_memory(error):
                raise

    def _next_batch(self) -> sampling.Batch:
        """Return the batch of this step, drawn now unless it is there already."""
        step, crop, batch = self._drawn or (-1, None, None)
        self._drawn = None
        return batch if batch is not None and (step, crop) == (self.step, self.crop) else self._draw(self.step)

    def _work_on(self, batch: sampling.Batch) -> torch.Tensor:
        """Learn from a batch and return its loss; on CUDA as a recording where that works."""
        if self.device == "cuda" and self._records:
            if self._recording is None or not self._recording.fits(batch):
                self._recording = None
                try:
                    self._recording = Recording(self.network, self.optimizer, self._work, batch)
                except Exception as error:  # whatever keeps this card, driver or torch from recording: it works without
                    if device.ran_out_of_memory(error):
                        raise
                    self._records = False
            if self._recording is not None:
                return self._recording(batch)
        self.optimizer.zero_grad(set_to_none=True)
        return self._work(batch)

    def _work(self, batch: sampling.Batch) -> torch.Tensor:
        with _reproducible(self.device):
            with self.precision():
                logits = self.network(batch.features)
            logits = logits.float()
            loss = losses.cross_entropy(logits, batch.label, batch.confidence, self.class_weights)
            if self.routine.dice:
                loss = loss + losses.dice_loss(logits, batch.label, batch.confidence)
            loss.backward()
            length = torch.nn.utils.clip_grad_norm_(self.network.parameters(), _CLIP)
            self.optimizer.step()
        # Gradients that are not finite spoil the weights: then the loss is not finite either, and nothing is kept.
        return loss.detach() + 0 * length

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context of mixed precision: bfloat16 on GPUs that have it."""
        if self.device == "cuda" and torch.cuda.is_bf16_supported():
            return torch.autocast("cuda", torch.bfloat16, cache_enabled=False)  # each weight is used once
        return contextlib.nullcontext()

    def _draw(self, step: int) -> sampling.Batch:
        """Draw the batch of a step: it depends on the seed and the step only."""
        seed, routine = self.settings.seed, self.routine
        places = [step % self.steps_per_epoch * routine.batch + item for item in range(routine.batch)]
        epoch = step // self.steps_per_epoch
        order = np.random.default_rng([seed, 1, epoch]).permutation(len(self.examples) * routine.visits)
        chosen = [self.examples[order[place % len(order)] % len(self.examples)] for place in places]
        rngs = [np.random.default_rng([seed, 2, step, item]) for item in range(routine.batch)]
        strength = _STRENGTHS[routine.augmentation]
        return sampling.draw(chosen, self.crop, strength, rngs, routine.around, self.device)

    def _shrink(self) -> None:
        """Make do with less memory: smaller crops first, then the CPU."""
        smaller = tuple(
            max(least, extent * 3 // 4 // 8 * 8) for extent, least in zip(self.crop, _SMALLEST, strict=True)
        )
        if smaller != self.crop and all(new <= old for new, old in zip(smaller, self.crop, strict=True)):
            self.crop = smaller  # type: ignore[assignment]
            note = f"memory ran out: crops of {smaller[2]} x {smaller[1]} x {smaller[0]} voxels"
        elif self.device == "cuda":
            self._move_to_cpu()
            note = "GPU memory ran out: on the CPU"
        else:
            raise InputError("There is too little memory to train even on small crops; close other programs.")
        self.fallbacks.append(note)
        device.free_unused_memory()

    def _move_to_cpu(self) -> None:
        self.device = "cpu"
        self.network.cpu()
        self.examples = [example.to("cpu") for example in self.examples]
        self.class_weights = self.class_weights.cpu()
        remembered = self.optimizer.state_dict()["state"]
        self.optimizer = self._optimizer()
        self._remember(remembered)

    def _remember(self, moments: dict[int, dict[str, torch.Tensor]]) -> None:
        """Give the optimizer what another one remembered, wherever that was."""
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})

    def end_epoch(self, held_out: Sequence[Example], validations: int) -> None:
        """Note the epoch's metrics; predict the held-out cases when it is time (``validations`` times in all)."""
        row: dict[str, Any] = {
            "epoch": len(self.history) + 1,
            "step": self.step,
            "seconds": round(self.seconds, 3),
            "loss": float(np.mean(self._losses)) if self._losses else math.nan,
            "learning_rate": self.learning_rate,
        }
        self._losses = []
        due = int(self.fraction * validations)
        if held_out and due > self.validations:
            self.validations = due
            row.update(self._validate(held_out))
            if row["dice"] > self.best_dice:
                self.best_dice, self.validations_without_gain = row["dice"], 0
                self.best_metrics = dict(row)
                self.best_state = {
                    name: item.detach().cpu().clone() for name, item in self.network.state_dict().items()
                }
            else:
                self.validations_without_gain += 1
        self.history.append(row)

    @torch.inference_mode()
    def _validate(self, held_out: Sequence[Example]) -> dict[str, float]:
        """Return the mean Dice over the held-out cases, per structure and of both."""
        from crossmoda import mind
        from crossmoda.inference import logits_of

        self.network.eval()
        scores: dict[str, list[float]] = {structure.key: [] for structure in labels.STRUCTURES}
        for example in held_out:
            features = mind.mind_ssc(example.image[0].to(self.device))
            found = logits_of(self.network, features).argmax(1)[0].cpu()
            truth = example.targets[0].cpu()
            for structure in labels.STRUCTURES:
                one, other = found == structure.value, truth == structure.value
                total = int(one.sum() + other.sum())
                if other.any():
                    scores[structure.key].append(2 * int((one & other).sum()) / total)
        means = {f"dice_{key}": float(np.mean(values)) for key, values in scores.items() if values}
        return {**means, "dice": float(np.mean(list(means.values()))) if means else 0.0}

    def snapshot(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return all that :meth:`restore` needs: tensors and JSON types."""
        tensors = {f"network.{name}": item for name, item in self.network.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors.update({f"optimizer.{index}.{name}": item for name, item in moments.items()})
        if self.best_state is not None:
            tensors.update({f"best.{name}": item for name, item in self.best_state.items()})
        kept = (
            *("step", "seconds", "processor_seconds", "history", "_losses", "crop", "fallbacks"),
            *("best_dice", "best_metrics", "validations", "validations_without_gain"),
        )
        state = {name: getattr(self, name) for name in kept}
        return tensors, state

    def restore(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Go on where :meth:`snapshot` was taken.

        Raises:
            InputError: the checkpoint is of another architecture.

        """
        groups: dict[str, dict[str, torch.Tensor]] = {"network": {}, "best": {}, "optimizer": {}}
        for name, item in tensors.items():
            group, _, rest = name.partition(".")
            groups.setdefault(group, {})[rest] = item
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, item in groups["optimizer"].items():
            index, _, kind = name.partition(".")
            moments.setdefault(int(index), {})[kind] = item
        try:
            self.network.load_state_dict(groups["network"])
            self._remember(moments)
            for name, value in state.items():
                if name in vars(self):
                    setattr(self, name, tuple(value) if name == "crop" else value)
        except (RuntimeError, ValueError, TypeError, KeyError) as cause:
            raise InputError("The checkpoint is of another network; choose another output folder.") from cause
        if not all(torch.isfinite(item).all() for item in tensors.values() if item.is_floating_point()):
            raise InputError("The checkpoint holds numbers that are not finite; restart, or choose another folder.")
        self.best_state = groups["best"] or None
        self._drawn = self._recording = None


def _reproducible(device: str) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which convolutions on CUDA give the same bits on every run."""
    if device != "cuda":
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
