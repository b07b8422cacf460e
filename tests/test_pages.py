"""Pages: links, commands, options, settings, modules and files on them exist.

`tests/papers/test_documented_commands.py` runs the commands.
"""

import ast
import importlib
import inspect
import re
import shlex
from configparser import ConfigParser
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

import scanseg
from scanseg import api
from scanseg.cli import build_app
from scanseg.converters import NAMED_DATASETS
from scanseg.specs import Plan

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
)
WRITTEN_PAGES = [page for page in PAGES if not re.match("docs/results/.*/", page)]
"""Pages that no command wrote."""
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
FENCED = re.compile(r"^```(?:\{code-cell\} )?(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
"""Blocks of code. The cells of tutorials have the kind `ipython3`."""
NAMED_FILE = re.compile(r"(?<![\w./-])(?:src|tests|docs|scripts|benchmarks)/[\w./-]*\w")
OTHER_OPTIONS = {"--requeue", "--help", "--disable_tta"}
"""Options of SLURM, of every command, and of nnU-Net."""
OUTPUT_FILES = ("benchmarks/results/NAME", "benchmarks/results/growth", "benchmarks/results/fp16")
"""Files on the pages that exist only after a command."""
LONGEST_LINE = 119
"""Characters of a line of prose; tables, images and commands may be longer."""


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def anchors_of(text):
    """Return the anchors of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def lines_of_code(text):
    """Return the lines of indented and fenced blocks, with continued lines joined."""
    fenced = FENCED.findall(text)
    blocks = [block for kind, block in fenced if kind in ("", "bash")]
    cells = "".join(block for kind, block in fenced if kind == "ipython3")
    blocks += [re.sub(r"\{\w+\}", "", line) for line in re.findall("^!(.*)", cells, re.MULTILINE)]
    indented = [line for line in FENCED.sub("", text).splitlines() if line.startswith("    ")]
    joined = "\n".join([*blocks, *indented]).replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines()]


def commands_of(text):
    """Return the words after `scanseg` of each command in a block of code."""
    found = []
    for line in lines_of_code(text):
        words = re.split(r"(?:^|\s)(?:-m scanseg|scanseg)\s", f" {line}", maxsplit=1)
        if len(words) == 2 and not words[0].strip().startswith(("#", "import", "from")):
            given = re.sub(r"\[.* \.\.\.\]", "", words[1].rstrip("& ").replace(" $resume", " --resume"))
            found.append(shlex.split(re.sub(r"\$\w*", "0", given), comments=True))
    return found


@cache
def app():
    return build_app()


@cache
def options_of(*words):
    """Return the options of a command."""
    command = app()
    for word in words:
        command = command[word]
    function = command.default_command
    arguments = command.assemble_argument_collection() if function else ()
    return {name for argument in arguments for name in argument.names}


def every_option():
    paths = [(name,) for name in app() if not name.startswith("-")]
    paths += [(name, inner) for (name,) in paths for inner in app()[name] if not inner.startswith("-")]
    return set().union(*(options_of(*path) for path in paths))


@cache
def fields_of_plans():
    """Return the names of all fields of a plan, at any depth."""
    schema = Plan.model_json_schema()
    objects = [schema, *schema["$defs"].values()]
    return set().union(*(one.get("properties", {}) for one in objects))


@pytest.mark.parametrize("page", WRITTEN_PAGES)
def test_lines_of_prose_are_short(page):
    lines = FENCED.sub("", text_of(page)).splitlines()
    prose = [line for line in lines if not line.startswith(("|", "    ", "!["))]
    assert [line for line in prose if len(line) > LONGEST_LINE] == []


@pytest.mark.parametrize("page", WRITTEN_PAGES)
def test_headings_go_down_one_level_at_a_time(page):
    levels = [len(marks) for marks in re.findall(r"^(#+) ", FENCED.sub("", text_of(page)), re.MULTILINE)]
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_readme_is_short_and_leads_to_a_result():
    lines = text_of("README.md").splitlines()
    assert len(lines) <= 120
    beginning = "\n".join(lines[:40])
    assert "make demo" in beginning
    assert "pip install ." in beginning
    assert "make test" in "\n".join(lines)


@pytest.mark.parametrize("command", ["serve", "view", "show", "report"])
def test_readme_has_a_command_that_shows_results(command):
    shown = [
        code.split()[1:]
        for code in CODE.findall(text_of("README.md"))
        if code.startswith(f"scanseg {command} ")
    ]
    assert shown
    for words in shown:
        build_app().parse_args(words, print_error=False, exit_on_error=False)


def test_layers_of_the_architecture_are_those_of_the_import_contracts():
    contracts = ConfigParser()
    contracts.read(ROOT / ".importlinter", encoding="utf-8")
    layers = contracts["importlinter:contract:layers"]["layers"].split("\n")[1:]
    assert "\n".join(f"    {layer}" for layer in layers) in text_of("docs/architecture.md")


@pytest.mark.parametrize("page", PAGES)
def test_every_link_has_a_target(page):
    wrong = []
    for link in LINK.findall(text_of(page)):
        name, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (ROOT / page).parent / name if name else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors_of(target.read_text(encoding="utf-8"))):
            wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize("page", PAGES)
def test_every_named_file_and_module_exists(page):
    text = text_of(page)
    files = [name for name in NAMED_FILE.findall(text) if not name.startswith(OUTPUT_FILES)]
    assert [name for name in files if not (ROOT / name).exists()] == []
    modules = re.findall(r"-m (benchmarks\.\w+|scanseg\b)", text)
    assert [name for name in modules if find_spec(name) is None] == []


@pytest.mark.parametrize("name", NAMED_DATASETS)
def test_every_public_data_set_has_a_card(name):
    cards = dict(
        re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", text_of("docs/data-cards.md"), re.MULTILINE | re.DOTALL)
    )
    rows = dict(re.findall(r"^\| (\w[\w ]*) \| (.+) \|$", cards[name], re.MULTILINE))
    assert list(rows) == ["source", "licence", "size", "split", "reads", "tested on"]
    assert NAMED_DATASETS[name].homepage in rows["source"]
    assert "\nTraps: " in cards[name]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_parses(page):
    for words in commands_of(text_of(page)):
        if words and words[0] != "info" and "--help" not in words:
            build_app().parse_args(words, print_error=False, exit_on_error=False)


@pytest.mark.parametrize("page", PAGES)
def test_every_named_option_exists(page):
    for shown in CODE.findall(FENCED.sub("", text_of(page))):
        code = re.sub("^torchrun .*-m scanseg", "scanseg", shown)
        if code.startswith("scanseg "):
            words = code.split()[1:]
            path = words[:2] if words[0] in ("data", "weights") or words[1:2] == ["list"] else words[:1]
            known = options_of(*(word for word in path if not word.startswith("-")))
        elif re.match(r"[a-z]+ ?[A-Z./-]* ?--[a-z]|--[a-z]", code):
            known = every_option() | OTHER_OPTIONS
        else:
            continue
        named = re.findall(r"(?<!\S)--[a-z][a-z_-]*", code)
        assert set(named) <= known, code


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_is_a_field_of_plans(page):
    paths = re.findall(r"--set '?([\w.*]+)", text_of(page))
    parts = {part for path in paths for part in path.split(".") if not part.isdecimal()}
    assert parts - {"path", "to", "key", "*"} <= fields_of_plans()


@pytest.mark.parametrize("page", PAGES)
def test_python_examples_use_existing_names(page):
    for kind, block in FENCED.findall(text_of(page)):
        for node in ast.walk(ast.parse(block)) if kind == "python" else ():
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("scanseg"):
                module = importlib.import_module(node.module)
                assert [name.name for name in node.names if not hasattr(module, name.name)] == []
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "scanseg":
                assert node.attr in dir(scanseg)
            elif isinstance(node, ast.Call) and re.fullmatch(r"scanseg\.\w+", ast.unparse(node.func)):
                function = getattr(api, node.func.attr)
                known = set(inspect.signature(function).parameters)
                assert {keyword.arg for keyword in node.keywords} <= known
