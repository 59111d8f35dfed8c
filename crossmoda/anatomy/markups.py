"""Markups files of 3D Slicer (.mrk.json): point lists, lines and planes, LPS mm."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossmoda.errors import InputError
from crossmoda.output import read_json, write_json

ENDING = ".mrk.json"
_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)


def check_ending(path: Path | str) -> None:
    """Raise :class:`InputError` if a file name does not end in ``.mrk.json``."""
    if not str(path).lower().endswith(ENDING):
        raise InputError(f"Not a markups file name: {path}. Choose a name that ends in {ENDING}.")


def write(markups: Sequence[Mapping[str, Any]], path: Path | str) -> None:
    """Write markups to one file.

    Raises:
        InputError: the path does not end in ``.mrk.json``, or the file cannot be written.

    """
    check_ending(path)
    write_json(path, {"@schema": _SCHEMA, "markups": list(markups)})


def read_planes(path: Path | str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return center (LPS mm) and unit normal of each plane in a file, by name.

    Raises:
        InputError: the file cannot be read or holds no plane.

    """
    check_ending(path)
    try:
        shapes = [shape for shape in read_json(path)["markups"] if shape["type"] == "Plane"]
        planes = {shape["name"]: _center_and_normal(shape) for shape in shapes}
    except (OSError, ValueError, LookupError, TypeError) as cause:
        raise InputError(f"Not a readable markups file: {path}. Save the planes again.") from cause
    if not planes:
        raise InputError(f"No plane in {path}. Save a plane from Slicer, or write one with measure --markups.")
    return planes


def _center_and_normal(shape: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    matrices = [np.reshape(shape.get(key, np.eye(4)), (4, 4)).astype(float) for key in ("baseToNode", "objectToBase")]
    matrix = matrices[0] @ matrices[1]
    signs = {"LPS": (1, 1, 1), "RAS": (-1, -1, 1)}[shape.get("coordinateSystem", "LPS")]
    return matrix[:3, 3] * signs, matrix[:3, 2] * signs / np.linalg.norm(matrix[:3, 2])


def points(name: str, positions: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return a point list of labeled positions."""
    return _markup("Fiducial", name, positions)


def line(name: str, start: np.ndarray, stop: np.ndarray) -> dict[str, Any]:
    """Return a line between two positions."""
    return _markup("Line", name, {"1": start, "2": stop})


def plane(name: str, center: np.ndarray, normal: np.ndarray, size_mm: float) -> dict[str, Any]:
    """Return a square plane around a position."""
    z = normal / np.linalg.norm(normal)
    x = np.cross([0.0, 0.0, 1.0] if abs(z[2]) < 0.9 else [1.0, 0.0, 0.0], z)
    x /= np.linalg.norm(x)
    matrix = np.eye(4)
    matrix[:3] = np.stack([x, np.cross(z, x), z, center], axis=1)
    return {
        **_markup("Plane", name, {"1": center}),
        "planeType": "pointNormal",
        "sizeMode": "absolute",
        "size": [size_mm, size_mm],
        "objectToBase": [round(float(value), 6) for value in matrix.ravel()],
        "baseToNode": np.eye(4).ravel().tolist(),
    }


def rounded(position: np.ndarray) -> list[float]:
    """Return a position in hundredths of a millimeter."""
    return [round(float(value), 2) for value in position]


def _markup(kind: str, name: str, positions: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {
        "type": kind,
        "name": name,
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "controlPoints": [
            {"id": str(number), "label": label, "position": rounded(position)}
            for number, (label, position) in enumerate(positions.items(), start=1)
        ],
    }
