"""Properties of tissues, and their signals: spoiled gradient echo after gadolinium (ceT1), balanced SSFP (hrT2).

Relaxation times are rounded values typical of 1.5 T (compare Stanisz et al. 2005, Magn. Reson. Med. 54:507); those of
the tumor and all concentrations are chosen for a typical appearance, see docs/simulation.md.
"""

import dataclasses
import enum

import numpy as np


class Tissue(enum.IntEnum):
    """Tissue types."""

    AIR = 0
    CORTICAL_BONE = 1
    MARROW = 2
    FAT = 3
    MUSCLE = 4
    SKIN = 5
    MUCOSA = 6
    CSF = 7
    GRAY = 8
    WHITE = 9
    CEREBELLAR_CORTEX = 10
    CEREBELLAR_WHITE = 11
    BRAINSTEM = 12
    NERVE = 13
    DURA = 14
    ARTERY = 15
    VENOUS_SINUS = 16
    LABYRINTH = 17
    VITREOUS = 18
    PITUITARY = 19
    TUMOR = 20
    TUMOR_CYST = 21
    AIR_CELLS = 22


@dataclasses.dataclass(frozen=True)
class Properties:
    """MR properties of a tissue at 1.5 T."""

    density: float
    """proton density relative to water"""
    t1_ms: float
    t2_ms: float
    gadolinium_mm: float = 0.0
    """concentration of contrast agent some minutes after injection, mmol/l"""
    left_t1: float = 1.0
    """remaining fraction of the spoiled gradient echo signal under flow"""
    left_t2: float = 1.0
    """remaining fraction of the balanced SSFP signal under flow and magnetization transfer (Bieri, Scheffler 2006)"""
    texture: float = 0.03
    """relative standard deviation of the signal within the tissue"""


PROPERTIES: dict[Tissue, Properties] = {
    Tissue.AIR: Properties(0.0, 1000, 1, texture=0.0),
    Tissue.CORTICAL_BONE: Properties(0.10, 300, 4, texture=0.25),
    Tissue.MARROW: Properties(0.55, 380, 42, 0.06, texture=0.22),
    Tissue.FAT: Properties(0.80, 290, 58, texture=0.10),
    Tissue.MUSCLE: Properties(0.78, 950, 42, 0.07, left_t2=0.75, texture=0.10),
    Tissue.SKIN: Properties(0.70, 700, 35, 0.15, texture=0.10),
    Tissue.MUCOSA: Properties(0.88, 1200, 110, 0.45, texture=0.15),
    Tissue.CSF: Properties(1.0, 4000, 2000, texture=0.02),
    Tissue.GRAY: Properties(0.84, 1080, 98, 0.03, left_t2=0.95, texture=0.04),
    Tissue.WHITE: Properties(0.72, 640, 76, 0.015, left_t2=0.7, texture=0.03),
    Tissue.CEREBELLAR_CORTEX: Properties(0.84, 1020, 98, 0.04, left_t2=0.95, texture=0.04),
    Tissue.CEREBELLAR_WHITE: Properties(0.73, 660, 76, 0.015, left_t2=0.7, texture=0.03),
    Tissue.BRAINSTEM: Properties(0.75, 720, 80, 0.015, left_t2=0.74, texture=0.04),
    Tissue.NERVE: Properties(0.76, 800, 84, 0.03, left_t2=0.7, texture=0.03),
    Tissue.DURA: Properties(0.50, 900, 35, 0.45, texture=0.15),
    Tissue.ARTERY: Properties(0.90, 1400, 200, 0.9, left_t1=0.85, left_t2=0.22, texture=0.06),
    Tissue.VENOUS_SINUS: Properties(0.90, 1400, 180, 0.8, left_t2=0.65, texture=0.08),
    Tissue.LABYRINTH: Properties(1.0, 3000, 1300, 0.01, texture=0.02),
    Tissue.VITREOUS: Properties(1.0, 3700, 1500, texture=0.02),
    Tissue.PITUITARY: Properties(0.85, 1050, 90, 0.7, texture=0.06),
    Tissue.TUMOR: Properties(0.90, 1250, 105, 0.75, left_t2=0.95, texture=0.10),
    Tissue.TUMOR_CYST: Properties(0.97, 2500, 500, 0.04, texture=0.06),
    Tissue.AIR_CELLS: Properties(0.07, 800, 20, texture=0.6),
}

#: Relaxivities of a gadolinium chelate in plasma at 1.5 T and 37 degrees, 1/(s mmol/l): Rohrer et al. 2005,
#: Invest. Radiol. 40:715 (gadopentetate).
R1_RELAXIVITY, R2_RELAXIVITY = 4.1, 4.6


def spoiled_gradient_echo(
    density: np.ndarray,
    t1_ms: np.ndarray,
    t2_ms: np.ndarray,
    *,
    tr_ms: float = 18.0,
    te_ms: float = 3.0,
    flip_deg: float = 25.0,
) -> np.ndarray:
    """Return the steady-state signal of a spoiled gradient echo (Ernst and Anderson 1966)."""
    flip, e1 = np.deg2rad(flip_deg), np.exp(-tr_ms / t1_ms)
    return density * np.sin(flip) * (1 - e1) / (1 - np.cos(flip) * e1) * np.exp(-te_ms / t2_ms)


def balanced_ssfp(
    density: np.ndarray,
    t1_ms: np.ndarray,
    t2_ms: np.ndarray,
    *,
    tr_ms: float = 9.0,
    te_ms: float = 4.5,
    flip_deg: float = 65.0,
) -> np.ndarray:
    """Return the steady-state signal of balanced SSFP on resonance (CISS, FIESTA; Freeman and Hill 1971)."""
    flip, e1, e2 = np.deg2rad(flip_deg), np.exp(-tr_ms / t1_ms), np.exp(-tr_ms / t2_ms)
    steady = np.sin(flip) * (1 - e1) / (1 - (e1 - e2) * np.cos(flip) - e1 * e2)
    return density * steady * np.exp(-te_ms / t2_ms)


def enhanced(t1_ms: np.ndarray, t2_ms: np.ndarray, gadolinium_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return T1 and T2 (ms) shortened by a contrast agent: the rates 1/T rise by relaxivity times concentration."""
    return (
        1000.0 / (1000.0 / t1_ms + R1_RELAXIVITY * gadolinium_mm),
        1000.0 / (1000.0 / t2_ms + R2_RELAXIVITY * gadolinium_mm),
    )


@dataclasses.dataclass(frozen=True)
class Contrast:
    """The signal of each tissue in one subject, white matter = 1 in each modality; indexed by :class:`Tissue`."""

    cet1: np.ndarray
    hrt2: np.ndarray
    texture: np.ndarray
    """relative standard deviation of the signal within each tissue"""


def draw_contrast(rng: np.random.Generator, *, spread: float = 0.07) -> Contrast:
    """Draw tissue parameters (relative standard deviation ``spread``) and flip angles of a subject; return its signals.

    Relaxation and enhancement of the tumor vary most, by a third.
    """
    count = len(Tissue)
    table = np.array([dataclasses.astuple(PROPERTIES[tissue]) for tissue in Tissue]).T
    density, t1, t2, gadolinium, left_t1, left_t2, texture = table
    vary = lambda scale: np.exp(scale * np.clip(rng.standard_normal(count), -2, 2))  # noqa: E731
    density, t1, t2 = density * vary(0.3 * spread), t1 * vary(spread), t2 * vary(spread)
    gadolinium = gadolinium * vary(0.2) * rng.uniform(0.85, 1.2)
    t2[Tissue.TUMOR] *= np.exp(rng.uniform(-0.15, 0.35))
    gadolinium[Tissue.TUMOR] *= np.exp(rng.uniform(-0.25, 0.3))
    short_t1, short_t2 = enhanced(t1, t2, gadolinium)
    cet1 = left_t1 * spoiled_gradient_echo(density, short_t1, short_t2, flip_deg=rng.uniform(20, 30))
    # The balanced scan is taken before the injection.
    hrt2 = left_t2 * balanced_ssfp(density, t1, t2, flip_deg=rng.uniform(55, 70))
    return Contrast(cet1 / cet1[Tissue.WHITE], hrt2 / hrt2[Tissue.WHITE], texture)
