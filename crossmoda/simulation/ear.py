"""Internal auditory canal, labyrinth and the nerves and vessels of the cerebellopontine angle, as curves and tubes.

One side is described, in the canonical frame with x pointing laterally (x = 0 is the midline), y backward, z upward,
in mm; the other side is its mirror image. Positions were read off the ICBM152 T2 average, sizes are those of
temporal-bone morphometry (see docs/simulation.md). Imported lazily (it needs numba).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from crossmoda.anatomy.cochlea import mean_cochlea
from crossmoda.simulation.lesion import FUNDUS, PORUS
from crossmoda.simulation.painting import Painting, smooth_curve
from crossmoda.simulation.tissues import Tissue
from crossmoda.volume.grid import box_from

#: Box (x lateral, y, z; mm) of the anatomy at fine resolution.
LOWEST, HIGHEST = np.array([3.0, 0.0, -66.0]), np.array([58.0, 60.0, -18.0])


#: Base and axis of the spiral by which it fills the label of the cochlea best (Dice .85 with its grooves closed).
MODIOLUS = np.array([36.8, 23.8, -45.0])
MODIOLAR_AXIS = np.array([0.56, -0.77, -0.32]) / np.linalg.norm([0.56, -0.77, -0.32])
VESTIBULE = np.array([41.3, 27.3, -42.4])

CANAL = smooth_curve(
    [(22.8, 27.9, -41.3, 3.4), (*PORUS, 3.0), (28.5, 26.3, -41.5, 2.6), (32.5, 25.6, -41.7, 2.4), (*FUNDUS, 1.7)], 24
)


def cochlear_spiral(count: int = 90) -> np.ndarray:
    """Return the center line of the cochlear duct: 2.5 turns, rows x, y, z, radius (mm)."""
    turn = np.linspace(0, 1, count)
    angle = 2 * np.pi * 2.55 * turn
    radius = 3.15 * np.exp(-1.5 * turn)
    height = -0.3 + 3.7 * turn**0.85
    thickness = 0.92 - 0.3 * turn
    towards = VESTIBULE - MODIOLUS
    first = towards - (towards @ MODIOLAR_AXIS) * MODIOLAR_AXIS
    first /= np.linalg.norm(first)
    second = np.cross(MODIOLAR_AXIS, first)
    centers = (
        MODIOLUS
        + height[:, None] * MODIOLAR_AXIS
        + (radius * np.cos(angle))[:, None] * first
        + (radius * np.sin(angle))[:, None] * second
    )
    return np.column_stack([centers, thickness])


def _arc(center, first, second, radius: float, start_deg: float, stop_deg: float, thickness: float) -> np.ndarray:
    angle = np.deg2rad(np.linspace(start_deg, stop_deg, 36))
    first, second = np.asarray(first, float), np.asarray(second, float)
    first, second = first / np.linalg.norm(first), second / np.linalg.norm(second)
    points = np.asarray(center) + radius * (np.cos(angle)[:, None] * first + np.sin(angle)[:, None] * second)
    return np.column_stack([points, np.full(len(points), thickness)])


#: Semicircular canals: radii of curvature 3.2, 3.1 and 2.4 mm, lumen 1.1-1.2 mm wide.
SUPERIOR = _arc((43.4, 27.3, -39.2), (0.68, -0.73, 0), (0, 0, 1), 3.2, -35, 215, 0.58)
POSTERIOR = _arc((44.4, 32.0, -41.6), (-0.73, -0.68, 0.0), (0, 0, 1), 3.1, 60, -215, 0.58)
LATERAL = _arc((45.0, 28.6, -41.4), (-0.5, -0.87, 0.3), (0.87, -0.5, 0.0), 2.45, -20, 225, 0.60)
COMMON_CRUS = np.array([(41.6, 28.6, -41.8, 0.8), (41.2, 29.7, -40.3, 0.75), (41.4, 29.6, -39.0, 0.62)])

_ROOT = (13.0, 29.0, -44.5)
#: Nerves in the cistern and the canal: x, y, z, radius.
NERVES: dict[str, Sequence[Sequence[float]]] = {
    "facial": [
        (*_ROOT[:2], -43.6, 0.75),
        (19, 27.6, -41.8, 0.7),
        (25, 26.0, -40.2, 0.6),
        (31, 25.1, -40.3, 0.5),
        (36.3, 24.3, -40.7, 0.45),
    ],
    "cochlear": [
        (14.0, 30.0, -44.6, 0.7),
        (20, 28.9, -43.0, 0.7),
        (26, 26.4, -42.6, 0.55),
        (32, 25.2, -42.8, 0.5),
        (36.6, 24.3, -44.2, 0.45),
    ],
    "superior vestibular": [
        (14.0, 30.2, -44.4, 0.7),
        (20, 29.2, -42.6, 0.7),
        (26, 27.9, -41.0, 0.5),
        (32, 27.0, -40.9, 0.45),
        (36.4, 26.2, -41.2, 0.4),
    ],
    "inferior vestibular": [
        (14.0, 30.2, -44.6, 0.6),
        (20, 29.3, -43.0, 0.6),
        (26, 28.0, -42.4, 0.5),
        (32, 27.0, -42.6, 0.45),
        (36.2, 26.2, -43.0, 0.4),
    ],
    "trigeminal": [(13.5, 21, -37.5, 2.2), (16.5, 14.5, -36, 1.9), (19, 9, -35.5, 1.7), (20.5, 4.5, -36, 1.9)],
    "abducens": [(5.5, 20, -51, 0.4), (7.5, 13.5, -46, 0.4), (9.5, 8.5, -40, 0.4)],
    "glossopharyngeal": [(11.5, 32, -53, 0.5), (17, 32.5, -52.5, 0.5), (24, 32, -52, 0.5)],
    "vagus": [(11.5, 34, -55, 0.6), (17, 34.5, -54.5, 0.6), (24, 33.5, -53.5, 0.6)],
}
#: Anterior inferior cerebellar artery with its loop toward the canal.
AICA = [
    (1.5, 11, -49, 0.75),
    (7, 13.2, -49, 0.7),
    (13, 18.5, -47.5, 0.65),
    (19, 25, -45.8, 0.6),
    (23.6, 27.6, -44.0, 0.55),
    (23.5, 30.4, -43.4, 0.55),
    (20, 33.5, -45, 0.5),
    (22, 38, -49, 0.5),
]


@dataclasses.dataclass(frozen=True)
class Ear:
    """Fine anatomy of one side, without a tumor."""

    painting: Painting
    cochlea: np.ndarray
    """(z, y, x) float32: signed distance to the annotated cochlea, mm, negative inside"""


def paint_ear(painting: Painting, *, walls: bool = False) -> Ear:
    """Paint canal, labyrinth, nerves and artery over ``painting`` (x lateral), and return it with the cochlea's
    outline.

    ``walls`` paints the bone around them as well, for a painting over a real image in which they are blurred.
    """
    if walls:
        _paint_walls(painting)
    canal, at = painting.tube_distance(CANAL)
    capsule = [
        (cochlear_spiral(), 2.2),
        (np.array([(*VESTIBULE, 3.0), (*VESTIBULE + 0.1, 3.0)]), 1.2),
        (SUPERIOR, 1.3),
        (POSTERIOR, 1.3),
        (LATERAL, 1.3),
    ]
    for curve, wall in capsule:  # the otic capsule, the densest bone
        thick = curve.copy()
        thick[:, 3] += wall
        _inside_bone(painting, thick)
    painting.paint(Tissue.CSF, canal, at)
    for curve in (SUPERIOR, POSTERIOR, LATERAL, COMMON_CRUS):
        painting.tube(Tissue.LABYRINTH, curve)
    painting.ellipsoid(Tissue.LABYRINTH, tuple(VESTIBULE), (1.9, 2.6, 2.5))
    spiral = cochlear_spiral()
    painting.tube(Tissue.LABYRINTH, spiral)
    hook = np.array([(*spiral[0, :3], 0.95), (40.8, 26.2, -43.6, 0.95)])
    painting.tube(Tissue.LABYRINTH, hook)
    for nerve in NERVES.values():
        painting.tube(Tissue.NERVE, smooth_curve(nerve))
    painting.tube(Tissue.ARTERY, smooth_curve(AICA, 60))
    return Ear(painting, cochlea_outline(painting))


def _paint_walls(painting: Painting) -> None:
    """Paint bone over the blur of the average image around the labyrinth and the canal."""
    spiral, canal = cochlear_spiral()[::3].copy(), CANAL[CANAL[:, 0] > 27.5].copy()
    spiral[:, 3], canal[:, 3] = spiral[:, 3] + 1.6, canal[:, 3] + 1.5
    painting.tube(Tissue.CORTICAL_BONE, spiral)
    painting.tube(Tissue.CORTICAL_BONE, canal)
    for curve in (SUPERIOR, POSTERIOR, LATERAL, COMMON_CRUS):
        wall = curve.copy()
        wall[:, 3] += 1.2
        painting.tube(Tissue.CORTICAL_BONE, wall)
    painting.ellipsoid(Tissue.CORTICAL_BONE, tuple(VESTIBULE), (3.5, 4.2, 4.1))


def _inside_bone(painting: Painting, tube: np.ndarray) -> None:
    """Turn marrow and air cells within a tube into dense bone."""
    distance, at = painting.tube_distance(tube)
    inside = box_from(at[::-1], distance.shape)
    for tissues in (painting.first[inside], painting.second[inside]):
        soft = (tissues == Tissue.MARROW) | (tissues == Tissue.AIR_CELLS)
        tissues[soft & (distance < 0)] = Tissue.CORTICAL_BONE


def cochlea_outline(painting: Painting) -> np.ndarray:
    """Return the signed distance (mm) to the label of the cochlea; 5 mm and more are cut off."""
    outline = np.full(painting.shape, 5.0, np.float32)
    shape = mean_cochlea()
    start, stop = painting.box(shape.center - 8.0, shape.center + 8.0)
    points = np.stack(np.broadcast_arrays(*painting.coordinates(start, stop)), axis=-1)
    distance = np.minimum(shape.distance(points), 5.0)
    outline[box_from(start[::-1], distance.shape)] = distance
    return outline
