"""Tables of `docs/results`: equal to the records, and made from nothing else."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.result_tables import HEADER, describe_run, main, renew

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
PAGES = sorted(RESULTS.glob("*.md"))
FAST = RESULTS / "hippocampus-100s" / "fast-seed-1"


@pytest.fixture
def page(tmp_path):
    """Write a page about a copy of one record."""
    shutil.copytree(FAST, tmp_path / "run")
    path = tmp_path / "page.md"
    path.write_text(
        "Before.\n\n<!-- records\nmine = run\n-->\nold table\n<!-- end of records -->\n\nAfter.\n"
    )
    return path


def change(path, **values):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | values))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_equal_their_records(page):
    assert page.read_text(encoding="utf-8") == renew(page), "Run python -m benchmarks.result_tables."


def test_every_record_of_a_training_with_scores_is_in_a_table():
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    # these two were made before the recipe existed, and only the text of the page names them
    older = {"hippocampus-100s/adamw-averaged-no-mirroring", "hippocampus-100s/sgd-no-mirroring"}
    folders = {path.parent.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("run.json")}

    assert {
        folder for folder in folders if f"= {folder}\n" not in pages and f"= {folder} " not in pages
    } == older


def test_every_row_states_the_conditions_of_its_run():
    facts = dict(zip(HEADER[1:], describe_run(FAST), strict=True))

    assert facts == {
        "split": "160 training cases, 40 validation cases of fold 0",
        "seed": "1",
        "weights": "last, EMA",
        "mirrored": "yes",
        "steps": "3221",
        "training": "54 s",
        "device": "NVIDIA H200",
        "version": "scanseg 0.1.0, torch 2.11.0",
    }


def test_scored_cases_of_a_reproduction_are_those_of_its_setup():
    facts = describe_run(RESULTS / "acdc-published" / "msvm-unet" / "seed_0", "test-best.json")

    assert facts[0] == (
        "140 training cases, 20 validation cases, the published validation part: the source has no test cases"
    )
    assert facts[2:4] == ("best on validation patches", "no")


def test_a_changed_record_changes_the_page_and_nothing_else(page):
    first = renew(page)
    assert first.startswith("Before.\n\n<!-- records\nmine = run\n-->\n| run |")
    assert first.endswith("<!-- end of records -->\n\nAfter.\n")
    assert "old table" not in first

    change(page.parent / "run" / "run.json", iterations_done=17, seed=5, mirror_validation=False)

    row = next(line for line in renew(page).splitlines() if line.startswith("| mine |"))
    assert "| 5 | last, EMA | no | 17 |" in row
    assert row.endswith("| 0.8912 | 0.8749 | **0.8830** |")


def test_without_plan_and_field_mirroring_is_not_guessed(page):
    (page.parent / "run" / "plan.json").unlink()
    command = json.loads((page.parent / "run" / "run.json").read_text())["command"]

    change(page.parent / "run" / "run.json", command=["scanseg", "train", "plan.json"])
    assert describe_run(page.parent / "run")[3] == "not recorded"
    change(page.parent / "run" / "run.json", command=["scanseg", "train", "DATASET"])
    assert describe_run(page.parent / "run")[3] == "no"
    change(page.parent / "run" / "run.json", command=command)
    assert describe_run(page.parent / "run")[3] == "yes"


def test_test_cases_are_mirrored_as_the_plan_says(page):
    folder = page.parent / "run"
    shutil.copy(folder / "validation.json", folder / "test.json")
    plan = json.loads((folder / "plan.json").read_text())
    for mirror, expected in ((True, "yes"), (False, "no")):
        change(folder / "plan.json", inference=plan["inference"] | {"mirror": mirror})
        assert describe_run(folder, "test.json")[3] == expected


def test_tables_of_other_files_are_copied(tmp_path):
    (tmp_path / "table.md").write_text("# Title\n\n| a |\n|---|\n| 1 |\n\n- a note\n")
    path = tmp_path / "page.md"
    path.write_text("<!-- copy table.md -->\n<!-- end of copy -->\n")

    assert renew(path) == "<!-- copy table.md -->\n| a |\n|---|\n| 1 |\n<!-- end of copy -->\n"


def test_the_command_checks_writes_and_explains_faults(page, capsys):
    assert main([str(page), "--check"]) == 1
    assert "differs from its records. Run python -m benchmarks.result_tables." in capsys.readouterr().out
    assert "old table" in page.read_text()

    assert main([str(page)]) == 0
    assert main([str(page), "--check"]) == 0

    page.write_text(page.read_text().replace("mine = run", "mine: run"))
    assert main([str(page)]) == 1
    assert "expected NAME = FOLDER [REPORT], got 'mine: run'" in capsys.readouterr().err
    page.write_text(page.read_text().replace("mine: run", "mine = lost"))
    assert main([str(page)]) == 1
    assert "lost" in capsys.readouterr().err
