"""Counts of texts that break the prose rules of `CONVENTIONS.md`: docstrings, messages, help, pages.

Each count has a maximum in this module. A maximum may only fall: lower it after the count has fallen, never raise it.
Instead, reword the new sentence. A failure lists the offenders.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

LONGEST_FIRST_LINE = 12
"""Words in the first line of a docstring."""
PUBLIC_SURFACE = ("src/scanseg/api/", "src/scanseg/errors.py", "src/scanseg/cli/")
"""Files whose first lines all follow the rules."""
SHORTEST_MESSAGE = 4
"""Words from which on a string in the code counts as a sentence for users."""

MOST_FIRST_LINES = 40
"""First lines of docstrings that break a rule."""
MOST_WHAT = 0.1
"""Uses of the word *what* per 1000 words of docstrings."""
MOST_BROKEN = {"docstrings": 45, "messages": 0, "help": 0, "pages": 29}
"""Texts with a phrase of `BROKEN`: docstrings, other strings in the code, texts of the command line, lines of pages."""
MOST_SEMICOLONS = {"docstrings": 0.5, "messages": 3.0, "help": 0.5, "pages": 3.2}
"""Semicolons per 1000 words."""

HEADLESS = r"what|those that|those of|one that|where there"
"""Beginnings of relative clauses that stand for a missing noun."""
PERSONIFYING = r"told|tells|telling|said|says|saying|judged|woken"
"""Verbs that give code a voice or feelings."""
RARE = r"mend|mended|anew|suffice|suffices|nobody"
"""Words that have a common synonym: fix, again, enough, no one."""
EXISTENCE = r"is there|are there"
"""Phrases for "exists" and "is missing"."""
BROKEN = re.compile(rf"\b({HEADLESS}|{PERSONIFYING}|{RARE}|{EXISTENCE})\b", re.IGNORECASE)

FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
ASSEMBLY = re.compile(r"\.(f32|pred|b32)\b")
INLINE_CODE = re.compile(r"`[^`]*`")


class Text(NamedTuple):
    """A text and its place."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        """Return the place and the beginning of the text."""
        return f"{self.file}:{self.line} {self.text[:100]}"


def is_broken(text: str) -> bool:
    """Whether a text has a headless clause or an idiom. Code in backticks does not count."""
    return BROKEN.search(INLINE_CODE.sub("", text)) is not None


def is_broken_first_line(text: str) -> bool:
    """Whether the first line of a docstring breaks a rule, has a semicolon or is too long."""
    return len(text.split()) > LONGEST_FIRST_LINE or ";" in text or BROKEN.search(text) is not None


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def first_paragraphs() -> Iterator[Text]:
    """Yield the first paragraphs of the docstrings of modules, classes and functions, each as one line."""
    for path in SOURCES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text:
                    line = " ".join(text.split("\n\n")[0].split())
                    yield Text(name_of(path), getattr(node, "lineno", 1), line)


def is_docstring(node: ast.AST) -> bool:
    """Whether a node is a string by itself, as docstrings of modules, classes, functions and attributes are."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def docstrings() -> Iterator[Text]:
    """Yield all docstrings, also those of attributes."""
    for path in SOURCES:
        for node in ast.walk(parsed(path)):
            if is_docstring(node):
                yield Text(name_of(path), node.lineno, node.value.value)


def strings(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and text of the strings in a node that are no docstrings. Values in f-strings become X."""
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
        yield node.lineno, "".join(parts)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node.lineno, node.value
    elif not is_docstring(node):
        for child in ast.iter_child_nodes(node):
            yield from strings(child)


def messages() -> Iterator[Text]:
    """Yield the strings of several words: errors, warnings, reasons, notes, descriptions of fields.

    Code of assemblers is left out.
    """
    for path in SOURCES:
        for line, text in strings(parsed(path)):
            if len(text.split()) >= SHORTEST_MESSAGE and not ASSEMBLY.search(text):
                yield Text(name_of(path), line, text)


def help_texts() -> Iterator[Text]:
    """Yield docstrings and strings of the command line: help of commands and options, results, notes."""
    for text in (*docstrings(), *messages()):
        if text.file.startswith("src/scanseg/cli/"):
            yield text


def page_lines() -> Iterator[Text]:
    """Yield the lines of pages outside code."""
    for path in PAGES:
        text = FENCED.sub(lambda block: "\n" * block.group().count("\n"), path.read_text(encoding="utf-8"))
        for number, line in enumerate(text.splitlines(), start=1):
            if line and not line.startswith("    "):
                yield Text(name_of(path), number, line)


def report(found: Iterable[Text], rule: str) -> str:
    return "\n".join([f"{rule} Reword these texts:", *map(str, found)])


TEXTS = {"docstrings": docstrings, "messages": messages, "help": help_texts, "pages": page_lines}


def test_first_lines_of_docstrings_are_short_and_plain():
    """The maximum may only fall."""
    broken = [line for line in first_paragraphs() if is_broken_first_line(line.text)]
    assert len(broken) <= MOST_FIRST_LINES, report(broken, f"{len(broken)}, at most {MOST_FIRST_LINES}.")


@pytest.mark.parametrize("files", PUBLIC_SURFACE)
def test_first_lines_of_the_public_surface_are_all_short_and_plain(files):
    lines = [line for line in first_paragraphs() if line.file.startswith(files)]
    broken = [line for line in lines if is_broken_first_line(line.text)]
    assert broken == [], report(broken, "The public surface has no exceptions.")


@pytest.mark.parametrize(("kind", "most"), MOST_BROKEN.items())
def test_texts_are_plain(kind, most):
    """The maxima may only fall."""
    broken = [text for text in TEXTS[kind]() if is_broken(text.text)]
    assert len(broken) <= most, report(broken, f"{len(broken)}, at most {most}.")


@pytest.mark.parametrize(("kind", "most"), MOST_SEMICOLONS.items())
def test_sentences_are_not_joined_by_semicolons(kind, most):
    """The maxima may only fall."""
    assert_rare(";", TEXTS[kind](), most)


def test_docstrings_have_nouns_instead_of_what():
    """The maximum may only fall."""
    assert_rare(r"\bwhat\b", docstrings(), MOST_WHAT)


def assert_rare(pattern: str, texts: Iterable[Text], most: float) -> None:
    """Compare how often a pattern occurs per 1000 words. Code in backticks does not count."""
    words, found = 0, {}
    for text in texts:
        prose = INLINE_CODE.sub("X", text.text)
        words += len(prose.split())
        if matches := len(re.findall(pattern, prose, re.IGNORECASE)):
            found[text] = matches
    rate = 1000 * sum(found.values()) / words
    assert rate <= most, report(
        sorted(found, key=found.get)[-40:], f"{rate:.2f} per 1000 words, at most {most}."
    )


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("Check every case of a data set.", False),
        ("Read every case and say what is wrong.", True),
        ("Set `what` before.", False),
        ("The network is told of it.", True),
        ("Whatever the size, it sufficed.", False),
    ],
)
def test_rules_on_sentences(text, broken):
    assert is_broken(text) is broken


def test_a_first_line_of_13_words_is_too_long():
    assert not is_broken_first_line("word " * 12)
    assert is_broken_first_line("word " * 13)


def test_semicolons_are_counted_per_word():
    texts = [Text("a.py", 1, "one; two `;` three"), Text("a.py", 2, "four five")]
    assert_rare(";", texts, 1000 / 6)
    with pytest.raises(
        AssertionError, match=r"166.67 per 1000 words, at most 166. Reword these texts:\s+a.py:1 one"
    ):
        assert_rare(";", texts, 166)


def test_strings_are_those_of_the_code_without_docstrings():
    module = ast.parse('"""Doc."""\nvalue = f"{x} of " "it"\n"""Attribute."""\nraise InputError("no")')
    assert list(strings(module)) == [(2, "X of it"), (4, "no")]
