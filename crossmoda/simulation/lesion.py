"""The shape of a vestibular schwannoma: a stem in the internal auditory canal and a ball in the cistern.

Shapes are signed distances (mm, negative inside) in the canonical frame of one side (x lateral), see ear.py.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from crossmoda.simulation.deformation import MassEffect

Distance = Callable[[np.ndarray], np.ndarray]

#: Volumes of 119 real tumors: log-normal, 43 to 10784 mm3 (contours of the VS-SEG data set).
MEDIAN_MM3, LOG_DEVIATION, SMALLEST_MM3, LARGEST_MM3 = 1400.0, 1.05, 43.0, 10784.0

#: Opening and blind end of the canal.
PORUS = np.array([24.8, 27.0, -41.3])
FUNDUS = np.array([36.0, 25.0, -41.9])
#: Unit vector into the cistern, away from the posterior face of the petrous bone.
BEHIND = np.array([-0.684, 0.729, 0.0])
#: Unit vector along the petrous bone, toward its apex.
APEX = np.array([-0.729, -0.684, 0.0])


def draw_volume(rng: np.random.Generator) -> float:
    """Draw a tumor volume (mm3) from the distribution of real tumors."""
    while True:
        volume = MEDIAN_MM3 * np.exp(LOG_DEVIATION * rng.standard_normal())
        if SMALLEST_MM3 <= volume <= LARGEST_MM3:
            return float(volume)


def tumor_region(volume_mm3: float) -> np.ndarray:
    """Return points (27, 3) in the likely region of a tumor of that volume (x lateral)."""
    radius = (3 * volume_mm3 / (4 * np.pi)) ** (1 / 3)
    offsets = np.stack(np.meshgrid(*3 * [[-1, 0, 1]]), axis=-1).reshape(-1, 3)
    return PORUS + 0.6 * radius * BEHIND + 0.6 * radius * offsets


@dataclasses.dataclass(frozen=True)
class Lesion:
    """A tumor in the canonical frame of one side (x lateral)."""

    distance: Distance
    """points (n, 3) mm -> signed distance (n,) mm"""
    volume_mm3: float
    """in the canonical frame"""
    center: np.ndarray
    radius_mm: float
    mass: MassEffect
    cysts: tuple[tuple[np.ndarray, float], ...]
    """centers and radii of cysts"""

    reach: tuple[np.ndarray, np.ndarray]
    """lowest and highest corner (mm) of its box"""


@dataclasses.dataclass(frozen=True)
class IceCreamCone:
    """An irregular ball in the cistern, flattened at the bone, with a stem in the canal."""

    center: np.ndarray
    radius: float
    stretch: np.ndarray
    """relative lengths of the ball's axes"""
    lobes: np.ndarray
    """(n, 3) directions of the bumps"""
    heights: np.ndarray
    """(n,) relative heights of the bumps"""
    stem_share: float
    """lateral end of the stem, from the porus (0) to the fundus (1)"""

    def parts(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the signed distances to the ball, to the space behind the bone and to the stem."""
        away = (points - self.center) / self.stretch
        length = np.sqrt(np.sum(away**2, axis=-1))
        bumps = np.zeros_like(length)
        for n, (lobe, height) in enumerate(zip(self.lobes, self.heights, strict=True)):
            bumps += height * np.cos(3.1 * (away @ lobe) / np.maximum(length, 1e-3) + 1.7 * n)
        ball = length - self.radius * (1 + bumps)
        face = -((points - PORUS) @ BEHIND) - 0.8
        start = PORUS + 0.3 * (self.center - PORUS)
        axis = PORUS + self.stem_share * (FUNDUS - PORUS) - start
        share = np.clip((points - start) @ axis / (axis @ axis), 0, 1)
        stem = np.sqrt(np.sum((points - start - share[..., None] * axis) ** 2, axis=-1)) - (2.9 - 0.8 * share)
        return ball, face, stem

    def joined(self, parts: tuple[np.ndarray, np.ndarray, np.ndarray], growth: float) -> np.ndarray:
        """Unite the parts, the ball larger by ``growth`` mm. Without a ball, the stem shrinks."""
        ball, face, stem = parts
        grown = smooth_maximum(ball - growth, face, 2.0)
        thinned = stem - min(growth + self.radius, 0.0)
        return -smooth_maximum(-grown, -thinned, 2.0)

    def growth_for(self, volume_mm3: float) -> float:
        """Return the growth (mm) at which the tumor has the volume."""
        step = max(0.5, self.radius / 14)
        low, high = self.box()
        axes = [np.arange(a, b, step) for a, b in zip(low, high, strict=True)]
        parts = self.parts(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3))
        smallest, largest = -self.radius - 2.5, 0.6 * self.radius + 2.0
        for _ in range(18):
            growth = (smallest + largest) / 2
            if np.count_nonzero(self.joined(parts, growth) < 0) * step**3 < volume_mm3:
                smallest = growth
            else:
                largest = growth
        return growth

    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the corners (mm) of its box."""
        low = np.minimum(self.center - 1.7 * self.radius, np.minimum(PORUS, FUNDUS) - 5) - 2
        high = np.maximum(self.center + 1.7 * self.radius, np.maximum(PORUS, FUNDUS) + 5) + 2
        return low, high


def draw_lesion(rng: np.random.Generator, volume_mm3: float) -> Lesion:
    """Draw the shape of a tumor of the given volume (canonical mm3)."""
    stem_share = rng.uniform(0.55, 0.95)
    stem_volume = min(np.pi * 2.5**2 * 11.5 * stem_share, 0.8 * volume_mm3)
    radius = (3 * (volume_mm3 - 0.75 * stem_volume) / (4 * np.pi)) ** (1 / 3)
    stretch = np.exp(rng.normal(0, 0.10, 3))
    stretch /= np.prod(stretch) ** (1 / 3)
    slide, rise = rng.uniform(-0.15, 0.35), rng.uniform(-0.25, 0.25)
    center = PORUS + 0.72 * radius * BEHIND + slide * radius * APEX + np.array([0, 0, rise * radius])
    lobes = rng.standard_normal((7, 3))
    lobes /= np.linalg.norm(lobes, axis=1, keepdims=True)
    cone = IceCreamCone(center, radius, stretch, lobes, rng.normal(0, 0.055, 7), stem_share)
    growth = cone.growth_for(volume_mm3)

    def distance(points: np.ndarray) -> np.ndarray:
        return cone.joined(cone.parts(points), growth)

    cysts = draw_cysts(rng, center, radius, volume_mm3)
    return Lesion(distance, volume_mm3, center, radius, mass_effect(rng, center, radius), cysts, cone.box())


def mass_effect(rng: np.random.Generator, center: np.ndarray, radius: float) -> MassEffect:
    """Draw the mass effect of a tumor: none below a radius of 3 mm, full from 7 mm."""
    strength = float(np.clip((radius - 3.0) / 4.0, 0, 1)) * rng.uniform(1.1, 1.4)
    return MassEffect(center, max(0.8 * radius, 4.0), strength)


def smooth_maximum(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Return the larger of two signed distances, rounded where they meet within ``width`` mm."""
    h = np.maximum(width - np.abs(a - b), 0) / width
    return np.maximum(a, b) + h * h * width * 0.25


def draw_cysts(
    rng: np.random.Generator, center: np.ndarray, radius: float, volume_mm3: float
) -> tuple[tuple[np.ndarray, float], ...]:
    """Draw cysts, in about a third of the tumors above 1 ml."""
    if volume_mm3 < 1000 or rng.random() > 0.35:
        return ()
    cysts = []
    for _ in range(rng.integers(1, 5)):
        way = rng.standard_normal(3)
        cysts.append(
            (center + way / np.linalg.norm(way) * radius * rng.uniform(0.15, 0.6), radius * rng.uniform(0.14, 0.32))
        )
    return tuple(cysts)
