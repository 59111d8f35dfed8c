"""Training routines: ``paper`` is the published one, ``default`` and ``ear`` are those that measure best."""

import dataclasses

from crossmoda.anatomy.ear_frame import PATCH_SIZE
from crossmoda.training.settings import Settings

#: Factor on the learning rate if training starts from trained weights.
_FINE_TUNING_FACTOR = 1 / 3


@dataclasses.dataclass(frozen=True)
class Routine:
    """The hyperparameters of a preset."""

    epochs: int
    visits: int
    """crops per case and epoch"""
    batch: int
    """crops per step"""
    learning_rate: float
    """peak learning rate"""
    one_cycle: bool
    """whether the learning rate follows one cycle (else: constant)"""
    weight_decay: float
    crop: tuple[int, int, int] | None
    """(z, y, x) voxels; None: the whole prepared volume"""
    around: float
    """probability that a crop contains a structure"""
    rarity: float
    """exponent of inverse class frequency in the cross entropy: 0.5 is the inverse square root"""
    dice: bool
    """whether the Dice loss is added to the cross entropy"""
    augmentation: str
    """preset of the augmentation"""
    initial_share: float = 0.0
    """share of the initial weights in the average with the trained ones, which is the result"""


#: Crop of a network that sees one ear: the canonical patch.
_PATCH = PATCH_SIZE[::-1]
ROUTINES = {
    "default": Routine(300, 8, 2, 6e-3, True, 1e-4, (24, 64, 64), 0.7, 0.0, True, "default"),
    "ear": Routine(300, 2, 2, 2e-3, True, 1e-4, _PATCH, 0.0, 0.0, True, "ear", initial_share=0.75),
    "paper": Routine(2000, 1, 1, 1e-3, False, 0.0, None, 0.0, 0.5, False, "paper"),
}


def routine(settings: Settings, fine_tuning: bool = False) -> Routine:
    """Return the preset's routine with the overrides of ``settings``.

    ``fine_tuning``: training starts from trained weights, at a third of the preset's learning rate, and the result is
    averaged with them if the preset says so.
    """
    sees_ears = settings.network.field == "ear"
    preset = ROUTINES["ear" if sees_ears and settings.preset == "default" else settings.preset]
    if sees_ears:
        preset = dataclasses.replace(preset, crop=_PATCH)
    factor = _FINE_TUNING_FACTOR if fine_tuning else 1
    return dataclasses.replace(
        preset,
        epochs=settings.epochs or preset.epochs,
        batch=settings.batch or preset.batch,
        learning_rate=settings.learning_rate or preset.learning_rate * factor,
        initial_share=preset.initial_share if fine_tuning and not settings.unaveraged else 0.0,
    )
