"""Public reports: several people and runs, signals, outputs, installations without a cache."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from report_inputs import a_scan

from crossmoda import volume
from crossmoda.cache import CachedStep
from crossmoda.errors import InputError
from crossmoda.fusion.files import fuse_files
from crossmoda.inference import predict_files
from crossmoda.locks import locked
from crossmoda.output import atomic, check_apart
from crossmoda.review import models
from crossmoda.weights import bundled

# --- work of several people and runs ---


_SAVE = """
import sys, time
import numpy as np
from crossmoda import dataset, volume
from crossmoda.dataset import corrections
data, size = sys.argv[1], int(sys.argv[2])
(case,) = dataset.open_dataset(data).targets
image = case.read_image()
array = np.zeros(image.grid.shape, np.uint8)
array[2:5, 2:8, 2 : 2 + size] = 1
for _ in range(2):
    corrections.save(case, image.with_array(array), data, reviewer=str(size))
"""


def test_nothing_that_somebody_drew_is_lost_when_people_save_at_once(tmp_path: Path) -> None:
    volume.write(a_scan(), tmp_path / "a_hrT2.nii.gz")
    people = [subprocess.Popen([sys.executable, "-c", _SAVE, str(tmp_path), str(size)]) for size in (3, 5, 7)]
    assert [process.wait() for process in people] == [0, 0, 0]
    store = tmp_path / "corrections" / "a"
    saved = [*store.glob("previous/*/a_hrT2_label.nii.gz"), store / "a_hrT2_label.nii.gz"]
    sizes = sorted(int(volume.read_label_map(file).array.sum()) // 18 for file in saved)
    assert sizes == [3, 3, 5, 5, 7, 7]
    records = [
        json.loads(file.read_text()) for file in (*store.glob("previous/*/correction.json"), store / "correction.json")
    ]
    assert sorted(record["number"] for record in records) == [1, 2, 3, 4, 5, 6]


_HOLD = """
import sys, time
from crossmoda.locks import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_in_a_folder_is_refused_and_a_killed_run_leaves_no_lock(tmp_path: Path) -> None:
    first = subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    assert first.stdout is not None and first.stdout.readline() == b"held\n"
    with pytest.raises(InputError, match=r"Folder in use by another run: .*\. Wait until it ends"), locked(tmp_path):
        pass
    first.kill()
    first.wait()
    with locked(tmp_path), locked(tmp_path):  # a thread may hold it twice
        pass


def test_a_failed_run_removes_the_folder_that_it_made_unless_there_are_files_in_it(tmp_path: Path) -> None:
    for name, keeps in (("new", False), ("with_files", True), ("made_before", True)):
        if name == "made_before":
            (tmp_path / name).mkdir()
        with pytest.raises(InputError, match="bad"), locked(tmp_path / name):
            if name == "with_files":
                (tmp_path / name / "a.txt").touch()
            raise InputError("bad")
        assert (tmp_path / name).exists() is keeps


def test_the_unfinished_files_of_a_killed_run_are_removed_by_the_next_and_no_others(tmp_path: Path) -> None:
    code = "import os, sys; from crossmoda.output import atomic\nwith atomic(sys.argv[1]) as t: t.touch(); os._exit(9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.csv")], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with atomic(tmp_path / "b.csv") as own:
        own.touch()
        with atomic(tmp_path / "c.csv") as other:
            other.touch()
        assert own.exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["b.csv", "c.csv"]


def test_the_signal_of_a_batch_system_saves_work_as_ctrl_c_does() -> None:
    code = (
        "import os, signal; from crossmoda.output import end_as_interrupted\nend_as_interrupted()\n"
        "try: os.kill(os.getpid(), signal.SIGTERM); import time; time.sleep(9)\n"
        "except KeyboardInterrupt: print('saved')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "saved\n"


def test_outputs_are_checked_before_work_begins(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe.csv")
    for path, reason in (("file/x.csv", "not a directory"), ("pipe.csv", "not a regular file"), ("", "is a directory")):
        with pytest.raises(InputError, match=f"Cannot write .*{reason}"):
            check_apart([tmp_path / path], [])
    scan = tmp_path / "scan.nii.gz"
    volume.write(a_scan(), scan)
    with pytest.raises(InputError, match=r"Unknown file name ending"):
        predict_files(scan, tmp_path / "x.nifti")
    with pytest.raises(InputError, match="Duplicate label map"):
        fuse_files([scan, tmp_path / "." / "scan.nii.gz"])


# --- installations without a writable cache ---


def test_compiled_code_works_where_nothing_can_be_kept() -> None:
    code = (
        "import warnings; warnings.simplefilter('always')\n"
        "from numba.core.caching import FunctionCache\n"
        "def fail(*_): raise RuntimeError('cannot cache function: no locator available')\n"
        "FunctionCache.__init__ = fail\n"
        "from crossmoda.deeds import mind_codes\nimport numpy as np\n"
        "print(mind_codes.codes(np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Compiled code is not kept") == 1


_COMPILE = """
import sys, warnings
warnings.simplefilter("always")
sys.path.insert(0, sys.argv[1])
import small
print(small.double(3), small.double.stats.cache_hits.total())
"""


@pytest.mark.parametrize("damaged", ["*.nbi", "*.nbc"])
def test_damaged_compiled_code_is_replaced_and_said_once(tmp_path: Path, damaged: str) -> None:
    source = "from crossmoda.jit_cache import compiled\n\n\n@compiled(cache=True)\ndef double(x):\n    return 2 * x\n"
    (tmp_path / "small.py").write_text(source)

    def call() -> tuple[str, str]:
        surroundings = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        command = [sys.executable, "-c", _COMPILE, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, env=surroundings)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip(), done.stderr

    call()
    for file in (tmp_path / "cache").rglob(damaged):
        file.write_bytes(file.read_bytes()[:40] + b"damaged")
    out, err = call()
    assert out.startswith("6 ") and err.count("Compiled code is damaged") == 1
    out, err = call()
    assert out.startswith("6 ") and not err


def test_models_added_at_once_get_names_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        added = list(pool.map(lambda _: models.add(tmp_path, bundled()).name, range(2)))
    assert sorted(added) == ["model-1", "model-2"]
    assert {file.parent.name for file in tmp_path.glob("*/weights.safetensors")} == set(added)


_STEP = """
import sys
from crossmoda.cache import CachedStep
from crossmoda.errors import InputError
from crossmoda.locks import locked
folder, key = sys.argv[1:]
step = CachedStep(folder, key=key)
print("ready", flush=True)
while True:
    try:
        with locked(folder):
            step.begin(["result.bin"])
            with open(folder + "/result.bin", "w") as stream:
                stream.write(key * 1000)
            step.finish(["result.bin"], {"key": key})
    except InputError:
        pass
"""


def test_two_runs_killed_in_one_folder_never_seal_the_result_of_the_other(tmp_path: Path) -> None:
    for number in range(3):
        folder = tmp_path / str(number)
        runs = [
            subprocess.Popen([sys.executable, "-c", _STEP, str(folder), key], stdout=subprocess.PIPE) for key in "AB"
        ]
        for run in runs:
            assert run.stdout is not None and run.stdout.readline() == b"ready\n"
        time.sleep(0.2 + 0.05 * number)
        for run in runs:
            run.kill()
            run.wait()
        for key in "AB":
            if CachedStep(folder, key=key).results() is not None:
                assert (folder / "result.bin").read_text() == key * 1000
