"""Scans in which no ear, or only one, is to be accepted."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import real_backgrounds
from scanner import Protocol, disturbed, scan, scan_grid
from scipy.ndimage import gaussian_filter
from subjects import SIGNALS, STRAIGHT, draw_head

from crossmoda import volume
from crossmoda.volume import Grid, Volume

SIGNALS["ct"] = {
    "bone": (1.0, 1.0), "fluid": (0.25, 0.26), "gray": (0.28, 0.29), "white": (0.27, 0.28), "muscle": (0.28, 0.3),
    "fat": (0.2, 0.22), "nerve": (0.27, 0.28), "vessel": (0.29, 0.3),
}  # fmt: skip


def broken_cases(data: Path, name: str, seed: int) -> Iterator[tuple[str, Volume, tuple[str, ...]]]:
    """Yield name, scan and the sides to be accepted."""
    rng = np.random.default_rng([seed, 9])
    for contrast, file in (("T1", "t1w"), ("T2", "t2")):
        yield f"neck_{contrast}", volume.read(data / "sct_cord" / f"{file}.nii.gz"), ()
    for number, path in enumerate(real_backgrounds.SCANS[name], start=1):
        real = real_backgrounds.read(data, path)
        centers = real_backgrounds.centers(data, path)
        middle = (centers["left"] + centers["right"]) / 2
        wide = np.array([999.0, 999.0, 999.0])
        top = _corner(real)[1][2]
        if top > middle[2] + 70:
            low, high = middle - wide, middle + wide
            low[2], high[2] = middle[2] + 40, middle[2] + 90
            yield f"above_ears_{number}", _cut(real, low, high), ()
        yield f"upside_down_{number}", _turned(real, (1, -1, -1)), ()
        yield f"back_to_front_{number}", _turned(real, (1, -1, 1)), ()
        low, high = middle - wide, middle + wide
        low[0] = centers["left"][0] - 25
        yield f"right_ear_outside_{number}", _cut(real, low, high), ("left",)
    head = draw_head(seed + 900)
    protocol = Protocol("ct", 0.5, 1.0, "axial", (170, 150, 44), 0.01)
    grid = scan_grid(head, protocol, rng)
    image = scan(head, grid, protocol, data / "icbm152_2009c_sym", rng)
    soft = scan(head, grid, Protocol("cet1", 0.5, 1.0, "axial", (170, 150, 44), 0.01), data / "icbm152_2009c_sym", rng)
    inside = gaussian_filter((soft.array > 0.25 * np.percentile(soft.array, 95)).astype(np.float32), [3, 8, 8]) > 0.3
    yield "ct_like", image.with_array(np.where(inside, image.array.astype(np.int32) - 300, -1000).astype(np.int16)), ()
    yield "knee_like", _knee(rng), ()
    air = np.zeros((60, 200, 200), np.float32)
    air[:20, :60, :60] = 1 + gaussian_filter(rng.standard_normal((20, 60, 60)), 2.0)
    box = Grid((200, 200, 60), (0.8, 0.8, 2.0), (-80.0, -80.0, -60.0), STRAIGHT)
    yield "mostly_air", Volume(disturbed(air, box, 0.03, rng), box), ()


def _corner(image: Volume) -> tuple[np.ndarray, np.ndarray]:
    points = image.grid.corners
    return points.min(axis=0), points.max(axis=0)


def _cut(image: Volume, low: np.ndarray, high: np.ndarray) -> Volume:
    """Return the voxels between two corners (LPS mm), along the image's own axes."""
    grid = image.grid
    middle = (np.maximum(low, _corner(image)[0]) + np.minimum(high, _corner(image)[1])) / 2
    half = (np.minimum(high, _corner(image)[1]) - np.maximum(low, _corner(image)[0])) / 2
    center = grid.physical_to_index[:3, :3] @ middle + grid.physical_to_index[:3, 3]
    main = np.abs(grid.axes).argmax(axis=0)  # the head's axis of each image axis
    reach = half[main] / grid.spacing
    first = np.clip(np.floor(center - reach).astype(int), 0, np.array(grid.size) - 1)
    stop = np.clip(np.ceil(center + reach).astype(int), first + 1, grid.size)
    part = image.array[tuple(slice(a, b) for a, b in zip(first[::-1], stop[::-1], strict=True))]
    origin = grid.index_to_physical[:3, :3] @ first + grid.index_to_physical[:3, 3]
    return Volume(
        np.ascontiguousarray(part),
        Grid(tuple((stop - first).tolist()), grid.spacing, tuple(origin.tolist()), grid.direction),
    )


def _turned(image: Volume, signs: tuple[int, int, int]) -> Volume:
    """Return an image whose header turns or mirrors it about the middle of the head."""
    flip = np.diag(signs).astype(float)
    grid = image.grid
    origin = flip @ np.asarray(grid.origin)
    direction = flip @ grid.axes
    return Volume(image.array, Grid(grid.size, grid.spacing, tuple(origin.tolist()), tuple(direction.ravel().tolist())))


def _knee(rng: np.random.Generator) -> Volume:
    """Return a T2 of two condyles, tibia, patella, menisci and fluid in fat."""
    grid = Grid((300, 300, 50), (0.5, 0.5, 2.0), (-75.0, -75.0, -50.0), STRAIGHT)
    axes = [grid.origin[axis] + grid.spacing[axis] * np.arange(grid.size[axis]) for axis in (2, 1, 0)]
    z, y, x = np.meshgrid(*axes, indexing="ij")

    def inside(center: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
        terms = zip((x, y, z), center, radii, strict=True)
        return sum(((axis - middle) / radius) ** 2 for axis, middle, radius in terms) < 1

    image = np.where((x / 70) ** 2 + (y / 68) ** 2 < 1, 0.35, 0.0)
    image[inside((0, 0, 0), (58, 56, 80))] = 0.18
    for center, radii, value in (
        ((-22, 0, 20), (21, 30, 26), 0.55),
        ((22, 0, 20), (21, 30, 26), 0.55),
        ((0, 5, -35), (42, 32, 30), 0.5),
        ((0, -45, 15), (20, 9, 22), 0.5),
        ((0, -32, 5), (22, 5, 26), 1.0),
        ((-22, 2, -5), (20, 26, 2.5), 0.06),
        ((22, 2, -5), (20, 26, 2.5), 0.06),
        ((0, 40, 0), (6, 5, 60), 0.05),
    ):
        image[inside(center, radii)] = value
    image *= 1 + 0.05 * gaussian_filter(rng.standard_normal(image.shape), [1, 3, 3]) / 0.1
    return Volume(disturbed(gaussian_filter(image, [0.3, 0.8, 0.8]).astype(np.float32), grid, 0.02, rng), grid)
