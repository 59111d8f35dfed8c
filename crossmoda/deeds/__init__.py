"""deeds: dense displacement sampling on a minimum spanning tree, with self-similarity context.

The registration of M. P. Heinrich and colleagues, linear and deformable, in physical space:

- MRF-Based Deformable Registration and Ventilation Estimation of Lung CT. IEEE TMI 2013.
- Towards Realtime Multimodal Fusion for Image-Guided Interventions Using Self-Similarities. MICCAI 2013.
- Multi-modal Multi-Atlas Segmentation using Discrete Optimization and Self-Similarities. VISCERAL Challenge 2015.
"""

from typing import TYPE_CHECKING

from crossmoda.deeds.settings import Settings
from crossmoda.deeds.transform import Registration, load
from crossmoda.progress import Progress
from crossmoda.volume.grid import Volume

if TYPE_CHECKING:
    import SimpleITK as sitk

__all__ = ["Registration", "Settings", "load", "register"]


def register(
    fixed: Volume,
    moving: Volume,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    initial: "sitk.Transform | None" = None,
    progress: Progress | None = None,
) -> Registration:
    """Find where each point of ``fixed`` lies in ``moving``.

    The images may differ in contrast, size, spacing, origin and direction; each is sampled from its own grid.

    Args:
        fixed: the image whose space the result lies in (the target).
        moving: the image that is moved (the atlas).
        settings: the parameters.
        fixed_mask: what counts in the fixed image, on its grid; without it everything but the air around the patient.
        moving_mask: the same for the moving image.
        initial: a linear transform from fixed to moving points (LPS mm) to start from, instead of the headers.
        progress: told what is done; may raise :class:`crossmoda.errors.Cancelled`.

    Returns:
        The transforms in both directions, each other's inverse.

    Raises:
        InputError: an image is constant, not finite or too small, the images do not overlap or have nothing in common,
            a mask is empty or lies on another grid, or ``initial`` is not linear.

    """
    from crossmoda.deeds import pipeline

    return pipeline.register(fixed, moving, settings, fixed_mask, moving_mask, initial, progress)
