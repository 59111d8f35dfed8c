"""SimpleITK transforms between points in physical space (LPS, mm), as matrices and in parts."""

import numpy as np
import SimpleITK as sitk

from crossmoda.errors import InputError


def affine_transform(matrix: np.ndarray) -> sitk.AffineTransform:
    """Return the SimpleITK transform of a 4 x 4 matrix (LPS mm)."""
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3].tolist())
    return transform


def matrix_of(transform: sitk.Transform) -> np.ndarray:
    """Return the 4 x 4 matrix (LPS mm) of a linear transform.

    Raises:
        InputError: the transform is not linear.

    """
    if not transform.IsLinear():
        raise InputError(
            "The initial transform is not linear; give a translation, a rigid or an affine transform, or none."
        )
    matrix = np.eye(4)
    matrix[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
    for axis in range(3):
        matrix[:3, axis] = np.array(transform.TransformPoint(np.eye(3)[axis].tolist())) - matrix[:3, 3]
    if abs(np.linalg.det(matrix[:3, :3])) < 1e-6:
        raise InputError(
            "The initial transform cannot be inverted; give a translation, a rigid or an affine transform."
        )
    return matrix


def parts_of(transform: sitk.Transform) -> list[sitk.Transform]:
    """Return the transforms of a composite, in its order (the last is applied first)."""
    if transform.GetTransformEnum() != sitk.sitkComposite:
        return [transform]
    composite = sitk.CompositeTransform(transform)
    return [part for n in range(composite.GetNumberOfTransforms()) for part in parts_of(composite.GetNthTransform(n))]


def is_deformation(transform: sitk.Transform) -> bool:
    """Return whether a transform consists of displacement fields, at least one, and linear transforms."""
    bends = [part for part in parts_of(transform) if not part.IsLinear()]
    return bool(bends) and all(part.GetTransformEnum() == sitk.sitkDisplacementField for part in bends)
