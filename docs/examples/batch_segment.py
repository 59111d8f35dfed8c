"""Segment every hrT2 scan of a data set, without a window.

Slicer --no-main-window --python-script batch_segment.py DATASET OUTPUT [WEIGHTS]
"""

import sys
import traceback

try:
    from slicer import app  # noqa: F401 (not in a plain Python, nor in slicer-core)
except ImportError:
    raise SystemExit("Not in 3D Slicer. Run this example with Slicer --no-main-window --python-script.") from None
import slicer

logic = slicer.util.getModuleLogic("CrossModaSeg")


def segment_all(dataset: str, output: str, weights: str = "") -> int:
    """Segment the scans of a data set folder; return the number of failures."""
    from crossmoda.dataset import open_dataset
    from crossmoda.errors import InputError

    failures = 0
    for case in open_dataset(dataset).targets:
        try:
            volume = slicer.util.loadVolume(str(case.image), {"name": case.id, "show": False})
            segmentation = logic.segment(volume, weights=weights)
            files = logic.export(segmentation, output)
            print(f"{case.id}: {', '.join(path.name for path in files)}")
        except (InputError, RuntimeError) as error:
            failures += 1
            print(f"{case.id}: {error}")
        slicer.mrmlScene.Clear()
    return failures


if __name__ == "__main__":
    try:
        status = min(segment_all(*sys.argv[1:]), 1)
    except Exception:
        traceback.print_exc()
        status = 2
    slicer.util.exit(status)
