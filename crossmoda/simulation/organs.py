"""What is painted over the phantom's large shapes: vessels, ventricles, eyes, sinuses, the middle ear, deep gray
matter.

Positions are canonical mm (MNI space in LPS), for the left side (x > 0) where a thing comes in pairs. Curves are rows
of x, y, z, radius. Imported lazily (it needs numba).
"""

from collections.abc import Sequence

import numpy as np

from crossmoda.simulation.painting import Painting, smooth_curve
from crossmoda.simulation.tissues import Tissue as T

CAROTID = [
    *[(27, 16, -100, 2.6), (28, 16, -62, 2.5), (28.5, 16.5, -52, 2.4), (22, 10, -48.5, 2.4), (14.5, 5, -45, 2.4)],
    *[(12.5, 4, -38, 2.3), (12, -8, -35, 2.3), (11.5, -8, -28, 2.2), (13, -2, -24, 2.0)],
]
LATERAL_SINUS = [
    *[(0, 99, -16, 4.4), (30, 91, -19, 4.2), (53, 67, -26, 4.1), (59, 52, -33, 4.4), (55, 46, -45, 4.6)],
    *[(46, 43, -56, 4.4), (36, 33, -60, 4.6), (29, 25, -58, 4.2), (29, 22, -72, 4.2), (29, 24, -110, 4.6)],
]
VERTEBRAL = [(30, 40, -110, 1.9), (21, 36, -82, 1.9), (13, 26, -74, 1.8), (5, 19, -62, 1.7), (0.8, 15.5, -54, 1.6)]

Curve = Sequence[Sequence[float]]

#: Blood vessels on both sides.
PAIRED_VESSELS: list[tuple[int, Curve]] = [
    (T.VENOUS_SINUS, [(10, -9, -33, 3.2), (11.5, -2, -35, 4.4), (13, 5, -37, 3.4)]),  # cavernous sinus
    (T.ARTERY, CAROTID),
    (T.ARTERY, [(13, -2, -24, 1.6), (24, -8, -21, 1.4), (40, -8, -14, 1.2), (50, 0, -4, 1.0)]),  # middle cerebral
    (T.ARTERY, [(13, -2, -24, 1.3), (6, -16, -20, 1.2), (2, -32, -10, 1.1), (2, -38, 10, 1.1)]),  # anterior cerebral
    (T.ARTERY, [(1, 5.5, -21, 1.4), (10, 9, -18, 1.2), (19, 22, -14, 1.1), (17, 38, -8, 1.0)]),  # posterior cerebral
    (T.ARTERY, [(1, 6.5, -24, 0.9), (11, 12, -22, 0.8), (20, 26, -22, 0.7), (14, 42, -16, 0.6)]),  # superior cerebellar
    (T.ARTERY, VERTEBRAL),
    (T.VENOUS_SINUS, LATERAL_SINUS),
    (
        T.VENOUS_SINUS,
        [(10, 4, -40, 1.4), (20, 14, -36, 1.2), (40, 31, -31.5, 1.2), (56, 50, -30, 1.4)],
    ),  # superior petrosal
    (T.VENOUS_SINUS, [(12, 6, -42, 1.2), (16, 16, -52, 1.3), (26, 24, -58, 1.6)]),  # inferior petrosal
]
#: Blood vessels on the midline.
MIDLINE_VESSELS: list[tuple[int, Curve]] = [
    (T.ARTERY, [(0.8, 15.6, -54, 1.7), (-0.8, 12.4, -44, 1.7), (0.6, 10.2, -34, 1.7), (0, 6, -23, 1.6)]),  # basilar
    (T.ARTERY, [(-8, -15, -20, 0.9), (0, -17, -19.5, 0.9), (8, -15, -20, 0.9)]),
    (T.VENOUS_SINUS, [(0, 99, -16, 4.4), (0, 99, 10, 3.8), (0, 91, 45, 3.8)]),  # superior sagittal
    (T.VENOUS_SINUS, [(0, 48, 2, 2.0), (0, 74, -6, 2.0), (0, 98, -15, 2.6)]),  # straight
]
#: Nasal cavity: turbinates (z, length).
TURBINATES = ((-56, 26), (-64, 32), (-73, 34))
ETHMOID_CELLS = ((-30, -37), (-42, -36), (-53, -36), (-64, -37), (-36, -46), (-49, -46), (-61, -46))


def paint_vessels(painting: Painting) -> None:
    """Paint the large arteries and the dural sinuses."""
    for side in sides(painting):
        for tissue, points in PAIRED_VESSELS:
            painting.tube(tissue, mirrored(smooth_curve(points, 60), side))
    for tissue, points in MIDLINE_VESSELS:
        painting.tube(tissue, smooth_curve(points, 40))


def sides(painting: Painting) -> tuple[int, ...]:
    """Return the sides of a painting: both, or one if x is lateral."""
    return (1, -1) if painting.origin[0] < 0 else (1,)


def mirrored(rows: np.ndarray, side: int) -> np.ndarray:
    """Return a curve on the left (1) or on the right (-1)."""
    return rows * np.array([side, 1, 1, 1])


def paint_organs(painting: Painting) -> None:
    """Paint the details, vessels last."""
    for side in sides(painting):
        brush = _Brush(painting, side)
        _paint_orbit(brush)
        _paint_face(brush)
        _paint_ventricles(brush)
    _paint_midline(painting)
    paint_vessels(painting)


class _Brush:
    """Painter of one side."""

    def __init__(self, painting: Painting, side: int):
        self.painting, self.side = painting, side

    def ball(self, tissue: int, center: tuple[float, float, float], radii: tuple[float, float, float]) -> None:
        self.painting.ellipsoid(tissue, (self.side * center[0], *center[1:]), radii)

    def tube(self, tissue: int, points: Curve, count: int = 40) -> None:
        self.painting.tube(tissue, mirrored(smooth_curve(points, count), self.side))


def _paint_orbit(brush: _Brush) -> None:
    brush.ball(T.FAT, (30, -46, -41), (17, 25, 15.5))
    apex = (14.0, -18.0, -33.0)
    for x, y, z in ((41, -55, -41), (22, -56, -41), (31, -56, -30), (31, -56, -52)):  # the four straight muscles
        middle = (0.5 * (x + apex[0]) + 0.2 * (x - 30), 0.5 * (y + apex[1]), 0.5 * (z + apex[2]) + 0.2 * (z + 41))
        brush.tube(T.MUSCLE, [(x, y, z, 1.2), (*middle, 2.3), (*apex, 1.2)])
    brush.tube(T.NERVE, [(30, -45, -41, 1.8), (22, -30, -37, 1.8), (13, -14, -31, 2.0), (4, -5, -24, 2.2)])
    brush.ball(T.DURA, (32, -57, -41), (12.6, 12.6, 12.6))
    brush.ball(T.VITREOUS, (32, -57, -41), (11.7, 11.7, 11.7))
    brush.ball(T.MUSCLE, (32.4, -65.5, -41), (4.6, 2.1, 4.6))  # lens


def _paint_face(brush: _Brush) -> None:
    """Paint sinuses and nose with their lining, ear canal and middle ear, jaw."""
    brush.ball(T.MUCOSA, (26, -48, -70), (14.5, 17, 17))
    brush.ball(T.AIR, (26, -48, -70), (13.4, 15.8, 15.8))
    for n, (y, z) in enumerate(ETHMOID_CELLS):
        brush.ball(T.MUCOSA, (8, y, z), (5.6, 6.6, 5.6))
        brush.ball(T.AIR, (8, y + (n % 2), z), (4.7, 5.6, 4.7))
    brush.tube(T.AIR, [(4, -82, -66, 3), (4, -55, -64, 4.5), (5, -25, -62, 5)])
    for z, length in TURBINATES:
        brush.tube(T.MUCOSA, [(4.5, -35 - length / 2, z, 2.0), (7.5, -35, z - 1, 3.2), (4.5, -35 + length / 2, z, 2.0)])
    brush.tube(T.AIR, [(84, 24, -45, 4.0), (68, 22, -45, 3.4), (54, 21, -44, 3.2)])
    brush.ball(T.AIR, (48.5, 21.5, -42.5), (2.2, 4.5, 5.5))
    brush.tube(T.AIR, [(48, 19, -45, 1.8), (36, 6, -50, 1.2), (24, -8, -58, 1.2)])
    brush.tube(T.CORTICAL_BONE, [(52, 10, -52, 6.5), (50, 6, -66, 5), (48, 0, -100, 6.5)])
    brush.tube(T.MARROW, [(52, 10, -53, 4.5), (50, 6, -66, 3), (48, 0, -100, 4.5)])


def _paint_ventricles(brush: _Brush) -> None:
    """Paint Meckel's cave, the lateral ventricle with its temporal horn, hippocampus and deep gray matter."""
    brush.ball(T.CSF, (20.5, 3.5, -36.5), (3.2, 6.0, 3.6))
    brush.tube(T.GRAY, [(24, -4, -26, 5.5), (28, 10, -23, 4.2), (27, 24, -16, 3.4)])
    horn = [
        (28, -2, -24, 1.0),
        (32, 12, -20, 1.4),
        (30, 28, -12, 2.0),
        (26, 42, 2, 5.0),
        (20, 30, 18, 5),
        (8, -5, 18, 4.5),
    ]
    brush.tube(T.CSF, [*horn, (8, -28, 8, 3.5)], 60)
    brush.ball(T.GRAY, (10.5, 17, 6), (8, 13, 8))
    brush.ball(T.GRAY, (23, -3, 2), (7, 18, 9))
    brush.tube(T.CSF, [(5, 46, -45, 2.0), (12, 44, -47, 1.5), (18, 38, -49, 1.2)])  # lateral recess


def _paint_midline(painting: Painting) -> None:
    """Paint fourth ventricle, aqueduct, third ventricle, pituitary, sphenoid sinus, septum, pharynx."""
    painting.ellipsoid(T.CSF, (0, 46.5, -41), (9, 5, 14))
    painting.tube(T.CSF, smooth_curve([(0, 50, -54, 2.0), (0, 56, -62, 2.6), (0, 60, -70, 4.0)]))
    painting.ellipsoid(T.CEREBELLAR_CORTEX, (0, 53.0, -44), (5.2, 4.0, 6.0))
    painting.tube(T.CSF, smooth_curve([(0, 40, -28, 1.6), (0, 34, -18, 0.9), (0, 30, -10, 0.9), (0, 22, -4, 1.8)]))
    painting.ellipsoid(T.CSF, (0, 12, 0), (2.2, 14, 9))
    painting.ellipsoid(T.PITUITARY, (0, -3, -33), (6.5, 5, 4))
    painting.tube(T.PITUITARY, smooth_curve([(0, -3, -30, 1.0), (0, 1, -23, 1.0)]))
    painting.ellipsoid(T.MUCOSA, (0, -17, -43), (13, 13, 9.5))
    painting.ellipsoid(T.AIR, (0, -17, -43), (12.2, 12.2, 8.8))
    painting.tube(T.CORTICAL_BONE, np.array([(0, -30, -43, 0.6), (0, -5, -43, 0.6)]))
    painting.tube(T.MUCOSA, np.array([(0, -86, -60, 1.6), (0, -25, -62, 1.6)]))
    painting.ellipsoid(T.MUCOSA, (0, -4, -78), (14, 9, 16))
    painting.ellipsoid(T.AIR, (0, -8, -80), (11, 6, 15))
