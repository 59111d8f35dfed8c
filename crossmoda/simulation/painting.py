"""A volume of tissues, painted shape by shape from signed distances. Imports numba: import inside functions only.

Each voxel holds two tissues and the share of the second, so that a boundary inside a voxel keeps its partial volume
and any contrast can be given to the finished painting.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from scipy.ndimage import gaussian_filter

from crossmoda.simulation.kernels import color, in_slabs, jit
from crossmoda.simulation.tissues import Tissue
from crossmoda.volume.grid import box_from

#: Transparent value of a painting, which shows the images of a real base.
TRANSPARENT = len(Tissue)


@jit
def lay(voxel, tissue, distance, step):
    """Return a voxel (first, second, fraction 0..255) after ``tissue`` is laid over it; ``distance`` in mm, negative
    inside.
    """
    first, second, fraction = voxel
    share = 0.5 - distance / step
    if share <= 0.0:
        return first, second, fraction
    if share >= 1.0:
        return tissue, tissue, 0
    below = second if fraction > 127 else first
    if below == tissue:
        return first, second, fraction
    return below, tissue, int(255 * share + 0.5)


@jit
def _paint(voxels, tissue, distance, step, start, stop):
    first, second, fraction = voxels
    _, ny, nx = distance.shape
    for k in range(start, stop):
        for j in range(ny):
            for i in range(nx):
                d = distance[k, j, i]
                if d < step:
                    voxel = first[k, j, i], second[k, j, i], fraction[k, j, i]
                    first[k, j, i], second[k, j, i], fraction[k, j, i] = lay(voxel, tissue, d, step)


@jit
def _tube(points, x0, y0, z0, step, out, start, stop):
    """Write the distance to a chain of round cones; ``points`` rows are x, y, z, radius (mm)."""
    _, ny, nx = out.shape
    for k in range(start, stop):
        z = z0 + k * step
        for j in range(ny):
            y = y0 + j * step
            for i in range(nx):
                x = x0 + i * step
                best = 1e9
                for n in range(len(points) - 1):
                    ax, ay, az = points[n, 0], points[n, 1], points[n, 2]
                    bx, by, bz = points[n + 1, 0] - ax, points[n + 1, 1] - ay, points[n + 1, 2] - az
                    px, py, pz = x - ax, y - ay, z - az
                    t = (px * bx + py * by + pz * bz) / (bx * bx + by * by + bz * bz + 1e-9)
                    t = min(max(t, 0.0), 1.0)
                    dx, dy, dz = px - t * bx, py - t * by, pz - t * bz
                    radius = points[n, 3] + t * (points[n + 1, 3] - points[n, 3])
                    best = min(best, (dx * dx + dy * dy + dz * dz) ** 0.5 - radius)
                out[k, j, i] = best


@dataclasses.dataclass
class Painting:
    """Tissues on a regular grid of the canonical frame."""

    first: np.ndarray
    """(z, y, x) uint8: first tissue of each voxel"""
    second: np.ndarray
    """(z, y, x) uint8: second tissue"""
    fraction: np.ndarray
    """(z, y, x) uint8: fraction of the second tissue, 0 to 255"""
    origin: np.ndarray
    """canonical position (x, y, z) of the first voxel, mm"""
    step: float
    """mm"""

    @classmethod
    def blank(cls, lowest: np.ndarray, highest: np.ndarray, step: float, tissue: int) -> "Painting":
        """Return a painting of one tissue over a box (canonical mm)."""
        shape = tuple(int(n) for n in np.ceil((np.asarray(highest) - lowest) / step).astype(int) + 1)[::-1]
        full = np.full(shape, tissue, np.uint8)
        return cls(full, full.copy(), np.zeros(shape, np.uint8), np.asarray(lowest, float), step)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the arrays, (z, y, x)."""
        return self.first.shape

    def box(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices (x, y, z), inclusive and exclusive, of the part of the grid within a box (mm); maybe
        empty.
        """
        size = np.array(self.shape[::-1])
        start = np.clip(np.floor((low - self.origin) / self.step).astype(int), 0, size)
        stop = np.clip(np.ceil((high - self.origin) / self.step).astype(int) + 1, 0, size)
        return start, np.maximum(stop, start)

    def coordinates(self, start: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return x (1, 1, n), y (1, n, 1) and z (n, 1, 1) in mm of a part of the grid: open, to be broadcast."""
        x, y, z = ((self.origin[a] + self.step * np.arange(start[a], stop[a])).astype(np.float32) for a in range(3))
        return x[None, None, :], y[None, :, None], z[:, None, None]

    def paint(self, tissue: int, distance: np.ndarray, start: Sequence[int] | np.ndarray = (0, 0, 0)) -> None:
        """Paint ``tissue`` by its signed ``distance`` (z, y, x; mm), from index ``start`` (x, y, z)."""
        distance = np.ascontiguousarray(distance, dtype=np.float32)
        inside = box_from(start[::-1], distance.shape)
        voxels = self.first[inside], self.second[inside], self.fraction[inside]
        in_slabs(len(distance), lambda a, b: _paint(voxels, int(tissue), distance, self.step, a, b))

    def shape_of(
        self, function: Callable[..., np.ndarray], low: np.ndarray, high: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Evaluate ``function(x, y, z)`` (open mm coordinates) within a box; return (distance, start index)."""
        start, stop = self.box(np.asarray(low, float), np.asarray(high, float))
        if np.any(stop <= start):
            return np.zeros((0, 1, 1), np.float32), start
        return function(*self.coordinates(start, stop)), start

    def tube_distance(self, points: np.ndarray, margin: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Return the distance to a tube along ``points`` (n, 4: x, y, z, radius; mm) and the index where its box
        starts.
        """
        points = np.asarray(points, float)
        low = (points[:, :3] - points[:, 3:]).min(0) - margin
        high = (points[:, :3] + points[:, 3:]).max(0) + margin
        start, stop = self.box(low, high)
        out = np.empty(tuple((stop - start)[::-1]), np.float32)
        x, y, z = (float(v) for v in self.origin + self.step * start)
        if out.size:
            in_slabs(len(out), lambda a, b: _tube(points, x, y, z, self.step, out, a, b))
        return out, start

    def tube(self, tissue: int, points: np.ndarray) -> None:
        """Paint a tube along ``points`` (n, 4: x, y, z, radius; mm)."""
        # In segments, since the box of a long curve is mostly empty.
        for piece in range(0, len(points) - 1, 5):
            distance, start = self.tube_distance(points[piece : piece + 6])
            if distance.size:
                self.paint(tissue, distance, start)

    def ellipsoid(self, tissue: int, center: tuple[float, float, float], radii: tuple[float, float, float]) -> None:
        """Paint an ellipsoid with its axes along the frame's."""
        c, r = np.asarray(center, float), np.asarray(radii, float)
        distance, start = self.shape_of(lambda x, y, z: ellipsoid_distance(x, y, z, c, r), c - r - 1, c + r + 1)
        if distance.size:
            self.paint(tissue, distance, start)

    def colored(self, signal: np.ndarray, texture: np.ndarray, noise: "Noise") -> np.ndarray:
        """Return the painting as an image (float32); ``signal`` and ``texture`` are indexed by tissue, 0 where
        transparent.
        """
        signal = np.append(signal, np.zeros(TRANSPARENT + 1 - len(signal), np.float32)).astype(np.float32)
        texture = np.append(texture, np.zeros(TRANSPARENT + 1 - len(texture))).astype(np.float32)
        out = np.empty(self.shape, np.float32)
        coarse, fine, ratio = noise.coarse, noise.fine, self.step / noise.step
        in_slabs(
            len(out),
            lambda a, b: color(self.first, self.second, self.fraction, signal, texture, coarse, fine, ratio, out, a, b),
        )
        return out


@dataclasses.dataclass(frozen=True)
class Noise:
    """Texture of tissue: a coarse and a fine, repeated random volume of unit variance."""

    coarse: np.ndarray
    fine: np.ndarray
    step: float
    """spacing of the coarse volume, mm"""

    @classmethod
    def draw(cls, rng: np.random.Generator, painting: Painting, step: float = 3.0) -> "Noise":
        """Draw the texture of a painting."""
        shape = tuple(int(n * painting.step / step) + 3 for n in painting.shape)
        coarse = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 1.3)
        fine = gaussian_filter(
            rng.standard_normal((48, 48, 48), dtype=np.float32), 0.9 * 0.6 / painting.step, mode="wrap"
        )
        return cls(0.8 * coarse / coarse.std(), 0.6 * fine / fine.std(), step)


def ellipsoid_distance(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, center: np.ndarray, radii: np.ndarray
) -> np.ndarray:
    """Return the approximate signed distance to an ellipsoid, exact to first order at its surface."""
    u, v, w = x - center[0], y - center[1], z - center[2]
    scaled = np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2 + (w / radii[2]) ** 2)
    slope = np.sqrt((u / radii[0] ** 2) ** 2 + (v / radii[1] ** 2) ** 2 + (w / radii[2] ** 2) ** 2)
    return scaled * (scaled - 1) / np.maximum(slope, 1e-6)


def smooth_curve(points: Sequence[Sequence[float]], count: int = 40) -> np.ndarray:
    """Return a Catmull-Rom curve through ``points`` (rows x, y, z, radius), resampled to ``count`` points."""
    from scipy.interpolate import PchipInterpolator

    rows = np.asarray(points, float)
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(rows[:, :3], axis=0), axis=1))])
    return PchipInterpolator(along, rows)(np.linspace(0, along[-1], count))
