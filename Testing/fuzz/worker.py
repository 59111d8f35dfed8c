"""Read damaged files in one process after another file: a line with kind and folder in, a line with the outcome out."""

import contextlib
import io
import resource
import sys
from pathlib import Path

import numpy as np

from crossmoda import cli, structure_names, volume, weights
from crossmoda.dataset import corrections, open_dataset
from crossmoda.dataset.contours import rasterize, read_contours
from crossmoda.dataset.label_reading import read_label
from crossmoda.deeds.transform import read_transform
from crossmoda.errors import BAD_INPUT, InputError

from inputs import GRID, KINDS  # isort: skip  (beside this file)

_SCANS = ("nii", "nii.gz", "nrrd", "nhdr", "mha", "mhd", "dicom")


def read(kind: str, folder: Path) -> None:
    """Read the file of a kind as the doors do."""
    file = folder / KINDS[kind][0]
    if kind in _SCANS:
        scan = volume.read_scan(file)
        assert scan.array.shape == scan.grid.shape and np.isfinite(scan.array).all()
        if kind == "dicom":
            open_dataset(folder)
    elif kind in ("seg.nrrd", "label"):
        label_map = read_label(file, GRID)
        assert set(np.unique(label_map.array)) <= {0, 1, 2}
    elif kind in ("rtstruct", "contours"):
        rasterize(read_contours(file), GRID, file)
    elif kind == "record":
        corrections.all_corrections(folder.parents[1])
    elif kind == "mapping":
        structure_names.mapping_for(folder / "label.nii.gz")
    elif kind == "weights":
        weights.load(file)
    elif kind == "evaluate":
        run("evaluate", file, folder / "label_reference.nii.gz")
    elif kind == "validate":
        run("validate", folder)
    elif kind == "predict":
        run("predict", file, "--output", folder / "out.seg.nrrd", "--device", "cpu")
    else:
        read_transform(file, guarded=True)


def run(*arguments: object) -> None:
    """Run a command in this process.

    Raises:
        InputError: it ended with the code of bad input, and one sentence at most.

    """
    out, err = io.StringIO(), io.StringIO()
    code: object = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main(["--quiet", *map(str, arguments)])
        except SystemExit as ended:
            code = ended.code
    if code == BAD_INPUT:
        raise InputError(err.getvalue().strip())
    assert code == 0, f"exit code {code}: {err.getvalue()[:200]}"


def main() -> None:
    for line in sys.stdin:
        kind, folder = line.rstrip("\n").split("\t")
        try:
            read(kind, Path(folder))
            outcome = "read"
        except InputError as error:
            outcome = "refused" if "\n" not in str(error) else f"bad: several lines: {error!r}"
        except BaseException as error:
            outcome = f"bad: {type(error).__name__}: {str(error)[:200]!r}"
        print(f"{outcome}\t{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}", flush=True)


if __name__ == "__main__":
    main()
