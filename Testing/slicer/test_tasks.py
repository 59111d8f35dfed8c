"""The queue of tasks over the real CLI engine."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from testbed.processes import child_processes


@pytest.fixture
def patience(application, scene, add_volume):
    """Make tasks that run the CLI module Patience."""
    from CrossModaSegLib.processes.tasks import CliTask

    volume = add_volume("input")

    def make(finish=None, abandon=None, **parameters):
        return CliTask("Patience", "Patience", lambda: {"input": volume, **parameters}, finish, abandon)

    return make


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_task_reports_progress_and_hands_over_its_output(application, scene, patience):
    import slicer
    from CrossModaSegLib.processes.tasks import DONE, TaskQueue

    output = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "output")
    seen = []
    task = patience(finish=lambda node: slicer.util.arrayFromVolume(output).max(), output=output, seconds=0.6)
    queue = TaskQueue([task], lambda: seen.append(task.progress)).start().wait()
    assert task.state == DONE
    assert task.result == 100.0
    between = [progress for progress in seen if 0.1 < progress < 0.95]
    assert len(set(between)) >= 2
    assert between == sorted(between)
    assert queue.progress == 1.0


def test_a_failed_task_is_listed_with_its_cause_and_the_next_is_dropped(application, scene, patience):
    from CrossModaSegLib.processes.tasks import CANCELLED, FAILED, TaskQueue

    abandoned = []
    bad = patience(abandon=lambda: abandoned.append(True), complaint="The atlas has no label; add one.", seconds=0.1)
    good = patience(seconds=0.1)
    queue = TaskQueue([bad, good]).start().wait()
    assert (bad.state, good.state) == (FAILED, CANCELLED)
    assert bad.error == "The atlas has no label; add one."
    assert queue.failures == [bad]
    assert abandoned == [True]


def test_cancel_stops_at_once_and_leaves_no_process(application, scene, patience, tmp_path, measured):
    from CrossModaSegLib.processes.tasks import CANCELLED, TaskQueue

    tasks = [patience(seconds=60.0, trace=str(tmp_path)), patience(seconds=60.0, trace=str(tmp_path))]
    queue = TaskQueue(tasks).start()
    application.wait_until(lambda: list(tmp_path.iterdir()))
    pid = int(next(tmp_path.iterdir()).name)
    begun = time.monotonic()
    queue.cancel()
    application.wait_until(lambda: not alive(pid), seconds=30.0)  # the task itself would take 60 s
    measured("cancelling a CLI module, until its process is gone", time.monotonic() - begun, 1.0)
    assert [task.state for task in tasks] == [CANCELLED, CANCELLED]
    assert len(list(tmp_path.iterdir())) == 1, "the second task was not started"
    assert scene.GetNumberOfNodesByClass("vtkMRMLCommandLineModuleNode") <= 1
    application.wait_until(lambda: scene.GetNumberOfNodesByClass("vtkMRMLCommandLineModuleNode") == 0)


def stop(application, panel, task, moment, end):
    """Run a task until a moment without events, so that the engine's thread is alone; then stop it; return its node."""
    queue = panel.logic.run([task]).start()
    node, end_by = task._node, time.monotonic() + 60
    while not moment(node) and time.monotonic() < end_by:
        time.sleep(0.001)
    if end == "cancelled":
        queue.cancel()
    else:
        application.scene.Clear(False)
    assert task.state == "cancelled"
    assert not node.IsBusy()
    return node


@pytest.mark.bed
@pytest.mark.parametrize("end", ["cancelled", "scene closed"])
def test_a_run_that_is_stopped_while_its_inputs_are_written_lets_go_of_them(application, panel, add_volume, end):
    """The engine's thread reads them without holding them, and forgets a cancel that comes then."""
    from CrossModaSegLib.processes.tasks import CliTask

    def files():
        return {path for path in Path(application.temporaryPath).iterdir() if path.is_file()}

    large, before = add_volume("large", np.zeros((128, 384, 384), np.float32)), files()
    task = CliTask("Patience", "Patience", lambda: {"input": large, "seconds": 60.0})
    node = stop(application, panel, task, lambda _node: files() - before, end)
    assert child_processes() == set()
    application.wait_until(lambda: files() <= before)
    application.wait_until(lambda: not application.scene.IsNodePresent(node))


@pytest.mark.parametrize("end", ["cancelled", "scene closed"])
def test_a_run_that_is_stopped_before_its_outputs_are_loaded_loads_them_first(application, panel, add_volume, end):
    """The engine loads them into nodes that have to be there."""
    from CrossModaSegLib.processes import cli_runs
    from CrossModaSegLib.processes.tasks import CliTask

    volume, finished = add_volume("input"), []
    outputs = [cli_runs.add_hidden("vtkMRMLScalarVolumeNode", "output")]
    parameters = {"input": volume, "output": outputs[0], "seconds": 0.1}
    task = CliTask("Patience", "Patience", lambda: parameters, finished.append, lambda: cli_runs.remove(outputs))
    node = stop(application, panel, task, lambda node: node.GetStatus() == node.Completing, end)
    assert finished == []
    application.wait_until(lambda: not application.scene.IsNodePresent(node))
    assert not application.scene.IsNodePresent(outputs[0])


@pytest.mark.bed
def test_a_run_behind_that_of_another_module_is_cancelled_without_waiting_for_it(application, scene, patience):
    import slicer
    from CrossModaSegLib.processes.tasks import CANCELLED, TaskQueue

    other = slicer.cli.run(slicer.modules.patience, None, {"seconds": 60.0}, update_display=False)
    application.wait_until(lambda: other.GetStatus() == other.Running)
    task = patience(seconds=60.0)
    queue = TaskQueue([task]).start()
    node = task._node
    queue.cancel()
    assert task.state == CANCELLED
    assert other.GetStatus() == other.Running
    assert scene.IsNodePresent(node), "the engine still has to see that it was cancelled"
    other.Cancel()
    application.wait_until(lambda: not scene.IsNodePresent(node))
    assert child_processes() == set()


def test_a_task_that_cannot_be_prepared_says_why(application, scene):
    from CrossModaSegLib.processes.tasks import FAILED, CliTask, TaskQueue

    from crossmoda.errors import InputError

    def prepare():
        raise InputError("The volume is missing. Choose another volume.")

    task = CliTask("Patience", "Patience", prepare)
    TaskQueue([task]).start()
    assert (task.state, task.error) == (FAILED, "The volume is missing. Choose another volume.")


def test_a_module_that_is_not_loaded_is_named(application, scene):
    from CrossModaSegLib.processes.tasks import CliTask, TaskQueue

    task = CliTask("Nowhere", "Nowhere", dict)
    TaskQueue([task]).start()
    assert "Nowhere" in task.error


def test_a_worker_says_its_cause_in_one_sentence(application, scene, tmp_path):
    from CrossModaSegLib.processes.tasks import FAILED, PythonTask, TaskQueue

    task = PythonTask("cases", {"folder": str(tmp_path / "nowhere")}, "List")
    TaskQueue([task]).start().wait()
    assert task.state == FAILED
    assert task.error == f"Not a folder: {tmp_path / 'nowhere'}. Select the folder of a data set."
    assert "Traceback" not in task.error


def test_arguments_longer_than_a_command_line_reach_the_worker(application, scene, tmp_path):
    from CrossModaSegLib.processes.tasks import PythonTask, TaskQueue

    row = {"id": "a", "modality": "hrT2", "image": str(tmp_path / "nowhere.nii.gz"), "label": "", "side": ""}
    task = PythonTask("prepare", {"rows": [row] * 1500, "folder": str(tmp_path)}, "Prepare")
    TaskQueue([task]).start().wait()
    assert task.error == ""
    assert ["nowhere.nii.gz" in row["problem"] for row in task.result["rows"]] == [True] * 1500


def test_a_python_that_cannot_be_started_is_reported(application, scene, monkeypatch):
    from CrossModaSegLib.processes import tasks

    monkeypatch.setattr(tasks.shutil, "which", lambda _name: "/nowhere/PythonSlicer")
    task = tasks.PythonTask("device", {}, "Look")
    tasks.TaskQueue([task]).start().wait()
    assert task.state == tasks.FAILED
    assert task.error.startswith("Python could not be started")


def test_a_name_that_the_code_page_lacks_does_not_end_the_work(application, scene, monkeypatch, tmp_path):
    from CrossModaSegLib.processes.tasks import PythonTask, TaskQueue

    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")  # a pipe on Windows
    rows = [{"id": "Жанна", "modality": "hrT2", "image": str(tmp_path / "Жанна.nii.gz"), "label": "", "side": ""}]
    task, messages = PythonTask("prepare", {"rows": rows, "folder": str(tmp_path)}, "Prepare"), []
    TaskQueue([task], lambda: messages.append(task.message)).start().wait()
    assert task.error == ""
    assert "Жанна" in messages
