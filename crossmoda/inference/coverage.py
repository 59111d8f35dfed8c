"""What a network was trained for, by its model card, and what of a scan lies outside of it."""

from collections.abc import Mapping
from typing import Any

from crossmoda import weights
from crossmoda.volume import Grid

#: Entries of a model card with the least and the largest value of the training, and what they are.
RANGES = {"slice_mm": "slices of {} mm", "pixel_mm": "pixels of {} mm", "tumor_mm3": "a schwannoma of {} mm³"}


def notes(card: Mapping[str, Any], grid: Grid, tumor_mm3: float) -> list[str]:
    """Return a sentence for each property of a scan and its result that the training did not cover.

    Args:
        card: the model card; without ranges nothing is said.
        grid: the scan's.
        tumor_mm3: volume of the tumor that was found, 0 for none.

    """
    covers = card.get(weights.COVERS, {})
    pixels, slices = sorted(grid.spacing)[1:]
    quantities = {"slice_mm": slices, "pixel_mm": pixels} | ({"tumor_mm3": tumor_mm3} if tumor_mm3 else {})
    return [
        f"{RANGES[name].format(f'{value:.3g}')}: the network was trained for {covers[name][0]:g} to "
        f"{covers[name][1]:g}, check the result"
        for name, value in quantities.items()
        if name in covers and not covers[name][0] <= value <= covers[name][1]
    ]
