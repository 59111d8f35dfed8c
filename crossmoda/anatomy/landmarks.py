"""Landmarks of both ears as a Slicer markups file (.mrk.json), LPS mm."""

from pathlib import Path
from typing import Any

from crossmoda.anatomy import markups
from crossmoda.anatomy.ear_frame import EarFrame, EarFrames


def summary(frames: EarFrames) -> dict[str, Any]:
    """Return both frames as JSON content: landmarks (LPS mm), confidence, and the reason of a refusal."""
    return {
        "contrast": frames.contrast,
        "ears": [
            {
                "side": frame.side,
                "accepted": frame.accepted,
                "reason": frame.reason,
                "similarity": round(frame.similarity, 3),
                "inside": round(frame.inside, 3),
                "canonical_to_scan": [[round(float(value), 6) for value in row] for row in frame.matrix],
                "landmarks_lps_mm": _rounded(frame) if frame.accepted else {},
            }
            for frame in frames
        ],
    }


def write_markups(frames: EarFrames, path: Path | str) -> None:
    """Write the landmarks of the accepted ears, one point list per ear.

    Raises:
        InputError: the path does not end in ``.mrk.json``, or the file cannot be written.

    """
    named = {
        frame.side: {f"{frame.side} {name.replace('_', ' ')}": point for name, point in frame.landmarks.items()}
        for frame in frames.accepted
    }
    markups.write([markups.points(f"{side} ear", positions) for side, positions in named.items()], path)


def _rounded(frame: EarFrame) -> dict[str, list[float]]:
    return {name: markups.rounded(position) for name, position in frame.landmarks.items()}
