"""Segmentation of one scan with a trained network."""

from collections.abc import Mapping
from typing import Any

from crossmoda import inference
from crossmoda.parameters import from_arguments
from crossmoda.progress import Progress
from crossmoda.steps.declaration import File, Result, StepDeclaration


def run(values: Mapping[str, Any], progress: Progress | None = None) -> dict[str, Any]:
    """Segment the scan; write the outputs together.

    Raises:
        InputError: the scan or the weights cannot be used, or an output cannot be written.

    """
    maps = {"VS": values["vs_probability"], "cochlea": values["cochlea_probability"]}
    provenance = inference.predict_files(
        values["image"],
        values["label_map"],
        values["weights"],
        from_arguments(inference.Settings, values),
        progress,
        probabilities={key: path for key, path in maps.items() if path},
        uncertainty=values["uncertainty"],
        keep_record=False,
    ).provenance
    volumes = {f"{key.lower()}_mm3": volume_mm3 for key, volume_mm3 in provenance["volumes_mm3"].items()}
    return {**volumes, "processor": provenance["device"], "notes": "; ".join(provenance["notes"])}


STEP = StepDeclaration(
    module="CrossModaPredict",
    title="CrossModa Predict",
    description="Segments the vestibular schwannoma and the cochlea on an MR scan with a trained network. Check every "
    "result: not a medical device.",
    acknowledgements="Networks: U-Net (O. Ronneberger and colleagues), DeepLab (L.-C. Chen and colleagues) with a "
    "MobileNetV2 backbone (M. Sandler and colleagues), on MIND-SSC (M. P. Heinrich and colleagues).",
    inputs=(
        File("image", "image", "Scan, high-resolution T2 or contrast-enhanced T1", required=True),
        File("weights", "weights", "Trained weights, instead of the bundled ones"),
    ),
    outputs=(
        File("label_map", "label", "Schwannoma (1) and cochlea (2) on the grid of the scan", required=True),
        File("vs_probability", "image", "Probability of the schwannoma (0 to 1)"),
        File("cochlea_probability", "image", "Probability of the cochlea (0 to 1)"),
        File("uncertainty", "image", "Uncertainty of the network (0: sure, 1: all labels equally probable)"),
    ),
    settings=(inference.Settings,),
    results=(
        Result("vs_mm3", float, "Tumor volume (mm3)", "Volume of the vestibular schwannoma"),
        Result("cochlea_mm3", float, "Cochlea volume (mm3)", "Volume of the cochleae"),
        Result("processor", str, "Processor", "Processor of the network"),
        Result("notes", str, "Notes", "Messages for the user"),
    ),
    run=run,
)
