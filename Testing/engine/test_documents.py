"""The documents hang together."""

import importlib
import re
from pathlib import Path

import pytest

import crossmoda

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
    assert f"\nversion: {crossmoda.__version__}\n" in citation
    assert re.findall(r"^## \[(\d.*?)\]", changelog, re.MULTILINE)[0] == crossmoda.__version__


ARCHITECTURE = (PROJECT / "docs/architecture.md").read_text("utf-8")


def test_the_contracts_of_the_architecture_can_be_imported() -> None:
    imports = re.findall(r"^from (\S+) import ([^#\n]+)", ARCHITECTURE, re.MULTILINE)
    assert len(imports) > 10
    for module, names in imports:
        for name in names.split(","):
            assert hasattr(importlib.import_module(module), name.strip()), f"{module}.{name}"
