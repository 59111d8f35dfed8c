"""Long work: one process at a time, with progress and cancel, while the panel stays responsive.

A task is a CLI module's run (:class:`CliTask`), a call of the engine in a Python process (:class:`PythonTask`), or
short steps between the application's events (:class:`StepsTask`). A :class:`TaskQueue` runs tasks one after another,
until one fails.
"""

import json
import logging
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from crossmoda.errors import InputError

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"
_PROGRESS = re.compile(r"<filter-progress>\s*([0-9.eE+-]+)\s*</filter-progress>")
_COMMENT = re.compile(r"<filter-comment>(.*?)</filter-comment>", re.DOTALL)
#: Time for Slicer's CLI logic to end a run (s): it checks for a cancel after it has written the inputs.
_PATIENCE_SECONDS = 10.0


class Task:
    """One piece of work; subclasses start a process in ``_start`` and stop it in ``_stop``.

    ``finish(result)`` takes over the result, ``abandon()`` removes the remains of a failed task: methods that
    subclasses override, or arguments.
    """

    #: The share of the task in the progress of its queue.
    weight = 1.0

    def __init__(self, title: str, finish: Callable | None = None, abandon: Callable | None = None):
        """Name the task."""
        self.title, self.state, self.error, self.progress, self.message = title, WAITING, "", 0.0, ""
        self.seconds, self.result, self.notes = 0.0, None, ""
        self._finish, self._abandon = finish, abandon
        self._begun, self._changed, self._stopping = 0.0, lambda: None, False

    def finish(self, result):
        """Return what the task makes of its result."""
        return self._finish(result) if self._finish else result

    def abandon(self) -> None:
        """Remove the remains of a failed or cancelled task."""
        if self._abandon:
            self._abandon()

    def error_text(self, error: str) -> str:
        """Return an error of the process as the user reads it."""
        return error

    @property
    def over(self) -> bool:
        """Whether the task has ended, in whatever way."""
        return self.state in (DONE, FAILED, CANCELLED)

    def start(self, changed: Callable[[], None]) -> None:
        """Start; ``changed`` is called at every change of progress and state."""
        self._changed, self._begun, self.state = changed, time.monotonic(), RUNNING
        try:
            self._start()
        except InputError as error:
            self._end(FAILED, str(error))
        except Exception as error:
            logging.exception("%s could not be started", self.title)
            self._end(FAILED, _("Start failed: {error}").format(error=error))

    def cancel(self) -> None:
        """Stop at once."""
        if self.state == RUNNING:
            self._stopping = True
            self._stop()
            self._end(CANCELLED, "")
        elif self.state == WAITING:
            self.state = CANCELLED
            self.abandon()

    def _report(self, progress: float, message: str) -> None:
        if (progress, message) != (self.progress, self.message) and not self.over:
            self.progress, self.message = progress, message or self.message
            self._changed()

    def _succeed(self, result) -> None:
        if self.over or self._stopping:
            return
        self.seconds = time.monotonic() - self._begun
        try:
            self.result = self.finish(result)
            self.progress = 1.0
            self._end(DONE, "")
        except InputError as error:
            self._end(FAILED, str(error))
        except Exception as error:
            logging.exception("%s: the result could not be taken over", self.title)
            self._end(FAILED, _("The result could not be read: {error}").format(error=error))

    def _end(self, state: str, error: str) -> None:
        if self.over:
            return
        if self._stopping:  # the process's own end is not a failure
            state, error = CANCELLED, ""
        self.state, self.error = state, self.error_text(error)
        self.seconds = self.seconds or time.monotonic() - self._begun
        if state != DONE:
            self.abandon()
        self._release()
        self._changed()

    def _start(self) -> None:
        raise NotImplementedError

    def _stop(self) -> None:
        raise NotImplementedError

    def _release(self) -> None:
        """Release the process."""


class CliTask(Task):
    """A run of a CLI module."""

    def __init__(self, module: str, title: str, prepare: Callable[[], dict] | None = None, finish=None, abandon=None):
        """Name the module; ``prepare()`` returns its parameters, ``finish(node)`` gets the CLI node."""
        super().__init__(title, finish, abandon)
        self._module, self._prepare = module, prepare
        self._node, self._observer, self._was_busy = None, None, False
        self._used: list = []

    def prepare(self) -> dict:
        """Return the parameters of the module when the task's turn has come."""
        return self._prepare()

    def _start(self) -> None:
        module = getattr(slicer.modules, self._module.lower(), None)
        if module is None:
            raise RuntimeError(
                _("the module {name} is not loaded; install the extension again").format(name=self._module)
            )
        parameters = self.prepare()
        self._used = list(parameters.values())  # the engine's thread writes them to files without holding them
        self._node = slicer.cli.run(module, None, parameters, wait_for_completion=False, update_display=False)
        self._observer = self._node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._on_modified)
        self._on_modified()

    def _on_modified(self, _caller=None, _event=None) -> None:
        node = self._node
        if node is None or self.over:
            return
        status = node.GetStatus()
        if node.IsBusy():
            self._was_busy = True
            if status == node.Running:  # before, the node still has the progress of an earlier run
                self._report(min(node.GetProgress() / 100, 0.99), "")
        elif status == node.Completed:
            self._succeed(node)
        elif status == node.Cancelled:
            self._end(CANCELLED, "")
        elif status & node.ErrorsMask or (self._was_busy and status == node.Idle) or node.GetErrorText():
            # A required argument without a value sends the node back to Idle with an error text.
            self._end(FAILED, _cause(node.GetErrorText(), node.GetOutputText()))

    def _stop(self) -> None:
        """Cancel, and wait until the engine has let go of the scene: it must not change under it."""
        node, end = self._node, time.monotonic() + _PATIENCE_SECONDS
        while node.IsBusy() and time.monotonic() < end:
            status = node.GetStatus()
            if status == node.Completing:  # its outputs are loaded into nodes that must exist
                slicer.app.applicationLogic().ProcessReadData()
            elif status != node.Cancelling:  # that it starts overwrites what came while it wrote the inputs
                node.Cancel()
            elif _waits_for_another(node):
                break
            time.sleep(0.005)

    def _release(self) -> None:
        node, self._node = self._node, None
        if node is not None:
            node.RemoveObserver(self._observer)
            _remove(node, self._used)


def _waits_for_another(node) -> bool:
    """Whether the single thread of Slicer's CLI logic runs another node: this run then ends before it starts."""
    runs = slicer.util.getNodesByClass("vtkMRMLCommandLineModuleNode")
    return any(run is not node and run.GetStatus() == run.Running for run in runs)


def _remove(node, used: list) -> None:
    """Remove the node of a run when the engine is done with it, and hold it and what it used until then.

    The engine has no references of its own to the node whose outputs it still has to load.
    """

    def attempt() -> None:
        if node.IsBusy():
            qt.QTimer.singleShot(50, attempt)
            return
        used.clear()
        if slicer.mrmlScene.IsNodePresent(node):
            slicer.mrmlScene.RemoveNode(node)

    qt.QTimer.singleShot(0, attempt)


def _cause(error_text: str, output: str) -> str:
    """Return the reason of a failed process: its last line on stderr."""
    lines = [line.strip() for line in (error_text or "").splitlines() if line.strip()]
    lines = [line for line in lines if "standard error:" not in line and "completed with errors" not in line]
    if lines:
        return lines[-1].removeprefix("error: ").removeprefix("Error: ")
    tail = [line.strip() for line in (output or "").splitlines() if line.strip()]
    return tail[-1] if tail else _("The process ended without a message. See the application log.")


class PythonTask(Task):
    """A call of the engine in a Python process of its own (``worker.py``)."""

    def __init__(self, verb: str, arguments: "dict | Callable[[], dict]", title: str, finish=None, abandon=None):
        """Name the worker's verb and its arguments (JSON, or a function that returns them when its turn has come)."""
        super().__init__(title, finish, abandon)
        self._verb, self._arguments = verb, arguments
        self._process, self._folder = None, None

    def _start(self) -> None:
        arguments = self._arguments() if callable(self._arguments) else self._arguments
        self._folder = Path(tempfile.mkdtemp(prefix="CrossModa-", dir=slicer.app.temporaryPath))
        (self._folder / "arguments.json").write_text(json.dumps(arguments), encoding="utf-8")
        worker = Path(__file__).with_name("worker.py")
        self._process = qt.QProcess()
        self._process.connect("readyReadStandardOutput()", self._on_output)
        self._process.connect("finished(int,QProcess::ExitStatus)", self._on_finished)
        self._process.connect("errorOccurred(QProcess::ProcessError)", self._on_error)
        python = shutil.which("PythonSlicer") or sys.executable
        self._process.start(python, [str(worker), self._verb, str(self._folder)])

    def _on_output(self) -> None:
        text = _text(self._process.readAllStandardOutput())
        fractions, comments = _PROGRESS.findall(text), _COMMENT.findall(text)
        self._report(float(fractions[-1]) if fractions else self.progress, comments[-1] if comments else "")

    def _on_finished(self, code: int) -> None:
        if self.over:
            return
        answer = self._folder / "answer.json"
        if code == 0 and answer.is_file():
            self._succeed(json.loads(answer.read_text(encoding="utf-8")))
        else:
            self._end(FAILED, _cause(_text(self._process.readAllStandardError()), ""))

    def _on_error(self, error: int) -> None:
        if error == qt.QProcess.FailedToStart:  # then it does not finish either
            self._end(FAILED, _("Python could not be started: {error}").format(error=self._process.errorString()))

    def _stop(self) -> None:
        self._process.kill()
        self._process.waitForFinished(500)

    def _release(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _text(output) -> str:
    """Return what a process wrote; PythonQt gives bytes or text, depending on its version."""
    data = output.data()
    return data if isinstance(data, str) else bytes(data).decode(errors="replace")


class StepsTask(Task):
    """Short steps in the application's own process, one at a time between its other events (such as loading files)."""

    weight = 0.1

    def __init__(self, title: str, prepare: Callable[[], list[Callable[[], None]]], finish=None, abandon=None):
        """Name the task; ``prepare()`` returns the steps when its turn has come."""
        super().__init__(title, finish, abandon)
        self._prepare, self._steps, self._count = prepare, [], 0

    def _start(self) -> None:
        self._steps = list(self._prepare())
        self._count = len(self._steps)
        qt.QTimer.singleShot(0, self._step)

    def _step(self) -> None:
        if self.over:
            return
        if not self._steps:
            self._succeed(None)
            return
        try:
            self._steps.pop(0)()
        except InputError as error:
            self._end(FAILED, str(error))
            return
        except Exception as error:
            logging.exception("%s", self.title)
            self._end(FAILED, _("Failed: {error}").format(error=error))
            return
        self._report(1 - len(self._steps) / self._count, "")
        qt.QTimer.singleShot(0, self._step)

    def _stop(self) -> None:
        self._steps = []


class TaskQueue:
    """Tasks that run one after another, until one fails."""

    def __init__(self, tasks: list[Task], changed: Callable[[], None] | None = None):
        """Take the tasks, a list to which more may be appended; ``changed`` is called at every change."""
        self.tasks, self.cancelled = tasks, False
        self._observers = [changed] if changed else []

    def observe(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` at every change, too."""
        self._observers.append(changed)

    @property
    def over(self) -> bool:
        """Whether every task has ended."""
        return all(task.over for task in self.tasks)

    @property
    def current(self) -> Task | None:
        """The task that is running."""
        return next((task for task in self.tasks if task.state == RUNNING), None)

    @property
    def succeeded(self) -> bool:
        """Whether every task is done."""
        return all(task.state == DONE for task in self.tasks)

    @property
    def progress(self) -> float:
        """The fraction done of the whole."""
        done = sum(task.weight * (1.0 if task.over else task.progress) for task in self.tasks)
        return done / max(sum(task.weight for task in self.tasks), 1e-6)

    @property
    def failures(self) -> list[Task]:
        """The tasks that failed."""
        return [task for task in self.tasks if task.state == FAILED]

    def start(self) -> "TaskQueue":
        """Start the first task."""
        self._next()
        return self

    def cancel(self) -> None:
        """Stop the running task at once and drop the waiting ones."""
        self.cancelled = True
        for task in reversed(self.tasks):
            task.cancel()
        self._tell()

    def wait(self, pause_s: float = 0.01) -> "TaskQueue":
        """Process the application's events until all is done (for scripts)."""
        while not self.over:
            slicer.app.processEvents()
            time.sleep(pause_s)
        return self

    def _next(self) -> None:
        waiting = next((task for task in self.tasks if task.state == WAITING), None)
        if waiting is not None and not self.cancelled:
            waiting.start(self._on_change)

    def _on_change(self) -> None:
        if self.failures:
            self._cancel_waiting()
        self._tell()
        if self.current is None and not self.over:
            self._next()

    def _cancel_waiting(self) -> None:
        for task in reversed(self.tasks):
            if task.state == WAITING:
                task.cancel()

    def _tell(self) -> None:
        for changed in list(self._observers):
            changed()
