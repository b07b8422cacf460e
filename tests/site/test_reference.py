"""The reference of the site has every command, option, field of a plan, error and row of the tables."""

import pkgutil
import re

import generated_reference as reference
import pytest

import scanseg
from scanseg.cli import _report_failure, build_app
from scanseg.errors import OtherProcessError, ScansegError
from scanseg.evaluation import METRIC_RULES
from scanseg.networks import NETWORKS
from scanseg.ops import describe_backends
from scanseg.planning import RECIPES
from scanseg.specs import Document, Plan


def rows_of(text):
    """Return the first cell of each row of the tables in a text, without backticks."""
    return [line.split(" | ")[0].strip("| `") for line in text.splitlines() if line.startswith("| ")]


def section_of(text, heading):
    """Return the part of a text below a heading, up to the next heading."""
    match = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert match is not None, f"no section {heading}"
    return match[1]


COMMANDS = [" ".join(path) for path, _ in reference.command_paths(build_app())]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_section_with_every_argument_explained(command):
    section = section_of(reference.commands(), f"scanseg {command}")
    app = build_app()
    for word in command.split():
        app = app[word]
    assert section.strip()
    arguments = app.assemble_argument_collection() if app.default_command else ()
    for argument in arguments:
        (row,) = [line for line in section.splitlines() if re.match(rf"\| `{argument.names[0]}`[,` ]", line)]
        meaning = row.split(" | ")[1]
        assert len(meaning.split()) >= 2, row


def test_the_commands_are_those_of_the_help():
    names = {name for name in build_app() if not name.startswith("-")}
    assert names == {command.split()[0] for command in COMMANDS}
    assert {"data convert", "compare list", "weights verify"} <= set(COMMANDS)


def documents_of(document, found):
    """Collect the classes of documents in the fields of a document, at any depth."""
    found.add(document)

    def visit(annotation):
        is_document = isinstance(annotation, type) and issubclass(annotation, Document)
        if is_document and annotation not in found:
            documents_of(annotation, found)
        for part in getattr(annotation, "__args__", ()):
            visit(part)

    for field in document.model_fields.values():
        visit(field.annotation)
    return found


@pytest.mark.parametrize("document", sorted(documents_of(Plan, set()), key=lambda each: each.__name__))
def test_every_field_of_a_plan_has_a_row_with_its_meaning(document):
    section = section_of(reference.plan_fields(), document.__name__)
    rows = {row.rpartition(".")[2]: row for row in rows_of(section)}
    assert set(document.model_fields) <= rows.keys()
    for line in section.splitlines():
        if line.startswith("| `"):
            assert line.split(" | ")[1].strip(), line


def test_rows_of_fields_have_values_and_defaults():
    section = section_of(reference.plan_fields(), "SGDSpec")
    (row,) = [line for line in section.splitlines() if line.startswith("| `training.optimizer.lr`")]
    assert row.split(" | ")[1:] == ["Initial learning rate.", "number > 0", "`0.01`", "training |"]
    section = section_of(reference.plan_fields(), "SamplingSpec")
    (row,) = [line for line in section.splitlines() if line.startswith("| `sampling.patch_size`")]
    assert row.split(" | ")[3] == "required"


def all_errors(base=ScansegError):
    return {base}.union(*(all_errors(child) for child in base.__subclasses__()))


def test_every_error_has_a_row():
    named = {row.rpartition(".")[2] for row in rows_of(reference.error_table())}
    for module in pkgutil.iter_modules(scanseg.__path__):
        if not module.name.startswith("_"):
            __import__(f"scanseg.{module.name}")
    public = {error for error in all_errors() if error.__module__.startswith("scanseg.")}
    assert {error.__name__ for error in public} <= named


@pytest.mark.parametrize("error", list(reference.error_classes()))
def test_exit_codes_are_those_of_the_command(error, capsys):
    if error.__name__ == "InterruptionError":
        pytest.skip("Signals have their tests in tests/cli/test_interrupts.py.")
    made = error.__new__(error, "text")
    made.args = ("text",)
    assert str(_report_failure(made)) == reference.exit_code_of(error)
    assert ("error: text" in capsys.readouterr().err) == (error is not OtherProcessError)


def test_tables_have_every_row():
    assert set(RECIPES) <= set(rows_of(reference.recipes()))
    assert set(NETWORKS) <= set(rows_of(reference.networks()))
    assert set(METRIC_RULES) <= set(rows_of(reference.metric_rules()))
    assert ".nii.gz" in rows_of(reference.formats())


@pytest.mark.parametrize("operator", sorted({status.operator for status in describe_backends()}))
def test_every_operator_has_its_mathematics_and_backends(operator):
    section = section_of(reference.operators(), operator)
    assert len(section.split()) > 20
    for status in describe_backends():
        if status.operator == operator:
            assert f"`{status.backend}`" in section


def test_the_python_api_has_every_public_function():
    text = reference.python_api()
    for name in scanseg.__all__:
        if name != "__version__":
            assert f".. autofunction:: scanseg.{name}\n" in text


def test_bars_in_cells_are_escaped():
    assert (
        reference.table(("a", "b"), [("x | y", "two\nlines")]).splitlines()[-1] == "| x \\| y | two lines |"
    )
