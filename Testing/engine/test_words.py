"""The words of docs/glossary.md: retired names and phrases and British spelling stay away."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
#: Files that may name retired words: the changelog, the glossary, this list, a quoted license.
EXEMPT = {
    "CHANGELOG.md",
    "docs/glossary.md",
    "Testing/engine/test_words.py",
    "crossmoda/anatomy/icbm152/COPYING_MNI.txt",
}
ENDINGS = (".py", ".ui", ".xml", ".md", ".toml", ".txt", ".cff", ".cmake", ".j2", ".yml", ".json", "Makefile")

#: Retired names of files, classes, functions and options; whole identifiers.
IDENTIFIERS = (
    "BothSides", "Speakers", "speaks_about", "speaker_count", "tumour_side", "tumour_parts", "_Attentive", "shipped",
    "fit.py", "completion.py", "comparison.py", "consensus.py", "local.py", "statements.py", "alignment.py",
    "levels.py", "compiled.py", "tensors.py", "descriptor.py", "opinions.py", "reasons.py", "crew.py", "course.py",
    "journal.py", "elsewhere",
)  # fmt: skip
#: Retired phrases and words in texts, regular expressions.
PHRASES = (
    r"speaks? (about|for)", r"speakers?", r"spoke", r"believed?", r"heed(s|ed|ing)?", r"found finished",
    r"(come|comes|coming|came) along", r"as it comes", r"opposite (side|ear)", r"elsewhere", r"heard of",
    r"is told", r"are told", r"begin anew", r"which way", r"of one name", r"what is kept",
    r"(?<!there )(is|are) no (safetensors|nifti|dicom|data set|case|number|whole number)", r"given twice",
    r"who corrects",
)  # fmt: skip
#: British spelling; stems, anywhere in a word.
SPELLING = (
    "tumour", "colour", "centre", "labelled", "labelling", "initialis", "normalis", "optimis(?!m|t)", "organis(?!m)",
    "behaviour",
    "neighbour", "grey", "licence", "analys(?:e|ed|ing)\\b", "quantis", "visualis", "catalogue", "millimetre",
    "modell", "fibre", "minimis(?!t)", "maximis", "summaris", "recognis", "discretis", "parametris", "voxelis",
    "honour",
    "favour", "artefact", "programme\\b", "judgement", "serialis", "synchronis", "regularis", "randomis", "rasteris",
)  # fmt: skip
#: Names of variables and arguments that stand for no quantity.
VARIABLES = {"found", "here", "there", "told", "heard", "given", "kept"}
#: Names of other programs keep their spelling.
FOREIGN = ("vtkMRMLColorTableNodeGrey",)


def texts() -> list[Path]:
    """Return the files of the project in which the words are looked for."""
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [PROJECT / name for name in listed.stdout.split("\n") if name.endswith(ENDINGS) and name not in EXEMPT]


def matches(pattern: str) -> list[str]:
    """Return "file:line: text" of every match of a pattern, whatever the case."""
    lines = []
    for path in texts():
        content = path.read_text("utf-8")
        for match in re.finditer(pattern, content, re.IGNORECASE):
            number = content.count("\n", 0, match.start()) + 1
            line = content.split("\n")[number - 1]
            if not any(re.search(title, line) for title in FOREIGN):
                lines.append(f"{path.relative_to(PROJECT)}:{number}: {line.strip()[:120]}")
    return lines


def test_no_retired_identifier_is_used() -> None:
    assert not matches(r"(?<![\w.])(" + "|".join(map(re.escape, IDENTIFIERS)) + r")(?![\w])")


def test_no_retired_phrase_is_used() -> None:
    assert not matches(r"\b(" + "|".join(PHRASES) + r")\b")


def test_variables_of_the_product_name_a_quantity() -> None:
    lines = [
        f"{path.relative_to(PROJECT)}:{node.lineno} {name}"
        for folder in ("crossmoda", "CrossModaSeg", "CrossModaRegister")
        for path in (PROJECT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (name := stored_name(node)) in VARIABLES
    ]
    assert not lines


def stored_name(node: ast.AST) -> str | None:
    """Return the name of a variable or an argument where it is set."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return node.id
    return node.arg if isinstance(node, ast.arg) else None


def test_the_spelling_is_american() -> None:
    assert not matches("(" + "|".join(SPELLING) + ")")


def test_the_names_of_tests_have_at_most_80_characters() -> None:
    names = [
        name
        for path in (PROJECT / "Testing").rglob("*.py")
        for name in re.findall(r"^\s*def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    ]
    assert not [name for name in names if len(name) > 80]
