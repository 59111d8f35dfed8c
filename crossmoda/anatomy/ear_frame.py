"""The canonical frame of each ear in a scan: where it is, how it is turned, and how sure that is.

A template of both petrous bones (:mod:`crossmoda.anatomy.template`) is registered to the scan with deeds: a rigid
transform of the skull base, then a deformation around the ears. A rigid transform in true mm is fitted to the
deformation around each cochlea, robustly, so that a tumor does not pull it. The canonical frame is the left ear's in
template space; the right ear's is mirrored, so that both look the same in it.
"""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import SimpleITK as sitk

from crossmoda import deeds, user_cache, volume
from crossmoda.anatomy import skull_base
from crossmoda.anatomy import template as templates
from crossmoda.anatomy.rigid_fit import nearest_rigid, robust_rigid
from crossmoda.anatomy.sampling import averaged, bounds, correlation, covering, cropped, moved, positions
from crossmoda.anatomy.skull_base import SkullBase
from crossmoda.anatomy.template import Template
from crossmoda.errors import InputError
from crossmoda.progress import Progress, part, report
from crossmoda.volume import Grid, Volume
from crossmoda.volume.transforms import affine_transform

SIDES = ("left", "right")
#: Mirrors template space about its midplane.
_MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])

#: mm between the samples of the scan for the alignment of the skull base and of the ears.
_COARSE_MM, _FINE_MM = 2.0, 1.0
#: Deformable stage: displacements of up to 8, 6 and 2 mm on three levels.
_DEFORMABLE = deeds.Settings(
    linear="none", levels=3, grid_spacing="8,6,4", search_radius="4,3,2", quantization="2,1,1", device="cpu"
)
#: The part of template space in which the deformation is computed (x on both sides), mm, and how far beyond it the scan
#: is cut out.
_EARS_MM = (np.array([-62.0, -2.0, -70.0]), np.array([62.0, 48.0, -20.0]))
_MARGIN_MM = 8.0

#: Radius of the ball around the cochlea whose deformation decides the rotation, mm.
_ROTATION_MM, _BALL_STEP_MM = 22.0, 2.0
#: Radius of the ball in which scan and template are compared, mm, and around each landmark.
_COMPARED_MM, _LANDMARK_MM = 18.0, 3.0

#: Center (LPS mm), voxels and spacing (x, y, z) of the canonical patch: canal, labyrinth and cerebellopontine angle.
PATCH_CENTER, PATCH_SIZE, PATCH_SPACING_MM = (25.0, 31.0, -42.0), (80, 80, 64), 0.7

#: A frame with less similarity or less of the ear inside the scan is refused.
LEAST_SIMILARITY, LEAST_INSIDE = 0.5, 0.8
#: A frame of less similarity needs the contralateral ear, turned by at most this angle, to be accepted.
CERTAIN_SIMILARITY, MOST_ANGLE_DEG = 0.6, 12.0
#: Similarity of the alignment of the skull base: less is not worth a deformation, and without an ear no head.
LEAST_BASE_SIMILARITY, _HEAD_SIMILARITY = 0.1, 0.3


@dataclasses.dataclass(frozen=True)
class EarFrame:
    """One ear's canonical frame."""

    side: str
    """``"left"`` or ``"right"``, the patient's"""
    matrix: np.ndarray
    """4 x 4, from canonical to scan points (LPS mm): rigid; with a reflection for the right ear"""
    landmarks: dict[str, np.ndarray]
    """name -> position in the scan, LPS mm (:data:`crossmoda.anatomy.template.NAMES`)"""
    similarity: float
    """normalized cross-correlation of scan and template within 18 mm of the cochlea, -1 to 1"""
    inside: float
    """fraction of that ball which lies in the scan"""
    residual_mm: float
    """median distance between the deformation and the rigid transform within 22 mm of the cochlea"""
    reason: str = ""
    """why the frame is refused; empty for an accepted one"""

    @property
    def accepted(self) -> bool:
        """Whether the frame can be relied on."""
        return not self.reason

    @property
    def cochlea(self) -> np.ndarray:
        """The center of the cochlea by the rigid frame, LPS mm."""
        return self.to_scan(templates.load().modiolus[None])[0]

    def sample(self, scan: Volume, grid: Grid | None = None, interpolation: str = "linear") -> Volume:
        """Return the scan on a canonical grid.

        Args:
            scan: the scan, or a label map on any grid in its space.
            grid: where to sample, canonical LPS mm; None: :func:`patch_grid`.
            interpolation: as in :func:`crossmoda.volume.resample`; voxels outside the scan get its least value.

        """
        outside = 0.0 if interpolation == "label" else float(scan.array.min())
        return volume.resample(scan, grid or patch_grid(), affine_transform(self.matrix), interpolation, outside)

    def restore(self, patch: Volume, grid: Grid, interpolation: str = "linear") -> Volume:
        """Return a patch in canonical space (probabilities, labels) on the scan's grid; 0 outside the patch."""
        return volume.resample(patch, grid, affine_transform(np.linalg.inv(self.matrix)), interpolation)

    def moved(self, matrix: np.ndarray) -> "EarFrame":
        """Return the frame of the scan under a 4 x 4 matrix (LPS mm)."""
        landmarks = {name: moved(matrix, point) for name, point in self.landmarks.items()}
        return dataclasses.replace(self, matrix=matrix @ self.matrix, landmarks=landmarks)

    def to_canonical(self, points_mm: np.ndarray) -> np.ndarray:
        """Return the canonical positions of points (n, 3) in the scan, LPS mm."""
        return moved(np.linalg.inv(self.matrix), points_mm)

    def to_scan(self, points_mm: np.ndarray) -> np.ndarray:
        """Return the positions in the scan of canonical points (n, 3), LPS mm."""
        return moved(self.matrix, points_mm)


@dataclasses.dataclass(frozen=True)
class EarFrames:
    """The frames of both ears of a scan."""

    left: EarFrame
    right: EarFrame
    contrast: str
    """``"T1"`` or ``"T2"``: the template's contrast that resembles the scan"""
    base_similarity: float
    """normalized cross-correlation of scan and template after the alignment of the skull base, -1 to 1"""

    def __iter__(self) -> Iterator[EarFrame]:
        """Iterate over left and right."""
        return iter((self.left, self.right))

    @property
    def accepted(self) -> list[EarFrame]:
        """The frames that can be relied on."""
        return [frame for frame in self if frame.accepted]

    @property
    def shows_head(self) -> bool:
        """Whether the scan shows the skull base, with or without the ears."""
        return bool(self.accepted) or self.base_similarity >= _HEAD_SIMILARITY

    @property
    def notes(self) -> list[str]:
        """Why frames are refused."""
        return list(dict.fromkeys(frame.reason for frame in self if frame.reason))

    @property
    def refusal(self) -> str:
        """Why no frame is accepted, and what to do."""
        return " ".join([*self.notes, *(["Select an MR scan that shows an inner ear."] if self.shows_head else [])])

    def to_json(self) -> dict[str, Any]:
        """Return the frames in JSON's types."""
        content = dataclasses.asdict(self)
        for frame in (content["left"], content["right"]):
            frame["matrix"] = frame["matrix"].tolist()
            frame["landmarks"] = {name: point.tolist() for name, point in frame["landmarks"].items()}
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "EarFrames":
        """Return the frames of :meth:`to_json`."""
        arrays = [
            {
                "matrix": np.array(frame["matrix"]),
                "landmarks": {name: np.array(point) for name, point in frame["landmarks"].items()},
            }
            for frame in (content["left"], content["right"])
        ]
        left, right = (EarFrame(**{**content[side], **each}) for side, each in zip(SIDES, arrays, strict=True))
        return cls(left, right, content["contrast"], content["base_similarity"])


def patch_grid(
    size: tuple[int, int, int] = PATCH_SIZE,
    spacing_mm: float = PATCH_SPACING_MM,
    center_mm: tuple[float, float, float] = PATCH_CENTER,
) -> Grid:
    """Return a grid (x, y, z) of cubic voxels in canonical space around a point."""
    origin = np.asarray(center_mm) - spacing_mm * (np.asarray(size) - 1) / 2
    return Grid(size, (spacing_mm,) * 3, tuple(origin.tolist()), (1, 0, 0, 0, 1, 0, 0, 0, 1))


def ear_frames(
    scan: Volume,
    template: Template | None = None,
    progress: Progress | None = None,
    confirm: Callable[[EarFrames], EarFrames] | None = None,
    cochleae: np.ndarray | None = None,
) -> EarFrames:
    """Return the canonical frames of both ears in a scan.

    Args:
        scan: T1 or T2 of a head or a part of it, in any orientation that its header states correctly, of any type.
        template: see :func:`crossmoda.anatomy.template.load`; None: the bundled one.
        progress: callback(fraction, message); raise Cancelled to abort.
        confirm: accepts frames by further evidence; without any accepted one, every pitch of the head is tried, unless
            the alignment of the skull base is certain.
        cochleae: labeled points (n, 3) of the scan, LPS mm: alignments that cannot reach them are not tried.

    Returns:
        Both frames. A frame that cannot be relied on is refused and states the reason.

    """
    search, confirm = _Search(scan, template, cochleae), confirm or (lambda frames: frames)
    frames = confirm(search.frames("first", part(progress, 0.0, 0.4)))
    if not frames.accepted and frames.base_similarity < skull_base.CERTAIN_SIMILARITY:
        frames = max(frames, confirm(search.frames("thorough", part(progress, 0.4, 1.0))), key=_rank)
    report(progress, 1.0, "ears located")
    return frames


class _Search:
    """The search for the ears in one scan; what it finds with the bundled template is kept for the next run."""

    def __init__(self, scan: Volume, template: Template | None, cochleae: np.ndarray | None = None):
        self._scan, self._template, self._cochleae = scan, template or templates.load(), cochleae
        self._is_kept = template is None

    @functools.cached_property
    def _coarse(self) -> Volume:
        return averaged(self._scan, _COARSE_MM)

    @functools.cached_property
    def _fine(self) -> Volume:
        return averaged(self._scan, _FINE_MM)

    @functools.cached_property
    def _key(self) -> str:
        """The digest of what is searched, of labeled cochleae and of the program."""
        digest = hashlib.sha256(self._coarse.array)
        digest.update(self._fine.array)
        if self._cochleae is not None:
            digest.update(np.ascontiguousarray(self._cochleae))
        digest.update(f"{self._scan.grid!r} {user_cache.code_digest('anatomy', 'deeds', 'volume')}".encode())
        return digest.hexdigest()

    def frames(self, search: str, progress: Progress | None) -> EarFrames:
        """Return the frames of the ``"first"`` or the ``"thorough"`` search."""
        earlier = user_cache.recall("ear_frames", f"{self._key}-{search}") if self._is_kept else None
        if earlier is not None:
            with contextlib.suppress(AttributeError, LookupError, TypeError, ValueError):  # damaged
                return EarFrames.from_json(earlier)
        report(progress, 0.0, "aligning the skull base")
        if search == "first":
            base = skull_base.locate(self._coarse, self._template, self._cochleae)
        else:
            base = skull_base.locate_thoroughly(self._coarse, self._template, part(progress, 0.0, 0.8), self._cochleae)
        report(progress, 0.8, "aligning the ears")
        frames = _frames(self._scan.grid, self._fine, self._template, base)
        if self._is_kept:
            user_cache.keep("ear_frames", f"{self._key}-{search}", frames.to_json())
        return frames


def _rank(frames: EarFrames) -> tuple[int, float, float]:
    return len(frames.accepted), max(frame.similarity for frame in frames), frames.base_similarity


def _frames(grid: Grid, fine: Volume, template: Template, base: SkullBase) -> EarFrames:
    """Return both frames that follow from one alignment of the skull base."""
    warp = _Warp.between(template, fine, base) if base.similarity >= LEAST_BASE_SIMILARITY else None
    left, right = (_frame(side, grid, template, base, warp) for side in SIDES)
    frames = EarFrames(_checked(left, right), _checked(right, left), base.contrast, base.similarity)
    if frames.shows_head:
        return frames
    left, right = (dataclasses.replace(frame, reason=_without_base(base)) for frame in frames)
    return dataclasses.replace(frames, left=left, right=right)


def _without_base(base: SkullBase) -> str:
    """Return why both ears of a scan are refused."""
    return (
        f"No skull base in the scan: similarity with the template {base.similarity:.2f}. Check the orientation in the "
        "header, or choose a scan of the head."
    )


def _checked(frame: EarFrame, contralateral: EarFrame) -> EarFrame:
    """Return a frame, refused if it is not certain by itself and the contralateral ear does not confirm it.

    A wrong alignment may resemble one ear by chance, hardly both.
    """
    confirmed = contralateral.accepted and angle_deg(frame, contralateral) <= MOST_ANGLE_DEG
    if not frame.accepted or frame.similarity >= CERTAIN_SIMILARITY or confirmed:
        return frame
    reason = (
        f"{frame.side.capitalize()} ear doubtful: similarity with the template {frame.similarity:.2f}, and the "
        f"{contralateral.side} ear does not confirm it. Check the landmarks in the scan."
    )
    return dataclasses.replace(frame, reason=reason)


def angle_deg(one: EarFrame, other: EarFrame) -> float:
    """Return the angle between the frames of both ears, degrees; 0 for a symmetric head."""
    turn = one.matrix[:3, :3] @ _MIRROR[:3, :3] @ other.matrix[:3, :3].T
    return float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))


@dataclasses.dataclass(frozen=True)
class _Warp:
    """The deformation around the ears, and both images it brings together."""

    registration: deeds.Registration
    """from template to aligned points"""
    aligned: Volume
    """the scan in the space of the alignment of the skull base"""
    to_scan: np.ndarray
    """4 x 4, from aligned to scan points: the alignment of the skull base"""
    template: Volume

    @classmethod
    def between(cls, template: Template, fine: Volume, base: SkullBase) -> "_Warp | None":
        """Register the surroundings of both ears; None where the scan shows nothing of them."""
        ears = cropped(template.ears[base.contrast], *_EARS_MM)
        low, high = bounds(ears.grid)
        grid = covering(low - _MARGIN_MM, high + _MARGIN_MM, _FINE_MM)
        aligned = volume.resample(fine, grid, affine_transform(base.matrix), outside=float(fine.array.min()))
        try:
            registration = deeds.register(ears, aligned, _DEFORMABLE)
        except InputError:  # constant, or no overlap
            return None
        return cls(registration, aligned, base.matrix, ears)

    def to_scan_points(self, grid: Grid) -> np.ndarray:
        """Return where the points of a template grid lie in the scan, (z, y, x, 3) LPS mm."""
        field = sitk.GetArrayFromImage(self.registration.displacement_field(grid))
        return moved(self.to_scan, positions(grid) + field)


def _frame(side: str, scan: Grid, template: Template, base: SkullBase, warp: _Warp | None) -> EarFrame:
    """Return the frame of one ear."""
    mirror = np.eye(4) if side == "left" else _MIRROR
    landmarks = {name: moved(mirror, point) for name, point in template.landmarks.items()}
    if warp is None:
        in_scan = {name: moved(base.matrix, point) for name, point in landmarks.items()}
        return EarFrame(side, nearest_rigid(base.matrix) @ mirror, in_scan, 0.0, 0.0, np.inf, _without_base(base))
    center = landmarks["modiolus"]
    ball = covering(center - _ROTATION_MM, center + _ROTATION_MM, _BALL_STEP_MM)
    points, targets = positions(ball), warp.to_scan_points(ball)
    distance = np.linalg.norm(points - center, axis=-1)
    rigid, residual = robust_rigid(points[distance <= _ROTATION_MM], targets[distance <= _ROTATION_MM], center)
    compared = distance <= _COMPARED_MM
    inside = _inside(scan, targets) & compared
    image = warp.registration.warp_image(warp.aligned, ball).array[inside]
    similarity = correlation(image, volume.resample(warp.template, ball).array[inside]) if inside.any() else 0.0
    share = float(inside.sum() / compared.sum())
    return EarFrame(
        side,
        rigid @ mirror,
        {name: _landmark(point, warp) for name, point in landmarks.items()},
        similarity,
        share,
        residual,
        _refusal(side, similarity, share),
    )


def _refusal(side: str, similarity: float, inside: float) -> str:
    """Return why a frame is refused; empty where it is accepted."""
    if inside < LEAST_INSIDE:
        return (
            f"{side.capitalize()} ear outside the scan: {inside:.0%} of it covered, at least {LEAST_INSIDE:.0%} needed."
        )
    if similarity < LEAST_SIMILARITY:
        return (
            f"{side.capitalize()} ear not recognized: similarity with the template {similarity:.2f}, at least "
            f"{LEAST_SIMILARITY:.2f} needed."
        )
    return ""


def _landmark(point: np.ndarray, warp: _Warp) -> np.ndarray:
    """Return where a template point lies in the scan: the median over its surroundings."""
    grid = covering(point - _LANDMARK_MM, point + _LANDMARK_MM, 1.5)
    shift = warp.to_scan_points(grid) - moved(warp.to_scan, positions(grid))
    return moved(warp.to_scan, point) + np.median(shift.reshape(-1, 3), axis=0)


def _inside(grid: Grid, points: np.ndarray) -> np.ndarray:
    """Return which points (..., 3) lie in a scan."""
    index = moved(grid.physical_to_index, points)
    return np.all((index > -0.5) & (index < np.asarray(grid.size) - 0.5), axis=-1)
