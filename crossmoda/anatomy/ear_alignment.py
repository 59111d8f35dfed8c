"""Two scans aligned by their ear frames, and the part of a scan around its ears."""

import dataclasses
import functools

import numpy as np

from crossmoda import labels
from crossmoda.anatomy import laterality
from crossmoda.anatomy.ear_frame import LEAST_INSIDE, EarFrame, EarFrames, ear_frames
from crossmoda.anatomy.template import FOLDER, load
from crossmoda.progress import Progress
from crossmoda.volume import Grid, Volume
from crossmoda.volume.grid import CORNERS, Box
from crossmoda.volume.transforms import matrix_of

#: Canonical box around both ears (LPS mm): room for the largest tumors, and for the context of a registration.
_REGION_MM = (np.array([-56.0, -10.0, -82.0]), np.array([56.0, 72.0, -8.0]))
#: Each frame counts with the ends of a cross of this radius around its cochlea, mm.
_CROSS_MM = 20.0
#: A frame whose cochlea lies this near to a labeled one is right, however little the scan resembles the template, mm.
_CONFIRMED_MM = 6.0


def alignment(fixed: EarFrames, moving: EarFrames) -> np.ndarray | None:
    """Return the 4 x 4 matrix from fixed to moving points (LPS mm) that maps ears to ears.

    Rigid for one common ear; affine for two, whose distance differs between heads. None without a common ear.
    """
    pairs = [(one, other) for one, other in zip(fixed, moving, strict=True) if one.accepted and other.accepted]
    if not pairs:
        return None
    if len(pairs) == 1:
        return pairs[0][1].matrix @ np.linalg.inv(pairs[0][0].matrix)
    cross = load(FOLDER).modiolus + _CROSS_MM * np.concatenate([np.eye(3), -np.eye(3)])
    source, target = (np.concatenate([frame.to_scan(cross) for frame in frames]) for frames in zip(*pairs, strict=True))
    solution = np.linalg.lstsq(np.column_stack([source, np.ones(len(source))]), target, rcond=None)[0]
    return np.vstack([solution.T, [0, 0, 0, 1]])


def mirrored(frames: EarFrames, grid: Grid) -> EarFrames:
    """Return the frames of a scan on ``grid`` after :func:`crossmoda.anatomy.laterality.mirrored`."""
    reflection = matrix_of(laterality.reflection(grid))

    def contralateral(frame: EarFrame) -> EarFrame:
        return dataclasses.replace(frame.moved(reflection), side=laterality.contralateral(frame.side))

    return dataclasses.replace(frames, left=contralateral(frames.right), right=contralateral(frames.left))


def confirmed(frames: EarFrames, label_map: Volume) -> EarFrames:
    """Return the frames of a labeled scan; a refused one is accepted where the label map has the cochlea there."""
    points = _cochleae(label_map)

    def checked(frame: EarFrame) -> EarFrame:
        if frame.accepted or frame.inside < LEAST_INSIDE:
            return frame
        distance = np.linalg.norm(points - frame.landmarks["modiolus"], axis=1)
        near = points[distance < 2 * _CONFIRMED_MM]
        if not len(near) or np.linalg.norm(near.mean(axis=0) - frame.landmarks["modiolus"]) > _CONFIRMED_MM:
            return frame
        return dataclasses.replace(frame, reason="")

    return dataclasses.replace(frames, left=checked(frames.left), right=checked(frames.right))


def _cochleae(label_map: Volume) -> np.ndarray:
    """Return the labeled points (n, 3) of cochleae, LPS mm."""
    return label_map.grid.points(label_map.array == labels.COCHLEA)


def labeled_ear_frames(scan: Volume, label_map: Volume | None, progress: Progress | None = None) -> EarFrames:
    """Return the frames of a scan, :func:`confirmed` by its labels if there are any."""
    if label_map is None:
        return ear_frames(scan, progress=progress)
    confirm = functools.partial(confirmed, label_map=label_map)
    return ear_frames(scan, progress=progress, confirm=confirm, cochleae=_cochleae(label_map))


def ears_box(frames: EarFrames, grid: Grid) -> Box:
    """Return the voxels (z, y, x) of a scan on ``grid`` around its accepted ears and their contralateral places."""
    low, high = _REGION_MM
    corners = np.concatenate([frame.to_scan(low + CORNERS * (high - low)) for frame in frames.accepted])
    return grid.box_around(corners)
