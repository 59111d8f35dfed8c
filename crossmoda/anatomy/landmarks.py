"""Landmarks of both ears as a Slicer markups file (.mrk.json), LPS mm."""

from pathlib import Path
from typing import Any

from crossmoda.anatomy.ear_frame import EarFrame, EarFrames
from crossmoda.errors import InputError
from crossmoda.output import write_json

ENDING = ".mrk.json"
_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)


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
    if not str(path).lower().endswith(ENDING):
        raise InputError(f"Not a markups file name: {path}. Choose a name that ends in {ENDING}.")
    lists = [
        {
            "type": "Fiducial",
            "name": f"{frame.side} ear",
            "coordinateSystem": "LPS",
            "coordinateUnits": "mm",
            "controlPoints": [
                {"id": str(number), "label": f"{frame.side} {name.replace('_', ' ')}", "position": position}
                for number, (name, position) in enumerate(_rounded(frame).items(), start=1)
            ],
        }
        for frame in frames.accepted
    ]
    write_json(path, {"@schema": _SCHEMA, "markups": lists})


def _rounded(frame: EarFrame) -> dict[str, list[float]]:
    return {name: [round(float(value), 2) for value in position] for name, position in frame.landmarks.items()}
