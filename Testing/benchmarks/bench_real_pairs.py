"""Registration of real heads: T1 to T2 of one person, two sessions of one person, T2 of one person to T2 of another.

    python Testing/benchmarks/bench_real_pairs.py            # all pairs, from frames and from headers
    python Testing/benchmarks/bench_real_pairs.py --only p03 --methods frames --alpha 1.6 2.4
    DEEDSBCV_LINEAR=.../linearBCV DEEDSBCV_DEEDS=.../deedsBCV python Testing/benchmarks/bench_real_pairs.py --peers

Reads the real data of Testing/README.md. Within a person the truth are the authors' rigid transforms (open_ms) or
the common frame of reference (fnndsc); errors are distances within 18 mm of the cochleae, the shift is their mean
vector. Between people the truth are the listed cochlear centers, good to 1.5 mm. Folding is that around the ears.
Settings were tuned on p03; fnndsc and p01 are for the result.
"""

import argparse
import dataclasses
import functools
import itertools
from collections.abc import Iterator

import numpy as np
import SimpleITK as sitk
from bench_ear_frame import DATA, Centers, heads
from registration_peers import convexadam, deedsbcv, simpleitk
from usage import Clock

from crossmoda import deeds, volume
from crossmoda.anatomy.ear_alignment import alignment, ears_box
from crossmoda.anatomy.ear_frame import EarFrames, ear_frames
from crossmoda.anatomy.sampling import covering, positions
from crossmoda.volume import Grid, Volume
from crossmoda.volume.transforms import affine_transform

PEERS = {
    "linearBCV + deedsBCV": deedsbcv,
    "deedsBCV": functools.partial(deedsbcv, linear=False),
    "convexAdam": convexadam,
    "SimpleITK B-spline": simpleitk,
}
#: image -> folder of its transforms and the name in them; None: the scanner's frame of reference.
SESSIONS = {
    "real_t2/p03_study1_T2W.nii.gz": "real_t2/transforms/p03_study1",
    "real_t2/p03_study2_T2W.nii.gz": "real_t2/transforms/p03_study2",
    "real_t2/p03_study2_T1W.nii.gz": "real_t2/transforms/p03_study2",
    "open_ms_native/p01_study1_T2W.nii.gz": "open_ms_native/p01_study1",
    "open_ms_native/p01_study1_T1W.nii.gz": "open_ms_native/p01_study1",
    "open_ms_native/p01_study2_T2W.nii.gz": "open_ms_native/p01_study2",
    "open_ms_native/p01_study2_T1W.nii.gz": "open_ms_native/p01_study2",
}


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two scans, and where points of the fixed one lie in the moving one."""

    fixed: str
    moving: str
    truth: sitk.Transform | None
    """from fixed to moving points; None between people"""

    @property
    def name(self) -> str:
        """The names of both scans."""
        return " <- ".join(name.partition("/")[2].partition(".")[0] for name in (self.fixed, self.moving))


def _to_common(image: str) -> sitk.Transform:
    """Return the transform from points of a scan to the person's common space, by the authors' transforms."""
    session = SESSIONS[image]
    contrast = image.rpartition("_")[2].partition(".")[0]
    # Each file maps points of the second space to points of the first one.
    steps = [
        sitk.ReadTransform(str(DATA / f"{session}_{name}.txt")).GetInverse()
        for name in (f"{contrast}_intrastudy_to_FLAIR", "FLAIR_to_common_space")
    ]
    return sitk.CompositeTransform(steps[::-1])


def _within(fixed: str, moving: str) -> Pair:
    if fixed not in SESSIONS:
        return Pair(fixed, moving, sitk.Transform(3, sitk.sitkIdentity))
    return Pair(fixed, moving, sitk.CompositeTransform([_to_common(moving).GetInverse(), _to_common(fixed)]))


def pairs() -> Iterator[Pair]:
    """Yield the pairs."""
    fnndsc, p03, p01 = "real_t2/fnndsc_", "real_t2/p03_study", "open_ms_native/p01_study"
    yield _within(f"{fnndsc}T2.nii.gz", f"{fnndsc}T1.nii.gz")
    for session in (f"{p03}2", f"{p01}1", f"{p01}2"):
        yield _within(f"{session}_T2W.nii.gz", f"{session}_T1W.nii.gz")
    for person in (p03, p01):
        yield _within(f"{person}1_T2W.nii.gz", f"{person}2_T2W.nii.gz")
    people = ((f"{fnndsc}T2.nii.gz",), (f"{p03}1_T2W.nii.gz", f"{p03}2_T2W.nii.gz"), (f"{p01}1_T2W.nii.gz",))
    for one, other in itertools.permutations(people, 2):
        for fixed, moving in itertools.product(one, other):
            yield Pair(fixed, moving, None)


def _errors(pair: Pair, transform: sitk.Transform, centers: dict[str, Centers]) -> list[np.ndarray]:
    """Return, for each ear, the vectors (n, 3) from the true to the registered position in the moving scan, mm."""
    result = []
    for side, center in centers[pair.fixed].items():
        if pair.truth is None:
            result.append((np.array(transform.TransformPoint(center)) - centers[pair.moving][side])[None])
            continue
        points = positions(covering(center - 18, center + 18, 3.0)).reshape(-1, 3)
        points = points[np.linalg.norm(points - center, axis=1) <= 18].tolist()
        moved = [np.array([each.TransformPoint(point) for point in points]) for each in (transform, pair.truth)]
        result.append(moved[0] - moved[1])
    return result


def _folding(transform: sitk.Transform, grid: Grid) -> float:
    return deeds.Registration(transform, transform, grid, grid).jacobian_statistics()["folding_percent"]


def _cropped(image: Volume, frames: EarFrames) -> Volume:
    return image.crop(ears_box(frames, image.grid))


def _register(
    pair: Pair, method: str, settings: deeds.Settings, frames: dict[str, EarFrames]
) -> tuple[sitk.Transform, float]:
    """Return the transform and the processor seconds."""
    fixed, moving = (volume.read(DATA / name) for name in (pair.fixed, pair.moving))
    matrix = alignment(frames[pair.fixed], frames[pair.moving])
    clock = Clock()
    if method == "none":
        return affine_transform(matrix), 0.0
    if method == "header":
        return deeds.register(fixed, moving, settings).transform, clock.read()[1]
    if method == "frames, whole":
        return deeds.register(fixed, moving, settings, initial=affine_transform(matrix)).transform, clock.read()[1]
    parts = _cropped(fixed, frames[pair.fixed]), _cropped(moving, frames[pair.moving])
    if method == "frames":
        return deeds.register(*parts, settings, initial=affine_transform(matrix)).transform, clock.read()[1]
    # A peer has no initial transform: it gets the moving part moved by it.
    start = affine_transform(matrix)
    outcome = PEERS[method](parts[0], volume.resample(parts[1], parts[0].grid, start))
    return sitk.CompositeTransform([start, outcome.transform]), outcome.processor_seconds


def main() -> None:
    """Print one row per pair and method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="part of the names of the pairs")
    parser.add_argument("--within", action="store_true", help="only pairs of one person")
    parser.add_argument(
        "--methods",
        nargs="*",
        default=["none", "frames", "frames, whole", "header"],
        choices=["none", "frames", "frames, whole", "header", *PEERS],
    )
    parser.add_argument("--peers", action="store_true", help="all peers as well")
    parser.add_argument("--alpha", type=float, nargs="*", default=[deeds.Settings().alpha])
    parser.add_argument("--linear", nargs="*", default=[deeds.Settings().linear])
    parser.add_argument("--levels", type=int, nargs="*", default=[5])
    options = parser.parse_args()
    centers, frames = heads(), {}
    print("| pair | method | error left, right: median (95th) mm | shift left; right, LPS mm | folding % | s |")
    print("|---|---|---|---|---|---|")
    variants = list(itertools.product(options.alpha, options.linear, options.levels))
    for pair in pairs():
        if options.only not in pair.name or (options.within and pair.truth is None):
            continue
        for name in (pair.fixed, pair.moving):
            frames.setdefault(name, None)
            frames[name] = frames[name] or ear_frames(volume.read(DATA / name))
        fixed_part = _cropped(volume.read(DATA / pair.fixed), frames[pair.fixed]).grid
        for method in [*options.methods, *(PEERS if options.peers else ())]:
            for alpha, linear, levels in variants if method not in ("none", *PEERS) else variants[:1]:
                settings = deeds.Settings(alpha=alpha, linear=linear, levels=levels, device="cpu")
                transform, seconds = _register(pair, method, settings, frames)
                errors = _errors(pair, transform, centers)
                cells = [np.linalg.norm(each, axis=1) for each in errors]
                shown = ", ".join(f"{np.median(cell):.2f} ({np.percentile(cell, 95):.2f})" for cell in cells)
                shift = "; ".join(" ".join(f"{value:+.1f}" for value in each.mean(axis=0)) for each in errors)
                label = method if len(variants) == 1 else f"{method}, alpha {alpha:g}, {linear}, {levels} levels"
                row = (pair.name, label, shown, shift, f"{_folding(transform, fixed_part):.3f}", f"{seconds:.1f}")
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
