"""Pack the extension as an archive that Slicer installs, without compiling.

``python tools/package_extension.py --slicer 5.12 --output dist`` writes ``CrossModa-<version>-Slicer-5.12.tar.gz``. In
Slicer: Extensions Manager, gear menu, "Install from file...". It has the files of the CMake lists in the layout of an
extension built with CMake, the same on every platform.
"""

import argparse
import io
import re
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = ("CrossModaSeg", "CrossModaRegister")


def cmake_list(path: Path, name: str) -> list[str]:
    """Return the entries of ``set(NAME ...)`` in a CMakeLists.txt, with ``${MODULE_NAME}`` filled in."""
    text = path.read_text(encoding="utf-8")
    match = re.search(rf"set\({name}\s+(.*?)\)", text, re.DOTALL)
    module = re.search(r"set\(MODULE_NAME (\w+)\)", text)
    entries = match[1].split() if match else []
    return [entry.replace("${MODULE_NAME}", module[1] if module else "") for entry in entries]


def cli_modules(path: Path) -> list[str]:
    """Return the names of the CLI modules that a CMakeLists.txt builds."""
    return re.findall(r"SlicerMacroBuildScriptedCLI\(\s*NAME (\w+)", path.read_text(encoding="utf-8"))


def engine_files() -> list[Path]:
    """Return the files of the engine, as the glob in the top CMakeLists.txt does."""
    files = (path for path in (ROOT / "crossmoda").rglob("*") if path.is_file())
    return sorted(path for path in files if not re.search(r"__pycache__|/\.", path.relative_to(ROOT).as_posix()))


def metadata(name: str) -> str:
    """Return a quoted value of the top CMakeLists.txt, such as ``EXTENSION_HOMEPAGE``."""
    match = re.search(rf'set\({name} "([^"]*)"', (ROOT / "CMakeLists.txt").read_text(encoding="utf-8"))
    return match[1] if match else ""


def description() -> str:
    """Return the extension's description file, by which Slicer knows an extension archive."""
    lines = {
        "scm": "git",
        "scmurl": metadata("EXTENSION_HOMEPAGE"),
        "scmrevision": version(),
        "depends": metadata("EXTENSION_DEPENDS"),
        "build_subdirectory": ".",
        "homepage": metadata("EXTENSION_HOMEPAGE"),
        "contributors": metadata("EXTENSION_CONTRIBUTORS"),
        "category": "Segmentation",
        "iconurl": metadata("EXTENSION_ICONURL"),
        "description": metadata("EXTENSION_DESCRIPTION"),
        "screenshoturls": metadata("EXTENSION_SCREENSHOTURLS"),
        "enabled": "1",
    }
    return "".join(f"{key} {value}\n" for key, value in lines.items())


def version() -> str:
    """Return the version of the engine."""
    text = (ROOT / "crossmoda/__init__.py").read_text(encoding="utf-8")
    return re.search(r'__version__ = "([^"]+)"', text)[1]


def contents(slicer: str) -> dict[str, Path | str]:
    """Return the archive's files: name in the archive -> file of the checkout, or text."""
    library = f"lib/Slicer-{slicer}"
    files: dict[str, Path | str] = {}
    for module in MODULES:
        folder = ROOT / module
        lists = folder / "CMakeLists.txt"
        for name in cmake_list(lists, "MODULE_PYTHON_SCRIPTS") + cmake_list(lists, "MODULE_PYTHON_RESOURCES"):
            files[f"{library}/qt-scripted-modules/{name}"] = folder / name
        for name in cli_modules(lists):
            for ending in (".py", ".xml"):
                files[f"{library}/cli-modules/{name}{ending}"] = folder / f"{name}{ending}"
    for path in engine_files():
        files[f"{library}/qt-scripted-modules/{path.relative_to(ROOT).as_posix()}"] = path
    files[f"share/Slicer-{slicer}/CrossModa.s4ext"] = description()
    return files


def pack(folder: Path, slicer: str) -> Path:
    """Write the archive into a folder; return its path."""
    name = f"CrossModa-{version()}-Slicer-{slicer}"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.tar.gz"
    with tarfile.open(target, "w:gz") as archive:
        for inside, source in sorted(contents(slicer).items()):
            data = source.encode() if isinstance(source, str) else source.read_bytes()
            entry = tarfile.TarInfo(f"{name}/{inside}")
            entry.size, entry.mode = len(data), 0o755 if "/cli-modules/" in inside else 0o644
            archive.addfile(entry, io.BytesIO(data))
    return target


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slicer", default="5.12", help="Slicer's version, two numbers [default: 5.12]")
    parser.add_argument("--output", type=Path, default=Path("dist"), help="folder [default: dist]")
    options = parser.parse_args()
    print(pack(options.output, options.slicer))
