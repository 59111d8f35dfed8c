"""What a subject's images are made of: the painted phantom, or a real average head with painted ears.

Imported lazily (it needs numba). A base is built once per process and kept.
"""

import dataclasses
import functools

import numpy as np

from crossmoda.simulation import ear, head
from crossmoda.simulation.ear import Ear
from crossmoda.simulation.painting import TRANSPARENT, Noise, Painting
from crossmoda.simulation.tissues import Tissue

HEAD_STEP_MM, EAR_STEP_MM = 0.6, 0.3
SHOWN_THROUGH = np.eye(len(Tissue) + 1, dtype=np.float32)[TRANSPARENT]
#: Relative standard deviation from place to place that is given to a real image.
REAL_TEXTURE = np.float32(0.045)
SIDES = {"left": 1, "right": -1}


@dataclasses.dataclass(frozen=True)
class Base:
    """A head in the canonical frame, and both its ears in finer detail."""

    head: Painting
    ears: dict[str, Ear]
    head_images: dict[str, np.ndarray] | None = None
    """modality to the real image beneath the head's painting (on its grid), white matter = 1"""
    ear_images: dict[str, dict[str, np.ndarray]] | None = None
    """side, then modality, to the real image beneath the ear's painting"""


@functools.lru_cache(maxsize=1)
def phantom() -> Base:
    """Return the phantom."""
    whole = head.paint_head(Painting.blank(head.LOWEST, head.HIGHEST, HEAD_STEP_MM, Tissue.AIR))
    ears = {}
    for side, sign in SIDES.items():
        fine = Painting.blank(ear.LOWEST, ear.HIGHEST, EAR_STEP_MM, Tissue.AIR)
        ears[side] = ear.paint_ear(head.paint_head(fine, sign=sign))
    return Base(whole, ears)


def colored(
    base: Base,
    ears: dict[str, Painting],
    signal: np.ndarray,
    texture: np.ndarray,
    modality: str,
    rng: np.random.Generator,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the head's image and each side's ear image in one modality, white matter = 1."""
    images = [base.head.colored(signal, texture, Noise.draw(rng, base.head))]
    beneath = [base.head_images[modality] if base.head_images else None]
    for side, painting in ears.items():
        images.append(painting.colored(signal, texture, Noise.draw(rng, painting)))
        beneath.append(base.ear_images[side][modality] if base.ear_images else None)
    # A real base has its own tissues: their mid-tones differ between subjects, white matter and fluid stay.
    mid = rng.uniform(-0.07, 0.07)
    top = 3.8 if modality == "hrT2" else 2.0
    for image, real, painting in zip(images, beneath, [base.head, *ears.values()], strict=True):
        if real is not None:
            shown = painting.colored(SHOWN_THROUGH, SHOWN_THROUGH * REAL_TEXTURE, Noise.draw(rng, painting))
            image += shown * real * (1 + mid * (real - 1) * (top - real))
    return images[0], dict(zip(ears, images[1:], strict=True))
