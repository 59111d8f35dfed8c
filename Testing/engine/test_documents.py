"""The documents hang together."""

import importlib
import re
from pathlib import Path

import pytest

import crossmoda
from crossmoda import requirements

PROJECT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *PROJECT.glob("*.md"),
    *(PROJECT / "docs").rglob("*.md"),
    *(PROJECT / "Testing").rglob("README.md"),
    *(PROJECT / "tools").rglob("*.md"),
]


def anchors(document: Path) -> set[str]:
    """Return what GitHub calls the headings of a document in links."""
    headings = re.findall(r"^#+ (.*)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_every_link_leads_to_a_file_or_a_heading(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", document.read_text("utf-8"))
    for link in links:
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


def test_the_documents_are_found() -> None:
    assert {"README.md", "docs/validation.md", "docs/validation/network.md"} <= {
        str(path.relative_to(PROJECT)) for path in DOCUMENTS
    }


def test_citation_and_changelog_name_the_version_of_the_engine() -> None:
    citation, changelog = ((PROJECT / name).read_text("utf-8") for name in ("CITATION.cff", "CHANGELOG.md"))
    release = re.findall(r"^## \[(\d.*?)\]", changelog, re.MULTILINE)[0]
    assert f"\nversion: {release}\n" in citation
    unreleased = changelog.partition("## [Unreleased]")[2].partition("\n## [")[0].strip()
    assert ("dev" in crossmoda.__version__) == bool(unreleased), (
        "results of unreleased changes have a version of their own"
    )
    assert unreleased or crossmoda.__version__ == release


ARCHITECTURE = (PROJECT / "docs/architecture.md").read_text("utf-8")


def test_the_architecture_finds_only_files_that_exist() -> None:
    table = ARCHITECTURE.split("## Repository")[0]
    paths = re.findall(r"`((?:crossmoda|CrossModaSeg|CrossModaRegister|tools)/[\w./]+)`", table)
    assert len(paths) > 15
    assert not [path for path in paths if not (PROJECT / path).exists()]


def test_the_architecture_lists_every_room_of_the_engine_and_no_other() -> None:
    table = ARCHITECTURE.split("## Engine")[1].split("## Laws")[0]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    listed = {name.rstrip("/") for row in rows for name in re.findall(r"`([\w./]+)`", row)}
    rooms = {path.name for path in (PROJECT / "crossmoda").iterdir()}
    assert listed == rooms - {"__init__.py", "__main__.py", "__pycache__", "py.typed"}


def test_the_imports_in_the_documents_exist() -> None:
    blocks = [
        block for path in DOCUMENTS for block in re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
    ]
    imports = re.findall(r"^from (crossmoda\S*) import ([^#\n]+)", "\n".join(blocks), re.MULTILINE)
    assert len(imports) > 10
    for module, names in imports:
        for name in names.split(","):
            package = importlib.import_module(module)
            assert hasattr(package, name.strip()) or importlib.import_module(f"{module}.{name.strip()}")


def test_the_scripts_in_the_documents_exist() -> None:
    for path in DOCUMENTS:
        for script in re.findall(r"(?:Testing|tools|docs/examples)/[\w/]+\.py", path.read_text("utf-8")):
            assert (PROJECT / script).exists(), f"{path.name}: {script}"


COMMANDS = sorted(
    {
        (str(path.relative_to(PROJECT)), line.split("#")[0].strip())
        for path in DOCUMENTS
        for line in re.findall(r"^(?:\.venv/bin/)?crossmoda (.+)$", path.read_text("utf-8"), re.MULTILINE)
        if "[OPTIONS]" not in line
    }
)


@pytest.mark.parametrize(("document", "command"), COMMANDS)
def test_the_commands_in_the_documents_exist_with_their_options(document: str, command: str) -> None:
    from crossmoda.cli.framework import crossmoda_command

    name, *rest = command.split()
    options = {option for option in rest if option.startswith("--")}
    if name.startswith("--"):
        known, options = crossmoda_command, {name} - {"--help"}
    else:
        known = crossmoda_command.commands.get(name) or crossmoda_command.get_command(None, name)
        assert known, f"{document}: no command {name}"
    assert options <= {text for parameter in known.params for text in (*parameter.opts, *parameter.secondary_opts)}


def test_no_document_lists_a_part_of_the_packages() -> None:
    """A command of pip takes requirements.txt, or one package by its name."""
    names = {item.name for item in requirements.in_slicer()} - {"torch"}
    commands = [
        line
        for path in DOCUMENTS
        for line in path.read_text("utf-8").splitlines()
        if re.search(r"pip[ _](download|install|uninstall)", line)
    ]
    assert [line for line in commands if len(names.intersection(re.findall(r"[\w-]+", line))) > 1] == []
    offline = [line for line in commands if " download " in line]
    assert [line for line in offline if "-r CrossModaSeg/Resources/requirements.txt" in line]
    assert all("torch" in line and "requirements" not in line for line in offline if "--index-url" in line)


def test_the_documents_install_every_extra_that_the_tests_need() -> None:
    wanted = re.search(r'"\.\[([\w,-]+slicer-test)\]"', (PROJECT / "Makefile").read_text("utf-8"))
    assert wanted is not None
    for name in ("CONTRIBUTING.md", "docs/developer.md"):
        text = (PROJECT / name).read_text("utf-8")
        assert f".[{wanted[1]}]" in text
        assert re.findall(r"\[slicer-test\]", text) == []
