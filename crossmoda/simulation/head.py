"""The phantom's head without ears' fine detail: scalp, skull, brain, cisterns, vessels, eyes and sinuses as implicit
shapes.

Everything is given in the canonical frame (MNI space in LPS, mm). Large shapes are ellipsoids, planes and their smooth
unions in one compiled pass; vessels, ventricles and sinuses are painted over it one by one. Imported lazily (it needs
numba).
"""

import numpy as np
from scipy.ndimage import gaussian_filter

from crossmoda.simulation import organs
from crossmoda.simulation.kernels import in_slabs, jit, trilinear
from crossmoda.simulation.painting import Painting, lay
from crossmoda.simulation.tissues import Tissue

LOWEST, HIGHEST = np.array([-93.0, -114.0, -104.0]), np.array([93.0, 126.0, 34.0])
NOISE_STEP_MM = 2.0

# Numba sees enumeration members as plain constants only when they are module-level integers.
AIR, BONE, MARROW, FAT, MUSCLE, SKIN = (int(t) for t in list(Tissue)[:6])
CSF, GRAY, WHITE = int(Tissue.CSF), int(Tissue.GRAY), int(Tissue.WHITE)
FOLIA, ARBOR, STEM, DURA = (
    int(Tissue.CEREBELLAR_CORTEX),
    int(Tissue.CEREBELLAR_WHITE),
    int(Tissue.BRAINSTEM),
    int(Tissue.DURA),
)
CELLS = int(Tissue.AIR_CELLS)


def fold_noise(width_mm: float, seed: int) -> np.ndarray:
    """Return band-limited noise over the head (z, y, x) on a 2 mm grid; its zero surfaces lie about pi x width
    apart.
    """
    shape = tuple(int(n) for n in np.ceil((HIGHEST - LOWEST) / NOISE_STEP_MM).astype(int) + 2)[::-1]
    noise = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    noise = gaussian_filter(noise, width_mm / NOISE_STEP_MM) - 0.6 * gaussian_filter(
        noise, 1.8 * width_mm / NOISE_STEP_MM
    )
    return np.ascontiguousarray(noise / noise.std(), dtype=np.float32)


@jit
def _ellipsoid(x, y, z, cx, cy, cz, rx, ry, rz):
    u, v, w = x - cx, y - cy, z - cz
    scaled = ((u / rx) ** 2 + (v / ry) ** 2 + (w / rz) ** 2) ** 0.5
    slope = ((u / rx**2) ** 2 + (v / ry**2) ** 2 + (w / rz**2) ** 2) ** 0.5
    return scaled * (scaled - 1) / max(slope, 1e-6)


@jit
def _capsule(x, y, z, ax, ay, az, bx, by, bz, ra, rb):
    bx, by, bz, px, py, pz = bx - ax, by - ay, bz - az, x - ax, y - ay, z - az
    t = min(max((px * bx + py * by + pz * bz) / (bx * bx + by * by + bz * bz), 0.0), 1.0)
    return ((px - t * bx) ** 2 + (py - t * by) ** 2 + (pz - t * bz) ** 2) ** 0.5 - (ra + t * (rb - ra))


@jit
def _join(a, b, width):
    """Smooth minimum: the union of two shapes with a fillet."""
    h = max(width - abs(a - b), 0.0) / width
    return min(a, b) - h * h * width * 0.25


@jit
def _cut(a, b, width):
    """Smooth maximum: what two shapes share, with a rounded edge."""
    return -_join(-a, -b, width)


@jit
def skin_distance(u, y, z):
    """Return the signed distance to the skin; ``u`` = |x|."""
    d = _ellipsoid(u, y, z, 0.0, 15.0, -2.0, 77.0, 99.0, 96.0)
    d = _join(d, _ellipsoid(u, y, z, 0.0, -14.0, -62.0, 66.0, 66.0, 70.0), 18.0)
    d = _join(d, _capsule(u, y, z, 0.0, 34.0, -62.0, 0.0, 44.0, -150.0, 68.0, 60.0), 22.0)
    d = _join(d, _capsule(u, y, z, 0.0, -82.0, -32.0, 0.0, -92.0, -60.0, 5.0, 9.0), 14.0)
    # eyebrow and cheekbone
    d = _join(d, _ellipsoid(u, y, z, 48.0, -42.0, -54.0, 18.0, 22.0, 14.0), 14.0)
    ear = _ellipsoid(u - 0.25 * (y - 28), y, z, 77.0, 31.0, -42.0, 3.0, 15.0, 27.0)
    return _join(d, ear, 5.0)


@jit
def petrous_plane(u, y, z):
    """Return how far behind the posterior face of the petrous bone a point lies."""
    return -0.684 * (u - 8) + 0.729 * (y - 12) - 0.10 * (z + 42)


@jit
def tentorium(u, y, z):
    """Return the height of the tentorium above a point: it hangs from the petrous ridge up to the notch."""
    slope = 0.75 * petrous_plane(u, y, -32.0)
    dome = 30.0 * (1 - min(u / 62.0, 1.0) ** 1.6) - 14.0 * min(max(y - 52.0, 0.0) / 46.0, 1.0)
    return -31.5 + _join(slope, dome, 10.0) - z


@jit
def cavity_distance(u, y, z):
    """Return the signed distances to the upper and to the posterior intracranial cavity."""
    ahead = 1 / (1 + np.exp((y + 24) / 4))
    floor = -32.5 + 7.5 * ahead
    upper = _cut(_ellipsoid(u, y, z, 0.0, 14.0, 4.0, 67.0, 87.5, 78.0), floor - z, 6.0)
    upper = _join(upper, _capsule(u, y, z, 35.0, -11.0, -33.0, 44.0, 3.0, -33.0, 17.0, 17.0), 6.0)
    behind = petrous_plane(u, y, z) + 1.2 * max(z + 34.0, 0.0)
    clivus = 0.91 * (y - 9.0 + 0.46 * (z + 42))
    lower = _ellipsoid(u, y, z, 0.0, 52.0, -40.0, 62.0, 45.0, 38.0)
    lower = _join(lower, _capsule(u, y, z, 0.0, 38.0, -60.0, 0.0, 46.0, -130.0, 15.0, 12.0), 10.0)
    lower = _cut(lower, -behind, 11.0)
    lower = _cut(lower, -clivus, 5.0)
    # The jugular tubercle closes the cistern below, the foramen magnum stays open.
    tubercle = z + 50 - 0.35 * (u - 12) + max(y - 28.0, 0.0) + 1.5 * max(12.0 - u, 0.0)
    lower = _cut(lower, -0.7 * tubercle, 5.0)
    return upper, lower


@jit
def _bone(u, y, z, step, voxel, cavity, skin, rough):
    """Lay skull and skull base; returns the voxel."""
    petrous = _capsule(u, y, z, 14.0, 13.0, -46.0, 52.0, 38.0, -43.0, 9.5, 13.0)
    petrous = max(petrous, z + 30.5 - 1.5 * np.exp(-((u - 42) ** 2 + (y - 27) ** 2) / 60))
    mastoid = _ellipsoid(u, y, z, 54.0, 40.0, -52.0, 15.0, 17.0, 22.0)
    central = _join(
        _capsule(u, y, z, 0.0, -12.0, -40.0, 0.0, 16.0, -68.0, 11.0, 8.0),
        _ellipsoid(u, y, z, 16.0, -20.0, -42.0, 14.0, 10.0, 6.0),
        6.0,
    )
    base = min(min(petrous, mastoid), central)
    thick = 6.2 + 1.2 * rough
    solid = _join(cavity - thick if z > -66 + 0.35 * abs(y - 45) else 5.0, base, 4.0)
    solid = max(solid, skin + 5.0)
    if solid > step:
        return voxel
    voxel = lay(voxel, BONE, solid, step)
    # Marrow: the diploe, the clivus and the petrous apex; dense bone round the labyrinth; cells in the mastoid.
    inner = max(solid + 1.5, 1.6 - cavity)
    labyrinth = _ellipsoid(u, y, z, 39.0, 26.0, -42.0, 14.0, 12.0, 13.0)
    # Laterally the pyramid is dense: only its apex holds marrow.
    dense = 26.0 + 2.5 * rough - u if base < 2.0 and z > -62 else 9.0
    voxel = lay(voxel, MARROW, max(max(inner, -labyrinth), -dense), step)
    cells = _join(
        _ellipsoid(u, y, z, 56.0, 40.0, -50.0, 11.0, 14.0, 19.0),
        _capsule(u, y, z, 47.0, 25.0, -34.0, 54.0, 40.0, -46.0, 4.0, 8.0),
        4.0,
    )
    return lay(voxel, CELLS, max(max(cells, inner), -labyrinth), step)


@jit
def _cerebrum(step, voxel, hull, rough, fold, fx, fy, fz, scale):
    """Lay the folded cortex and the white matter within ``hull``."""
    if hull > step:
        return voxel
    depth = -hull
    slab = 9.0
    if depth < 24:
        h = 1.0
        n = trilinear(fold, fx, fy, fz)
        gx = trilinear(fold, fx + h * scale, fy, fz) - n
        gy = trilinear(fold, fx, fy + h * scale, fz) - n
        gz = trilinear(fold, fx, fy, fz + h * scale) - n
        away = abs(n) / ((gx * gx + gy * gy + gz * gz) ** 0.5 + 0.03) * h
        slab = max(away - 0.55 - 0.25 * rough, 0.7 * (depth - 16.0 - 4.0 * rough))
    pia = min(depth, slab)
    voxel = lay(voxel, GRAY, -pia, step)
    return lay(voxel, WHITE, 2.6 - pia, step)


@jit
def _cerebellum(u, y, z, step, voxel, hull, rough):
    """Lay the cerebellum: folia fanning out from the fourth ventricle, around a branching white core."""
    if hull > step:
        return voxel
    depth = -hull
    radius = ((y - 43) ** 2 + (z + 38) ** 2) ** 0.5
    angle = np.arctan2(z + 38 + 0.10 * u, y - 43)
    period = 4.4
    # In the horizontal plane the fissures run obliquely, about parallel to the petrous bone.
    phase = (33.0 * angle + 0.62 * (y - 60) - 0.42 * u) / period + 0.5 * rough
    whole = np.floor(phase + 0.5)
    away = abs(phase - whole) * period / ((33.0 / max(radius, 12.0)) ** 2 + 0.56) ** 0.5
    deep = 18.0 if whole % 4 == 0 else 9.0
    fissure = max(away - (0.40 if whole % 4 == 0 else 0.20) * (1 + 0.5 * rough), 0.8 * (depth - deep))
    fissure = max(fissure, 0.6 * (17.0 - radius))  # the folia end before they run together
    pia = min(depth, fissure)
    voxel = lay(voxel, FOLIA, -pia, step)
    core = _ellipsoid(u, y, z, 19.0, 58.0, -42.0, 17.0, 15.0, 11.0)
    return lay(voxel, ARBOR, min(1.05 - pia, max(core, 0.9 - pia)), step)


@jit
def _brainstem(u, y, z):
    d = _ellipsoid(u, y, z, 0.0, 29.5, -37.0, 16.0, 13.8, 14.0)
    d = _join(d, _capsule(u, y, z, 0.0, 34.0, -50.0, 0.0, 43.5, -82.0, 9.5, 7.0), 8.0)
    d = _join(d, _capsule(u, y, z, 0.0, 43.5, -82.0, 0.0, 47.0, -130.0, 7.0, 6.0), 5.0)
    d = _join(d, _ellipsoid(u, y, z, 8.0, 19.0, -15.0, 9.0, 9.0, 14.0), 6.0)
    d = _join(d, _ellipsoid(u, y, z, 0.0, 27.0, -14.0, 13.0, 10.0, 10.0), 5.0)
    return _join(d, _capsule(u, y, z, 9.0, 34.0, -40.0, 22.0, 55.0, -42.0, 9.0, 9.0), 5.0)


@jit
def _anatomy(voxels, origin, step, sign, noise, start, stop):
    """Write the head's tissues of the rows ``start`` to ``stop``. ``sign`` is the side that positive x stands for."""
    first, second, fraction = voxels
    fold, rough, noise_origin, noise_step = noise
    _, ny, nx = first.shape
    scale = 1 / noise_step
    for k in range(start, stop):
        z = origin[2] + k * step
        for j in range(ny):
            y = origin[1] + j * step
            for i in range(nx):
                x = sign * (origin[0] + i * step)
                u = abs(x)
                skin = skin_distance(u, y, z)
                if skin > step:
                    continue
                fx, fy, fz = (x - noise_origin[0]) * scale, (y - noise_origin[1]) * scale, (z - noise_origin[2]) * scale
                grain = trilinear(rough, fx, fy, fz)
                voxel = lay((AIR, AIR, 0), SKIN, skin, step)
                voxel = lay(voxel, FAT, skin + 2.2, step)
                upper, lower = cavity_distance(u, y, z)
                cavity = _join(upper, lower, 2.0)
                if cavity > 0:
                    flesh = max(skin + 6.5 + 1.5 * grain, 0.7 - 1.3 * abs(grain))
                    if z < -12 or cavity < 11:
                        voxel = lay(voxel, MUSCLE, flesh if z < -5 else 3.0, step)
                if cavity > -step:
                    voxel = _bone(u, y, z, step, voxel, cavity, skin, grain)
                if cavity > step:
                    first[k, j, i], second[k, j, i], fraction[k, j, i] = voxel
                    continue
                voxel = lay(voxel, DURA, cavity, step)
                voxel = lay(voxel, CSF, cavity + 0.7, step)
                tent = tentorium(u, y, z)
                # cerebrum: 2 mm of fluid under the dura, the midline fissure, the Sylvian fissure, the basal cisterns
                hull = max(upper + 1.4 + 0.5 * grain, 1.3 + (tent if lower < 4.0 else -9.0))
                hull = _cut(hull, 1.1 - u, 1.5)
                hull = _cut(hull, -_ellipsoid(u, y, z, 0.0, 8.0, -20.0, 15.0, 13.0, 13.0), 3.0)
                hull = _cut(hull, -_ellipsoid(u, y, z, 0.0, 27.0, -12.0, 21.0, 18.0, 14.0), 3.0)
                hull = _cut(hull, -_capsule(u, y, z, 24.0, -18.0, -22.0, 62.0, -8.0, -8.0, 1.6, 1.8), 2.0)
                voxel = _cerebrum(step, voxel, hull, grain, fold, fx, fy, fz, scale)
                if lower < 4 and y > 15:
                    leaf = max(abs(tent) - 0.55, 13.0 - ((u / 1.15) ** 2 + (y - 30) ** 2) ** 0.5)
                    voxel = lay(voxel, DURA, max(leaf, lower - 3.0), step)
                if z > 0 or y > 70:
                    falx = max(max(u - 0.5, -tent + 1.0 if tent > 0 else 0.0), -z - 60.0) if tent < 0 else 5.0
                    voxel = lay(voxel, DURA, falx, step)
                # cerebellum: what lies under the tentorium behind the cistern
                if tent > -2 and lower < step:
                    front = 37.5 + 0.45 * max(0.0, -47.0 - z) + 0.10 * max(u - 30.0, 0.0) - y
                    cerebellum = _cut(lower + 2.4 + 0.5 * grain, front, 9.0)
                    cerebellum = _join(cerebellum, _ellipsoid(u, y, z, 31.0, 36.5, -40.5, 4.5, 4.0, 3.0), 2.0)
                    cerebellum = max(max(cerebellum, lower + 1.8), 1.7 - tent)
                    cerebellum = _cut(cerebellum, _ellipsoid(u, y, z, 22.0, 63.0, -37.0, 43.0, 42.0, 32.0), 4.0)
                    cerebellum = _cut(cerebellum, -_ellipsoid(u, y, z, 0.0, 97.0, -52.0, 4.0, 15.0, 22.0), 4.0)
                    cerebellum = _cut(cerebellum, -_ellipsoid(u, y, z, 0.0, 60.0, -70.0, 8.0, 12.0, 8.0), 4.0)
                    cerebellum = _cut(cerebellum, -_ellipsoid(u, y, z, 0.0, 40.0, -62.0, 15.0, 10.0, 16.0), 5.0)
                    voxel = _cerebellum(u, y, z, step, voxel, cerebellum, grain)
                stem = max(_brainstem(u, y, z), lower + 1.6 if z < -30 else -9.0)
                voxel = lay(voxel, STEM, stem, step)
                first[k, j, i], second[k, j, i], fraction[k, j, i] = voxel


def paint_head(painting: Painting, *, sign: int = 1) -> Painting:
    """Paint the head over a blank painting (all air); ``sign`` = -1 when its x counts to the right (one side's fine
    box).
    """
    noise = fold_noise(3.3, 11), fold_noise(4.5, 12), LOWEST, NOISE_STEP_MM
    voxels = painting.first, painting.second, painting.fraction
    in_slabs(len(painting.first), lambda a, b: _anatomy(voxels, painting.origin, painting.step, sign, noise, a, b))
    organs.paint_organs(painting)
    return painting
