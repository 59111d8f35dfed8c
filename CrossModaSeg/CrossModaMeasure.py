#!/usr/bin/env python-real
"""Slicer CLI module of :mod:`crossmoda.steps.measure`."""

import sys
from pathlib import Path

# The engine lies beside this folder in a source checkout, and in qt-scripted-modules when installed in Slicer.
_PARENT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(_PARENT), str(_PARENT / "qt-scripted-modules")]

from crossmoda.slicer_cli import main  # noqa: E402
from crossmoda.steps.measure import STEP  # noqa: E402

if __name__ == "__main__":
    main(STEP)
