"""Draw the label of the cochlea over real T2 and the template.

Usage: python Testing/experiments/render_cochlea.py PICTURE [SCAN ...]

Without scans: the mean over both ears and both sessions of p03 in the real data (Testing/README.md), and the
ICBM152 average. Cyan: mean expert contour, yellow: label.
"""

import argparse
import os
from pathlib import Path

import numpy as np

from crossmoda import volume
from crossmoda.anatomy import template
from crossmoda.anatomy.cochlea import mean_cochlea
from crossmoda.anatomy.ear_frame import ear_frames, patch_grid
from crossmoda.anatomy.sampling import positions

DATA = Path(os.environ.get("CROSSMODA_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
STEP_MM = 0.3
GRID = patch_grid((72, 60, 44), STEP_MM, (37.5, 25.0, -44.4))
AXIAL_MM, CORONAL_MM, SAGITTAL_MM = (-47.4, -45.9, -44.4, -42.9, -41.4), (21.9, 24.0), (36.0, 38.4)


def patches(path: Path) -> dict[str, np.ndarray]:
    """Return the accepted ears of a scan on the grid, normalized."""
    scan = volume.read(path)
    sampled = {frame.side: frame.sample(scan, GRID).array.astype(float) for frame in ear_frames(scan).accepted}
    return {side: patch / np.percentile(patch, 99.5) for side, patch in sampled.items()}


def draw(rows: dict[str, np.ndarray], picture: Path) -> None:
    """Write one row of slices per image."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    shape = mean_cochlea()
    distance = shape.distance(positions(GRID))
    cuts = [(0, z) for z in AXIAL_MM] + [(1, y) for y in CORONAL_MM] + [(2, x) for x in SAGITTAL_MM]
    figure, axes = plt.subplots(len(rows), len(cuts), figsize=(1.75 * len(cuts), 1.65 * len(rows)), squeeze=False)
    for row, (name, image) in zip(axes, rows.items(), strict=True):
        for axis, (normal, at) in zip(row, cuts, strict=True):
            index = round((at - GRID.origin[2 - normal]) / STEP_MM)
            view = [slice(None)] * 3
            view[normal] = index
            plane = tuple(view)
            axis.imshow(image[plane], cmap="gray", vmin=0, vmax=1, origin="upper" if normal == 0 else "lower")
            axis.contour(distance[plane], [shape.contour_level_mm], colors="cyan", linewidths=1.0)
            axis.contour(distance[plane], [0.0], colors="yellow", linewidths=1.0)
            axis.set_title(f"{name} {'zyx'[normal]} {at:g}", fontsize=6, pad=2)
            axis.axis("off")
    figure.tight_layout(pad=0.2)
    figure.savefig(picture, dpi=80)
    colors = Image.open(picture).convert("RGB")
    colors.quantize(64, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(picture, optimize=True)


def main() -> None:
    """Draw the scans."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("scans", type=Path, nargs="*")
    arguments = parser.parse_args()
    if arguments.scans:
        rows = {f"{path.name[:12]} {side}": patch for path in arguments.scans for side, patch in patches(path).items()}
    else:
        real = [patch for n in (1, 2) for patch in patches(DATA / "real_t2" / f"p03_study{n}_T2W.nii.gz").values()]
        average = volume.resample(template.load().ears["T2"], GRID).array
        rows = {"p03": np.mean(real, axis=0), "average": average / np.percentile(average, 99.5)}
    draw(rows, arguments.picture)


if __name__ == "__main__":
    main()
