"""The script that runs the tests inside a complete Slicer, executed on the test bed."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.bed
HERE = Path(__file__).resolve().parent
#: What only the test bed, or a Python outside of Slicer, has.
BED = re.compile(
    r"\btestbed\b|PySide6|\bsubprocess\b|sys\.executable|slicer\.packaging|application\._|vtk_errors|\.entries\b"
)
#: Starts the script in a process whose application shows only what a real one has, and has loaded no module.
AS_SLICER = """
import runpy, sys
sys.path.insert(0, {here!r})
from testbed import application
bed = application.start()
import qt, slicer
from PySide6 import QtCore
qt.QFileInfo = QtCore.QFileInfo

class Factory:
    loaded = []
    def __init__(self):
        self.paths = {{}}
    def registerModule(self, info):
        self.paths[info.baseName()] = application.Path(info.filePath())
    def loadModules(self, names):
        self.loaded.extend(names)
        for path in map(self.paths.get, names):
            (bed.load_cli_module if path.with_suffix(".xml").exists() else bed.load_scripted_module)(path)

class PublicApplication:
    def __getattr__(self, name):
        if name in ("scene", "selected_module", "wait_until", "vtk_errors", "load_cli_module", "load_scripted_module"):
            raise AttributeError(name)
        return getattr(bed, name)
    def className(self):
        return "qSlicerApplication"
    def moduleManager(self):
        manager = bed.moduleManager()
        manager.factoryManager = Factory
        return manager

slicer.app = PublicApplication()
slicer.util.selectedModule = lambda: bed.selected_module
slicer.util.exit = lambda code: (print("loaded:", Factory.loaded[0]), sys.exit(code))
sys.argv[1:] = {arguments!r}
runpy.run_path({script!r}, run_name="__main__")
"""


def run(*arguments: str) -> subprocess.CompletedProcess:
    """Start the script with the Python of the test bed."""
    command = [sys.executable, str(HERE / "run_in_slicer.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_script_runs_tests_in_the_test_bed_and_exits_with_0(application):
    done = run(f"{HERE}/test_parameters.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_the_tests_run_on_the_public_api_of_a_running_application(application):
    script, arguments = str(HERE / "run_in_slicer.py"), [f"{HERE}/test_parameters.py"]
    code = AS_SLICER.format(here=str(HERE), arguments=arguments, script=script)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    assert "loaded: CrossModaSeg" in done.stdout


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("def test_fails():\n    assert False\n", 1),
        ("import pytest\n\n@pytest.mark.bed\ndef test_is_left_out():\n    pass\n", 5),
        ("import pytest\n\ndef test_is_skipped():\n    pytest.skip('no application')\n", 5),
    ],
)
def test_the_script_fails_if_a_test_fails_or_none_ran(tmp_path, body, code):
    (tmp_path / "test_one.py").write_text(body, "utf-8")
    assert run(str(tmp_path)).returncode == code


def test_the_script_installs_nothing_and_names_the_command_for_pytest():
    script = str(HERE / "run_in_slicer.py")
    code = f"import runpy, sys; sys.modules['pytest'] = None; runpy.run_path({script!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'slicer.util.pip_install("pytest")' in done.stdout
    assert done.stderr == ""


def definitions(path: Path) -> dict[str, tuple[str, set[str]]]:
    """Return source and used names of everything that a file defines or imports at its top."""
    text = path.read_text("utf-8")
    defined = {}
    for node in ast.parse(text).body:
        used = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        used |= {part.arg for part in ast.walk(node) if isinstance(part, ast.arg)}
        names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = {node.name}
            lines = text.split("\n")[
                min([node.lineno, *(mark.lineno for mark in node.decorator_list)]) - 1 : node.end_lineno
            ]
            defined[node.name] = ("\n".join(lines), used)
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.asname or alias.name for alias in node.names}
        defined |= {name: (ast.get_source_segment(text, node), used) for name in names}
    return defined


def needs_bed(name: str, defined: dict[str, tuple[str, set[str]]], seen: set[str]) -> bool:
    """Tell whether a definition uses what only the test bed has, itself or through others of its file."""
    if name in seen or name not in defined:
        return False
    seen.add(name)
    source, used = defined[name]
    return bool(BED.search(source)) or any(needs_bed(other, defined, seen) for other in used)


def test_every_test_that_needs_the_bed_is_marked():
    unmarked = []
    for path in sorted(HERE.glob("test_*.py")):
        defined = definitions(path)
        if "pytestmark" in defined:
            continue
        unmarked += [
            f"{path.name}: {name}"
            for name, (source, _) in defined.items()
            if name.startswith("test_") and "pytest.mark.bed" not in source and needs_bed(name, defined, set())
        ]
    assert unmarked == []
