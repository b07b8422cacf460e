"""The pages of the site: links of the repository become links of the site, and the site builds without warnings."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import repository_pages as pages
from notebook_kernel import cells_of, execute

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TUTORIALS = sorted(path for path in (DOCS / "tutorials").glob("*.md") if path.stem != "index")


def links(text):
    return pages.site_links(text, source=DOCS / "training.md", page=DOCS / "training.md")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](prediction.md#memory)", "[a](prediction.md#memory)"),
        ("[a](../CONTRIBUTING.md#a-change)", "[a](project/contributing.md#a-change)"),
        ("[a](decisions)", "[a](decisions.md)"),
        ("[a](../README.md)", "[a](index.md)"),
        ("[a](../README.md#first-result)", "[a](get-started.md)"),
        ("[a](results/acdc-decoder)", "[a](results/acdc-decoder/comparison.md)"),
        ("[a](https://arxiv.org/abs/2408.13735)", "[a](https://arxiv.org/abs/2408.13735)"),
        ("[a](#here)", "[a](#here)"),
        ("```\n[a](decisions)\n```", "```\n[a](decisions)\n```"),
    ],
)
def test_links_lead_to_pages_of_the_site(text, expected):
    assert links(text) == expected


def test_a_file_of_the_repository_keeps_its_links():
    page = DOCS / "project" / "contributing.md"
    text = pages.page_text("<!-- file: CONTRIBUTING.md -->", page)
    assert "[CONVENTIONS.md](conventions.md)" in text
    assert "[docs/architecture.md](../architecture.md)" in text


def test_parts_from_the_code_replace_their_comments():
    text = pages.page_text("# Recipes\n\n<!-- generated: recipes -->\n", DOCS / "reference" / "tables.md")
    assert "| `xlstm-unet` |" in text
    assert "<!--" not in text


def test_guides_that_no_page_lists_are_listed(monkeypatch, tmp_path):
    (tmp_path / "index.md").write_text(":::{toctree}\n:hidden:\n\nknown\n:::\n")
    for name in ("known", "cluster"):
        (tmp_path / f"{name}.md").write_text(f"# {name}\n")
    monkeypatch.setattr(pages, "DOCS", tmp_path)
    assert pages.unlisted_pages() == ["cluster"]


@pytest.mark.parametrize(
    "path", sorted(DOCS.rglob("*.md")), ids=lambda path: path.relative_to(DOCS).as_posix()
)
def test_lists_of_pages_name_each_page_once(path):
    blocks = pages.TOCTREE.finditer(path.read_text(encoding="utf-8"))
    lines = [line for block in blocks for line in block["lines"].splitlines() if line and line[0] != ":"]
    assert sorted(lines) == sorted(set(lines))
    missing = [line for line in lines if "*" not in line and not (path.parent / f"{line}.md").exists()]
    assert missing == []


def test_pages_from_the_code_are_read_at_every_build():
    made = pages.pages_made_from_code()
    assert {"reference/commands", "reference/plan", "reference/python", "how-to"} <= set(made)
    assert not {"decisions/0033-site", "training"} & set(made)


def test_a_failing_command_ends_a_tutorial(tmp_path):
    startup = (DOCS / "extensions" / "notebook_startup.py").read_text(encoding="utf-8")
    program = tmp_path / "program.py"
    shell = "class Shell:\n    def var_expand(self, line, depth):\n        return line\n\n\nshell = Shell()\n"
    startup = startup.replace("from IPython import get_ipython\n", "").replace(
        "shell = get_ipython()\n", shell
    )
    for code in (0, 3):
        calls = f"\nshell.system('echo result && exit {code}')\n"
        program.write_text(startup + calls, encoding="utf-8")
        ended = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
        assert ended.stdout.strip() == "result"
        assert (ended.returncode != 0) == (code != 0)
        assert ("exit code 3" in ended.stderr) == (code == 3)


def test_every_tutorial_is_listed_and_has_cells():
    index = (DOCS / "tutorials" / "index.md").read_text(encoding="utf-8")
    for path in TUTORIALS:
        assert f"\n{path.stem}\n" in index
        assert len(cells_of(path.read_text(encoding="utf-8"))) >= 3


@pytest.mark.slow  # each tutorial takes half a minute to two minutes
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorials_run(path, tmp_path):
    pytest.importorskip("ipykernel", reason="needs the extra docs")
    for library in ("lightning",) if path.stem == "own-loop" else ():
        pytest.importorskip(library, reason="needs the extra docs")
    assert execute(path, folder=tmp_path / "run")


@pytest.mark.slow  # it parses and writes all pages, about a minute
@pytest.mark.timeout(900)
def test_the_site_builds_without_warnings_and_works_offline(tmp_path):
    pytest.importorskip("myst_nb", reason="needs the extra docs")
    pytest.importorskip("pydata_sphinx_theme", reason="needs the extra docs")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    command += [
        "-D",
        "nb_execution_mode=off",
        "-d",
        str(tmp_path / "doctrees"),
        "docs",
        str(tmp_path / "html"),
    ]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-4000:]
    html = [path.read_text(encoding="utf-8") for path in (tmp_path / "html").rglob("*.html")]
    assert len(html) > 60
    commands = (tmp_path / "html" / "reference" / "tables.html").read_text(encoding="utf-8")
    assert "--max-minutes" in commands  # options keep their hyphens
    external = re.compile(r'<(?:script|link)[^>]*(?:src|href)="https?://[^"]*"')
    assert {match[0] for text in html for match in external.finditer(text)} == set()
    assert (tmp_path / "html" / "searchindex.js").stat().st_size > 100_000
    broken = [
        link
        for path in (tmp_path / "html").rglob("*.html")
        for link in re.findall(r'<a [^>]*href="([^"#:?]+)[#"?]', path.read_text(encoding="utf-8"))
        if not (path.parent / link).exists()
    ]
    assert broken == []
