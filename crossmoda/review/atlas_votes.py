"""The label map of each atlas that was fused for a case, read from the folder of its results."""

import csv
from pathlib import Path

from crossmoda import volume
from crossmoda.dataset.results import ATLASES
from crossmoda.volume import Grid, Volume


def read_atlas_votes(folder: Path, grid: Grid) -> list[tuple[str, Volume]]:
    """Return the ID and the label map, on the grid of the target, of each atlas that was fused; none without files."""
    from crossmoda.propagation.registrations import WARPED, folder_name

    table = folder / ATLASES
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines())) if table.is_file() else []
    votes = []
    for row in rows:
        file = folder / "registrations" / folder_name(row["atlas"], row["mirrored"] == "yes") / WARPED
        if row["excluded"] or not file.is_file():
            continue
        label_map = volume.read_label_map(file, grid)
        if label_map.grid.same_as(grid):
            votes.append((row["atlas"], label_map))
    return votes
