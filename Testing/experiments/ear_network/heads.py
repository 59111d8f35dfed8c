"""Ears of simulated heads in their canonical frame, stored without contrast: tissue shares and signed distances.

A head is deformed, given a tumor and painted by :mod:`crossmoda.simulation`, but not scanned. Around each ear the
shares of the tissues are collected in a box larger than the network's patch, so that contrast, resolution and pose can
be drawn anew for each training sample (:mod:`samples`). The frames follow from the known deformation, without the mass
effect of the tumor, as :func:`crossmoda.anatomy.ear_frame.ear_frames` fits them.
"""

import argparse
import dataclasses
import functools
import json
import sys
import zlib
from pathlib import Path

import numpy as np
from canal_tumors import draw_canal_tumor

from crossmoda.anatomy import ear_frame, template
from crossmoda.anatomy.cochlea import LABEL_MM3, mean_cochlea
from crossmoda.anatomy.rigid_fit import robust_rigid
from crossmoda.anatomy.sampling import covering, moved, positions
from crossmoda.simulation import deformation, subject
from crossmoda.simulation.deformation import LOWEST, STEP_MM, Deformation
from crossmoda.simulation.kernels import displaced, grid_index, in_slabs, jit, mapped, trilinear
from crossmoda.simulation.lesion import draw_volume
from crossmoda.simulation.painted_anatomy import PaintedAnatomy
from crossmoda.simulation.settings import Settings
from crossmoda.simulation.tissues import Tissue
from crossmoda.volume import Grid
from crossmoda.volume.masks import bounding_box

sys.path.insert(0, str(Path(__file__).parents[2] / "independent_sets"))
import expert_tumors

#: Voxels (x, y, z) and spacing of the box around an ear: the patch with room for jitter, turns and sizes.
SIZE, SPACING_MM = (124, 124, 108), 0.6
#: Stored distances are multiples of this, up to 12.7 mm.
DISTANCE_STEP_MM = 0.1
#: Largest value of the stored images of a real base (white matter = 1).
BRIGHTEST = 4.2
TISSUES = len(Tissue) + 1
#: Kinds of tumors and how many of 20 heads have them.
KINDS = ("canal",) * 4 + ("small",) * 3 + ("expert",) * 6 + ("any",) * 3 + ("large",) * 4


@dataclasses.dataclass(frozen=True)
class StoredEar:
    """One ear without contrast; arrays are (z, y, x) on :func:`box_grid`."""

    tissues: np.ndarray
    """(3, z, y, x) uint8: the most frequent tissues; the last index stands for the image of a real base"""
    shares: np.ndarray
    """(2, z, y, x) uint8: shares of the first two, of 255"""
    images: np.ndarray
    """(2, z, y, x) uint8: ceT1 and hrT2 of a real base, of :data:`BRIGHTEST`; empty for the phantom"""
    tumor: np.ndarray
    """int8, signed distance in steps of :data:`DISTANCE_STEP_MM`"""
    cochlea: np.ndarray
    """the same"""
    about: dict
    """seed, base, side, kind, volume of the tumor (mm3, 0: none)"""


def box_grid() -> Grid:
    """Return the grid of the box in canonical space."""
    return ear_frame.patch_grid(SIZE, SPACING_MM)


@jit
def _collect(to_canonical, field, head, ears, images, distances, tumor_sign, out, start, stop):
    tissues, shares, pictures, tumor_out, cochlea_out = out
    head_first, head_second, head_fraction, head_origin, head_step = head
    left_first, left_second, left_fraction, right_first, right_second, right_fraction, ear_origin, ear_step = ears
    ez, ey, ex = left_first.shape
    hz, hy, hx = head_first.shape
    cochlea, tumor = distances
    histogram = np.zeros(32, np.float32)
    for k in range(start, stop):
        for j in range(tissues.shape[2]):
            for i in range(tissues.shape[3]):
                histogram[:] = 0
                for corner in range(8):
                    x, y, z = mapped(
                        to_canonical,
                        i + 0.5 * (corner & 1) - 0.25,
                        j + 0.5 * ((corner >> 1) & 1) - 0.25,
                        k + 0.5 * (corner >> 2) - 0.25,
                    )
                    x, y, z = displaced(field, x, y, z)
                    u, v, w = grid_index(ear_origin, ear_step, abs(x), y, z)
                    a, b, c = int(u + 0.5), int(v + 0.5), int(w + 0.5)
                    if u >= 1 and v >= 1 and w >= 1 and u < ex - 2 and v < ey - 2 and w < ez - 2:
                        if x > 0:
                            first, second, part = left_first[c, b, a], left_second[c, b, a], left_fraction[c, b, a]
                        else:
                            first, second, part = right_first[c, b, a], right_second[c, b, a], right_fraction[c, b, a]
                    else:
                        u, v, w = grid_index(head_origin, head_step, x, y, z)
                        a = min(max(int(u + 0.5), 0), hx - 1)
                        b = min(max(int(v + 0.5), 0), hy - 1)
                        c = min(max(int(w + 0.5), 0), hz - 1)
                        first, second, part = head_first[c, b, a], head_second[c, b, a], head_fraction[c, b, a]
                    histogram[first] += 255.0 - part
                    histogram[second] += part
                total = np.float32(0)
                for rank in range(3):
                    best = 0
                    for n in range(1, 24):
                        if histogram[n] > histogram[best]:
                            best = n
                    tissues[rank, k, j, i] = best
                    if rank == 0:
                        one = histogram[best]
                    elif rank == 1:
                        two = histogram[best]
                    total += max(histogram[best], np.float32(0))
                    histogram[best] = -1
                shares[0, k, j, i] = int(255 * one / total + 0.5)
                shares[1, k, j, i] = min(int(255 * max(two, np.float32(0)) / total + 0.5), 255 - shares[0, k, j, i])
                x, y, z = mapped(to_canonical, i, j, k)
                x, y, z = displaced(field, x, y, z)
                u, v, w = grid_index(ear_origin, ear_step, abs(x), y, z)
                inside = u >= 1 and v >= 1 and w >= 1 and u < ex - 2 and v < ey - 2 and w < ez - 2
                near = far = np.float32(12.7)
                if inside:
                    near = min(trilinear(cochlea, u, v, w), 12.7)
                    if x * tumor_sign > 0:
                        far = min(trilinear(tumor, u, v, w), 12.7)
                cochlea_out[k, j, i] = round(max(near, -12.7) * 10)
                tumor_out[k, j, i] = round(max(far, -12.7) * 10)
                for n in range(pictures.shape[0]):
                    if inside:
                        value = trilinear(images[1 if x > 0 else 2][n], u, v, w)
                    else:
                        p, q, r = grid_index(head_origin, head_step, x, y, z)
                        value = trilinear(images[0][n], p, q, r)
                    pictures[n, k, j, i] = int(min(max(value, 0.0), 4.2) * (255 / 4.2) + 0.5)


def known_frame(smooth: Deformation, side: str) -> np.ndarray:
    """Return the 4 x 4 matrix from canonical to scanner LPS mm of an ear, fitted to the known deformation."""
    mirror = np.eye(4) if side == "left" else ear_frame._MIRROR
    center = moved(mirror, template.load().modiolus)
    ball = positions(covering(center - 22.0, center + 22.0, 2.0)).reshape(-1, 3)
    points = ball[np.linalg.norm(ball - center, axis=1) <= 22.0]
    rigid, _ = robust_rigid(points, smooth.from_canonical(points), center)
    return rigid @ mirror


def collect(scene: PaintedAnatomy, whole: Deformation, frame: np.ndarray, about: dict) -> StoredEar:
    """Return the ear whose canonical frame is ``frame``."""
    material = scene.material
    grid = box_grid()
    shape = grid.shape
    head, left, right = material.head, scene.ears["left"], scene.ears["right"]
    real = material.head_images is not None
    nothing = np.zeros((0, 2, 2, 2), np.float32)

    def pictures(images: dict[str, np.ndarray]) -> np.ndarray:
        return np.stack([images["ceT1"], images["hrT2"]]) if real else nothing

    images = (
        pictures(material.head_images),
        pictures(material.ear_images["left"] if real else None),
        pictures(material.ear_images["right"] if real else None),
    )
    ear = StoredEar(
        np.zeros((3, *shape), np.uint8),
        np.zeros((2, *shape), np.uint8),
        np.zeros((2 if real else 0, *shape), np.uint8),
        np.zeros(shape, np.int8),
        np.zeros(shape, np.int8),
        about,
    )
    matrix = np.ascontiguousarray((whole.affine @ frame @ grid.index_to_physical)[:3])
    painted = (
        (head.first, head.second, head.fraction, head.origin, head.step),
        (left.first, left.second, left.fraction, right.first, right.second, right.fraction, left.origin, left.step),
    )
    sign = {"left": 1, "right": -1, None: 0}[scene.side]
    out = ear.tissues, ear.shares, ear.images, ear.tumor, ear.cochlea
    field = whole.field, LOWEST, STEP_MM
    distances = scene.cochlea, scene.lesion
    in_slabs(shape[0], lambda a, b: _collect(matrix, field, *painted, images, distances, sign, out, a, b))
    return ear


def with_defined_cochlea(ear: StoredEar) -> StoredEar:
    """Return the ear whose cochlea has the defined shape (docs/cochlea.md), at its place and with its volume."""
    inside = ear.cochlea < 0
    shape, grid = mean_cochlea(), box_grid()
    box = bounding_box(inside, 14)
    points = grid.crop(box).points(np.ones([side.stop - side.start for side in box], bool))
    center = grid.points(inside).mean(axis=0)
    size = (inside.sum() * grid.voxel_volume_mm3 / LABEL_MM3) ** (1 / 3)
    distance = shape.distance(points - center + shape.center, size).reshape([side.stop - side.start for side in box])
    cochlea = np.full(inside.shape, 127, np.int8)
    cochlea[box] = np.clip(np.round(distance / DISTANCE_STEP_MM), -127, 127)
    return dataclasses.replace(ear, cochlea=cochlea, about={**ear.about, "cochlea": "defined"})


def shapes_for_training(contours: Path, folder: Path) -> Path:
    """Link the label maps of the tuning set's subjects into a folder of their own: nothing learns a claim's shapes."""
    shapes = folder / "shapes"
    shapes.mkdir(parents=True, exist_ok=True)
    for subject_name, _ in expert_tumors.subjects(contours)["tuning"]:
        name = f"{subject_name}_T1wspace_label.nii.gz"
        if not (shapes / name).exists():
            (shapes / name).symlink_to((contours / "labels" / name).resolve())
    return shapes


def draw_head(seed: int, folder: Path, base_folder: Path, shapes: Path) -> list[StoredEar]:
    """Return both ears of a simulated head; seeds 20 apart have tumors of one kind."""
    rng = np.random.default_rng([seed, 0])
    body = np.random.default_rng([seed, 1])
    base, side, kind = ("icbm", "phantom")[seed % 3 == 0], subject.SIDES[seed % 2], KINDS[7 * seed % len(KINDS)]
    settings = Settings(rotation=3.0, deformation=float(body.uniform(3, 5)), size=0.06)
    smooth = Deformation(
        deformation.draw_pose(body, settings.rotation, settings.translation, settings.size),
        deformation.smooth_field(body, settings.deformation),
    )
    volume_mm3, contours = 0.0, None
    if kind == "canal":
        contours = folder / "canal" / str(seed)
        volume_mm3 = draw_canal_tumor(seed, contours)
    elif kind == "small":
        volume_mm3 = float(np.exp(rng.uniform(np.log(50), np.log(500))))
    elif kind == "large":
        volume_mm3 = float(np.exp(rng.uniform(np.log(4000), np.log(18000))))
    elif kind == "expert":
        contours, volume_mm3 = shapes, draw_volume(rng)
    else:
        volume_mm3 = draw_volume(rng)
    material = subject._material(base, base_folder)
    whole, lesion = subject._with_tumor(rng, smooth, volume_mm3, side, contours)
    scene = PaintedAnatomy.of(material, lesion, side)
    ears = []
    for ear_side in subject.SIDES:
        frame = known_frame(smooth, ear_side)
        about = {
            "seed": seed,
            "base": base,
            "kind": kind,
            "side": ear_side,
            "tumor": ear_side == side,
            "tumor_mm3": round(lesion.volume_mm3, 1) if ear_side == side else 0.0,
            "frame": frame.tolist(),
        }
        ears.append(with_defined_cochlea(collect(scene, whole, frame, about)))
    return ears


def write(ear: StoredEar, path: Path) -> None:
    """Write an ear, lightly compressed."""
    arrays = [ear.tissues, ear.shares, ear.images, ear.tumor[None], ear.cochlea[None]]
    content = np.concatenate([array.view(np.uint8) for array in arrays])
    path.with_suffix(".json").write_text(json.dumps({**ear.about, "channels": len(content)}))
    partial = path.with_suffix(".part")
    partial.write_bytes(zlib.compress(content.tobytes(), 1))
    partial.rename(path)


@functools.lru_cache(maxsize=256)
def read(path: Path) -> StoredEar:
    """Read an ear; it stays in memory (10 MB)."""
    about = json.loads(path.with_suffix(".json").read_text())
    content = np.frombuffer(zlib.decompress(path.read_bytes()), np.uint8).reshape(about["channels"], *SIZE[::-1])
    return StoredEar(
        content[:3], content[3:5], content[5:-2], content[-2].view(np.int8), content[-1].view(np.int8), about
    )


def main() -> None:
    """Simulate heads and store their ears."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base-folder", type=Path, required=True, help="ICBM152 images")
    parser.add_argument("--contours", type=Path, required=True, help="expert contours, with volumes.csv and labels")
    parser.add_argument("--seeds", type=int, nargs=2, default=(20000, 20100), help="first and last + 1")
    options = parser.parse_args()
    shapes = shapes_for_training(options.contours, options.folder)
    for seed in range(*options.seeds):
        if (options.folder / f"{seed}_right.ear").exists():
            continue
        for ear in draw_head(seed, options.folder, options.base_folder, shapes):
            write(ear, options.folder / f"{seed}_{ear.about['side']}.ear")
        print(seed, ear.about["base"], ear.about["kind"], flush=True)


if __name__ == "__main__":
    main()
