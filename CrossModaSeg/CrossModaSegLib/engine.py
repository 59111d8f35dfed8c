"""Path of the engine: beside this package when installed, at the root of a source checkout otherwise."""

import importlib.util
import sys
from pathlib import Path


def ensure_engine() -> None:
    """Make ``import crossmoda`` work.

    An installed extension has ``crossmoda`` in ``qt-scripted-modules``, which is on the path already. With additional
    module paths Slicer adds only ``CrossModaSeg/`` to the path of its own process, so the root of the checkout is added
    here. Nothing is imported: opening the panel stays fast.
    """
    if importlib.util.find_spec("crossmoda") is None:
        for folder in Path(__file__).resolve().parents[1:3]:
            if (folder / "crossmoda" / "__init__.py").is_file():
                sys.path.append(str(folder))
                return
        raise ImportError("CrossModa engine not found (folder crossmoda). Install the extension again.")
