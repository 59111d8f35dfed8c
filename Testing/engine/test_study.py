"""Studies on Dask: a scheduler and workers in processes of their own, of which one is killed half-way."""

import contextlib
import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from crossmoda import cache, cli, propagation, study, volume
from crossmoda.dataset import open_dataset
from crossmoda.dataset.results import NOISY_LABEL
from crossmoda.deeds import Settings as Registration
from crossmoda.errors import BAD_INPUT, INTERRUPTED, Cancelled, InputError
from crossmoda.study import cluster, tasks
from crossmoda.study.executor import Executor
from crossmoda.study.settings import ClusterSettings
from crossmoda.volume import Grid, Volume
from phantoms import head

pytestmark = pytest.mark.slow

distributed = pytest.importorskip("distributed")

GRID = Grid((64, 44, 20), (1.5, 1.5, 2.0), (-48.0, -33.0, -20.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
CONFIGURATION = """
data = "data"
results = "results"
references = "references"
tests = ["test1"]
pictures = 1

[propagation]
region = "whole"
initialization = "image"

[registration]
levels = 2
device = "cpu"

[training]
seconds = 1
field = "scan"
width = 0.125
device = "cpu"

[prediction]
device = "cpu"

[cluster]
patience = 300
"""


def write_subject(folder: Path, name: str, seed: int, side: str, modality: str) -> None:
    image, label_map = head(GRID, side, seed, modality=modality, tumor_mm=7.99)
    volume.write(Volume(image, GRID), folder / f"{name}_{modality}.nii.gz")
    place = folder.parent / "references" if modality == "hrT2" else folder
    volume.write(Volume(label_map, GRID), place / f"{name}_label.nii.gz")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set: three atlases and two targets that are sound, an empty atlas, a target of another body part."""
    folder = tmp_path_factory.mktemp("a stüdy")
    for number, side in enumerate(("left", "right", "left"), start=1):
        write_subject(folder / "data", f"atlas{number}", number, side, "ceT1")
    write_subject(folder / "data", "target1", 11, "left", "hrT2")
    write_subject(folder / "data", "test1", 12, "right", "hrT2")
    write_subject(folder / "data", "hollow", 13, "right", "ceT1")
    hollow = folder / "data" / "hollow_label.nii.gz"
    volume.write(Volume(np.zeros(GRID.shape, np.uint8), GRID), hollow)
    noise = ndimage.gaussian_filter(np.random.default_rng(5).normal(100, 40, GRID.shape), 1)
    far = dataclasses.replace(GRID, origin=(0.0, 0.0, 900.0))
    volume.write(Volume(noise.astype(np.float32), far), folder / "data" / "knee_hrT2.nii.gz")
    (folder / "study.toml").write_text(CONFIGURATION, encoding="utf-8")
    return folder


@contextlib.contextmanager
def scheduler_with_workers(folder: Path, count: int) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """Start a Dask scheduler and workers as processes of their own; give the address and the workers."""
    environment = {**os.environ, **cluster.environment(1), "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "5"}
    logs = (folder / "dask.log").open("w")
    base = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    file = folder / "scheduler.json"
    how = {"env": environment, "stdout": logs, "stderr": logs, "cwd": folder}
    processes = [subprocess.Popen([*base, "--port", "0", "--no-dashboard", "--scheduler-file", str(file)], **how)]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file), "--no-nanny"]
    processes += [subprocess.Popen([*worker, "--nthreads", "1", "--no-dashboard"], **how) for _ in range(count)]
    try:
        deadline = time.monotonic() + 300
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        yield json.loads(file.read_text("utf-8"))["address"], processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait()
        logs.close()


@pytest.fixture(scope="module")
def disturbed(home: Path) -> Iterator[tuple[study.StudyOutcome, str, int]]:
    """A study of whose two workers one is killed while it registers; the scheduler lives on with the other."""
    what = study.read_configuration(home / "study.toml")
    with scheduler_with_workers(home, 2) as (address, workers):
        what = dataclasses.replace(what, cluster=dataclasses.replace(what.cluster, address=address))

        def kill() -> None:
            deadline = time.monotonic() + 500
            while time.monotonic() < deadline:
                if sum(cache.is_finished(each) for each in (home / "results").glob("*/registrations/*")) >= 2:
                    os.kill(workers[0].pid, signal.SIGKILL)
                    return
                time.sleep(0.02)

        killer = threading.Thread(target=kill)
        killer.start()
        outcome = study.run(what)
        killer.join()
        yield outcome, address, workers[0].wait()


needs_kill = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a signal that cannot be caught")


@needs_kill
class TestOneWorkerIsKilled:
    def test_every_sound_target_has_a_noisy_label_and_a_prediction(self, disturbed, home):
        outcome, _, ended = disturbed
        assert ended == -signal.SIGKILL
        assert set(outcome.noisy) == {"target1", "test1"}
        assert {"target1", "test1"} <= set(outcome.predicted)
        for name in ("target1", "test1"):
            assert (home / "results" / name / "prediction" / "label_map.nii.gz").is_file()
        assert outcome.learned_from == ("target1",)

    def test_the_noisy_labels_are_those_of_an_undisturbed_run(self, disturbed, home, tmp_path):
        data = open_dataset(home / "data")
        atlases = [case for case in data.sources if case.id != "hollow"]
        (target,) = (case for case in data.targets if case.id == "test1")
        how = propagation.Settings(region="whole", initialization="image")
        alone = propagation.propagate(
            target, atlases, tmp_path, how, registration=Registration(levels=2, device="cpu"), parallel_registrations=2
        )
        assert alone.tumor_side == "right"
        together = home / "results" / "test1"
        for name in (NOISY_LABEL, "confidence.nii.gz", "disagreement.nii.gz"):
            assert (together / name).read_bytes() == (tmp_path / name).read_bytes()

    def test_what_cannot_be_used_is_one_line_each_and_the_rest_goes_on(self, disturbed, home):
        outcome = disturbed[0]
        assert set(outcome.failed) == {"hollow", "knee"}
        assert "No labeled voxel" in outcome.failed["hollow"][0]
        assert "same part of the body" in outcome.failed["knee"][0]
        with (outcome.folder / "failures.csv").open(encoding="utf-8") as stream:
            assert [row["case"] for row in csv.DictReader(stream)] == ["hollow", "knee"]
        log = (outcome.folder / "study.log").read_text("utf-8")
        assert log.count("hollow: failed:") == 1 and log.count("knee: failed:") == 1

    def test_targets_with_a_reference_are_scored_and_the_report_tells_tests_apart(self, disturbed):
        outcome = disturbed[0]
        assert set(outcome.scores) == {"target1", "test1"}
        assert outcome.scores["test1"]["noisy label"]["VS"]["dice"] > 0.8
        html = (outcome.folder / "report.html").read_text("utf-8")
        assert "noisy label, tests" in html and "noisy label, other targets" in html and "knee" in html
        with (outcome.folder / "cases.csv").open(encoding="utf-8") as stream:
            rows = {row["target"]: row for row in csv.DictReader(stream)}
        assert rows["test1"]["used for"] == "test" and rows["test1"]["tumor side"] == "right"
        assert rows["knee"]["failed"] and rows["target1"]["used for"] == "training"

    def test_a_second_run_does_nothing_and_the_exit_code_tells_of_partial_failure(self, disturbed, home, capfd):
        address = disturbed[1]
        made = [
            path for name in ("target1", "test1") for path in (home / "results" / name).rglob("*") if path.is_file()
        ]
        made += list((home / "results" / "study" / "model").glob("weights*"))
        before = {path: path.stat().st_mtime_ns for path in made}
        with pytest.raises(SystemExit) as exit_:
            cli.main(["--quiet", "study", str(home / "study.toml"), "--scheduler", address])
        printed = capfd.readouterr()
        assert exit_.value.code == BAD_INPUT
        assert "0 registrations in this run" in printed.err and "2 failed: hollow, knee" in printed.err
        assert {path: path.stat().st_mtime_ns for path in made} == before

    def test_a_dry_run_counts_what_is_done(self, disturbed, home, capfd):
        with pytest.raises(SystemExit) as exit_:
            cli.main(["--quiet", "study", str(home / "study.toml"), "--dry-run"])
        out = capfd.readouterr().out
        assert exit_.value.code == BAD_INPUT  # as the run itself, since a case is unusable
        # Three usable atlases for each of three targets.
        assert "9 registrations" in out and "processor seconds each (measured on" in out
        assert "unusable: hollow" in out


def read(text: str, folder: Path) -> study.Configuration:
    path = folder / "study.toml"
    path.write_text(text, encoding="utf-8")
    return study.read_configuration(path)


class TestConfiguration:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ('data = "d"\nresults = "r"\nreferenzes = "x"', "Unknown key: 'referenzes'. Did you mean 'references'"),
            ('data = "d"\nresults = "r"\n[training]\nepoch = 3', r"\[training\]: 'epoch'. Did you mean 'epochs'"),
            (
                'data = "d"\nresults = "r"\n[training]\nepochs = "many"',
                r"\[training\]: epochs must be an integer",
            ),
            (
                'data = "d"\nresults = "r"\n[training]\nepochs = true',
                r"\[training\]: epochs must be an integer",
            ),
            (
                'data = "d"\nresults = "r"\n[propagation]\ncontributing_fraction = 2.0',
                r"\[propagation\]: contributing_fraction must be 0\.05 to 1",
            ),
            ('data = "d"\nresults = "r"\ncluster = 3', "cluster must be a section"),
            ('data = "d"\nresults = "r"\ntests = 3', "tests must be a list of names"),
            ('data = "d"\nresults = "r"\ntrain = "no"', "train must be true or false"),
            ('data = "d"\nresults = "r"\n[cluster]\nkind = "scheduler"', "needs the address"),
            ('data = "d"\nresults = "r"\n[cluster.slurm]\nqueu = "gpu"', "'queu'. Did you mean 'queue'"),
            ('results = "r"', "Missing key: data"),
            ("data = d", "Invalid TOML"),
            ("data = " + "9" * 9999, "Invalid TOML: .*number with too many digits"),
            ("data = " + "[" * 99999, "Invalid TOML: .*brackets nested too deeply"),
            ('results = "r"\ndata = "a\\u0000b"', "data must be a path"),
            (f'data = "d"\nresults = "r"\ntrain = "{"x" * 9999}"', r"true or false; got 'x{20,30}\.\.\.x{20,30}'"),
            ('data = "d"\nresults = "r"\n[training]\nseconds = inf', r"\[training\]: seconds must be 0 to 1e\+06 s"),
            ('data = "d"\nresults = "r"\n[cluster]\npatience = inf', r"\[cluster\]: patience must be 1 to 1e\+06 s"),
            ('data = "d"\nresults = "r"\n[cluster.slurm]\ncores = 0', "cores in .* must be a positive integer"),
            ('data = "d"\nresults = "r"\n[cluster.slurm]\nworker_extra_args = "-a"', "must be a list of text"),
        ],
        ids=lambda value: value[:60],
    )
    def test_what_is_wrong_is_one_sentence(self, text, said, tmp_path):
        if "slurm" in text:
            pytest.importorskip("dask_jobqueue")
        with pytest.raises(InputError, match=said):
            read(text, tmp_path)

    def test_paths_begin_at_the_file_and_whole_numbers_are_numbers(self, tmp_path):
        what = read('data = "d"\nresults = "/r"\n[registration]\nalpha = 2\n[training]\nseconds = 5', tmp_path)
        assert what.data == tmp_path / "d" and what.results == Path("/r")
        assert what.registration.alpha == 2.0 and what.training.seconds == 5.0

    def test_a_missing_file_is_one_error(self, tmp_path):
        with pytest.raises(InputError, match=r"Cannot read .*nothing\.toml"):
            study.read_configuration(tmp_path / "nothing.toml")

    def test_the_example_of_the_documentation_can_be_read(self):
        pytest.importorskip("dask_jobqueue")
        example = Path(__file__).resolve().parents[2] / "docs" / "examples" / "study.toml"
        what = study.read_configuration(example)
        assert what.propagation.left_atlases == 15 and what.batch_system["queue"]

    def test_the_papers_experiment_can_be_read(self):
        example = Path(__file__).resolve().parents[2] / "docs" / "examples" / "crossmoda2021.toml"
        what = study.read_configuration(example)
        assert what.training.network.preset == "paper" and what.training.network.field == "scan"
        assert (what.propagation.weighting, what.propagation.outline) == ("global", "atlases")
        assert what.tests == ("target_validation",)

    def test_a_pattern_without_a_scan_is_one_error(self, home):
        what = dataclasses.replace(study.read_configuration(home / "study.toml"), tests=("nobody",))
        with pytest.raises(InputError, match="No scan matches tests: 'nobody'"):
            study.plan(what)


def _stand_in_for_slurm(folder, monkeypatch):
    """Put an sbatch that runs job scripts here, and an scancel that ends them, in front of the PATH."""
    folder.mkdir()
    programs = {
        "sbatch": 'cp "$1" "$here/job"\nsetsid sh "$here/job" > /dev/null 2>&1 &\n'
        'echo $! >> "$here/jobs"\necho Submitted batch job $!',
        "scancel": 'echo "$1" >> "$here/cancelled"\nkill -9 -- "-$1" 2> /dev/null || true',
    }
    for name, lines in programs.items():
        (folder / name).write_text(f'#!/bin/sh\nhere="{folder}"\n{lines}\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


class TestClusters:
    def test_the_job_of_slurm_starts_one_worker_with_its_threads(self):
        pytest.importorskip("dask_jobqueue")
        options = cluster.checked_batch_system(
            {
                "queue": "gpu",
                "account": "vs",
                "memory": "16GiB",
                "walltime": "01:30:00",
                "job_extra_directives": ["-G 1"],
            }
        )
        made = cluster.unsubmitted_slurm_cluster(ClusterSettings(kind="slurm", threads=4), options)
        try:
            lines = made.job_script().splitlines()
        finally:
            made.close()
        for line in ("#SBATCH -p gpu", "#SBATCH -A vs", "#SBATCH --mem=16G", "#SBATCH -t 01:30:00", "#SBATCH -G 1"):
            assert line in lines
        assert "#SBATCH --cpus-per-task=4" in lines and "export CROSSMODA_THREADS=4" in lines
        (command,) = [line for line in lines if "dask_worker" in line or "dask worker" in line]
        assert command.split("--nthreads")[-1].split()[0] == "1" and "tls://" in command

    def test_an_option_that_dask_cannot_use_is_one_sentence(self):
        pytest.importorskip("dask_jobqueue")
        options = cluster.checked_batch_system({"memory": "much"})
        with pytest.raises(InputError, match=r"\[cluster.slurm\] \(Could not interpret 'much'"):
            cluster.unsubmitted_slurm_cluster(ClusterSettings(kind="slurm"), options)

    def test_more_processes_than_the_computer_can_bear_are_not_started(self):
        with pytest.raises(InputError, match=r"workers must be at most \d+ on this computer.* got 99999"):
            cluster.local_cluster(ClusterSettings(workers=99999))

    def test_slurm_without_sbatch_is_one_error(self, monkeypatch):
        pytest.importorskip("dask_jobqueue")
        monkeypatch.setenv("PATH", "")
        with pytest.raises(InputError, match="sbatch"):
            cluster.slurm_cluster(ClusterSettings(kind="slurm"), {})

    @pytest.mark.skipif(sys.platform == "win32", reason="job scripts are for Unix")
    def test_a_job_that_ends_before_the_study_is_replaced(self, tmp_path, monkeypatch):
        pytest.importorskip("dask_jobqueue")
        import dask

        _stand_in_for_slurm(tmp_path / "bin", monkeypatch)
        monkeypatch.setattr(cluster, "_REPLACEMENT_MS", 100)
        settings = ClusterSettings(kind="slurm", workers=1)
        options = {"interface": "lo", "log_directory": str(tmp_path / "logs")}
        with (
            dask.config.set({"distributed.deploy.lost-worker-timeout": "200ms"}),
            cluster.connected(settings, options) as client,
        ):
            client.wait_for_workers(1, timeout=60)
            (first,) = client.run(os.getpid).values()
            os.killpg(int((tmp_path / "bin" / "jobs").read_text()), signal.SIGKILL)
            deadline = time.monotonic() + 60
            while not (now := list(client.run(os.getpid, on_error="ignore").values())) or now == [first]:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        jobs = (tmp_path / "bin" / "jobs").read_text().split()
        assert len(jobs) == 2
        assert (tmp_path / "bin" / "cancelled").read_text().split()[-1] == jobs[1]

    def test_an_unreachable_scheduler_is_one_error(self):
        with (
            pytest.raises(InputError, match="Dask scheduler not reachable: tcp://127"),
            cluster.connected(ClusterSettings(address="tcp://127.0.0.1:9", patience=1), {}),
        ):
            pass


@pytest.fixture(scope="module")
def client() -> Iterator["distributed.Client"]:
    """Workers that are threads of this process."""
    with distributed.Client(
        processes=False, n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", set_as_default=False
    ) as made:
        yield made


class TestCrew:
    def test_an_unexpected_error_is_tried_again_and_then_a_failure_of_its_case(self, client, tmp_path):
        calls = tmp_path / "calls"
        calls.write_text("")

        def flaky(fails: int) -> str:
            calls.write_text(calls.read_text() + "x")
            if len(calls.read_text()) <= fails:
                raise RuntimeError("weather")
            return "done"

        found = []
        executor = Executor(client, retries=2, patience_s=60)
        executor.submit(found.append, flaky, 2, name="flaky")
        executor.work(lambda: None)
        assert found == ["done"] and calls.read_text() == "xxx"
        calls.write_text("")
        executor.submit(found.append, flaky, 99, name="flaky")
        executor.work(lambda: None)
        assert isinstance(found[1], tasks.Failed) and "weather" in found[1].why

    def test_what_follows_from_a_task_can_hand_out_more_tasks(self, client):
        executor, found = Executor(client, 0, 60), []
        executor.submit(lambda one: executor.submit(found.append, max, one, 5, name="second"), max, 1, 2, name="first")
        executor.work(lambda: None)
        assert found == [5]

    def test_a_full_disk_stops_the_study_with_its_sentence(self, client):
        executor = Executor(client, 0, 60)
        executor.submit(lambda _: None, tasks.Stopped, "The disk is full.", name="full")
        with pytest.raises(InputError, match="disk is full"):
            executor.work(lambda: None)

    def test_without_workers_it_gives_up(self):
        with (
            distributed.LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as empty,
            distributed.Client(empty, set_as_default=False) as alone,
        ):
            executor = Executor(alone, 0, patience_s=0.5)
            executor.submit(lambda _: None, max, 1, 2, name="lonely")
            with pytest.raises(InputError, match="No worker for"):
                executor.work(lambda: None)


def test_a_cancelled_study_says_so_and_keeps_what_is_finished(home, client, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "connected", lambda *_: contextlib.nullcontext(client))
    what = dataclasses.replace(
        study.read_configuration(home / "study.toml"), results=tmp_path, targets=("target1",), tests=(), train=False
    )

    def cancel(fraction: float, message: str) -> None:
        if any(cache.is_finished(each) for each in tmp_path.glob("target1/registrations/*")):
            raise Cancelled

    with pytest.raises(Cancelled):
        study.run(what, cancel)
    assert "Cancelled; finished results are reused." in (tmp_path / "study" / "study.log").read_text("utf-8")
    assert not (tmp_path / "target1" / NOISY_LABEL).exists()
    assert any(cache.is_finished(each) for each in tmp_path.glob("target1/registrations/*"))
    assert list((tmp_path / "study").glob(".stop-*"))


def test_a_task_of_a_cancelled_study_ends(tmp_path):
    progress = tasks.watching(tmp_path / "stop")
    progress(0.1, "at work")
    (tmp_path / "stop").touch()
    time.sleep(0.6)
    with pytest.raises(Cancelled):
        progress(0.2, "at work")


@needs_kill
def test_ctrl_c_in_a_terminal_ends_the_workers_of_this_computer_without_a_traceback(home):
    text = CONFIGURATION.replace('"results"', '"interrupted"').replace('tests = ["test1"]', 'targets = ["target1"]')
    (home / "interrupted.toml").write_text(text.replace("patience = 300", "workers = 1"), encoding="utf-8")
    command = [sys.executable, "-c", "from crossmoda.cli import main; main()", "study", "interrupted.toml"]
    process = subprocess.Popen(command, cwd=home, start_new_session=True, stdout=-1, stderr=-1, text=True)
    seals = home / "interrupted"
    deadline = time.monotonic() + 400
    while not list(seals.glob("*/registrations/*/finished.json")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    _, errors = process.communicate(timeout=120)
    assert process.returncode == INTERRUPTED
    assert "Traceback" not in errors and "finished results stay" in errors
    assert not (seals / "target1" / NOISY_LABEL).exists()
