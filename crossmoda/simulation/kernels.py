"""Compiled inner loops: mapping points, shapes, painting, sampling. Imports numba: import inside functions only.

Each kernel computes a range of rows and releases the interpreter lock; :func:`in_slabs` runs them in threads.
"""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from crossmoda import device
from crossmoda.jit_cache import compiled

jit = compiled(nogil=True, fastmath=True, error_model="numpy")


def threads() -> int:
    """Return the number of threads."""
    return min(device.cores(), 8)


def in_slabs(count: int, work: Callable[[int, int], object]) -> None:
    """Call ``work(start, stop)`` on parts of ``range(count)``, in threads."""
    workers = threads()
    edges = np.linspace(0, count, min(count, 4 * workers) + 1).astype(int)
    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(work, int(a), int(b)) for a, b in itertools.pairwise(edges)]:
            done.result()


@jit
def trilinear(volume, x, y, z):
    """Return ``volume`` (z, y, x) at a continuous index, by trilinear interpolation, clamped at the border."""
    nz, ny, nx = volume.shape
    x = min(max(x, 0.0), nx - 1.001)
    y = min(max(y, 0.0), ny - 1.001)
    z = min(max(z, 0.0), nz - 1.001)
    i, j, k = int(x), int(y), int(z)
    a, b, c = x - i, y - j, z - k
    low = (volume[k, j, i] * (1 - a) + volume[k, j, i + 1] * a) * (1 - b) + (
        volume[k, j + 1, i] * (1 - a) + volume[k, j + 1, i + 1] * a
    ) * b
    high = (volume[k + 1, j, i] * (1 - a) + volume[k + 1, j, i + 1] * a) * (1 - b) + (
        volume[k + 1, j + 1, i] * (1 - a) + volume[k + 1, j + 1, i + 1] * a
    ) * b
    return low * (1 - c) + high * c


@jit
def displaced(field, x, y, z):
    """Return the displaced point; ``field`` is displacements (z, y, x, 3; mm), origin and step of their grid."""
    nodes, origin, step = field
    nz, ny, nx = nodes.shape[:3]
    u = min(max((x - origin[0]) / step, 0.0), nx - 1.001)
    v = min(max((y - origin[1]) / step, 0.0), ny - 1.001)
    w = min(max((z - origin[2]) / step, 0.0), nz - 1.001)
    i, j, k = int(u), int(v), int(w)
    a, b, c = u - i, v - j, w - k
    dx = dy = dz = 0.0
    for corner in range(8):
        p, q, r = corner & 1, (corner >> 1) & 1, corner >> 2
        weight = (a if p else 1 - a) * (b if q else 1 - b) * (c if r else 1 - c)
        node = nodes[k + r, j + q, i + p]
        dx += weight * node[0]
        dy += weight * node[1]
        dz += weight * node[2]
    return x + dx, y + dy, z + dz


@jit
def displace_points(field, points, out, start, stop):
    """Write the displaced points (N, 3) of the rows ``start`` to ``stop``."""
    for n in range(start, stop):
        out[n, 0], out[n, 1], out[n, 2] = displaced(field, points[n, 0], points[n, 1], points[n, 2])


@jit
def undisplace_points(field, points, out, start, stop):
    """Write the points that :func:`displaced` maps to ``points``, by Newton's method to 1e-6 mm."""
    h = 0.01
    for n in range(start, stop):
        tx, ty, tz = points[n, 0], points[n, 1], points[n, 2]
        x, y, z = tx, ty, tz
        fx, fy, fz = displaced(field, x, y, z)
        ex, ey, ez = fx - tx, fy - ty, fz - tz
        error = ex * ex + ey * ey + ez * ez
        for _ in range(60):
            if error < 1e-12:
                break
            a = displaced(field, x + h, y, z)
            b = displaced(field, x, y + h, z)
            c = displaced(field, x, y, z + h)
            j00, j10, j20 = (a[0] - fx) / h, (a[1] - fy) / h, (a[2] - fz) / h
            j01, j11, j21 = (b[0] - fx) / h, (b[1] - fy) / h, (b[2] - fz) / h
            j02, j12, j22 = (c[0] - fx) / h, (c[1] - fy) / h, (c[2] - fz) / h
            c00, c01, c02 = j11 * j22 - j12 * j21, j12 * j20 - j10 * j22, j10 * j21 - j11 * j20
            det = j00 * c00 + j01 * c01 + j02 * c02
            sx = (c00 * ex + (j02 * j21 - j01 * j22) * ey + (j01 * j12 - j02 * j11) * ez) / det
            sy = (c01 * ex + (j00 * j22 - j02 * j20) * ey + (j02 * j10 - j00 * j12) * ez) / det
            sz = (c02 * ex + (j01 * j20 - j00 * j21) * ey + (j00 * j11 - j01 * j10) * ez) / det
            share = 1.0
            for _ in range(12):
                nx, ny, nz = x - share * sx, y - share * sy, z - share * sz
                gx, gy, gz = displaced(field, nx, ny, nz)
                lower = (gx - tx) ** 2 + (gy - ty) ** 2 + (gz - tz) ** 2
                if lower < error:
                    break
                share *= 0.5
            x, y, z, fx, fy, fz, error = nx, ny, nz, gx, gy, gz, lower
            ex, ey, ez = fx - tx, fy - ty, fz - tz
        out[n, 0], out[n, 1], out[n, 2] = x, y, z


@jit
def color(first, second, fraction, signal, texture, noise, fine, noise_step, out, start, stop):
    """Write the signal of a painted volume: a mixture of two tissues with each tissue's own texture.

    ``noise`` is a smooth random volume on a grid ``noise_step`` times coarser; ``fine`` another, tiled at full
    resolution.
    """
    _, ny, nx = out.shape
    fz, fy, fx = fine.shape
    for k in range(start, stop):
        for j in range(ny):
            for i in range(nx):
                share = fraction[k, j, i] * np.float32(1 / 255)
                a, b = first[k, j, i], second[k, j, i]
                value = signal[a] * (1 - share) + signal[b] * share
                grain = texture[a] * (1 - share) + texture[b] * share
                if grain > 0:
                    rough = (
                        trilinear(noise, i * noise_step, j * noise_step, k * noise_step) + fine[k % fz, j % fy, i % fx]
                    )
                    value *= max(1 + grain * rough, 0.05)
                out[k, j, i] = value


@jit
def mapped(matrix, x, y, z):
    """Return the point (x, y, z) mapped by a (3, 4) matrix."""
    return (
        matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + matrix[0, 3],
        matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + matrix[1, 3],
        matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + matrix[2, 3],
    )


@jit
def grid_index(origin, step, x, y, z):
    """Return the continuous index (x, y, z) of a point on a grid."""
    return (x - origin[0]) / step, (y - origin[1]) / step, (z - origin[2]) / step


@jit
def sample(to_canonical, in_plane, profile, field, head, ears, out, start, stop):
    """Write the mean signal of each voxel of the rows ``start`` to ``stop`` of ``out`` (z, y, x).

    ``to_canonical`` (3, 4) maps an index (x, y, z) to the undeformed canonical frame, and ``field`` is that of
    :func:`displaced`. Samples across the slice are weighted by ``profile``. ``in_plane`` x ``in_plane`` samples are
    taken within it where ``ears`` (right and left volume, both with the lateral direction as x, origin, step) hold the
    anatomy, one outside them: ``head`` (volume, origin, step) is no finer than a pixel.
    """
    whole, head_origin, head_step = head
    right, left, ear_origin, ear_step = ears
    slices = len(profile)
    ez, ey, ex = right.shape
    for k in range(start, stop):
        for j in range(out.shape[1]):
            for i in range(out.shape[2]):
                total = 0.0
                for s in range(slices):
                    dk = (s + 0.5) / slices - 0.5
                    x, y, z = mapped(to_canonical, i, j, k + dk)
                    x, y, z = displaced(field, x, y, z)
                    u, v, w = grid_index(ear_origin, ear_step, abs(x), y, z)
                    if u >= 1 and v >= 1 and w >= 1 and u < ex - 2 and v < ey - 2 and w < ez - 2:
                        mean = 0.0
                        for q in range(in_plane):
                            dj = (q + 0.5) / in_plane - 0.5
                            for p in range(in_plane):
                                di = (p + 0.5) / in_plane - 0.5
                                # The deformation is constant within a voxel, an error of a few hundredths of a mm.
                                px = x + to_canonical[0, 0] * di + to_canonical[0, 1] * dj
                                py = y + to_canonical[1, 0] * di + to_canonical[1, 1] * dj
                                pz = z + to_canonical[2, 0] * di + to_canonical[2, 1] * dj
                                u, v, w = grid_index(ear_origin, ear_step, abs(px), py, pz)
                                mean += trilinear(left if px > 0 else right, u, v, w)
                        value = mean / (in_plane * in_plane)
                    else:
                        u, v, w = grid_index(head_origin, head_step, x, y, z)
                        value = trilinear(whole, u, v, w)
                    total += profile[s] * value
                out[k, j, i] = total


@jit
def cover(to_canonical, in_plane, slices, field, structures, lesion_sign, out, start, stop):
    """Write the label of each voxel of the rows ``start`` to ``stop``: the structure that covers at least half of it.

    ``structures`` are the signed distances to cochlea and lesion (mm, negative inside) on the fine ear grid, its origin
    and its step.
    """
    cochlea, lesion, ear_origin, ear_step = structures
    ez, ey, ex = cochlea.shape
    samples = slices * in_plane * in_plane
    for k in range(start, stop):
        for j in range(out.shape[1]):
            for i in range(out.shape[2]):
                x, y, z = mapped(to_canonical, i, j, k)
                x, y, z = displaced(field, x, y, z)
                u, v, w = grid_index(ear_origin, ear_step, abs(x), y, z)
                if not (u >= 2 and v >= 2 and w >= 2 and u < ex - 3 and v < ey - 3 and w < ez - 3):
                    continue
                tumor = x * lesion_sign > 0
                if trilinear(cochlea, u, v, w) > 1.6 and (not tumor or trilinear(lesion, u, v, w) > 1.6):
                    continue
                in_cochlea = in_lesion = 0
                for s in range(slices):
                    dk = (s + 0.5) / slices - 0.5
                    for q in range(in_plane):
                        dj = (q + 0.5) / in_plane - 0.5
                        for p in range(in_plane):
                            di = (p + 0.5) / in_plane - 0.5
                            px = x + to_canonical[0, 0] * di + to_canonical[0, 1] * dj + to_canonical[0, 2] * dk
                            py = y + to_canonical[1, 0] * di + to_canonical[1, 1] * dj + to_canonical[1, 2] * dk
                            pz = z + to_canonical[2, 0] * di + to_canonical[2, 1] * dj + to_canonical[2, 2] * dk
                            u, v, w = grid_index(ear_origin, ear_step, abs(px), py, pz)
                            if tumor and trilinear(lesion, u, v, w) < 0:
                                in_lesion += 1
                            elif trilinear(cochlea, u, v, w) < 0:
                                in_cochlea += 1
                if 2 * in_lesion >= samples:
                    out[k, j, i] = 1
                elif 2 * in_cochlea >= samples:
                    out[k, j, i] = 2
