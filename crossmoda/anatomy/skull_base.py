"""The rigid alignment of the template's skull base with a scan.

A coarse search over all positions gives the start, deeds the rigid transform: in a thin slab or a small field of view
an affine one shrinks.
"""

import dataclasses

import numpy as np

from crossmoda import deeds, volume
from crossmoda.anatomy.sampling import bounds, correlation, covering, moved, smoothed
from crossmoda.anatomy.template import CONTRASTS, Template
from crossmoda.anatomy.template_search import Start, candidates
from crossmoda.errors import InputError
from crossmoda.progress import Progress, report
from crossmoda.volume import Grid, Volume
from crossmoda.volume.transforms import affine_transform, matrix_of

#: mm between the samples of scan and template.
_SPACING_MM = 3.0
#: Pitches of the head: for most scans, and for those in which these lead to nothing.
_FIRST_PITCHES_DEG = (-30.0, -15.0, 0.0, 15.0, 30.0)
_ALL_PITCHES_DEG = (-40.0, -30.0, -20.0, -10.0, 0.0, 10.0, 20.0, 30.0, 40.0)
#: So many starts are tried in these, unless the scan resembles the template too little at them: right starts reach 0.26
#: to 0.66 in real heads, wrong ones 0.04 to 0.29.
_TRIALS, _LEAST_AT_START = 5, 0.2
#: An alignment of this similarity is right: those of real heads reach 0.53 to 0.70, wrong ones 0.28.
CERTAIN_SIMILARITY = 0.5
#: Control points 7 to 4 voxels apart, displacements of up to 20 voxels.
_SETTINGS = deeds.Settings(linear="rigid", levels=0, units="voxel", device="cpu")
#: The same displacements, mm: a start whose cochleae lie farther from the labeled ones cannot become right.
_REACH_MM = 20 * _SPACING_MM
#: How far around the template the scan is cut out, mm.
_MARGIN_MM = 16.0
#: How far beyond the scan the template is compared with it, mm: a start may be wrong by that much.
_BEYOND_MM = 4.0


@dataclasses.dataclass(frozen=True)
class SkullBase:
    """Where the skull base lies in a scan."""

    matrix: np.ndarray
    """4 x 4, from template to scan (LPS mm): rigid, times the size of a head relative to the template"""
    similarity: float
    """normalized cross-correlation of scan and template inside the head, -1 to 1"""
    contrast: str
    """the template's contrast that resembles the scan"""


def locate(scan: Volume, template: Template, cochleae: np.ndarray | None = None) -> SkullBase:
    """Return the alignment of the template's skull base with a scan; its similarity tells whether there is one.

    Args:
        scan: T1 or T2, sampled at about 2 mm.
        template: the template.
        cochleae: labeled points (n, 3) of the scan, LPS mm: starts that cannot reach them are not tried.

    """
    starts = candidates(scan, template.slab["T2"], _FIRST_PITCHES_DEG)
    reaching = _reaching(starts, template, cochleae)
    return _refined(scan, template, reaching[0].matrix) if reaching else _missed(starts[0].matrix)


def locate_thoroughly(
    scan: Volume, template: Template, progress: Progress | None = None, cochleae: np.ndarray | None = None
) -> SkullBase:
    """Return the first certain one of several alignments, else the best, for heads that :func:`locate` misses."""
    every = [start for name in CONTRASTS for start in candidates(scan, template.slab[name], _ALL_PITCHES_DEG)]
    starts = _reaching(sorted(every, key=lambda start: -start.similarity), template, cochleae)
    if not starts:
        return _missed(every[0].matrix)
    starts = _distinct(starts)[:_TRIALS]
    rated = [(max(_similarities(scan, template, start.matrix).values()), start) for start in starts]
    rated.sort(key=lambda pair: -pair[0])
    best: SkullBase | None = None
    for number, (similarity, start) in enumerate(rated):
        if best is not None and (similarity < _LEAST_AT_START or best.similarity >= CERTAIN_SIMILARITY):
            break
        report(progress, number / len(rated), f"trying a head pitch of {start.pitch_deg:g} degrees")
        trial = _refined(scan, template, start.matrix)
        best = trial if best is None or trial.similarity > best.similarity else best
    assert best is not None  # the first start is always tried
    return best


def _reaching(starts: list[Start], template: Template, cochleae: np.ndarray | None) -> list[Start]:
    """Return the starts from which the refinement can reach labeled cochleae; all of them without labels."""
    if cochleae is None or not len(cochleae):
        return starts
    modioli = template.modiolus * np.array([[1, 1, 1], [-1, 1, 1]])

    def distance_mm(start: Start) -> float:
        apart = cochleae[:, None] - moved(start.matrix, modioli)
        return float(np.linalg.norm(apart, axis=-1).min(axis=1).mean())

    return [start for start in starts if distance_mm(start) <= _REACH_MM]


def _distinct(starts: list[Start]) -> list[Start]:
    """Return the starts that differ from all better ones by more than 8 mm or 15 degrees."""
    result: list[Start] = []
    for start in starts:
        if all(
            np.linalg.norm(start.center_mm - other.center_mm) > 8 or abs(start.pitch_deg - other.pitch_deg) > 15
            for other in result
        ):
            result.append(start)
    return result


def _refined(scan: Volume, template: Template, start: np.ndarray) -> SkullBase:
    """Return the alignment that begins at ``start``; similarity 0 where it fails."""
    low, high = _reach(scan.grid, np.linalg.inv(start))
    slab = template.slab["T2"]
    least, most = bounds(slab.grid)
    fixed = covering(np.maximum(least, low - _BEYOND_MM), np.minimum(most, high + _BEYOND_MM), _SPACING_MM)
    moving = covering(np.maximum(least - _MARGIN_MM, low), np.minimum(most + _MARGIN_MM, high), _SPACING_MM)
    slab = volume.resample(smoothed(slab, _SPACING_MM), fixed)
    image = volume.resample(
        smoothed(scan, _SPACING_MM), moving, affine_transform(start), outside=float(scan.array.min())
    )
    try:
        matrix = start @ matrix_of(deeds.register(slab, image, _SETTINGS).transform)
    except InputError:  # constant, no overlap, or nothing in common
        return _missed(start)
    similarities = _similarities(scan, template, matrix)
    contrast = max(similarities, key=lambda name: similarities[name])
    return SkullBase(matrix, similarities[contrast], contrast)


def _missed(start: np.ndarray) -> SkullBase:
    """Return an alignment that is none."""
    return SkullBase(start, 0.0, CONTRASTS[0])


def _reach(grid: Grid, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest position of the corners of a grid under a matrix, mm."""
    points = moved(matrix, grid.corners)
    return points.min(axis=0), points.max(axis=0)


def _similarities(scan: Volume, template: Template, matrix: np.ndarray) -> dict[str, float]:
    """Return the similarity of the scan with each contrast of the template."""
    outside = float(scan.array.min()) - 1
    image = volume.resample(scan, template.slab["T2"].grid, affine_transform(matrix), outside=outside).array
    compared = template.head & (image >= outside + 1)
    if not compared.any():
        return dict.fromkeys(CONTRASTS, 0.0)
    values = image[compared]
    values = np.clip(values, *np.percentile(values, [1, 99]))
    return {name: correlation(values, template.slab[name].array[compared]) for name in CONTRASTS}
