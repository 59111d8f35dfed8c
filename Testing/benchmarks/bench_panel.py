"""Responsiveness of the panel: opening, longest step of its thread, cancelling; with the goals.

python Testing/benchmarks/bench_panel.py
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "slicer"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "measured.md"
        selected = [
            str(TESTS / name) for name in ("test_panel.py", "test_running.py", "test_tasks.py", "test_full_size.py")
        ]
        command = [sys.executable, "-m", "pytest", "-q", "-k", "opens or cancel or full_size", *selected]
        subprocess.run(command, env={**os.environ, "CROSSMODA_MEASURED": str(notes)}, check=True)
        print("\n| quantity | seconds | goal |\n|---|---|---|")
        print(notes.read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
