"""Registration of one pair of images with deeds."""

from collections.abc import Mapping
from typing import Any

from crossmoda.deeds.files import STATISTICS, RegistrationOutputs, RegistrationSettings, register_files
from crossmoda.parameters import from_arguments
from crossmoda.progress import Progress
from crossmoda.steps.declaration import File, Result, StepDeclaration


def run(values: Mapping[str, Any], progress: Progress | None = None) -> dict[str, Any]:
    """Register the moving image to the fixed image; write the outputs together.

    Raises:
        InputError: a file cannot be used, or an output cannot be written.

    """
    outputs = RegistrationOutputs(
        values["transform"], values["inverse_transform"], values["warped"], values["warped_label"]
    )
    result = register_files(
        values["fixed"],
        values["moving"],
        outputs,
        moving_label=values["moving_label"],
        fixed_mask=values["fixed_mask"],
        moving_mask=values["moving_mask"],
        initial=values["initial_transform"],
        settings=from_arguments(RegistrationSettings, values),
        progress=progress,
    )
    return {name: result.provenance[name] for name in STATISTICS} | {"processor": result.provenance["device"]}


STEP = StepDeclaration(
    module="CrossModaRegister",
    title="CrossModa Register (deeds)",
    description="Registers a moving image to a fixed image of another MR contrast, affine and then deformable: dense "
    "displacement search on self-similarity descriptors (deeds, MIND-SSC). Not a medical device.",
    acknowledgements="Method: M. P. Heinrich and colleagues, IEEE TMI 2013, MICCAI 2013, VISCERAL 2015.",
    inputs=(
        File("fixed", "image", "Fixed image (target)", required=True),
        File("moving", "image", "Moving image (atlas)", required=True),
        File("moving_label", "label", "Label of the moving image (label map, segmentation, contours), warped as well"),
        File("initial_transform", "linear transform", "Initial linear transform from fixed to moving points"),
        File("fixed_mask", "label", "Mask of the registered region, on the fixed image's grid", advanced=True),
        File("moving_mask", "label", "Mask of the registered region, on the moving image's grid", advanced=True),
    ),
    outputs=(
        File("transform", "transform", "Transform from fixed to moving points; resamples the moving image"),
        File("inverse_transform", "transform", "Transform from moving to fixed points"),
        File("warped", "image", "Moving image on the fixed image's grid"),
        File("warped_label", "label", "Moving label map on the fixed image's grid"),
    ),
    settings=(RegistrationSettings,),
    results=(
        Result("mean_displacement_mm", float, "Mean displacement (mm)", "Mean displacement of the fixed voxels"),
        Result(
            "percentile_95_displacement_mm",
            float,
            "95th percentile of displacement (mm)",
            "95th percentile of the displacement of the fixed voxels",
        ),
        Result("folding_percent", float, "Folding (%)", "Folded fraction of the volume; normally below 0.1"),
        Result("processor", str, "Processor", "Processor of the registration"),
    ),
    run=run,
)
