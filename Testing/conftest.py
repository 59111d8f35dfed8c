"""What all test suites share."""

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
os.environ["CROSSMODA_CACHE"] = ""  # what an earlier run kept must not hide what this program does


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real MR data and expert contours; the test is skipped without it."""
    folder = Path(os.environ.get("CROSSMODA_TEST_DATA", PROJECT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real MR data at {folder}; set CROSSMODA_TEST_DATA to their folder")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the GPU tests where there is no GPU."""
    if any(item.get_closest_marker("gpu") for item in items):
        import torch

        if not torch.cuda.is_available():
            for item in items:
                if item.get_closest_marker("gpu"):
                    item.add_marker(pytest.mark.skip(reason="no CUDA device"))
