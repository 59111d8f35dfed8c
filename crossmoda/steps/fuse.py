"""Fusion of label maps on one grid with STAPLE or by majority."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from crossmoda import parameters
from crossmoda.fusion.files import FileFusionSettings, FusionOutputs, find_label_maps, fuse_files
from crossmoda.parameters import from_arguments, parameter
from crossmoda.progress import Progress
from crossmoda.steps.declaration import File, Result, StepDeclaration


@dataclasses.dataclass(frozen=True)
class LabelMapSelection(parameters.Settings):
    """Selection of the label maps in a folder."""

    pattern: str = parameter("*", "File names of the label maps, such as *_label.nii.gz")
    files: str = parameter("", "List of file names separated by commas, instead of the pattern")


def run(values: Mapping[str, Any], progress: Progress | None = None) -> dict[str, Any]:
    """Fuse the label maps; write the outputs together.

    Raises:
        InputError: the label maps cannot be fused, or an output cannot be written.

    """
    folder = values["folder"]
    listed = [folder / name.strip() for name in values["files"].split(",") if name.strip()]
    result = fuse_files(
        listed or find_label_maps(folder, values["pattern"]),
        FusionOutputs(**{file.name: values[file.name] for file in STEP.outputs}),
        from_arguments(FileFusionSettings, values),
        progress,
    )
    return {**result.measurements(), "notes": " ".join(result.fusion.notes)}


STEP = StepDeclaration(
    module="CrossModaFuse",
    title="CrossModa Fuse (STAPLE)",
    description="Fuses label maps of one target on one grid with STAPLE (confusion matrices for all structures) or by "
    "majority vote, and reports the agreement and the performance of each. Not a medical device.",
    acknowledgements="Method: S. K. Warfield, K. H. Zou, W. M. Wells, IEEE TMI 2004.",
    inputs=(File("folder", "folder", "Folder of the label maps (NIfTI, NRRD, MetaImage)", required=True),),
    outputs=(
        File("label", "label", "Fused label map"),
        File("confidence", "image", "Probability of the fused label (0 to 1)"),
        File("probability_vs", "image", "Probability of the vestibular schwannoma (0 to 1)"),
        File("probability_cochlea", "image", "Probability of the cochlea (0 to 1)"),
        File("agreement", "image", "Fraction of the label maps with the fused label"),
        File("disagreement", "image", "Entropy of the label maps (0: all equal, 1: all different)"),
        File("performance", "table", "Sensitivity and specificity of each label map"),
    ),
    settings=(LabelMapSelection, FileFusionSettings),
    results=(
        Result("fused", int, "Fused label maps", "Number of fused label maps"),
        Result("vs_volume_mm3", float, "Tumor volume (mm3)", "Volume of the vestibular schwannoma"),
        Result("cochlea_volume_mm3", float, "Cochlea volume (mm3)", "Volume of the cochleae"),
        Result("iterations", int, "Iterations", "Iterations of STAPLE"),
        Result("notes", str, "Notes", "Messages for the user"),
    ),
    run=run,
)
