"""Responsiveness of the panel beside its goals, and the time of a propagation beside that of an earlier revision.

python Testing/benchmarks/bench_panel.py
python Testing/benchmarks/bench_panel.py --before CHECKOUT    (such as `git worktree add CHECKOUT b401390`)

The propagation is that of the sample of the tests: three atlases, tumor side unknown, default settings.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
TESTS = PROJECT / "Testing/slicer"
#: Presses the button of a panel, of this revision or an earlier one.
PROPAGATION = """
import time

def test_propagation(application, loaded, measured):
    start = time.monotonic()
    loaded.register.ui.registerButton.click()
    application.wait_until(lambda: not loaded.logic.busy, seconds=3600)
    assert loaded.parameters.noisyLabel is not None, loaded.register.ui.messageLabel.text
    measured("propagation", time.monotonic() - start, 0)
"""


def measure(arguments: list[str], project: Path = PROJECT) -> str:
    """Run tests with the test bed of a checkout; return the rows of their measurements."""
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "measured.md"
        path = os.pathsep.join([str(project), str(project / "Testing/slicer")])
        environment = {**os.environ, "CROSSMODA_MEASURED": str(notes), "PYTHONPATH": path}
        command = [sys.executable, "-m", "pytest", "-q", *arguments]
        subprocess.run(command, cwd=project, env=environment, check=True, stdout=sys.stderr)
        return notes.read_text(encoding="utf-8")


def propagation_seconds(project: Path) -> float:
    """Return the wall time of the propagation in the panel of a checkout, s."""
    with tempfile.TemporaryDirectory() as folder:
        test = Path(folder) / "test_propagation.py"
        test.write_text(PROPAGATION, encoding="utf-8")
        rows = measure(["-p", "conftest", "-p", "no:cacheprovider", f"--rootdir={folder}", str(test)], project)
    return float(rows.split("|")[2])


def compare(before: Path, repetitions: int) -> None:
    """Print the times of both panels, each warmed up once, then in turns."""
    checkouts = {"before": before.resolve(), "after": PROJECT}
    times: dict[str, list[float]] = {name: [] for name in checkouts}
    for repetition in range(repetitions + 1):
        for name, project in checkouts.items():
            elapsed = propagation_seconds(project)
            if repetition:
                times[name].append(elapsed)
    print("\n| panel | fastest of the runs (s) |\n|---|---|")
    for name, seconds in times.items():
        print(f"| {name} | {min(seconds):.1f} |")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="checkout of an earlier revision")
    parser.add_argument("--repetitions", type=int, default=2, help="runs of each propagation after the first")
    options = parser.parse_args()
    if options.before:
        compare(options.before, options.repetitions)
        return
    names = ("test_panel.py", "test_propagation.py", "test_tasks.py", "test_full_size.py")
    rows = measure(["-k", "opens or cancel or full_size", *(str(TESTS / name) for name in names)])
    print("\n| what | seconds | goal |\n|---|---|---|")
    print(rows, end="")


if __name__ == "__main__":
    main()
