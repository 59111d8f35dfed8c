"""Registration programs to compare: functions of (fixed, moving) that return transform, time and memory."""

import dataclasses
import importlib.util
import os
import subprocess
import tempfile
from collections.abc import Callable

import numpy as np
import SimpleITK as sitk
from usage import Clock

from crossmoda import deeds, volume
from crossmoda.volume.grid import Grid, Volume


@dataclasses.dataclass
class PeerResult:
    """The result of a method, and its cost."""

    transform: sitk.Transform
    """from fixed to moving points"""
    seconds: float = 0.0
    processor_seconds: float = 0.0
    registration: deeds.Registration | None = None
    """with its inverse, if the method has one"""


Method = Callable[[Volume, Volume], PeerResult]


def _ours(settings: deeds.Settings) -> Method:
    def run(fixed: Volume, moving: Volume) -> PeerResult:
        clock = Clock()
        registration = deeds.register(fixed, moving, settings)
        return PeerResult(registration.transform, *clock.read(), registration)

    return run


def _on_fixed_grid(fixed: Volume, moving: Volume) -> np.ndarray:
    return volume.resample(moving, fixed.grid).array


def _voxel_field(displacement: np.ndarray, grid: Grid) -> sitk.Transform:
    """The transform of displacements (z, y, x, 3), components (x, y, z) in voxels of ``grid``."""
    lps = displacement.astype(np.float64) @ grid.index_to_physical[:3, :3].T
    image = sitk.GetImageFromArray(np.ascontiguousarray(lps), isVector=True)
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return sitk.DisplacementFieldTransform(image)


def deedsbcv(fixed: Volume, moving: Volume, linear: bool = True) -> PeerResult:
    """Run linearBCV, unless ``linear`` is False, and deedsBCV with their defaults."""
    with tempfile.TemporaryDirectory() as folder:
        for name, array in (("fixed", fixed.array), ("moving", _on_fixed_grid(fixed, moving))):
            scaled = np.round(array * (1000 / np.percentile(array, 99))).astype(np.int16)
            sitk.WriteImage(sitk.GetImageFromArray(scaled), f"{folder}/{name}.nii.gz")
        files = ["-F", f"{folder}/fixed.nii.gz", "-M", f"{folder}/moving.nii.gz", "-O", f"{folder}/out"]
        clock = Clock()
        if linear:
            subprocess.run([os.environ["DEEDSBCV_LINEAR"], *files], check=True, capture_output=True)
        else:
            np.savetxt(f"{folder}/out_matrix.txt", np.eye(4))
        affine = ["-A", f"{folder}/out_matrix.txt"]
        subprocess.run([os.environ["DEEDSBCV_DEEDS"], *files, *affine], check=True, capture_output=True)
        taken = clock.read()
        matrix = np.loadtxt(f"{folder}/out_matrix.txt").T[:3]  # rows: x, y, z of the sampled voxel
        controls = [size // 4 for size in fixed.grid.shape]
        flow = np.fromfile(f"{folder}/out_displacements.dat", np.float32).reshape(3, *controls)
    flow = flow[[1, 0, 2]]  # the file has y, x, z
    place = np.stack(np.meshgrid(*(np.arange(size) for size in fixed.grid.shape), indexing="ij"))
    from scipy.ndimage import map_coordinates

    ratio = np.array([new / old for new, old in zip(controls, fixed.grid.shape, strict=True)])
    at = place * ratio[:, None, None, None]
    dense = np.stack([map_coordinates(part, at, order=1, mode="nearest") for part in flow], axis=-1)
    index = np.moveaxis(place[::-1], 0, -1)
    return PeerResult(_voxel_field(index @ matrix[:, :3].T + matrix[:, 3] + dense - index, fixed.grid), *taken)


def convexadam(fixed: Volume, moving: Volume) -> PeerResult:
    """Run convexAdam with its defaults."""
    import torch
    from convexAdam.convex_adam_MIND import convex_adam_pt

    images = [fixed.array, _on_fixed_grid(fixed, moving)]
    clock = Clock()
    field = convex_adam_pt(*images, device=torch.device("cpu"), dtype=torch.float32)
    taken = clock.read()
    return PeerResult(_voxel_field(field[..., ::-1], fixed.grid), *taken)


def simpleitk(fixed: Volume, moving: Volume) -> PeerResult:
    """Affine, then B-spline, control points every 12 mm (30 in small images); Mattes mutual information."""
    images = [fixed.to_sitk(), moving.to_sitk()]
    clock = Clock()

    def method(shrink: list[int], share: float) -> sitk.ImageRegistrationMethod:
        registration = sitk.ImageRegistrationMethod()
        registration.SetMetricAsMattesMutualInformation(50)
        registration.SetMetricSamplingStrategy(registration.RANDOM)
        registration.SetMetricSamplingPercentage(share, 1)
        registration.SetInterpolator(sitk.sitkLinear)
        registration.SetShrinkFactorsPerLevel(shrink)
        registration.SetSmoothingSigmasPerLevel([factor / 2 for factor in shrink])
        return registration

    small = fixed.array.size < 1e6
    linear = method([4, 2] if small else [8, 4, 2], 0.5 if small else 0.2)
    linear.SetOptimizerAsGradientDescent(1.0, 100, 1e-6, 10, linear.EachIteration)  # stops when it no longer improves
    linear.SetOptimizerScalesFromPhysicalShift()
    first = sitk.AffineTransform(3)  # starts where the headers say
    first.SetCenter(images[0].TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in fixed.grid.size]))
    linear.SetInitialTransform(first, inPlace=True)
    linear.Execute(*images)
    apart = 30 if small else 12  # closer, the few voxels of a small image let it fold
    mesh = [
        max(round(count * size / apart), 1) for count, size in zip(fixed.grid.size, fixed.grid.spacing, strict=True)
    ]
    spline = sitk.BSplineTransformInitializer(images[0], mesh)
    bending = method([4, 2], 0.5 if small else 0.1)
    bending.SetOptimizerAsLBFGSB(numberOfIterations=15 if small else 40)
    bending.SetMovingInitialTransform(first)
    bending.SetInitialTransform(spline, inPlace=True)
    bending.Execute(*images)
    return PeerResult(sitk.CompositeTransform([first, spline]), *clock.read())


def header(fixed: Volume, moving: Volume) -> PeerResult:
    """Identity: images as their headers place them."""
    return PeerResult(sitk.Transform(3, sitk.sitkIdentity))


def methods() -> dict[str, Method]:
    """Return the installed methods."""
    available: dict[str, Method] = {
        "header": header,
        "deeds": _ours(deeds.Settings(device="cpu")),
        "deeds, voxel units": _ours(deeds.Settings(device="cpu", units="voxel")),
    }
    if "DEEDSBCV_LINEAR" in os.environ and "DEEDSBCV_DEEDS" in os.environ:
        available["linearBCV + deedsBCV"] = deedsbcv
    if importlib.util.find_spec("convexAdam"):
        available["convexAdam"] = convexadam
    if _cuda():
        available["deeds, CUDA"] = _ours(deeds.Settings(device="cuda"))
    available["SimpleITK affine + B-spline"] = simpleitk
    return available


def _cuda() -> bool:
    from crossmoda import device

    return device.choose("auto") == "cuda"
