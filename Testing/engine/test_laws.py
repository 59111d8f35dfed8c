"""The laws of docs/architecture.md, kept by machine."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
ENGINE = sorted((PROJECT / "crossmoda").rglob("*.py"))
PANEL = sorted((PROJECT / "CrossModaSeg" / "CrossModaSegLib").rglob("*.py"))
HEAVY = {"torch", "numba", "matplotlib", "monai", "rich", "dask", "distributed"}


def imported(path: Path, *, at_import_time: bool = False) -> set[str]:
    """Return the top-level packages a file imports, anywhere or only when the file itself is imported."""
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                names.update(alias.name.split(".")[0] for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module and not child.level:
                names.add(child.module.split(".")[0])
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            is_typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            if not (at_import_time and (is_function or is_typing)):
                visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return names


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: str(path.relative_to(PROJECT)))
def test_the_engine_knows_nothing_of_slicer(path: Path) -> None:
    assert not imported(path) & {"slicer", "vtk", "qt", "ctk"}


@pytest.mark.parametrize("path", PANEL, ids=lambda path: str(path.relative_to(PROJECT)))
def test_the_panel_computes_nothing(path: Path) -> None:
    assert not imported(path) & {"scipy", "torch", "numba", "SimpleITK", "nibabel", "pydicom"}


def modules_imported(path: Path) -> set[str]:
    """Return the full names of the modules a file imports, and of what it imports from them."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    parts = {
        f"{node.module}.{alias.name}" for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    return plain | parts


@pytest.mark.parametrize("path", PANEL, ids=lambda path: str(path.relative_to(PROJECT)))
def test_the_panel_decides_nothing_about_propagation(path: Path) -> None:
    decisions = ("crossmoda.propagation", "crossmoda.deeds", "crossmoda.fusion.staple")
    assert not [name for name in modules_imported(path) if name.startswith(decisions)]
    assert not re.search(r"mirror(?!_check)|probe", path.read_text(encoding="utf-8"), re.IGNORECASE)


def modules_after(statement: str) -> set[str]:
    """Return the top-level modules that are loaded after a statement in a fresh interpreter."""
    code = f"import sys; {statement}; print(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_the_command_overview_imports_none_of_the_science() -> None:
    loaded = modules_after("import crossmoda.cli")
    assert not loaded & (HEAVY | {"numpy", "scipy", "SimpleITK", "pydicom"})


def test_reading_every_setting_imports_neither_torch_nor_numba() -> None:
    modules = "deeds, fusion, propagation, training, inference, preprocessing, dataset, simulation"
    loaded = modules_after(f"from crossmoda import {modules}")
    assert not loaded & HEAVY


def classes_of(path: Path) -> list[str]:
    return [node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.ClassDef)]


def test_no_two_classes_of_the_engine_share_a_name_but_settings() -> None:
    names = Counter(name for path in ENGINE for name in classes_of(path) if name != "Settings")
    assert not [name for name, count in names.items() if count > 1]


def test_init_files_of_the_engine_only_hand_names_on() -> None:
    code = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for path in ENGINE:
        if path.name == "__init__.py":
            assert not any(isinstance(node, code) for node in ast.parse(path.read_text("utf-8")).body), path


def test_the_project_speaks_of_itself_alone() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    texts = [
        PROJECT / name
        for name in listed.stdout.split("\n")
        if name.endswith((".py", ".md", ".xml", ".ui", ".json", ".txt"))
    ]
    foreign = ("/home/", "/root/", "C:\\Users")
    found = [
        str(path)
        for path in texts
        if path != Path(__file__) and any(word in path.read_text("utf-8") for word in foreign)
    ]
    assert not found


def test_no_two_public_classes_share_a_name_except_the_settings_of_packages() -> None:
    places: dict[str, list[str]] = {}
    for path in ENGINE:
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and node.name != "Settings":
                places.setdefault(node.name, []).append(str(path.relative_to(PROJECT)))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}
