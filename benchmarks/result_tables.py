"""Make the tables of `docs/results` from the records of trainings.

Usage: python -m benchmarks.result_tables [PAGE.md ...] [--check]

A table stands between two comments. The first one names its rows, each as `NAME = FOLDER` or `NAME = FOLDER REPORT`,
or a file whose tables are copied. Paths begin at the folder of the page:

    <!-- records
    seed 0 = hippocampus-100s/fast-seed-0
    last weights = acdc-held-out/msvm-unet/seed_0 test-last.json
    -->
    (table)
    <!-- end of records -->

    <!-- copy hippocampus-blocks/comparison.md -->
    (table)
    <!-- end of copy -->

The folder has `run.json` and the report of the scores, by default `validation.json`. Without pages, all pages of
`docs/results` are written. `--check` writes nothing, and exits with 1 if a page differs from its records.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scanseg.errors import InputError
from scanseg.specs import Report, RunRecord
from scanseg.tables import as_markdown

PAGES = Path("docs/results")
HEADER = ("run", "split", "seed", "weights", "mirrored", "steps", "training", "device", "version")
_RECORDS = re.compile(r"(<!-- records\n(.*?)-->\n).*?(<!-- end of records -->)", re.DOTALL)
_COPY = re.compile(r"(<!-- copy (\S+) -->\n).*?(<!-- end of copy -->)", re.DOTALL)


def renew(page: Path) -> str:
    """Return a page with the tables of its records.

    Args:
        page: Path of the page.

    Raises:
        ValueError: A row of a comment is faulty.
        InputError: A record is missing or faulty.
        OSError: The page or a copied file is missing.
    """
    text = page.read_text(encoding="utf-8")
    text = _RECORDS.sub(lambda found: found[1] + _table(found[2], page) + found[3], text)
    return _COPY.sub(lambda found: found[1] + _copied(page.parent / found[2]) + found[3], text)


def describe_run(folder: Path, report_name: str = "validation.json") -> tuple[str, ...]:
    """Return split, seed, weights, mirroring, steps, time, device and version of a training.

    Older records lack some of these facts. Their seed and mirroring follow from the plan or the command.

    Args:
        folder: Folder with `run.json`, and with `plan.json` unless the command is enough.
        report_name: Name of the report of its scores.
    """
    run = RunRecord.read(folder / "run.json")
    report = Report.read(folder / report_name)
    is_test = report_name.startswith("test")
    session = run.sessions[-1]
    commit = f", {session.commit[:7]}" if session.commit else ""
    return (
        f"{len(run.train_cases)} training cases, {_describe_scored(run, report, folder, is_test=is_test)}",
        str(_seed(run, folder)),
        _weights(run, report_name),
        _describe_test_mirroring(folder) if is_test else _describe_mirroring(run, folder),
        str(run.iterations_done),
        f"{run.training_seconds:.0f} s",
        re.sub(r"^cuda \((.*)\)$", r"\1", session.device),
        f"scanseg {session.versions['scanseg']}{commit}, torch {session.versions['torch'].split('+')[0]}",
    )


def _table(rows: str, page: Path) -> str:
    """Return the table of the rows of a comment."""
    described = []
    labels: dict[str, None] = {}
    for row in filter(None, map(str.strip, rows.splitlines())):
        found = re.fullmatch(r"(.+?) = (\S+)(?: (\S+\.json))?", row)
        if found is None:
            raise ValueError(f"{page}: expected NAME = FOLDER [REPORT], got {row!r}. Correct the comment.")
        name, folder, report_name = found[1], page.parent / found[2], found[3] or "validation.json"
        report = Report.read(folder / report_name)
        labels |= dict.fromkeys(report.summary.labels)
        described.append((name, describe_run(folder, report_name), report.summary))
    body = [
        (
            name,
            *facts,
            *(_score(summary.labels[label].dice.mean) if label in summary.labels else "" for label in labels),
            f"**{_score(summary.mean_over_labels.dice)}**",
        )
        for name, facts, summary in described
    ]
    return as_markdown([(*HEADER, *labels, "mean Dice"), *body]) + "\n"


def _copied(path: Path) -> str:
    """Return the tables of a Markdown file, with one empty line between them."""
    blocks = path.read_text(encoding="utf-8").split("\n\n")
    tables = [block.strip() for block in blocks if block.lstrip().startswith("|")]
    if not tables:
        raise ValueError(f"{path}: expected a table, got none. Name another file.")
    return "\n\n".join(tables) + "\n"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _weights(run: RunRecord, report_name: str) -> str:
    """Return the rule by which the scored weights were chosen."""
    named = re.search(r"-(best|last)\b", report_name)
    rule = named[1] if named else (run.exported.checkpoint if run.exported else "last")
    average = ", EMA" if run.exported is not None and run.exported.ema else ""
    return {"last": "last", "best": "best on validation patches"}[rule] + average


def _describe_scored(run: RunRecord, report: Report, folder: Path, *, is_test: bool) -> str:
    """Return the scored cases in words. Reproductions describe them in `setup.json`."""
    if not is_test:
        return f"{report.summary.num_cases} validation cases of fold {run.fold}"
    setup = _read_above(folder, "setup.json")
    return f"{report.summary.num_cases} test cases" if setup is None else str(setup["scored"])


def _seed(run: RunRecord, folder: Path) -> int:
    """Return the seed of a training.

    It is in the record, else in the command, the name of the folder or the plan. The default is 0.
    """
    if run.seed is not None:
        return run.seed
    command = run.sessions[0].command
    if "--seed" in command:
        return int(command[command.index("--seed") + 1])
    named = re.search(r"seed[_-](\d+)", folder.name)
    if named:
        return int(named[1])
    plan = _read_above(folder, "plan.json")
    return 0 if plan is None else int(plan["training"]["seed"])


def _describe_mirroring(run: RunRecord, folder: Path) -> str:
    """Return whether validation averages over flips: by the record, the plan or the command."""
    command = run.sessions[0].command
    plan = _read_above(folder, "plan.json")
    if run.mirror_validation is not None:
        is_mirrored = run.mirror_validation
    elif plan is not None:
        is_mirrored = bool(plan["training"].get("mirror_validation", False))
    elif "training.mirror_validation=true" in command:
        is_mirrored = True
    elif command[1] == "train" and command[2].endswith(".json"):
        return "not recorded"  # the plan may turn it on, and was not kept
    else:
        is_mirrored = False
    return "yes" if is_mirrored else "no"


def _describe_test_mirroring(folder: Path) -> str:
    """Return whether predictions of test cases average over flips: as the plan says."""
    plan = _read_above(folder, "plan.json")
    return "yes" if plan is not None and plan["inference"].get("mirror", False) else "no"


def _read_above(folder: Path, name: str) -> dict[str, Any] | None:
    """Read a file in the folder of a run record or one of two folders above. `None`: it was not kept."""
    for place in (folder, folder.parent, folder.parent.parent):
        path = place / name
        if path.is_file():
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return content
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the pages. Return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page differs")
    options = parser.parse_args(arguments)
    differing = []
    for page in options.pages or sorted(PAGES.glob("*.md")):
        try:
            text = renew(page)
        except (InputError, OSError, ValueError) as error:
            print(error, file=sys.stderr)
            return 1
        if text != page.read_text(encoding="utf-8"):
            differing.append(page)
            if not options.check:
                page.write_text(text, encoding="utf-8", newline="\n")
    for page in differing:
        advice = (
            " differs from its records. Run python -m benchmarks.result_tables."
            if options.check
            else ": written"
        )
        print(f"{page}{advice}")
    return 1 if differing and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
