"""What a dry run counts: what :func:`crossmoda.propagation.propagate` does with such atlases (see its tests)."""

from pathlib import Path

import numpy as np
import pytest

from crossmoda import study, volume
from crossmoda.propagation import Settings
from crossmoda.volume import Grid, Volume

GRID = Grid((64, 20, 10), (1.5, 1.5, 2.0), (-48.0, -15.0, -10.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
SIDES = ("left", "right") * 3


def write(folder: Path, name: str, side: str, cochleae: tuple[str, ...]) -> None:
    """Write an atlas: a tumor 18 mm and cochleae 30 mm from the midplane (in LPS the left side has the larger x)."""
    label = np.zeros(GRID.shape, np.uint8)
    for own, sign in (("left", 1), ("right", -1)):
        if own == side:
            label[3:7, 8:13, 30 + sign * 12 : 34 + sign * 12] = 1
        if own in cochleae:
            label[4:6, 9:12, 31 + sign * 20 : 33 + sign * 20] = 2
    volume.write(Volume(label, GRID), folder / f"{name}_label.nii.gz")
    volume.write(Volume(label.astype(np.float32), GRID), folder / f"{name}_ceT1.nii.gz")


def registrations(folder: Path, atlases: list[tuple[str, tuple[str, ...]]], **settings) -> tuple[int, int, str]:
    """Plan a study with one target; return its registrations, the copies among them, and the lines for people."""
    for number, (side, cochleae) in enumerate(atlases):
        write(folder / "data", f"atlas{number}", side, cochleae)
    volume.write(Volume(np.zeros(GRID.shape, np.float32), GRID), folder / "data" / "target_hrT2.nii.gz")
    what = study.Configuration(
        data=folder / "data", results=folder / "results", train=False, propagation=Settings(**settings)
    )
    planned = study.plan(what)
    return planned.registrations, planned.copies, "\n".join(planned.lines())


ONE_SIDED = [(side, (side,)) for side in SIDES]


@pytest.mark.parametrize(
    ("settings", "count", "copies"),
    [
        ({"tumor_side": "left"}, 8, 2),  # a third of the six atlases
        ({"tumor_side": "auto"}, 8, 2),
        ({"tumor_side": "left", "mirror": False}, 6, 0),
        ({"tumor_side": "unknown"}, 6, 0),
    ],
)
def test_mirrored_copies_are_counted_where_no_atlas_has_the_other_cochlea(tmp_path, settings, count, copies):
    found = registrations(tmp_path, ONE_SIDED, **settings)
    assert found[:2] == (count, copies)
    assert (f"at most {count} registrations" in found[2]) == (copies > 0)
    assert (f"{copies} of them per target at most are mirrored copies" in found[2]) == (copies > 0)


def test_an_atlas_with_both_cochleae_that_is_surely_chosen_makes_copies_needless(tmp_path):
    mixed = [*ONE_SIDED, ("left", ("left", "right"))]
    assert registrations(tmp_path, mixed, tumor_side="left")[:2] == (7, 0)


def test_one_that_may_be_left_out_does_not(tmp_path):
    mixed = [*ONE_SIDED, ("left", ("left", "right"))]
    # Four on the left are compared to choose three; of the six chosen there may be two copies.
    assert registrations(tmp_path, mixed, tumor_side="left", left_atlases=3)[:2] == (4 + 6 + 2, 2)
