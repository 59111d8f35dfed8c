"""Make the shape of the cochlea (crossmoda/anatomy/vs_seg) from the expert contours of Vestibular-Schwannoma-SEG.

Usage: python tools/cochlea_shape.py DATA, with the folders vs_seg_contours, icbm152_2009c_sym and real_t2 in DATA.

Right cochleae are mirrored. The cochleae are brought to one size and aligned rigidly with their mean; signed distances
give the mean shape and its modes. It is placed in the ear frame: its center at the modiolus, its rotation by
the T2 of the template and of one real head (p03), whose bright cochlea it has to cover.
"""

import argparse
import csv
import dataclasses
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from crossmoda import volume
from crossmoda.anatomy import cochlea, ear_frame, template
from crossmoda.anatomy.sampling import moved, positions
from crossmoda.output import write_json
from crossmoda.volume import Volume

#: The box of the shape: voxels along x, y, z and their size.
SIZE, STEP_MM = (48, 48, 44), 0.3
#: Voxels of a contour are divided, and its steps blurred, before its surface is found.
_FINE_MM, _BLUR_MM = 0.25, 0.6
#: Spread of the rotation of heads in the scanner, radians, and its weight beside the correlation.
_ROTATION_SPREAD, _ROTATION_WEIGHT = 0.15, 0.01
ROUNDS = 5


@dataclasses.dataclass
class Contour:
    """One cochlea, as a blurred shape on a fine grid, and its pose."""

    mirror: np.ndarray
    """(3,) -1 along x for a right cochlea"""
    center: np.ndarray
    """LPS mm"""
    volume_mm3: float
    image: np.ndarray
    origin: np.ndarray
    level: float
    """value of the image at the surface that keeps the volume"""
    tumor: np.ndarray
    """(n, 3) voxels of the tumor relative to the center, mirrored, mm"""
    size: float = 1.0
    """linear, relative to the median"""
    pose: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(6))
    """rotation vector and shift (mm), from the mean shape to this one"""

    @classmethod
    def read(cls, path: Path) -> "Contour":
        """Read a label map with a tumor and the cochlea on its side."""
        labels = volume.read(path)
        tumor, duct = (
            moved(labels.grid.index_to_physical, np.argwhere(labels.array == label)[:, ::-1]) for label in (1, 2)
        )
        center = duct.mean(axis=0)
        mirror = np.array([np.sign(center[0] - tumor[:, 0].mean()), 1.0, 1.0])  # lateral of the tumor
        margin = np.array([5, 14, 14])  # z, y, x
        inside = np.pad(labels.array == 2, [(width, width) for width in margin])
        index = np.argwhere(inside)
        low = index.min(axis=0) - margin
        inside = inside[tuple(slice(a, b) for a, b in zip(low, index.max(axis=0) + margin + 1, strict=True))]
        spacing = np.asarray(labels.grid.spacing_zyx)
        parts = np.round(spacing / _FINE_MM).astype(int)
        image = inside.astype(np.float32)
        for axis in range(3):
            image = np.repeat(image, parts[axis], axis=axis)
        image = gaussian_filter(image, _BLUR_MM / _FINE_MM)
        first = moved(labels.grid.index_to_physical, (low - margin)[::-1].astype(float))
        voxels = int(inside.sum() * labels.grid.voxel_volume_mm3 / _FINE_MM**3)
        level = float(np.sort(image, axis=None)[-voxels])
        volume_mm3 = float(inside.sum() * labels.grid.voxel_volume_mm3)
        origin = first - (spacing[::-1] - _FINE_MM) / 2
        return cls(mirror, center, volume_mm3, image, origin, level, (tumor - center) * mirror)

    def sample(self, points: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """Return the image at points (..., 3) of the mean shape, mm."""
        turned = points @ Rotation.from_rotvec(pose[:3]).as_matrix().T + pose[3:]
        index = (self.size * turned * self.mirror + self.center - self.origin) / _FINE_MM
        return map_coordinates(self.image, np.moveaxis(index[..., ::-1], -1, 0), order=1, mode="nearest")

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Return the signed distance to the aligned shape of median size on the grid of the mean, mm."""
        inside = self.sample(points, self.pose) > self.level
        return _signed(inside)

    def tumor_in_mean(self) -> np.ndarray:
        """Return the tumor's voxels in the space of the mean shape, mm."""
        return (self.tumor / self.size - self.pose[3:]) @ Rotation.from_rotvec(self.pose[:3]).as_matrix()


def _signed(inside: np.ndarray) -> np.ndarray:
    half = np.where(inside, 0.5, -0.5)
    return ((distance_transform_edt(~inside) - distance_transform_edt(inside) + half) * STEP_MM).astype(np.float32)


def _similar(one: np.ndarray, two: np.ndarray) -> float:
    one, two = one - one.mean(), two - two.mean()
    return float((one * two).sum() / np.sqrt((one**2).sum() * (two**2).sum()))


def box() -> np.ndarray:
    """Return the voxel centers of the mean shape, (x, y, z, 3) mm around 0."""
    axes = [(np.arange(count) - (count - 1) / 2) * STEP_MM for count in SIZE]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def align(contours: list[Contour]) -> None:
    """Set size and pose of every contour, so that they agree with their mean."""
    median = np.median([contour.volume_mm3 for contour in contours])
    for contour in contours:
        contour.size = float((contour.volume_mm3 / median) ** (1 / 3))
    points = box()[::2, ::2, ::2].reshape(-1, 3)
    points = points[np.linalg.norm(points, axis=1) < 7]
    for turn in range(ROUNDS):
        mean = np.mean([contour.sample(points, contour.pose) for contour in contours], axis=0)
        for contour in contours:

            def cost(pose: np.ndarray, contour: Contour = contour, mean: np.ndarray = mean) -> float:
                penalty = _ROTATION_WEIGHT / 2 * np.sum((pose[:3] / _ROTATION_SPREAD) ** 2)
                return float(penalty - _similar(contour.sample(points, pose), mean))

            options = {"maxiter": 4, "xtol": 1e-2, "ftol": 1e-4}
            contour.pose = minimize(cost, contour.pose, method="Powell", options=options).x
        drift = np.mean([contour.pose for contour in contours], axis=0)
        for contour in contours:
            contour.pose = contour.pose - drift
        print(f"round {turn + 1}: drift {np.abs(drift).max():.4f}", flush=True)


def level_of(distance: np.ndarray, volume_mm3: float) -> float:
    """Return the signed distance at which a shape has a volume, mm."""
    return float(np.sort(distance, axis=None)[round(volume_mm3 / STEP_MM**3)])


def shape_at(distance: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the signed distance of the mean shape at points (..., 3), mm."""
    index = points / STEP_MM + (np.asarray(SIZE) - 1) / 2
    return map_coordinates(distance, np.moveaxis(index, -1, 0), order=1, mode="nearest")


def rotation_by_images(distance: np.ndarray, center: np.ndarray, data: Path) -> np.ndarray:
    """Return the rotation (3 x 3) of the mean shape into the ear frame by which it covers the bright cochlea best.

    ``center`` is the shape's, which comes to lie at the modiolus.
    """
    grid = ear_frame.patch_grid((56, 56, 56), STEP_MM, tuple(template.load().modiolus))
    patches = []
    for session in (1, 2):
        scan = volume.read(data / "real_t2" / f"p03_study{session}_T2W.nii.gz")
        patches += [frame.sample(scan, grid).array for frame in ear_frame.ear_frames(scan)]
    real = np.mean([patch / np.percentile(patch, 99) for patch in patches], axis=0)
    average = volume.resample(volume.read(data / "icbm152_2009c_sym" / "icbm152_09c_T2.nii.gz"), grid).array
    marks = template.load().landmarks
    points = positions(grid)
    axis = marks["porus"] - marks["fundus"]
    axis = axis / np.linalg.norm(axis)
    along = np.clip((points - marks["fundus"]) @ axis, 0, 20)[..., None]
    canal = np.linalg.norm(points - marks["fundus"] - along * axis, axis=-1) < 2.2
    vestibule = np.linalg.norm(points - marks["vestibule"], axis=-1) < 3.4
    near = np.linalg.norm(points - marks["modiolus"], axis=-1) < 8
    compared = near & ~canal & ~vestibule
    compared[1::2] = compared[:, 1::2] = False
    offsets = points[compared] - marks["modiolus"]

    def cost(turn: np.ndarray) -> float:
        inside = -shape_at(distance, offsets @ Rotation.from_rotvec(turn).as_matrix() + center)
        fit = [  # the average head is blurred more
            _similar(1 / (1 + np.exp(-inside / blur)), image[compared]) for image, blur in ((real, 0.5), (average, 1.2))
        ]
        return float(0.002 * np.sum((turn / 0.12) ** 2) - np.mean(fit))

    turn = minimize(cost, np.zeros(3), method="Powell").x
    rotation: np.ndarray = Rotation.from_rotvec(turn).as_matrix()
    print(f"rotation {np.degrees(turn).round(1)} degrees: correlation {-cost(np.zeros(3)):.3f} to {-cost(turn):.3f}")
    values = shape_at(distance, offsets @ rotation + center)
    for low in np.arange(-1.0, 2.0, 0.25):
        shell = (values >= low) & (values < low + 0.25)
        print(
            f"{low:5.2f} to {low + 0.25:5.2f} mm from the label: real T2 {real[compared][shell].mean():.2f}, "
            f"average {average[compared][shell].mean():.0f}"
        )
    return rotation


def axes_mm(points: np.ndarray) -> list[float]:
    """Return the axes of the ellipsoid with the same moments, longest first, mm."""
    return (2 * np.sqrt(5 * np.linalg.eigvalsh(np.cov(points.T)))[::-1]).round(2).tolist()


def main() -> None:
    """Write mean, modes and statistics."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    with (data / "vs_seg_contours" / "volumes.csv").open(encoding="utf-8", newline="") as file:
        subjects = [row["subject"] for row in csv.DictReader(file) if row["has_cochlea"] == "1"]
    labels = data / "vs_seg_contours" / "labels"
    contours = [Contour.read(labels / f"{subject}_T2wspace_label.nii.gz") for subject in subjects]
    align(contours)
    points = box()
    distances = np.array([contour.distance(points) for contour in contours])
    mean = distances.mean(axis=0)
    overlaps = [2 * ((mean < 0) & (one < 0)).sum() / ((mean < 0).sum() + (one < 0).sum()) for one in distances]
    volumes = np.array([contour.volume_mm3 for contour in contours])
    label_level = level_of(mean, cochlea.LABEL_MM3)
    contour_level = level_of(mean, float(np.median(volumes))) - label_level
    label = mean - label_level  # 0 at the surface of the label
    center = points[label < 0].mean(axis=0)
    rotation = rotation_by_images(label, center, data)

    # The grid of the ear frame around the modiolus; the shape is turned onto it.
    modiolus = template.load().modiolus
    grid = ear_frame.patch_grid(SIZE, STEP_MM, tuple(modiolus))
    sampled = (positions(grid) - modiolus) @ rotation + center
    deviations = (distances - mean).reshape(len(contours), -1)
    near = (np.abs(label) < 3).ravel()
    left, spread, _ = np.linalg.svd(deviations[:, near], full_matrices=False)
    weights = left[:, : cochlea.MODES] * np.sqrt(len(contours))  # unit variance
    modes = (weights.T @ deviations / len(contours)).reshape(cochlea.MODES, *SIZE)
    cochlea.FOLDER.mkdir(exist_ok=True)
    for name, array, unit in [
        (cochlea.MEAN, label, cochlea.MEAN_UNIT_MM),
        *[(cochlea.MODE.format(k + 1), mode, cochlea.MODE_UNIT_MM) for k, mode in enumerate(modes)],
    ]:
        values = np.clip(np.round(shape_at(array, sampled) / unit), -127, 127).astype(np.int8)
        volume.write(Volume(values, grid), cochlea.FOLDER / name)
    inside = points[label < 0]
    tips = np.array([tumor[np.argsort(-tumor[:, 0])[: max(len(tumor) // 100, 5)]].mean(axis=0) for tumor in
                     (contour.tumor_in_mean() for contour in contours)])  # fmt: skip
    tip = modiolus + np.median(tips - center, axis=0) @ rotation.T
    write_json(
        cochlea.FOLDER / cochlea.STATISTICS,
        {
            "contours": len(contours),
            "left": int(sum(contour.mirror[0] > 0 for contour in contours)),
            "volume_mm3_percentiles_5_50_95": np.percentile(volumes, [5, 50, 95]).round(1).tolist(),
            "size_log_deviation": round(float(np.std(np.log(volumes)) / 3), 4),
            "label_volume_mm3": cochlea.LABEL_MM3,
            "contour_level_mm": round(contour_level, 3),
            "label_axes_mm": axes_mm(inside),
            "contour_axes_mm": axes_mm(points[label < contour_level]),
            "overlap_with_mean_percentiles_5_50_95": np.percentile(overlaps, [5, 50, 95]).round(3).tolist(),
            "variance_of_modes": [round(float(part), 3) for part in spread[: cochlea.MODES] ** 2 / np.sum(spread**2)],
            "lateral_end_of_tumors_mm": tip.round(2).tolist(),
        },
    )


if __name__ == "__main__":
    main()
