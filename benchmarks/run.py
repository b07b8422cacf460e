"""Measure all entries on one device and write a record.

Usage: python -m benchmarks.run --device cuda -o benchmarks/results/NAME.json [--golden FOLDER] [--entries PATTERN ...]

Each entry is checked against float64 first, and not timed if the check fails. With `--golden` the records of the
published networks must verify too. The record is written after every entry. If an entry breaks the context of the GPU,
the run continues with the next entry in a new process. For CPU rows use `--device cpu --threads 2`.
"""

import argparse
import fnmatch
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.entries import Entry
from benchmarks.machine import describe_run
from benchmarks.running import DeviceLostError, Runner, profile, summary
from benchmarks.table import all_entries
from scanseg.networks import verify_record
from scanseg.runtime.device import choose_device


def main(words: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code.

    It is 1 if a golden record or a check fails.
    """
    arguments = _parse(words)
    device = choose_device(arguments.device)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    entries = _chosen(device, arguments.entries)
    if arguments.list:
        print("\n".join(entry.name for entry in entries))
        return 0
    if arguments.profile:
        return _print_profiles(entries, device)
    record = _begun_record(arguments, device)
    if record.get("golden_failed"):
        return 1
    runner = Runner(
        device,
        device_name=str(record["device"]),
        seconds=0.05 if arguments.quick else arguments.seconds,
        end=time.monotonic() + 60 * arguments.max_minutes,
        tiny=arguments.tiny,
    )
    _run_all(entries, runner, record, output=arguments.output, words=words)
    statuses = [row["status"] for row in record["rows"]]
    print({status: statuses.count(status) for status in sorted(set(statuses))})
    return 1 if "check failed" in statuses else 0


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", "-o", type=Path, default=Path("benchmarks/results/latest.json"))
    parser.add_argument(
        "--entries", nargs="+", default=["*"], help="patterns of names, such as *xlstm*bfloat16*"
    )
    parser.add_argument("--golden", type=Path, help="folder of records of the published networks")
    parser.add_argument("--seconds", type=float, default=0.3, help="seconds of timed calls for each row")
    parser.add_argument("--quick", action="store_true", help="0.05 seconds for each row")
    parser.add_argument("--max-minutes", type=float, default=6.0, help="start no entry after this time")
    parser.add_argument("--threads", type=int, help="number of CPU threads")
    parser.add_argument("--commit", help="commit of the code, if git is missing")
    parser.add_argument("--tiny", action="store_true", help="shrink every entry, for tests of this program")
    parser.add_argument("--list", action="store_true", help="print the names of the chosen entries and exit")
    parser.add_argument(
        "--profile", action="store_true", help="print the kernels of each call without timing"
    )
    parser.add_argument("--append", action="store_true", help="continue the record of --output")
    return parser.parse_args(words)


def _chosen(device: torch.device, patterns: Sequence[str]) -> list[Entry]:
    """Return the entries for a kind of device with matching names."""
    return [
        entry
        for entry in all_entries()
        if entry.device == device.type and any(fnmatch.fnmatch(entry.name, pattern) for pattern in patterns)
    ]


def _begun_record(arguments: argparse.Namespace, device: torch.device) -> dict:
    """Start a new record, or read the record of `--append`.

    A new record first verifies the golden records.
    """
    if arguments.append:
        return json.loads(arguments.output.read_text(encoding="utf-8"))
    settings = {name: getattr(arguments, name) for name in ("seconds", "quick", "tiny", "entries")}
    record = {**describe_run(device, commit=arguments.commit), "settings": settings, "golden": [], "rows": []}
    for path in sorted(arguments.golden.glob("*.safetensors")) if arguments.golden else ():
        result = verify_record(path, dtype=torch.float32, device=device)
        print(f"{path.name}: {'verified' if result.passed else 'DIFFERS'} {result}", flush=True)
        difference = {"output": result.output_difference, "gradient": result.gradient_difference}
        record["golden"].append({"record": path.name, "passed": result.passed, **difference})
    record["golden_failed"] = not all(row["passed"] for row in record["golden"])
    _write(record, arguments.output)
    return record


def _run_all(
    entries: Sequence[Entry], runner: Runner, record: dict, *, output: Path, words: Sequence[str] | None
) -> None:
    """Run the entries missing in the record, writing it after each."""
    done = {row["entry"] for row in record["rows"]}
    for entry in entries:
        if entry.name in done:
            continue
        try:
            rows = runner.run(entry)
        except DeviceLostError as error:
            reason = f"it broke the device: {error}"
            record["rows"].append({"entry": entry.name, "status": "failed", "reason": reason})
            _write(record, output)
            print(f"{entry.name}: {reason}. Continuing in a new process.", flush=True)
            minutes = max(runner.end - time.monotonic(), 0.0) / 60
            given = [*(sys.argv[1:] if words is None else words)]
            again = [*given, "--append", "--max-minutes", f"{minutes:.2f}"]
            os.execv(sys.executable, [sys.executable, "-m", "benchmarks.run", *again])
        record["rows"].extend(rows)
        _write(record, output)
        for row in rows:
            print(summary(row), flush=True)


def _print_profiles(entries: Sequence[Entry], device: torch.device) -> int:
    for entry in entries:
        for name, timed in entry.build(device, False).calls.items():
            timed.call()
            print(f"== {entry.name} {name}\n{profile(timed.call)}", flush=True)
    return 0


def _write(record: dict, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
