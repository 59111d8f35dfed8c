"""The table of segmented structures (label values, names, colors, terminology) and the check of label values."""

from typing import NamedTuple

import numpy as np

from crossmoda.errors import InputError


class Structure(NamedTuple):
    """One segmented structure."""

    value: int
    """value in label maps"""
    key: str
    """name in tables, options and file names"""
    name: str
    """segment name"""
    color: tuple[int, int, int]
    """RGB, 0..255"""
    terminology: str
    """Slicer terminology entry: context~category~type~modifier~region context~region~region modifier"""


BACKGROUND = 0
VS = 1
COCHLEA = 2

_CONTEXTS = ("Segmentation category and type - DICOM master list", "Anatomic codes - DICOM master list")


def _terminology(category: str, kind: str, region: str = "") -> str:
    """Return Slicer's serialized entry of SNOMED CT codes, each ``"code^meaning"``."""
    codes = ["SCT^" + text if text else "^^" for text in (category, kind, "", region, "")]
    return "~".join((_CONTEXTS[0], *codes[:3], _CONTEXTS[1], *codes[3:]))


# SNOMED CT codes. Morphologically Altered Structure, Mass and Internal Auditory Canal are in the code lists of DICOM
# PS3.16 (CID 7159, CID 4030; as carried by pydicom) and, with Anatomical Structure, in Slicer's terminologies. Neither
# has a vestibular schwannoma, and their primary neoplasm (86049000) means a malignant one in SNOMED CT. Cochlea is
# the "Cochlear structure" of the SNOMED mapping of AAPM TG-263 (HL7 CodeX Radiation Therapy).
STRUCTURES = (
    Structure(
        VS,
        "VS",
        "Vestibular schwannoma",
        (230, 80, 60),
        _terminology(
            "49755003^Morphologically Altered Structure",
            "4147007^Mass",
            "361078006^Internal Auditory Canal",
        ),
    ),
    Structure(
        COCHLEA,
        "cochlea",
        "Cochlea",
        (70, 170, 230),
        _terminology("123037004^Anatomical Structure", "80169004^Cochlea"),
    ),
)

#: The label values, in order, background first: the channels of every posterior and probability map.
VALUES = (BACKGROUND, *(structure.value for structure in STRUCTURES))

#: The remedy of an unknown label value.
USE_VALUES = "Use 0 background, " + ", ".join(f"{structure.value} {structure.name}" for structure in STRUCTURES)


#: So few values are looked for one by one.
_FEW = 8


def values_in(label_map: np.ndarray) -> list[int]:
    """Return the values that an integer array holds, in order."""
    if label_map.dtype == np.uint8:
        highest = int(label_map.max(initial=0))
        if highest < _FEW:  # comparing is ten times as fast as counting, and that as sorting
            return [value for value in range(highest + 1) if (label_map == value).any()]
        return np.flatnonzero(np.bincount(label_map.ravel(), minlength=256)).tolist()
    return np.unique(label_map).tolist()


def check_values(label_map: np.ndarray, name: object = "label map") -> None:
    """Refuse a label map with a value that is not in :data:`VALUES`.

    Raises:
        InputError: it names ``name`` and every unknown value.

    """
    if unknown := sorted(set(values_in(label_map)) - set(VALUES)):
        raise InputError(f"Unknown label value in {name}: {', '.join(map(str, unknown[:10]))}. {USE_VALUES}.")


def structures_in(label_map: np.ndarray) -> tuple[Structure, ...]:
    """Return the structures that have at least one voxel in ``label_map``.

    Example:
        >>> [structure.key for structure in structures_in(np.array([0, 2, 2]))]
        ['cochlea']

    """
    values = values_in(label_map)
    return tuple(structure for structure in STRUCTURES if structure.value in values)
