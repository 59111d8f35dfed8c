"""The state of a training and its steps. Imports torch: import this module inside functions only."""

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
from crossmoda.evaluation import dice
from crossmoda.network.features import features
from crossmoda.training import augmentation, losses, sampling
from crossmoda.training.recording import Recording
from crossmoda.training.sampling import Example

if TYPE_CHECKING:
    from crossmoda.training.routines import Routine
    from crossmoda.training.settings import Settings

#: Minimum crop (z, y, x) when memory runs out.
_MIN_CROP = (16, 32, 32)
#: Volumes are kept on the GPU during training if they take at most this fraction of its memory.
_RESIDENT_FRACTION = 0.3
#: One cycle: duration of the rise (fraction of the training), initial and final learning rate (fractions of the peak).
_RISE, _START, _END = 0.1, 0.1, 0.01
_MAX_GRADIENT_NORM = 1.0
_STRENGTHS = {"default": augmentation.Strength(), "ear": augmentation.EAR, "paper": augmentation.PAPER}


class Learner:
    """A network with its optimizer and the state of its training."""

    def __init__(
        self,
        examples: Sequence[Example],
        routine: "Routine",
        settings: "Settings",
        initial: Path | str | None,
        held_out: Sequence[Example] = (),
    ):
        """Start a training from random weights or from ``initial`` weights; validation is on ``held_out``."""
        self.routine = routine
        self.settings = settings
        self.network_settings = settings.network
        self.device = device.choose(settings.device)
        self.fallbacks: list[str] = []
        self.network = self._initial_network(initial).to(self.device)
        #: Weights that the result is averaged with.
        self.initial_state = self._state() if routine.initial_share else None
        self.optimizer = self._optimizer()
        self.examples = self._place(examples)
        self.held_out = held_out
        shapes = np.array([example.image.shape[1:] for example in examples])
        self.crop: tuple[int, int, int] = routine.crop or tuple(shapes.max(axis=0).tolist())
        counts = sum(torch.bincount(example.targets[0].flatten().long(), minlength=3) for example in examples)
        self.class_weights = losses.class_weights(counts, routine.rarity).to(self.device)  # type: ignore[arg-type]
        self.steps_per_epoch = math.ceil(len(examples) * routine.visits / routine.batch)
        self.step = 0
        self.seconds = 0.0
        #: Seconds of the time limit that preparation took.
        self.spent_before = 0.0
        self.processor_seconds = 0.0
        self.history: list[dict[str, Any]] = []
        self.best_dice = -1.0
        self.best_state: dict[str, torch.Tensor] | None = None
        self.best_metrics: dict[str, Any] | None = None
        self.validations = 0
        self.validations_without_gain = 0
        #: Duration of the last validation.
        self.validation_seconds = 0.0
        self._losses: list[float] = []
        self._next: tuple[int, tuple[int, int, int], sampling.Batch] | None = None
        self._recording: Recording | None = None
        self._records = True

    def _optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer; on CUDA, a capturable one for recorded steps."""
        parameters, rate, decay = self.network.parameters(), self.routine.learning_rate, self.routine.weight_decay
        if self.device != "cuda":
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
        rate_on_gpu = torch.tensor(rate, device=self.device)
        return torch.optim.AdamW(parameters, lr=rate_on_gpu, weight_decay=decay, fused=True, capturable=True)

    def _initial_network(self, initial: Path | str | None) -> torch.nn.Module:
        if initial is None:
            return self._random_network()
        model = weights.load(initial)
        if model.settings != self.network_settings:
            raise InputError(
                f"Initial weights of preset {model.settings.preset}, width {model.settings.width:g}, "
                f"field {model.settings.field}, inputs {model.settings.inputs}: "
                f"{Path(initial).name}. Set preset, width, field and inputs of the training to the same values."
            )
        return model.network

    def _random_network(self) -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            return networks.build(self.network_settings)

    def _place(self, examples: Sequence[Example]) -> list[Example]:
        size = sum(example.image.nbytes + example.targets.nbytes for example in examples)
        resident = self.device == "cuda" and size <= _RESIDENT_FRACTION * device.memory_gib("cuda") * 2**30
        return [example.to(self.device) if resident else example for example in examples]

    @property
    def fraction(self) -> float:
        """Completed fraction of the training, 0 to 1, by steps or by the time limit."""
        done = self.step / (self.routine.epochs * self.steps_per_epoch)
        if self.settings.seconds:
            # The next step must end in time, too, and a validation after it.
            ahead = self.seconds / self.step + self._validation_ahead if self.step else 0.0
            left = max(self.settings.seconds - self.spent_before, 1.0)
            done = max(done, (self.seconds + ahead) / left)
        return min(1.0, done)

    @property
    def _validation_ahead(self) -> float:
        """Seconds that a validation takes: as the last one, or by the voxels, without the backward pass of a step."""
        if self.validations or not self.held_out:
            return self.validation_seconds
        sees_ears = self.network_settings.field == "ear"
        crop = math.prod(self.crop)
        voxels = sum(crop if sees_ears else example.image[0].numel() for example in self.held_out)
        return self.seconds / self.step * voxels / (crop * self.routine.batch) / 3

    @property
    def epoch_is_open(self) -> bool:
        """Whether steps were taken since an epoch was recorded."""
        return self.step > (self.history[-1]["step"] if self.history else 0)

    @property
    def epoch_is_due(self) -> bool:
        """Whether the last step was the last of its epoch, and that is not recorded yet."""
        return self.epoch_is_open and self.step % self.steps_per_epoch == 0

    @property
    def learning_rate(self) -> float:
        """Current learning rate: constant, or one cycle of a linear rise and half a cosine (Smith & Topin, 2019)."""
        peak, done = self.routine.learning_rate, self.fraction
        if not self.routine.one_cycle:
            return peak
        if done < _RISE:
            return peak * (_START + (1 - _START) * done / _RISE)
        return peak * (_END + (1 - _END) * (1 + math.cos(math.pi * (done - _RISE) / (1 - _RISE))) / 2)

    def describe(self) -> str:
        """Return the message of the progress bar."""
        recent = f", loss {np.mean(self._losses[-20:]):.3f}" if self._losses else ""
        validation = f", validation Dice {self.best_dice:.3f}" if self.best_dice >= 0 else ""
        note = f" ({self.fallbacks[-1]})" if self.fallbacks else ""
        return f"training: epoch {self.step // self.steps_per_epoch + 1}{recent}{validation}{note}"

    def take_step(self) -> None:
        """Take an optimizer step on one batch; if memory runs out, with smaller crops or on the CPU."""
        start, used = time.perf_counter(), time.process_time()
        while True:
            try:
                loss = self._loss_of_step()
                break
            except RuntimeError as error:
                if not device.ran_out_of_memory(error):
                    raise
                self._next = self._recording = None
                self.optimizer.zero_grad(set_to_none=True)
            self._shrink()
        if not math.isfinite(loss):
            raise InputError(
                f"Training diverged at step {self.step + 1}: learning rate {self.routine.learning_rate:g}. Reduce it."
            )
        self._losses.append(loss)
        self.step += 1
        self.seconds += time.perf_counter() - start
        self.processor_seconds += time.process_time() - used

    def _loss_of_step(self) -> float:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(self.learning_rate)
            else:
                group["lr"] = self.learning_rate
        self.network.train()
        loss = self._optimize(self._next_batch())
        if self.device == "cuda":
            self._prefetch()
        return loss.item()

    def _prefetch(self) -> None:
        """Draw the batch of the next step while the GPU computes this one."""
        try:
            self._next = self.step + 1, self.crop, self._draw(self.step + 1)
        except RuntimeError as error:  # the next step handles the lack of memory
            if not device.ran_out_of_memory(error):
                raise

    def _next_batch(self) -> sampling.Batch:
        """Return the batch of this step, prefetched or drawn now."""
        step, crop, batch = self._next or (-1, None, None)
        self._next = None
        return batch if batch is not None and (step, crop) == (self.step, self.crop) else self._draw(self.step)

    def _optimize(self, batch: sampling.Batch) -> torch.Tensor:
        """Take an optimizer step on a batch and return its loss; on CUDA, as a recorded graph if possible."""
        if self.device == "cuda" and self._records:
            if self._recording is None or not self._recording.fits(batch):
                self._recording = None
                try:
                    self._recording = Recording(self.network, self.optimizer, self._forward_and_backward, batch)
                except Exception as error:  # graph capture is optional
                    if device.ran_out_of_memory(error):
                        raise
                    self._records = False
            if self._recording is not None:
                return self._recording(batch)
        self.optimizer.zero_grad(set_to_none=True)
        return self._forward_and_backward(batch)

    def _forward_and_backward(self, batch: sampling.Batch) -> torch.Tensor:
        with _reproducible(self.device):
            with self.precision():
                logits = self.network(batch.features)
            logits = logits.float()
            loss = losses.cross_entropy(logits, batch.label, batch.confidence, self.class_weights)
            if self.routine.dice:
                loss = loss + losses.dice_loss(logits, batch.label, batch.confidence)
            loss.backward()
            gradient_norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), _MAX_GRADIENT_NORM)
            self.optimizer.step()
        # A gradient norm that is not finite makes the loss not finite, so that the divergence is detected.
        return loss.detach() + 0 * gradient_norm

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context of mixed precision: bfloat16 on GPUs that support it, and on CPUs for networks of ears."""
        if self.device == "cuda" and torch.cuda.is_bf16_supported():
            return torch.autocast("cuda", torch.bfloat16, cache_enabled=False)  # each weight is used once
        if self.device == "cpu" and self.network_settings.field == "ear" and device.has_fast_bfloat16():
            return torch.autocast("cpu", torch.bfloat16)
        return contextlib.nullcontext()

    def _draw(self, step: int) -> sampling.Batch:
        """Draw the batch of a step, which depends on the seed and the step only."""
        seed, routine = self.settings.seed, self.routine
        positions = [step % self.steps_per_epoch * routine.batch + item for item in range(routine.batch)]
        epoch = step // self.steps_per_epoch
        order = np.random.default_rng([seed, 1, epoch]).permutation(len(self.examples) * routine.visits)
        examples = [self.examples[order[item % len(order)] % len(self.examples)] for item in positions]
        rngs = [np.random.default_rng([seed, 2, step, item]) for item in range(routine.batch)]
        strength = _STRENGTHS[routine.augmentation]
        return sampling.draw(examples, self.crop, strength, rngs, routine.around, self.device, self.network_settings)

    def _shrink(self) -> None:
        """Reduce the memory: smaller crops first, then the CPU."""
        smaller = tuple(
            max(minimum, extent * 3 // 4 // 8 * 8) for extent, minimum in zip(self.crop, _MIN_CROP, strict=True)
        )
        if smaller != self.crop and all(new <= old for new, old in zip(smaller, self.crop, strict=True)):
            self.crop = smaller  # type: ignore[assignment]
            note = f"out of memory: crops of {smaller[2]} x {smaller[1]} x {smaller[0]} voxels"
        elif self.device == "cuda":
            self._move_to_cpu()
            note = "out of GPU memory: training on the CPU"
        else:
            raise InputError("Not enough memory for training on small crops. Close other programs.")
        self.fallbacks.append(note)
        device.free_unused_memory()

    def _move_to_cpu(self) -> None:
        self.device = "cpu"
        self.network.cpu()
        self.examples = [example.to("cpu") for example in self.examples]
        self.class_weights = self.class_weights.cpu()
        moments = self.optimizer.state_dict()["state"]
        self.optimizer = self._optimizer()
        self._load_moments(moments)

    def _load_moments(self, moments: dict[int, dict[str, torch.Tensor]]) -> None:
        """Load optimizer moments, from whatever device they are on."""
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})

    def end_epoch(self, validations: int) -> None:
        """Record the metrics of the epoch; validate ``validations`` times per training on the held-out cases."""
        start = time.perf_counter()
        row: dict[str, Any] = {
            "epoch": len(self.history) + 1,
            "step": self.step,
            "seconds": round(self.seconds, 3),
            "loss": float(np.mean(self._losses)) if self._losses else math.nan,
            "learning_rate": self.learning_rate,
        }
        due = int(self.fraction * validations)
        scores = self._validate() if self.held_out and due > self.validations else None
        # Interrupted before this line, the epoch ends again when the training is resumed.
        self._losses = []
        if scores:
            self.validations, self.validation_seconds = due, time.perf_counter() - start
            row.update(scores)
            if row["dice"] > self.best_dice:
                self.best_dice, self.validations_without_gain = row["dice"], 0
                self.best_metrics = dict(row)
                self.best_state = self.learned()
            else:
                self.validations_without_gain += 1
        self.history.append(row)
        self.seconds += time.perf_counter() - start

    def _state(self) -> dict[str, torch.Tensor]:
        """Return a copy of the weights on the CPU."""
        return {name: item.detach().cpu().clone() for name, item in self.network.state_dict().items()}

    def learned(self) -> dict[str, torch.Tensor]:
        """Return the weights of the result: the trained ones, averaged with the initial ones if the routine says so.

        Weights between both keep what the initial ones knew and have most of what was learned (Wortsman et al., Robust
        fine-tuning of zero-shot models, CVPR 2022).
        """
        trained = self._state()
        if self.initial_state is None:
            return trained
        share = self.routine.initial_share
        return {
            name: torch.lerp(item, self.initial_state[name], share) if item.is_floating_point() else item
            for name, item in trained.items()
        }

    @torch.inference_mode()
    def _validate(self) -> dict[str, float]:
        """Return the mean Dice of the result on the held-out cases, per structure and overall."""
        from crossmoda.inference import logits_of

        # Another network: this one keeps the trained weights, whenever the training is interrupted.
        network = self._random_network().to(self.device)
        network.load_state_dict(self.learned())
        network.eval()
        inputs = self.network_settings.inputs
        scores: dict[str, list[float]] = {structure.key: [] for structure in labels.STRUCTURES}
        for example in self.held_out:
            image, target = example.image[0], example.targets[0]
            if self.network_settings.field == "ear":
                image, target = sampling.central(example, self.crop)
                image = sampling.standardized(image)
            descriptors = features(image.to(self.device), inputs, example.contrast)
            prediction = logits_of(network, descriptors).argmax(1)[0].cpu().numpy()
            truth = target.cpu().numpy()
            for structure in labels.structures_in(truth.astype(np.uint8)):
                scores[structure.key].append(dice(prediction == structure.value, truth == structure.value))
        means = {f"dice_{key}": float(np.mean(values)) for key, values in scores.items() if values}
        return {**means, "dice": float(np.mean(list(means.values()))) if means else 0.0}

    def snapshot(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return the state for :meth:`restore`: tensors and JSON types."""
        tensors = {f"network.{name}": item for name, item in self.network.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors.update({f"optimizer.{index}.{name}": item for name, item in moments.items()})
        if self.best_state is not None:
            tensors.update({f"best.{name}": item for name, item in self.best_state.items()})
        names = (
            *("step", "seconds", "processor_seconds", "history", "_losses", "crop", "fallbacks"),
            *("best_dice", "best_metrics", "validations", "validations_without_gain", "validation_seconds"),
        )
        return tensors, {name: getattr(self, name) for name in names}

    def restore(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Restore the state returned by :meth:`snapshot`.

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
            self._load_moments(moments)
            for name, value in state.items():
                if name in vars(self):
                    setattr(self, name, tuple(value) if name == "crop" else value)
        except (RuntimeError, ValueError, TypeError, KeyError) as cause:
            raise InputError("Checkpoint of another network. Select another output folder.") from cause
        if not all(torch.isfinite(item).all() for item in tensors.values() if item.is_floating_point()):
            raise InputError("Checkpoint with values that are not finite. Restart, or select another folder.")
        self.best_state = groups["best"] or None
        self._next = self._recording = None


def _reproducible(device: str) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which CUDA convolutions are deterministic."""
    if device != "cuda":
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
