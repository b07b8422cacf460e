"""Compare two records row by row.

Usage: python -m benchmarks.compare OLD.json NEW.json [--fail-above 10%]

Rows with the same name and settings are compared: launched with launched, replayed with replayed. Rows in one record
only, and rows with other settings, are named. With `--fail-above` the exit code is 1 if a row of the new record takes
more than this part longer, or lost its time by a failure. Exit code 2: a file is no record with times. Records of
`benchmarks.run`, `growth` and `step_profile` have times.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.other_records import kind_of, table

MODES = {"eager": "launched", "replay": "replayed"}
"""Ways of running a call, by their keys in rows of `benchmarks.run`."""


@dataclass(frozen=True)
class TimedRow:
    """A row of a record.

    Attributes:
        ms: Median in milliseconds. `None`: the row has no time.
        settings: Settings of the call. Rows with other settings are not compared.
        status: `measured`, or the reason for a missing time.
    """

    ms: float | None
    settings: str
    status: str


@dataclass(frozen=True)
class Comparison:
    """Two records side by side.

    Attributes:
        pairs: Name, old and new time in milliseconds.
        only_old: Names of rows that the new record lacks.
        only_new: Names of rows that the old record lacks.
        other_settings: Names of rows whose settings differ.
        lost: Names of rows without a time in the new record, with the reason.
        machines: Lines about different machines and versions.
    """

    pairs: list[tuple[str, float, float]]
    only_old: list[str]
    only_new: list[str]
    other_settings: list[str]
    lost: list[str]
    machines: list[str]

    def slower_than(self, limit: float) -> list[str]:
        """Return the names of rows that take more than this part longer.

        Args:
            limit: The part, such as 0.1.
        """
        return [name for name, old, new in self.pairs if new > old * (1 + limit)]


def compare(old: Path, new: Path) -> Comparison:
    """Compare two records.

    Args:
        old: File of the first record.
        new: File of the second record.

    Raises:
        ValueError: A file is no record with times, or the records are of different kinds.
    """
    (old_kind, before), (new_kind, after) = _read(old), _read(new)
    if old_kind != new_kind:
        raise ValueError(f"{new}: expected a record of {old_kind}, as {old}, got one of {new_kind}.")
    first, second = dict(_rows(old_kind, before)), dict(_rows(new_kind, after))
    pairs, other_settings, lost = [], [], []
    for name in first.keys() & second.keys():
        one, other = first[name], second[name]
        if one.settings != other.settings:
            other_settings.append(f"{name}: {one.settings}, then {other.settings}")
        elif one.ms is not None and other.ms is not None:
            pairs.append((name, one.ms, other.ms))
        elif one.ms is not None:
            lost.append(f"{name}: {other.status}")
    return Comparison(
        pairs=sorted(pairs),
        only_old=sorted(name for name in first.keys() - second.keys() if first[name].ms is not None),
        only_new=sorted(name for name in second.keys() - first.keys() if second[name].ms is not None),
        other_settings=sorted(other_settings),
        lost=sorted(lost),
        machines=list(_machines(before, after)),
    )


def describe(comparison: Comparison) -> Iterator[str]:
    """Yield the lines of the comparison."""
    yield from comparison.machines
    lines = ((name, f"{old:.4g}", f"{new:.4g}", f"{new / old:.2f}") for name, old, new in comparison.pairs)
    yield from table(("row", "old ms", "new ms", "new / old"), lines)
    for title, names in (
        ("only in the old record", comparison.only_old),
        ("only in the new record", comparison.only_new),
        ("not compared, because the settings differ", comparison.other_settings),
        ("without a time in the new record", comparison.lost),
    ):
        if names:
            yield f"{title}:"
            yield from (f"- {name}" for name in names)


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    """Read a record with times, and return its kind.

    Raises:
        ValueError: The file is no such record.
    """
    advice = "Choose a record of benchmarks.run, growth or step_profile in benchmarks/results."
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        kind = kind_of(path) if isinstance(record, dict) else "none"
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}. {advice}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected a record with times. {advice}") from error
    if kind not in ("entries", "growth", "steps"):
        raise ValueError(f"{path}: expected a record with times, got one of {kind}. {advice}")
    return kind, record


def _rows(kind: str, record: dict[str, Any]) -> Iterator[tuple[str, TimedRow]]:
    """Yield the rows of a record by name."""
    if kind == "steps":
        name = f"{Path(record['plan']).stem}, {record['network']}"
        settings = json.dumps(record["settings"])
        yield f"{name}: a step", TimedRow(record["ms_a_step"], settings, "measured")
        yield f"{name}: kernels of a step", TimedRow(record["kernel_ms_a_step"], settings, "measured")
        return
    for row in record["rows"]:
        status = f"{row['status']}: {row['reason']}" if row.get("reason") else row["status"]
        if kind == "growth":
            name = f"{row['operator']}, {row['backend']}, {row['tokens']} tokens"
            yield name, TimedRow(row.get("median_ms"), "", status)
            continue
        if "call" not in row:
            yield row["entry"], TimedRow(None, "", status)
            continue
        settings = json.dumps(row.get("settings", {}), sort_keys=True)
        for key, mode in MODES.items():
            timing = row.get(key) or {}
            if timing or key == "eager" or row.get("replay_reason"):
                why = row.get("replay_reason", status) if key == "replay" else status
                name = f"{row['entry']} {row['call']}, {mode}"
                yield name, TimedRow(timing.get("median_ms"), settings, why)


def _machines(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each difference of machine and versions."""
    for key in ("device", "threads"):
        if old.get(key) != new.get(key):
            yield f"different {key}: {old.get(key)}, then {new.get(key)}"
    before, after = old.get("versions", {}), new.get("versions", {})
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield f"different {key}: {before.get(key)}, then {after.get(key)}"


def _limit(text: str) -> float:
    """Read a limit such as `10%`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)%", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected a percentage such as 10%, got {text}")
    return float(match[1]) / 100


def main(words: Sequence[str] | None = None) -> int:
    """Print the comparison and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument(
        "--fail-above", type=_limit, metavar="PERCENT", help="largest accepted increase, such as 10%%"
    )
    arguments = parser.parse_args(words)
    try:
        found = compare(arguments.old, arguments.new)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    print("\n".join(describe(found)))
    if arguments.fail_above is None:
        return 0
    slower = found.slower_than(arguments.fail_above)
    for name in slower:
        sys.stderr.write(f"slower by more than {arguments.fail_above:.0%}: {name}\n")
    return 1 if slower or found.lost else 0


if __name__ == "__main__":
    sys.exit(main())
