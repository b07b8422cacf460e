"""Compare the CPU results of two source trees byte by byte.

    python scripts/same_results.py SRC_A SRC_B                 # compare two trees
    python scripts/same_results.py SRC --record base.json      # record the results of one tree
    python scripts/same_results.py SRC --against base.json     # compare a tree with a record

SRC is a checkout (a folder with src/scanseg) or a git revision of this repository. Every recipe is trained for two
epochs of two iterations on small synthetic data, through the commands of that tree, and its model predicts a case.
Digests of weights, predictions, losses and scores are compared. The runs use a copy of src/scanseg, so the checkout may
be edited meanwhile.

Run it with the interpreter that has scanseg's dependencies, and MONAI for MONAI's networks. One tree takes 4 minutes on
an idle core, twice that on a busy machine, and 1 GB on disk. Digests depend on the processor and on the versions of
PyTorch and NumPy; the script warns if two records have other versions.
Exit codes: 0 the results are the same, 1 a result differs or a command failed, 2 wrong use.
"""

import argparse
import importlib.metadata
import io
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from same_results_data import write_datasets
from same_results_digests import digest, digest_data, read_results, same_weights
from same_results_runs import RENAMED, RUNS, commands_of, folder_name

ROOT = Path(__file__).resolve().parent.parent

DRIVER = """
import importlib.util, json, runpy, sys
tree, commands = sys.argv[1], json.loads(sys.argv[2])
origin = importlib.util.find_spec("scanseg").origin
if not origin.startswith(tree):
    sys.exit(f"scanseg is imported from {origin}, not from {tree}")
for words in commands:
    print("$ scanseg", *words, flush=True)
    sys.argv = ["scanseg", *words]
    try:
        runpy.run_module("scanseg", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            raise
"""
"""Runs several commands as `python -m scanseg` in one process, since its imports take longer than these trainings."""


class RunError(Exception):
    """A command of a tree failed."""


@dataclass(frozen=True)
class Tree:
    """A copy of one version's package, and a folder for its results."""

    name: str
    commit: str | None
    changed: bool
    """The checkout has changes that are not committed."""
    source: Path
    """Folder that is put on PYTHONPATH."""
    work: Path
    data: Path

    @classmethod
    def copy(cls, name: str, *, work: Path, data: Path) -> "Tree":
        """Copy the package of a checkout or git revision.

        Raises:
            NameError: It is neither.
        """
        work.mkdir(parents=True)
        source = work / "src"
        checkout = Path(name)
        if (checkout / "src" / "scanseg").is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(checkout / "src" / "scanseg", source / "scanseg", ignore=ignored)
            commit = git("rev-parse", "HEAD", folder=checkout).decode().strip()
            changed = bool(git("status", "--porcelain", "--", "src", folder=checkout))
            return cls(name, commit or None, changed, source, work, data)
        commit = git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", folder=ROOT).decode().strip()
        if not commit:
            raise NameError(f"{name}: expected a folder with src/scanseg or a git revision. Check the name.")
        archive = git("archive", commit, "src/scanseg", folder=ROOT)
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(work, filter="data")
        return cls(name, commit, False, source, work, data)

    def environment(self) -> dict[str, str]:
        """Return the environment of its commands: one thread, no GPU."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "TRITON_"))}
        threads = (
            "OMP_NUM_THREADS",
            "MKL_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "NUMBA_NUM_THREADS",
            "BLOSC_NTHREADS",
        )
        places = {"PYTHONPATH": str(self.source), "NUMBA_CACHE_DIR": str(self.work / "numba")}
        others = {"PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1", "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "agg"}
        return kept | dict.fromkeys(threads, "1") | places | others

    def start(self, *words: str, log: BinaryIO) -> subprocess.Popen:
        """Start the interpreter with this tree's package."""
        command = [sys.executable, *words]
        return subprocess.Popen(
            command, cwd=self.work, env=self.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )

    def call(self, *commands: Sequence[str], log: Path) -> None:
        """Run commands of the tree in one process.

        Raises:
            RunError: A command failed.
        """
        words = ("-c", DRIVER, str(self.source), json.dumps(commands))
        with log.open("ab") as stream, self.start(*words, log=stream) as process:
            code = process.wait()
        if code:
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            raise RunError(f"exit code {code}: {' '.join(lines[-3:])} (log: {log})")

    def call_and_stop(self, command: Sequence[str], *, model: Path, log: Path) -> None:
        """Start a training and send it SIGTERM after its first epoch.

        Raises:
            RunError: It ended otherwise.
        """
        metrics = model / "metrics.jsonl"
        with log.open("ab") as stream, self.start("-m", "scanseg", *command, log=stream) as process:
            while process.poll() is None and not (metrics.is_file() and metrics.read_text()):
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            code = process.wait()
        if code not in (143, -signal.SIGTERM):
            raise RunError(f"interrupted training: expected exit code 143, got {code} (log: {log})")

    def recipes(self) -> set[str]:
        """Return the names of its recipes.

        Raises:
            RunError: `scanseg.planning` cannot be imported.
        """
        words = "import json; from scanseg.planning import RECIPES; print(json.dumps(list(RECIPES)))"
        command = [sys.executable, "-c", words]
        done = subprocess.run(command, cwd=self.work, env=self.environment(), capture_output=True, text=True)
        if done.returncode:
            raise RunError(f"the recipes cannot be read: {done.stderr.strip().splitlines()[-1]}")
        return set(json.loads(done.stdout))


def git(*words: str, folder: Path) -> bytes:
    """Return the output of a git command, nothing if it fails."""
    return subprocess.run(["git", "-C", str(folder), *words], capture_output=True).stdout


def known_settings(tree: Tree) -> dict[str, str]:
    """Return the name in this tree for each setting with two names.

    Raises:
        RunError: No plan can be made, or it has a third name.
    """
    plan, options = tree.work / "names.json", ["--recipe", "plain-unet-cascade", "--num-workers", "0"]
    tree.call(["plan", str(tree.data / "columns"), *options, "-o", str(plan)], log=tree.work / "names.txt")
    content = json.loads(plan.read_text())
    known = {}
    for old, new in RENAMED.items():
        found = [name for name in (old, new) if name.split(".")[1] in content[name.split(".")[0]]]
        if not found:
            raise RunError(f"the plan has neither {old} nor {new}; add the new name to RENAMED")
        known[old] = found[0]
    return known


def perform(
    name: str, tree: Tree, *, names: Mapping[str, str], first: Future[dict[str, Any]] | None
) -> dict[str, Any]:
    """Perform a run.

    Args:
        name: Name of the run.
        tree: The tree whose commands are used.
        names: Setting to its name in the tree, for settings with two names.
        first: Outcome of the run that this one needs.

    Returns:
        Its part of the record: items and tensors, or the reason of a failure.
    """
    run, folder, begin = RUNS[name], tree.work / folder_name(name), time.monotonic()
    model, log = folder / "model", folder / "log.txt"
    outcome: dict[str, Any]
    try:
        if first is not None and "failed" in first.result():
            raise RunError(f"the run that it needs failed: {run.first}")
        folder.mkdir()
        train, *others = commands_of(run, folder, data=tree.data, names=names)
        if run.kind == "resume":
            whole = folder / "uninterrupted"
            tree.call_and_stop(train, model=model, log=log)
            again = [str(whole) if word == str(model) else word for word in train]
            tree.call([*train, "--resume"], again, *others, log=log)
            if not same_weights(model, whole):
                raise RunError("the weights differ from those of the uninterrupted training")
        else:
            tree.call(train, *others, log=log)
        items, tensors = read_results(run, folder)
        outcome = {"items": items, "tensors": tensors}
    except (RunError, OSError, ValueError, LookupError) as error:
        outcome = {"failed": str(error)}
    outcome["seconds"] = round(time.monotonic() - begin, 1)
    print(f"{tree.name}: {name}: {outcome.get('failed', 'done')}, {outcome['seconds']} s", flush=True)
    return outcome


def perform_all(tree: Tree, *, recipes: Sequence[str], jobs: int) -> dict[str, dict[str, Any]]:
    """Perform the runs of some recipes and return outcomes by name.

    Args:
        tree: The tree whose commands are used.
        recipes: Names of recipes; empty: all.
        jobs: Runs at the same time.
    """
    chosen = {name for name, run in RUNS.items() if not recipes or set(run.recipes) & set(recipes)}
    chosen |= {run.first for name, run in RUNS.items() if name in chosen and run.first}
    try:
        left_out = tree.recipes().difference(*(run.recipes for run in RUNS.values()))
        if left_out:
            raise RunError(f"no run for the recipes {', '.join(sorted(left_out))}; add one to RUNS")
        names = known_settings(tree)
    except RunError as error:
        print(f"{tree.name}: {error}", flush=True)
        return {"recipes and settings": {"failed": str(error)}}
    futures: dict[str, Future[dict[str, Any]]] = {}
    with ThreadPoolExecutor(jobs) as pool:
        for name, run in RUNS.items():
            if name in chosen:
                first = futures[run.first] if run.first else None
                futures[name] = pool.submit(perform, name, tree, names=names, first=first)
    return {name: future.result() for name, future in futures.items()}


def record_tree(tree: Tree, *, recipes: Sequence[str], jobs: int) -> dict[str, Any]:
    """Perform the runs of a tree and return its JSON record."""
    source = sorted((tree.source / "scanseg").rglob("*.py"))
    return {
        "format": 1,
        "commit": tree.commit,
        "changed": tree.changed,
        "source": digest(*(path.read_bytes() for path in source)),
        "data": digest_data(tree.data),
        "versions": {
            "python": platform.python_version(),
            "machine": platform.machine(),
            **{name: importlib.metadata.version(name) for name in ("torch", "numpy", "scipy", "SimpleITK")},
        },
        "runs": perform_all(tree, recipes=recipes, jobs=jobs),
    }


def compare(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Print one line for each item of two records.

    Returns:
        True if all items are the same.
    """
    if ours["data"] != theirs["data"]:
        print("DIFFERENT  data sets: both records need the same. Remove the data folder and record again.")
        return False
    for library in ours["versions"]:
        versions = ours["versions"][library], theirs["versions"].get(library)
        if versions[0] != versions[1]:
            print(f"warning: {library} {versions[0]} and {versions[1]}; results may differ for this reason")
    lines = []
    for name in [*ours["runs"], *(set(theirs["runs"]) - set(ours["runs"]))]:
        lines += list(compare_run(name, ours["runs"].get(name), theirs["runs"].get(name)))
    for is_same, line in lines:
        print(f"{'same     ' if is_same else 'DIFFERENT'}  {line}")
    num_different = sum(not is_same for is_same, _ in lines)
    print(f"{len(lines)} items, runs: {len(ours['runs'])}, different items: {num_different or 'none'}")
    return bool(lines) and num_different == 0


def compare_run(
    name: str, ours: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None
) -> Iterator[tuple[bool, str]]:
    """Give for each item of a run the verdict and a line."""
    for side, run in (("first", ours), ("second", theirs)):
        if run is None or "failed" in run:
            yield False, f"{name}: {side} tree: {run['failed'] if run else 'no such run'}"
    if ours is None or theirs is None or "failed" in ours or "failed" in theirs:
        return
    for item in [*ours["items"], *(key for key in theirs["items"] if key not in ours["items"])]:
        values = ours["items"].get(item, "missing"), theirs["items"].get(item, "missing")
        is_same = values[0] == values[1]
        text = values[0][:12] if is_same else f"{values[0][:12]} and {values[1][:12]}"
        tensors = [run["tensors"].get(item.removeprefix("weights "), {}) for run in (ours, theirs)]
        if not is_same and all(tensors):
            keys = sorted(set(tensors[0]) | set(tensors[1]))
            different = [key for key in keys if tensors[0].get(key) != tensors[1].get(key)]
            text += f" ({len(different)} of {len(keys)} tensors, first {different[0]})"
        yield is_same, f"{name}: {item}: {text}"


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    known = sorted({recipe for run in RUNS.values() for recipe in run.recipes})
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("trees", nargs="+", metavar="SRC", help="one or two checkouts or git revisions")
    add("-o", "--output", type=Path, help="new folder for models, predictions, logs and records; kept")
    add("--record", type=Path, metavar="FILE", help="write the record of the first tree, JSON")
    add("--against", type=Path, metavar="FILE", help="compare one tree with a record")
    add("--recipes", nargs="+", default=[], choices=known, metavar="NAME", help="only runs of these recipes")
    add("--data", type=Path, help="folder for the synthetic data sets; existing ones are reused")
    add("--jobs", type=int, default=1, help="runs at the same time, one core each; 1 by default")
    arguments = parser.parse_args()
    num_trees = len(arguments.trees)
    if num_trees > 2 or (num_trees == 2 and arguments.against):
        parser.error("expected two trees, or one tree with --against")
    if num_trees == 1 and not (arguments.against or arguments.record):
        parser.error("one tree: add a second one, --against or --record")
    if arguments.output and arguments.output.exists() and any(arguments.output.iterdir()):
        parser.error(f"{arguments.output} is not empty; name a new folder")
    return arguments


def main() -> int:
    """Record the trees, compare them, and return the exit code."""
    arguments = read_arguments()
    against = json.loads(arguments.against.read_text()) if arguments.against else None
    with tempfile.TemporaryDirectory() as temporary:
        output = (arguments.output or Path(temporary)).resolve()
        data = (arguments.data or output / "data").resolve()
        data.mkdir(parents=True, exist_ok=True)
        write_datasets(data)
        parts = zip(arguments.trees, ("first", "second"), strict=False)
        try:
            trees = [Tree.copy(name, work=output / part, data=data) for name, part in parts]
        except NameError as error:
            print(error, file=sys.stderr)
            return 2
        records = []
        for tree in trees:
            records.append(record_tree(tree, recipes=arguments.recipes, jobs=arguments.jobs))
            tree.work.with_suffix(".json").write_text(json.dumps(records[-1], indent=1) + "\n")
    ours = records[0]["runs"]
    if arguments.record:
        arguments.record.write_text(json.dumps(records[0], indent=1) + "\n")
    if against is not None:
        if arguments.recipes:
            against["runs"] = {name: run for name, run in against["runs"].items() if name in ours}
        records.append(against)
    if len(records) == 2:
        return 0 if compare(*records) else 1
    num_failed = sum("failed" in run for run in ours.values())
    print(f"runs: {len(ours)}, failed: {num_failed or 'none'}")
    return 1 if num_failed else 0


if __name__ == "__main__":
    sys.exit(main())
