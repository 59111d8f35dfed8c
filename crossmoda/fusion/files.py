"""Fusion of label map files that lie on one grid: what ``crossmoda fuse`` and the CLI module do."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossmoda import labels, volume
from crossmoda.dataset.case_id import VOLUME_ENDING
from crossmoda.dataset.label_reading import read_label
from crossmoda.errors import InputError
from crossmoda.fusion.majority import vote_fractions
from crossmoda.fusion.settings import Settings
from crossmoda.fusion.staple import Fusion, Performance, rate, staple
from crossmoda.output import check_apart, csv_text, together, write_text
from crossmoda.parameters import parameter
from crossmoda.progress import Progress, part, report
from crossmoda.provenance import Record
from crossmoda.volume import Volume


@dataclasses.dataclass(frozen=True)
class FileFusionSettings(Settings):
    """Parameters of the fusion of label map files."""

    method: str = parameter("staple", "Fusion method", choices=("staple", "majority"))


@dataclasses.dataclass(frozen=True)
class FusionOutputs:
    """The files to write; None leaves one out."""

    label: Path | str | None = None
    """fused label map; ``.seg.nrrd`` too"""
    confidence: Path | str | None = None
    """probability of the fused label"""
    probability_vs: Path | str | None = None
    probability_cochlea: Path | str | None = None
    agreement: Path | str | None = None
    """fraction of the label maps with the fused label"""
    disagreement: Path | str | None = None
    """entropy of the label maps, 0 to 1"""
    performance: Path | str | None = None
    """CSV: sensitivity and specificity of each label map"""


@dataclasses.dataclass(frozen=True)
class FileFusion:
    """The fusion of some files."""

    label_map: Volume
    fusion: Fusion
    provenance: dict[str, Any]

    def measurements(self) -> dict[str, float]:
        """Return what the CLI module reports as simple output parameters."""
        voxel_mm3 = self.label_map.grid.voxel_volume_mm3
        voxels = {item.value: np.count_nonzero(self.label_map.array == item.value) for item in labels.STRUCTURES}
        return {
            "fused": len(self.fusion.performance),
            "vs_volume_mm3": round(voxels[labels.VS] * voxel_mm3, 2),
            "cochlea_volume_mm3": round(voxels[labels.COCHLEA] * voxel_mm3, 2),
            "iterations": self.fusion.iterations,
        }


def find_label_maps(folder: Path | str, pattern: str = "*") -> list[Path]:
    """Return the label map files of a folder whose names match ``pattern``, sorted.

    Raises:
        InputError: the folder is missing, or has no such file.

    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"Not a folder: {folder}. Use the folder of the label maps.")
    files = sorted(
        path for path in folder.glob(pattern) if VOLUME_ENDING.search(path.name) and not path.name.startswith(".")
    )
    if not files:
        raise InputError(f"No label map (NIfTI, NRRD, MetaImage) named {pattern}: {folder}. Check folder and pattern.")
    return files


def fuse_files(
    files: Sequence[Path | str],
    outputs: FusionOutputs = FusionOutputs(),
    settings: FileFusionSettings = FileFusionSettings(),
    progress: Progress | None = None,
) -> FileFusion:
    """Fuse label map files with STAPLE or by majority vote.

    With STAPLE, a label map without a structure that others have counts as incomplete, not as evidence against it.

    Args:
        files: label maps of one scan, on one grid.
        outputs: the files to write; all appear, complete, or none.
        settings: parameters.
        progress: callback(fraction, message); raise Cancelled to abort.

    Raises:
        InputError: a label map is unreadable, has an unknown label value or another grid, or an output cannot be
            written.

    """
    paths = [Path(file) for file in files]
    if not paths:
        raise InputError("There are no label maps to fuse. Add at least one.")
    check_apart(vars(outputs).values(), paths)
    for number, path in enumerate(paths):
        if path.resolve() in [earlier.resolve() for earlier in paths[:number]]:
            raise InputError(f"Duplicate label map: {path}. It would count as two raters; name each file once.")
    label_maps = _read(paths, part(progress, 0.0, 0.4))
    record = Record("fuse", settings, {str(number): path for number, path in enumerate(paths, 1)})
    arrays = [label_map.array for label_map in label_maps]
    if settings.method == "majority":
        fusion = rate(arrays, vote_fractions(arrays), settings, missing=[0] * len(arrays))
    else:
        fusion = staple(arrays, settings, progress=part(progress, 0.4, 0.8))
    provenance = record.finish(iterations=fusion.iterations, notes=fusion.notes)
    result = FileFusion(Volume(fusion.label_map, label_maps[0].grid), fusion, provenance)
    report(progress, 0.85, "writing")
    _write(result, outputs, [path.name for path in paths])
    report(progress, 1.0, "fused")
    return result


def _read(files: Sequence[Path], progress: Progress | None) -> list[Volume]:
    """Read the label maps; the first one's grid is that of all."""
    label_maps: list[Volume] = []
    for number, file in enumerate(files):
        report(progress, number / len(files), f"reading {file.name}")
        label_map = read_label(file, label_maps[0].grid if label_maps else None)
        if label_maps and not label_map.grid.same_as(label_maps[0].grid):
            difference = label_map.grid.difference_to(label_maps[0].grid)
            raise InputError(
                f"{file.name} has another grid than {files[0].name} ({difference}). Resample it to that grid."
            )
        label_maps.append(label_map)
    return label_maps


@together()
def _write(result: FileFusion, outputs: FusionOutputs, names: Sequence[str]) -> None:
    fusion, grid = result.fusion, result.label_map.grid
    if outputs.label is not None:
        if str(outputs.label).lower().endswith(".seg.nrrd"):
            volume.write_segmentation(result.label_map, outputs.label, result.provenance)
        else:
            volume.write(result.label_map, outputs.label)
    maps = {
        outputs.confidence: fusion.posterior.max(axis=0),
        outputs.probability_vs: fusion.posterior[labels.VALUES.index(labels.VS)],
        outputs.probability_cochlea: fusion.posterior[labels.VALUES.index(labels.COCHLEA)],
        outputs.agreement: fusion.agreement,
        outputs.disagreement: fusion.disagreement,
    }
    for path, array in maps.items():
        if path is not None:
            volume.write(Volume(np.ascontiguousarray(array), grid), path)
    if outputs.performance is not None:
        write_text(outputs.performance, performance_table(names, fusion.performance))


def performance_table(names: Sequence[str], performance: Sequence[Performance]) -> str:
    """Return sensitivity and specificity of each rater for each structure as CSV."""
    measures = [(kind, item) for item in labels.STRUCTURES for kind in ("sensitivity", "specificity")]
    rows = []
    for name, rater in zip(names, performance, strict=True):
        numbers = [getattr(rater, kind)[structure.value] for kind, structure in measures]
        rows.append([name, *("" if np.isnan(number) else f"{number:.4f}" for number in numbers)])
    return csv_text(["name", *(f"{kind}_{structure.key}" for kind, structure in measures)], rows)
