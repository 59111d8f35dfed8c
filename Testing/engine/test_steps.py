"""One declaration for all doors: XML and arguments of the CLI modules, options of the command, the reference."""

import importlib
import pkgutil
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import click
import pytest

import crossmoda
from crossmoda.cli import crossmoda_command
from crossmoda.parameters import Settings, parameters
from crossmoda.steps.fuse import LabelMapSelection
from crossmoda.steps.growth import ScanDates

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "tools"))
import cli_modules  # noqa: E402

STEPS = [pytest.param(path, step, id=path.stem) for path, step in cli_modules.steps().items()]
TAGS = {bool: "boolean", int: "integer", float: "double", str: "string"}
#: The command of a CLI module.
COMMAND = {path.stem: path.stem.removeprefix("CrossModa").lower() for path in cli_modules.steps()}


def described(path: Path) -> dict[str, ElementTree.Element]:
    """Return the files, parameters and results of an XML by name."""
    return {item.findtext("name"): item for group in ElementTree.parse(path).iter("parameters") for item in group}


def options_of(name: str) -> dict[str, click.Option]:
    command = crossmoda_command.get_command(click.Context(crossmoda_command), name)
    return {option.name: option for option in command.params if isinstance(option, click.Option)}


@pytest.mark.parametrize(("path", "step"), STEPS)
def test_the_committed_xml_is_generated_from_the_declaration(path, step):
    assert path.read_text("utf-8") == cli_modules.description(step), "run: python tools/cli_modules.py"


def test_the_committed_reference_is_generated_from_the_declarations():
    written = (PROJECT / "docs/cli_reference.md").read_text("utf-8")
    assert written == cli_modules.reference(), "run: python tools/cli_modules.py"


def test_every_cli_module_is_generated():
    assert set(PROJECT.glob("CrossModa*/*.xml")) == set(cli_modules.steps())


@pytest.mark.parametrize(("path", "step"), STEPS)
def test_the_script_is_a_shim_that_slicer_takes_for_a_cli_module(path, step):
    lines = path.with_suffix(".py").read_text("utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/env python-real" and len(lines) < 25
    assert step.module == path.stem and path.with_suffix(".py").stat().st_mode & 0o100


@pytest.mark.parametrize(("path", "step"), STEPS)
def test_the_xml_describes_each_parameter_with_the_engines_range(path, step):
    elements = described(path)
    for item in (item for each in step.settings for item in parameters(each)):
        element = elements[f"no_{item.name}" if item.type is bool and item.default else item.name]
        default = element.findtext("default")
        assert element.tag == ("string-enumeration" if item.choices else TAGS[item.type])
        assert (default == "false") if item.type is bool else item.type(default) == item.default
        assert tuple(choice.text for choice in element.findall("element")) == (item.choices or ())
        for bound in ("minimum", "maximum"):
            text = element.findtext(f"constraints/{bound}")
            assert (None if text is None else float(text)) == getattr(item, bound)


@pytest.mark.parametrize(("path", "step"), STEPS)
def test_only_required_files_are_arguments_and_no_folder_is_optional(path, step):
    elements = described(path)
    indices = {
        name: element.findtext("index") for name, element in elements.items() if element.find("index") is not None
    }
    required = [file.name for file in step.files if file.required]
    assert indices == {name: str(index) for index, name in enumerate(required)}
    folders = [name for name, element in elements.items() if element.tag == "directory"]
    assert set(folders) <= set(required), "Slicer's panel passes '.' for an optional folder"


@pytest.mark.parametrize(("path", "step"), STEPS)
def test_defaults_of_the_xml_are_accepted_as_arguments(path, step):
    words = []
    for element in described(path).values():
        flag, default = element.findtext("longflag"), element.findtext("default")
        if flag and default and element.tag != "boolean" and element.findtext("channel") != "output":
            words += [flag.replace("_", "-"), default]
    required = [file.name for file in step.files if file.required]
    values = vars(step.parser().parse_args([*words, *required]))
    for item in (item for each in step.settings for item in parameters(each)):
        assert values[item.name] == item.default
    assert {name: str(values[name]) for name in required} == {name: name for name in required}


@pytest.mark.parametrize(("path", "step"), STEPS)
def test_an_empty_optional_file_is_omitted_not_the_current_folder(path, step):
    optional = [file for file in step.files if not file.required]
    words = [word for file in optional for word in (file.flag, "")]
    values = vars(step.parser().parse_args([*words, *(file.name for file in step.files if file.required)]))
    assert {file.name: values[file.name] for file in optional} == {file.name: None for file in optional}


@pytest.mark.parametrize(("path", "step"), STEPS)
def test_the_command_has_each_parameter_with_the_same_choices_and_help(path, step):
    options = options_of(COMMAND[path.stem])
    # A shell selects files itself, and states the dates of any number of scans.
    shared = [each for each in step.settings if each not in (LabelMapSelection, ScanDates)]
    for item in (item for each in shared for item in parameters(each)):
        option = options[item.name]
        assert (option.default, option.help) == (item.default, item.help_with_unit)
        assert item.flag in option.opts
        assert getattr(option.type, "choices", None) == item.choices


@pytest.mark.parametrize(("path", "step"), STEPS)
def test_a_file_that_is_also_an_option_of_the_command_has_the_same_help(path, step):
    options = options_of(COMMAND[path.stem])
    shared = [file for file in step.files if file.name in options]
    assert all((options[file.name].help or "").startswith(file.help) for file in shared)


def all_settings() -> list[type[Settings]]:
    """Return the settings of every step of the engine."""
    for module in pkgutil.walk_packages(crossmoda.__path__, "crossmoda."):
        if "cuda" not in module.name:
            importlib.import_module(module.name)
    found, pending = [], [Settings]
    while pending:
        pending += pending[0].__subclasses__()
        found.append(pending.pop(0))
    return [each for each in found if each.__module__.startswith("crossmoda.") and each is not Settings]


def test_help_is_a_noun_phrase_of_at_most_90_characters():
    helps = {
        f"{each.__module__}.{each.__name__}.{item.name}": item.help
        for each in all_settings()
        for item in parameters(each)
    }
    files = [file for step in cli_modules.steps().values() for file in (*step.files, *step.results)]
    helps |= {f"{type(file).__name__} {file.name}": file.help for file in files}
    questions = ("Which", "How", "Where", "What")
    bad = {name: text for name, text in helps.items() if len(text) > 90 or text.startswith(questions)}
    assert bad == {}
