"""Training of the network on a data set, or of the current model of a folder on corrections."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossmoda import training
from crossmoda.errors import InputError
from crossmoda.parameters import from_arguments, parameters
from crossmoda.progress import Progress
from crossmoda.steps.declaration import File, Result, StepDeclaration


def run(values: Mapping[str, Any], progress: Progress | None = None) -> dict[str, Any]:
    """Train; return the path of the weights.

    Raises:
        InputError: the data cannot be trained on, or no folder receives the weights.

    """
    if values["models"]:
        path = _improve(values, progress)
    elif values["output"]:
        folders = {name: values[name] for name in ("noisy", "validation", "initial")}
        settings = from_arguments(training.Settings, values)
        path = training.train_folder(values["data"], values["output"], settings, progress, **folders)
    else:
        raise InputError("No folder for the weights. Select an output folder, or a folder of models to improve.")
    return {"weights": path, "notes": training.notes_of(path)}


def _improve(values: Mapping[str, Any], progress: Progress | None) -> Path:
    from crossmoda.review import improvement

    names = values.keys() & {item.name for item in parameters(improvement.ImprovementSettings)}
    unused = [f"--{name}" for name in ("output", "validation", "initial") if values[name]]
    others = [item for item in parameters(training.Settings) if item.name not in names]
    unused += [item.flag for item in others if values[item.name] != item.default]
    if unused:
        raise InputError(f"Without effect where a model is improved: {', '.join(unused)}. Leave it out.")
    settings = improvement.ImprovementSettings(**{name: values[name] for name in names})
    return improvement.improve(values["data"], values["noisy"], values["models"], settings, progress).new.weights


STEP = StepDeclaration(
    module="CrossModaTrain",
    title="CrossModa Train",
    description="Trains the network on labeled ceT1 scans and on noisy labels propagated to hrT2 scans, or improves a "
    "model with corrections. A second run resumes an interrupted training.",
    acknowledgements="Networks: U-Net (O. Ronneberger and colleagues), DeepLab (L.-C. Chen and colleagues) with a "
    "MobileNetV2 backbone (M. Sandler and colleagues), on MIND-SSC (M. P. Heinrich and colleagues).",
    inputs=(
        File(
            "data", "folder", "Data set with labeled ceT1 scans, and the hrT2 scans of the noisy labels", required=True
        ),
        File("noisy", "folder", "Folder of the propagations to the hrT2 scans, one folder each"),
        File("validation", "folder", "Data set with labeled scans for validation only"),
        File("initial", "weights", "Initial weights"),
        File("models", "folder", "Folder of models; the current one is trained further with the corrections"),
    ),
    outputs=(File("output", "folder", "Folder of the weights, the metrics and the checkpoint"),),
    settings=(training.Settings,),
    results=(
        Result("weights", str, "Weights", "Path of the trained weights"),
        Result("notes", str, "Notes", "Messages for the user"),
    ),
    run=run,
)
