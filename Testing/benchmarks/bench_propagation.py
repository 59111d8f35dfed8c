"""Propagation from end to end: the noisy label against single atlases, majority vote and same-side atlases.

``python Testing/benchmarks/bench_propagation.py --data FOLDER`` reads a data set in crossMoDA's layout whose targets'
truth lies in ``truth/<id>_Label.nii.gz`` (as ``crossmoda simulate`` writes it); without ``--data`` one is simulated.
The atlases are those of the same data set, or of ``--atlases-from FOLDER``. ``--figure FILE`` draws each tumor:
scan, votes of the atlases, noisy label (truth dashed).
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import SimpleITK as sitk

from crossmoda import dataset, deeds, evaluation, figures, fusion, labels, propagation, volume
from crossmoda.anatomy import laterality
from crossmoda.fusion import weighted_voting
from crossmoda.propagation.frames import FRAMES
from crossmoda.propagation.registrations import CONTRALATERAL, REGISTRATIONS
from crossmoda.volume import Volume

COLUMNS = (
    "target", "tumor mm3", "side", "found", "wall s", "processor s", "VS fused", "VS votes", "VS STAPLE",
    "VS same side", "VS mean single", "VS blind single", "VS majority", "VS ITK", "VS volume %", "VS HD95 mm",
    "ghost mm3", "cochlea fused", "cochlea STAPLE", "cochlea mean single", "cochlea best single",
    "cochlea blind single", "cochlea majority", "cochlea ITK", "cochlea volume %", "cochlea not moved",
)  # fmt: skip


def _dice(label_map: np.ndarray, truth: np.ndarray) -> list[float]:
    return [evaluation.dice(label_map == value, truth == value) for value in (labels.VS, labels.COCHLEA)]


def _votes(result: propagation.PropagationResult) -> dict[str, Volume]:
    """Return the warped label map of each contributing atlas, on the registered part of the target."""
    return {outcome.atlas: volume.read_label_map(result.warped_label(outcome)) for outcome in result.contributors}


def _again(
    case: dataset.Case,
    atlases: list[dataset.Case],
    result: propagation.PropagationResult,
    how: deeds.Settings,
    **options,
) -> Volume:
    """Fuse with other settings or fewer atlases; registrations are reused."""
    folder = result.folder.with_name(result.folder.name + "_again")
    shutil.rmtree(folder, ignore_errors=True)
    for subfolder in (FRAMES, REGISTRATIONS, CONTRALATERAL):
        shutil.copytree(result.folder / subfolder, folder / subfolder)
    return propagation.propagate(case, atlases, folder, registration=how, **options).label_map


def study(
    case: dataset.Case, atlases: list[dataset.Case], truth: Volume, folder: Path, how: deeds.Settings, itk: bool
) -> tuple[list[object], Volume, Volume]:
    """Return one row of the table, the fused label map, and that of the votes."""
    side = laterality.tumor_side(truth)
    wall, processor = time.perf_counter(), time.process_time()
    result = propagation.propagate(case, atlases, folder / case.id, registration=how)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    volumes = _votes(result)
    grid = next(iter(volumes.values())).grid
    votes = {name: vote.array for name, vote in volumes.items()}
    truth_array = volume.resample(truth, grid, interpolation="nearest").array
    single = np.array([_dice(vote, truth_array) for vote in votes.values()])
    quality = {outcome.atlas: outcome.quality or 0.0 for outcome in result.contributors}
    blind = list(votes).index(max(quality, key=lambda name: quality[name]))
    majority = _dice(fusion.majority_vote(list(votes.values())), truth_array)
    itk = [float("nan")] * 2
    if itk:
        images = [sitk.GetImageFromArray(vote) for vote in votes.values()]
        itk = _dice(sitk.GetArrayFromImage(sitk.MultiLabelSTAPLE(images, 0)), truth_array)
    own, settings = [atlas for atlas in atlases if atlas.side == side], propagation.Settings(tumor_side=side)
    same = _dice(_again(case, own, result, how, settings=settings).array, truth.array)
    as_voted = propagation.Settings(outline="atlases")
    voted = _again(case, atlases, result, how, settings=as_voted)
    by_staple = propagation.Settings(weighting="global")
    staple = _dice(_again(case, atlases, result, how, settings=by_staple).array, truth.array)
    with mock.patch.object(weighted_voting, "RECENTERED", ()):
        not_moved = _dice(_again(case, atlases, result, how).array, truth.array)
    fused = _dice(result.label_map.array, truth.array)
    scores = evaluation.evaluate(result.label_map, truth)
    on_left = laterality.lateral_mm(truth.grid) > laterality.find_sides(truth).midplane_mm
    ghost = (result.label_map.array == labels.VS) & (on_left != (side == "left"))
    row = [
        case.id, scores["VS"]["reference_volume_mm3"], side, result.tumor_side, wall, processor,
        fused[0], _dice(voted.array, truth.array)[0], staple[0], same[0], single[:, 0].mean(), single[blind, 0],
        majority[0], itk[0], scores["VS"]["volume_error_percent"], scores["VS"]["hd95_mm"],
        ghost.sum() * truth.grid.voxel_volume_mm3,
        fused[1], staple[1], single[:, 1].mean(), single[:, 1].max(), single[blind, 1], majority[1], itk[1],
        scores["cochlea"]["volume_error_percent"], not_moved[1],
    ]  # fmt: skip
    return row, result.label_map, voted


def draw(drawn: list[tuple[Volume, Volume, Volume, Volume, str]], path: Path) -> None:
    """Draw the tumor of each target: scan, truth (dashed), votes, fused label map and title."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.4 * len(drawn), 7.4), layout="constrained", dpi=100)
    axes = figure.subplots(3, len(drawn), squeeze=False)
    for column, (image, truth, voted, fused, title) in zip(axes.T, drawn, strict=True):
        image, truth, voted, fused = (figures.oriented(item) for item in (image, truth, voted, fused))
        view = figures.close_views(truth, margin_mm=8.0)["VS"]
        for axis in column:
            figures.show_image(axis, image, view)
        for axis, label_map, name in zip(column[1:], (voted, fused), ("votes", "outlined"), strict=True):
            figures.show_contours(axis, label_map, view)
            figures.show_contours(axis, truth, view, reference=True)
            axis.set_title(name, fontsize=9)
        column[0].set_title(title, fontsize=9)
    figure.savefig(path)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="data set with truth/ (default: simulated)")
    parser.add_argument("--atlases-from", type=Path, help="data set of the atlases (default: that of --data)")
    parser.add_argument("--base", default="phantom", choices=("phantom", "icbm"), help="base of simulated subjects")
    parser.add_argument("--atlases", type=int, default=30)
    parser.add_argument("--targets", type=int, default=4, help="number of targets")
    parser.add_argument("--only", nargs="*", help="IDs of the targets (default: the first ones)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--itk", action="store_true", help="add SimpleITK's MultiLabelSTAPLE (slow)")
    parser.add_argument("--output", type=Path, help="folder for the registrations")
    parser.add_argument("--figure", type=Path, help="picture of the tumors")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data = options.data or Path(scratch) / "data"
        if options.data is None:
            from crossmoda.simulation import simulate_dataset

            simulate_dataset(data, sources=options.atlases, targets=0, tests=options.targets, base=options.base)
        cases = dataset.open_dataset(data).with_sides()
        others = cases if options.atlases_from is None else dataset.open_dataset(options.atlases_from).with_sides()
        atlases = list(others.sources[: options.atlases])
        print(f"{len(atlases)} atlases\n\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        rows, drawn = [], []
        chosen = [case for case in cases.targets if not options.only or case.id in options.only]
        for case in chosen[: options.targets]:
            truth = volume.read_label_map(data / "truth" / f"{case.id}_Label.nii.gz")
            folder = options.output or Path(scratch) / "out"
            own = [atlas for atlas in atlases if atlas.id != case.id]
            row, fused, voted = study(case, own, truth, folder, deeds.Settings(device=options.device), options.itk)
            rows.append(row)
            drawn.append((case.read_image(), truth, voted, fused, f"{case.id}, {row[1]:.0f} mm³"))
            print(_line(rows[-1]), flush=True)
        numbers = [[row[column] for row in rows] for column in range(len(COLUMNS))]
        mean = [np.mean(column) if isinstance(column[0], float) else "" for column in numbers]
        print(_line(["mean", *mean[1:]]))
        if options.figure:
            draw(drawn, options.figure)


def _line(row: list[object]) -> str:
    cells = [f"{item:.3f}" if isinstance(item, float) and abs(item) < 1 else item for item in row]
    return "| " + " | ".join(f"{item:.1f}" if isinstance(item, float) else str(item) for item in cells) + " |"


if __name__ == "__main__":
    main()
