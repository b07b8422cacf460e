"""Sphinx extension: pages that lie outside of `docs/`, and parts of pages that are made from the code.

A page marks a part with a comment in a line of its own:

- `<!-- file: CONTRIBUTING.md -->` stands for the text of a file of the repository.
- `<!-- generated: commands -->` stands for a text of `generated_reference`.
- `<!-- pages: unlisted -->` stands for a list of the guides in `docs/` that no list of pages names.

Tutorials, which run, end with a link to their notebook.

Links are those of the repository, so that they also work without the site. Here, links to folders and to pages outside
of `docs/` become links to the pages of the site that show them.
"""

import os
import re
from pathlib import Path
from typing import Any

import generated_reference

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
FENCED = re.compile(r"^( *)(```|~~~).*?^\1\2[ ]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?P<start>!?\[(?:[^\[\]]|\[[^\]]*\])*\])\((?P<target>[^)\s]+)\)")
FILE = re.compile(r"^<!-- file: (?P<path>\S+) -->$", re.MULTILINE)
UNLISTED = "<!-- pages: unlisted -->"
TOCTREE = re.compile(r"^:::\{toctree\}\n(?P<lines>.*?)^:::$", re.MULTILINE | re.DOTALL)
STAR = re.compile(r"(?<![\w*\\])\*(?=\w)")
EXECUTED = "file_format: mystnb"
GENERATED = re.compile(r"^<!-- generated: (?P<name>\S+) -->$", re.MULTILINE)
FOLDER_PAGES = ("comparison.md", "table.md", "plan.json", "first-light/acdc-msvm-run.json")
"""What a link to a folder of results leads to: the first that exists."""
SHOWN_BY = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CONVENTIONS.md": "project/conventions.md",
    "CHANGELOG.md": "project/changelog.md",
    "AGENTS.md": "project/agents.md",
    "SECURITY.md": "project/security.md",
    "CODE_OF_CONDUCT.md": "project/conduct.md",
    "docs/decisions": "decisions.md",
    "docs/tutorials": "tutorials/index.md",
}
"""Pages of the site, by the path in the repository that they show."""


def page_of(target: Path) -> Path | None:
    """Return the file that a link leads to on the site, or `None` if the site does not have it.

    Args:
        target: File or folder of the repository.
    """
    shown = SHOWN_BY.get(target.relative_to(ROOT).as_posix()) if target.is_relative_to(ROOT) else None
    if shown is not None:
        return DOCS / shown
    if target.is_dir():
        inside = [target / name for name in FOLDER_PAGES] + sorted(target.glob("*.json"))
        return next((path for path in inside if path.is_file()), None)
    return target


def site_links(text: str, *, source: Path, page: Path) -> str:
    """Return a text with the links of the site.

    Args:
        text: Markdown with links relative to `source`.
        source: File with the text.
        page: Page of the site that shows it.
    """

    def replaced(match: re.Match[str]) -> str:
        name, mark, anchor = match["target"].partition("#")
        if "://" in match["target"] or not name:
            return match[0]
        target = (source.parent / name).resolve()
        if target == ROOT / "README.md" and anchor:
            target, mark, anchor = DOCS / "get-started.md", "", ""  # which has the parts of the README
        found = page_of(target)
        if found is None:
            return match["start"][1:-1]
        relative = Path(os.path.relpath(found, page.parent)).as_posix()
        return f"{match['start']}({relative}{mark}{anchor})"

    parts = []
    end = 0
    for block in FENCED.finditer(text):
        parts += [LINK.sub(replaced, text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, LINK.sub(replaced, text[end:])])


def unlisted_pages() -> list[str]:
    """Return the names of the pages directly in `docs/` that no toctree lists."""
    listed = {"index"}
    for page in DOCS.rglob("*.md"):
        for block in TOCTREE.finditer(page.read_text(encoding="utf-8")):
            names = [line for line in block["lines"].splitlines() if line and not line.startswith(":")]
            listed |= {
                Path(os.path.relpath(page.parent / name, DOCS)).as_posix()
                for name in names
                if "*" not in name
            }
    return sorted(page.stem for page in DOCS.glob("*.md") if page.stem not in listed)


def _unlisted_text() -> str:
    pages = unlisted_pages()
    if not pages:
        return ""
    return "\n".join(["## More guides", "", ":::{toctree}", ":maxdepth: 2", "", *pages, ":::"])


def page_text(text: str, page: Path) -> str:
    """Return the whole text of a page of the site.

    Args:
        text: Content of its file.
        page: Its file.
    """
    text = site_links(text, source=page, page=page)
    text = FILE.sub(
        lambda match: site_links(
            (ROOT / match["path"]).read_text(encoding="utf-8"), source=ROOT / match["path"], page=page
        ),
        text,
    )
    text = text.replace(UNLISTED, _unlisted_text())
    if EXECUTED in text.partition("\n---\n")[0]:
        text += f"\n{{nb-download}}`Download this page as a notebook <{page.stem}.ipynb>`\n"
    return GENERATED.sub(lambda match: generated_reference.TEXTS[match["name"]](), text)


def read_source(app: Any, name: str, content: list[str]) -> None:
    """Replace the text of a page before Sphinx parses it."""
    page = Path(app.env.doc2path(name))
    content[0] = page_text(content[0], page)
    for match in FILE.finditer(page.read_text(encoding="utf-8")):
        app.env.note_dependency(str(ROOT / match["path"]), docname=name)


def escape_stars(_app: Any, _kind: str, _name: str, _item: Any, _options: Any, lines: list[str]) -> None:
    """Escape the stars of shapes such as (batch, channel, *space), which would begin an emphasis."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...", ".. ")):
            parts = line.split("`")
            parts[::2] = [STAR.sub(r"\\*", part) for part in parts[::2]]
            lines[number] = "`".join(parts)


def pages_made_from_code() -> list[str]:
    """Return the names of the pages that may change although their file does not."""
    pages = {page: page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md")}
    return sorted(
        page.relative_to(DOCS).with_suffix("").as_posix()
        for page, text in pages.items()
        if GENERATED.search(text) or UNLISTED in text.splitlines()
    )


def outdated_pages(_app: Any, _env: Any, _added: Any, _changed: Any, _removed: Any) -> list[str]:
    """Return the pages that every build reads again."""
    return pages_made_from_code()


def setup(app: Any) -> dict[str, bool]:
    """Register the extension."""
    app.connect("source-read", read_source)
    app.connect("env-get-outdated", outdated_pages)
    app.connect("autodoc-process-docstring", escape_stars, priority=600)  # after napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}
