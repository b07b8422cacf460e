"""Compile the kernels of entries before a timed run, in parallel processes.

Usage: python -m benchmarks.warm --device cuda [--processes 12] [--max-seconds 170] [PATTERN ...]

On a bare machine compiling takes longer than timing, and uses one core. These processes run each entry once, discard
the times, and leave the compiled kernels in Triton's cache (TRITON_CACHE_DIR) for the next run. The exit code is 1 if
an entry failed or was cut off.
"""

import argparse
import fnmatch
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.table import all_entries


def main(words: Sequence[str] | None = None) -> int:
    """Run the entries and return the exit code."""
    arguments = _parse(words)
    names = [
        entry.name
        for entry in all_entries()
        if entry.device == arguments.device
        and any(fnmatch.fnmatch(entry.name, p) for p in arguments.patterns)
    ]
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            name: _command(name, Path(folder) / f"{i}.json", arguments) for i, name in enumerate(names)
        }
        codes = run_all(commands, num_processes=arguments.processes, max_seconds=arguments.max_seconds)
    for name, code in codes.items():
        print(f"{name}: {'cut off' if code is None else f'exit {code}'}")
    return 0 if all(code == 0 for code in codes.values()) else 1


def run_all(
    commands: dict[str, list[str]], *, num_processes: int, max_seconds: float
) -> dict[str, int | None]:
    """Run commands in parallel and return their exit codes by name.

    Args:
        commands: Commands by name.
        num_processes: Largest number of processes at a time.
        max_seconds: Time limit. Running commands are then killed, and no other command starts.

    Returns:
        The exit code of each command. `None`: the command did not finish within the limit.
    """
    end = time.monotonic() + max_seconds
    waiting, running = list(commands), dict[str, subprocess.Popen[bytes]]()
    codes: dict[str, int | None] = dict.fromkeys(commands)
    while (waiting or running) and time.monotonic() < end:
        while waiting and len(running) < num_processes:
            name = waiting.pop(0)
            running[name] = subprocess.Popen(commands[name], stdout=subprocess.DEVNULL)
        for name in [name for name, process in running.items() if process.poll() is not None]:
            codes[name] = running.pop(name).returncode
        time.sleep(0.1)
    for process in running.values():
        process.kill()
        process.wait()
    return codes


def _command(name: str, output: Path, arguments: argparse.Namespace) -> list[str]:
    options = ["--device", arguments.device, "--seconds", "0.01", "-o", str(output), "--entries", name]
    return [sys.executable, "-m", "benchmarks.run", *options, *(["--tiny"] if arguments.tiny else [])]


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.warm", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("patterns", nargs="*", default=["*"], help="patterns of names, such as *bfloat16*")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--processes", type=int, default=12, help="processes at the same time")
    parser.add_argument(
        "--max-seconds", type=float, default=170.0, help="time limit for all entries together"
    )
    parser.add_argument("--tiny", action="store_true", help="shrink every entry, for tests of this program")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
