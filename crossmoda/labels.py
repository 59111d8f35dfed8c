"""The one table of what is segmented: values, names, colours, terminology."""

from typing import NamedTuple

import numpy as np


class Structure(NamedTuple):
    """One segmented structure."""

    value: int
    """its value in label maps"""
    key: str
    """its name in tables, options and file names"""
    name: str
    """its name for people (segment name)"""
    color: tuple[int, int, int]
    """RGB, 0..255"""
    terminology: str
    """Slicer terminology entry: context~category~type~modifier~region context~region~region modifier"""


BACKGROUND = 0
VS = 1
COCHLEA = 2

STRUCTURES = (
    Structure(VS, "VS", "Vestibular schwannoma", (230, 80, 60), ""),
    Structure(COCHLEA, "cochlea", "Cochlea", (70, 170, 230), ""),
)

#: The label values, in order, background first: the channels of every posterior and probability map.
VALUES = (BACKGROUND, *(structure.value for structure in STRUCTURES))


def structures_in(label_map: np.ndarray) -> tuple[Structure, ...]:
    """Return the structures that have at least one voxel in ``label_map``."""
    present = set(np.unique(label_map).tolist())
    return tuple(structure for structure in STRUCTURES if structure.value in present)
