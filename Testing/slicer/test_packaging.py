"""The extension's files: CMake lists and tree agree, the archive is complete, and what it holds runs by itself."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "tools"))
import package_extension as packing  # noqa: E402

pytestmark = pytest.mark.bed

CLI_MODULES = (
    *("CrossModaPropagate", "CrossModaRegister", "CrossModaFuse"),
    *("CrossModaGrowth", "CrossModaMeasure", "CrossModaPredict", "CrossModaTrain"),
)


def tracked(*folders: str) -> set[str]:
    """Return the files in folders that belong to the project."""
    found = {path for folder in folders for path in (PROJECT / folder).rglob("*") if path.is_file()}
    return {
        path.relative_to(PROJECT).as_posix()
        for path in found
        if "__pycache__" not in path.parts and path.name != "CMakeLists.txt" and path.suffix != ".pyc"
    }


def test_the_cmake_lists_name_every_file_of_the_tree_and_no_other():
    packed = {
        path.relative_to(PROJECT).as_posix() for path in packing.contents("5.12").values() if isinstance(path, Path)
    }
    assert packed == tracked("CrossModaSeg", "CrossModaRegister", "crossmoda")


def test_the_metadata_is_what_slicer_and_its_index_ask_for():
    cmake = (PROJECT / "CMakeLists.txt").read_text("utf-8")
    index = json.loads((PROJECT / "CrossModa.json").read_text("utf-8"))
    assert re.search(r"project\((\w+)\)", cmake)[1] == "CrossModa"
    assert packing.metadata("EXTENSION_DEPENDS") == "PyTorch" == " ".join(index["build_dependencies"])
    assert {"$schema", "category", "scm_url"} <= set(index)
    assert set(index) <= {
        *("$schema", "category", "scm_url", "scm_revision", "scm_type", "build_dependencies"),
        *("build_subdirectory", "enabled", "tier", "dicom_support_rule"),
    }
    assert Path(index["scm_url"]).name.startswith("Slicer")
    for name in ("EXTENSION_HOMEPAGE", "EXTENSION_CONTRIBUTORS", "EXTENSION_DESCRIPTION"):
        assert packing.metadata(name)
    for url in (packing.metadata("EXTENSION_ICONURL"), packing.metadata("EXTENSION_SCREENSHOTURLS")):
        assert (PROJECT / url.split("/main/", 1)[1]).is_file()


def test_every_text_given_to_the_translator_is_one_that_its_tools_find():
    """Slicer's lupdate reads literals only, and translators do not see blanks at the ends."""
    wrong = []
    for path in sorted((PROJECT / "CrossModaSeg").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "_":
                text = getattr(call.args[0], "value", None)
                if not isinstance(text, str) or text != text.strip():
                    wrong.append(f"{path.name}:{call.lineno}: {ast.unparse(call)}")
    assert wrong == []


def test_icons_have_the_sizes_that_slicer_shows():
    def size(name):
        data = (PROJECT / name).read_bytes()
        assert data.startswith(b"\x89PNG")
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")

    assert size("Resources/Icons/CrossModa.png") == (128, 128)
    assert size("CrossModaSeg/Resources/Icons/CrossModaSeg.png") == (128, 128)
    assert size("Resources/Icons/CrossModa-16.png") == (16, 16)


def test_the_panel_requires_what_engine_and_reports_require_beyond_slicer_and_torch():
    project = (PROJECT / "pyproject.toml").read_text("utf-8")
    needed = re.findall(r'"([^"]+)"', re.search(r"^dependencies = \[(.*?)^\]", project, re.DOTALL | re.MULTILINE)[1])
    bundled = ("numpy", "scipy", "SimpleITK", "pydicom", "torch")
    lines = (PROJECT / "CrossModaSeg/Resources/requirements.txt").read_text("utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    app = re.findall(r'"([^"]+)"', re.search(r"^app = \[(.*)\]", project, re.MULTILINE)[1])
    reports = [item for item in app if item.startswith(("matplotlib", "jinja2"))]
    assert wanted == [item for item in needed if not item.startswith(bundled)] + reports


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """The extension's archive, unpacked as Slicer does; its lib/Slicer-5.12."""
    folder = tmp_path_factory.mktemp("extension")
    archive = packing.pack(folder, "5.12")
    with tarfile.open(archive) as packed:
        names = packed.getnames()
        packed.extractall(folder / "unpacked", filter="data")
    assert len({name.split("/")[0] for name in names}) == 1, "one folder at the top"
    assert sum(name.endswith("CrossModa.s4ext") for name in names) == 1
    return next((folder / "unpacked").iterdir()) / "lib/Slicer-5.12"


def run_alone(code: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run code in a Python that has the packages but not this checkout (no .pth files are read)."""
    import numpy

    packages = str(Path(numpy.__file__).parents[1])
    start = f"import sys; sys.path.append({packages!r})\n"
    return subprocess.run(
        [sys.executable, "-S", "-c", start + code, *arguments], capture_output=True, text=True, cwd="/"
    )


@pytest.mark.parametrize("name", CLI_MODULES)
def test_an_installed_cli_module_finds_its_engine(installed, name):
    script = installed / "cli-modules" / f"{name}.py"
    assert script.read_text("utf-8").startswith("#!"), "the line by which Slicer knows a Python CLI module"
    code = f"import runpy; sys.argv = [{str(script)!r}, '--help']; runpy.run_path({str(script)!r}, run_name='__main__')"
    done = run_alone(code)
    assert done.returncode == 0, done.stderr
    assert name in done.stdout
    where = run_alone(
        f"import runpy; runpy.run_path({str(script)!r}); import crossmoda; print(crossmoda.__file__)"
    ).stdout.strip()
    assert where == str(installed / "qt-scripted-modules/crossmoda/__init__.py")


@pytest.mark.parametrize("place", ["installed", "checkout"])
def test_the_panel_finds_its_engine_installed_and_in_a_checkout(installed, place):
    folder = installed / "qt-scripted-modules" if place == "installed" else PROJECT / "CrossModaSeg"
    engine = folder / "crossmoda" if place == "installed" else PROJECT / "crossmoda"
    code = (
        f"sys.path.append({str(folder)!r})\n"
        "from CrossModaSegLib.engine import ensure_engine; ensure_engine(); import crossmoda; print(crossmoda.__file__)"
    )
    done = run_alone(code)
    assert done.stdout.strip() == str(engine / "__init__.py"), done.stderr


def test_the_installed_engine_finds_the_packages_that_slicer_lacks(installed):
    folder = installed / "qt-scripted-modules"
    names = "from crossmoda import requirements; print(*(item.name for item in requirements.in_slicer()))"
    done = run_alone(f"sys.path.insert(0, {str(folder)!r}); {names}")
    lines = (PROJECT / "CrossModaSeg/Resources/requirements.txt").read_text("utf-8").splitlines()
    wanted = [line.partition(">=")[0] for line in lines if line and not line.startswith("#")]
    assert done.stdout.split() == ["torch", *wanted], done.stderr


SLICER_STUB = """
set(Slicer_USE_FILE ${CMAKE_CURRENT_LIST_DIR}/use.cmake)
set(Slicer_EXTENSION_GENERATE_CONFIG ${CMAKE_CURRENT_LIST_DIR}/nothing.cmake)
set(Slicer_EXTENSION_CPACK ${CMAKE_CURRENT_LIST_DIR}/nothing.cmake)
"""
USE_STUB = """
include(CMakeParseArguments)
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  foreach(file ${MY_SCRIPTS} ${MY_RESOURCES})
    get_filename_component(folder ${file} DIRECTORY)
    install(FILES ${file} DESTINATION qt-scripted-modules/${folder})
  endforeach()
endmacro()
macro(SlicerMacroBuildScriptedCLI)
  cmake_parse_arguments(MY "NO_INSTALL;VERBOSE" "NAME;FOLDER" "" ${ARGN})
  install(FILES ${MY_NAME}.py ${MY_NAME}.xml DESTINATION cli-modules)
endmacro()
"""


@pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("c++")), reason="needs cmake and a C++ compiler")
def test_cmake_installs_the_files_of_the_archive(installed, tmp_path):
    """The real CMake reads the lists; Slicer's macros are replaced by ones that install what they are given."""
    (tmp_path / "SlicerConfig.cmake").write_text(SLICER_STUB)
    (tmp_path / "use.cmake").write_text(USE_STUB)
    (tmp_path / "nothing.cmake").write_text("")
    build, target = tmp_path / "build", tmp_path / "installed"
    for command in (
        ["cmake", "-S", str(PROJECT), "-B", str(build), f"-DSlicer_DIR={tmp_path}", f"-DCMAKE_INSTALL_PREFIX={target}"],
        ["cmake", "--install", str(build)],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def files(folder):
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

    assert files(target) == {name for name in files(installed) if "__pycache__" not in name}


@pytest.mark.parametrize("required", ["", "1"])
def test_a_skipped_slicer_test_is_a_failure_where_the_test_bed_is_required(tmp_path, required):
    import os

    shutil.copy(PROJECT / "Testing/slicer/conftest.py", tmp_path)
    (tmp_path / "test_x.py").write_text("import pytest\ndef test_x(): pytest.skip('no library')\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "CROSSMODA_REQUIRE_TEST_BED": required},
    )
    assert done.returncode == (1 if required else 0)
    assert ("1 failed" if required else "1 skipped") in done.stdout
    assert not required or "no library" in done.stdout


def test_the_makefile_requires_the_test_bed():
    makefile = (PROJECT / "Makefile").read_text("utf-8")
    assert "REQUIRE_TEST_BED ?= 1" in makefile
    assert "CROSSMODA_REQUIRE_TEST_BED=$(REQUIRE_TEST_BED) $(BIN)/python -m pytest" in makefile


def test_the_test_bed_leaves_no_folder(application, tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(PROJECT / 'Testing/slicer')!r})\n"
        "from testbed import application\napp = application.start()\nprint(app.temporaryPath)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)  # not even closed
    folder = Path(done.stdout.strip().splitlines()[-1])
    assert folder.name.startswith("slicer-testbed-")
    assert not folder.exists()
