"""Run the tests that need only Slicer's public API inside a complete Slicer; the exit code is 0 only if some passed.

Slicer --python-script Testing/slicer/run_in_slicer.py [ARGUMENTS OF PYTEST]

Without arguments, all tests of this folder run that are not marked ``bed``. The scene is cleared: start a Slicer of its
own for it. In a Python without Slicer's application, the same tests run in the test bed.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
INI = ("-c", str(PROJECT / "pyproject.toml"), "--rootdir", str(PROJECT))
#: The standard streams of Slicer have no file descriptor, which the plugin faulthandler needs and its setting with it.
STREAMS = ("--capture=sys", "-p", "no:faulthandler", "-o", "addopts=--strict-markers -ra --import-mode=importlib")
SELECTION = ("-m", "not bed", "-p", "no:cacheprovider")


class PassedTests:
    """Counts the tests that passed."""

    count = 0

    def pytest_runtest_logreport(self, report):
        self.count += report.when == "call" and report.passed


def run(arguments: list[str]) -> int:
    """Run the tests; return 0 if at least one ran and all passed."""
    try:
        import pytest
    except ImportError:
        print('The tests need pytest: enter slicer.util.pip_install("pytest") in the Python console of Slicer.')
        return 1
    passed = PassedTests()
    code = int(pytest.main([*INI, *STREAMS, *SELECTION, *(arguments or [str(HERE)])], plugins=[passed]))
    if code == 0 and not passed.count:
        print("No test ran: all were skipped.")
        return int(pytest.ExitCode.NO_TESTS_COLLECTED)
    return code


def leave(code: int) -> None:
    """End this process, through Slicer's application if there is one."""
    slicer = sys.modules.get("slicer")
    if hasattr(getattr(slicer, "app", None), "className"):
        slicer.util.exit(code)
    else:
        sys.exit(code)


if __name__ == "__main__":
    exit_code = 1
    try:
        exit_code = run(sys.argv[1:])
    finally:
        leave(exit_code)
