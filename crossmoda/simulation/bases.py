"""Bases of the simulated images: the painted phantom, or a real average head with painted ears.

Imports numba: import this module inside functions only. Bases are cached per process.
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
#: Relative standard deviation of the texture added to a real image.
REAL_TEXTURE = np.float32(0.045)
SIDES = {"left": 1, "right": -1}


@dataclasses.dataclass(frozen=True)
class Base:
    """A head in the canonical frame, with both ears at finer resolution."""

    head: Painting
    ears: dict[str, Ear]
    head_images: dict[str, np.ndarray] | None = None
    """modality -> real image below the head's painting, on its grid, white matter = 1"""
    ear_images: dict[str, dict[str, np.ndarray]] | None = None
    """side -> modality -> real image below the ear's painting"""


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
    """Return the images of the head and of each ear in a modality, white matter = 1."""
    images = [base.head.colored(signal, texture, Noise.draw(rng, base.head))]
    real_images = [base.head_images[modality] if base.head_images else None]
    for side, painting in ears.items():
        images.append(painting.colored(signal, texture, Noise.draw(rng, painting)))
        real_images.append(base.ear_images[side][modality] if base.ear_images else None)
    # The mid-tones of a real base differ between subjects; white matter and fluid do not.
    mid_tone = rng.uniform(-0.07, 0.07)
    top = 3.8 if modality == "hrT2" else 2.0
    for image, real, painting in zip(images, real_images, [base.head, *ears.values()], strict=True):
        if real is not None:
            shown = painting.colored(SHOWN_THROUGH, SHOWN_THROUGH * REAL_TEXTURE, Noise.draw(rng, painting))
            image += shown * real * (1 + mid_tone * (real - 1) * (top - real))
    return images[0], dict(zip(ears, images[1:], strict=True))
