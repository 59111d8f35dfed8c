"""Registration of large images: time and memory by number of voxels, and the delay of a cancel."""

import statistics
import sys
import time
from pathlib import Path

import numpy as np
from usage import Clock, memory_mib

from crossmoda import deeds, volume
from crossmoda.errors import Cancelled
from crossmoda.volume.grid import Grid, Volume


def full_size() -> list[Volume]:
    """Return a fixed and a moving image of 448 x 448 x 80 voxels, 0.41 x 0.41 x 1.5 mm."""
    from crossmoda import simulation

    settings = simulation.Settings(field_of_view=184, slices=80, slice_thickness=1.5, in_plane_spacing=0.41)
    fixed, moving = (simulation.simulate_subject(seed, settings=settings) for seed in (1, 2))
    grid = Grid((448, 448, 80), (0.41, 0.41, 1.5), fixed.hrt2.grid.origin, fixed.hrt2.grid.direction)
    return [volume.resample(image, grid) for image in (fixed.hrt2, moving.cet1)]


def cancelling(moments: int = 12) -> str:
    """Return the delay of a cancel at moments spread over a registration of full size."""
    from crossmoda.deeds import registration

    images = full_size()
    registration.warm_up()
    settings = deeds.Settings(device="cpu")
    clock = Clock()
    deeds.register(*images, settings)
    whole = clock.read()[0]
    delays = []
    for number in range(moments):
        moment = time.monotonic() + (number + 0.5) / moments * whole

        def progress(fraction: float, message: str, moment: float = moment) -> None:
            if time.monotonic() >= moment:
                raise Cancelled

        try:
            deeds.register(*images, settings, progress=progress)
        except Cancelled:
            delays.append(time.monotonic() - moment)
    return (
        f"448 x 448 x 80 in {whole:.1f} s; cancelled at {len(delays)} moments it went on for "
        f"{statistics.median(delays):.2f} s in the median, {max(delays):.2f} s at most."
    )


def curve() -> str:
    """Return the seconds by number of voxels, 0.41 x 0.41 x 1.5 mm, up to 448 x 448 x 80."""
    from crossmoda.deeds import registration

    images = full_size()
    grid = images[0].grid
    lines = [
        "| voxels | size | seconds | processor s | processor s / million voxels | MiB |",
        "|---|---|---|---|---|---|",
    ]
    sizes, works = [], []
    registration.warm_up()
    for size in ((160, 160, 48), (224, 224, 64), (320, 320, 72), (448, 448, 80)):
        low = [(full - part) // 2 for full, part in zip(grid.size, size, strict=True)]
        cut = tuple(slice(start, start + count) for start, count in zip(low[::-1], size[::-1], strict=True))
        crops = [image.crop(cut) for image in images]
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forgets the peak so far
        before = memory_mib("VmRSS")
        taken = []
        for _ in range(2):
            clock = Clock()
            deeds.register(*crops, deeds.Settings(device="cpu"))
            taken.append(clock.read())
        seconds, work = (min(values) for values in zip(*taken, strict=True))
        millions = float(np.prod(size)) / 1e6
        more = memory_mib("VmHWM") - before
        name = " x ".join(map(str, size))
        lines.append(
            f"| {millions:.1f} M | {name} | {seconds:.2f} | {work:.2f} | {work / millions:.3f} | +{more:.0f} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
        sizes.append(millions)
        works.append(work)
    exponent = np.polyfit(np.log(sizes), np.log(works), 1)[0]
    lines.append(f"\nProcessor time grows with the number of voxels to the power of {exponent:.2f}.")
    return "\n".join(lines)
