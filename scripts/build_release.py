"""Build wheel and sdist twice, compare both byte by byte, check their metadata, and copy them to `dist`.

Usage: python scripts/build_release.py [--tag vX.Y.Z]

The first build is of this checkout, the second one of its last commit in another folder, at another time. Equal files
show that anyone can build the release from the sources. Uncommitted changes make them differ. Needs the extra
`release`.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def version() -> str:
    """Return the version of the package, whose only place is `version.py`."""
    text = (ROOT / "src" / "scanseg" / "version.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if match is None:
        sys.exit('src/scanseg/version.py: expected a line __version__ = "X.Y.Z". Add it.')
    return match[1]


def check_tag(tag: str) -> None:
    """End the program if a tag is not that of the version, or if the changelog has no dated section for it."""
    if tag != f"v{version()}":
        sys.exit(f"tag {tag}: expected v{version()}, as src/scanseg/version.py has. Change one of both.")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = re.search(rf"^## \[{re.escape(version())}\](.*)$", changelog, re.MULTILINE)
    if heading is None:
        sys.exit(f"CHANGELOG.md: expected a section {version()}. Rename the section of unreleased changes.")
    if not re.fullmatch(r" - \d{4}-\d{2}-\d{2}", heading[1].rstrip()):
        sys.exit(
            f"CHANGELOG.md: expected ## [{version()}] - YYYY-MM-DD, got {heading[0]}. Write the day of the release."
        )


def commit_time() -> str:
    """Return the time of the last commit in seconds, which files in the archives get."""
    return subprocess.check_output(["git", "log", "-1", "--format=%ct"], cwd=ROOT, text=True).strip()


def unpack_commit(folder: Path) -> None:
    """Write the files of the last commit to a folder."""
    archive = folder.parent / "commit.tar"
    subprocess.run(["git", "archive", "--output", archive, "HEAD"], cwd=ROOT, check=True)
    with tarfile.open(archive) as content:
        content.extractall(folder, filter="data")


def build(source: Path, target: Path, *, epoch: str) -> dict[str, str]:
    """Build both archives and return their checksums by name."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", target, source]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(target.iterdir())}


def main() -> int:
    """Build the release and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tag", default="", help="tag of the release, to compare with the version")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder for the files")
    arguments = parser.parse_args()
    if arguments.tag:
        check_tag(arguments.tag)
    epoch = commit_time()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        unpack_commit(place / "commit")
        first = build(ROOT, place / "first", epoch=epoch)
        second = build(place / "commit", place / "second", epoch=epoch)
        different = sorted(
            name for name in first.keys() | second.keys() if first.get(name) != second.get(name)
        )
        if different:
            sys.stderr.write(
                f"{', '.join(different)}: the builds of the checkout and of its last commit differ. Commit or remove "
                f"the changes that `git status` lists.\n"
            )
            return 1
        files = sorted((place / "first").iterdir())
        subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *files], check=True)
        arguments.output.mkdir(parents=True, exist_ok=True)
        for path in files:
            shutil.copy(path, arguments.output / path.name)
            print(f"{first[path.name]}  {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
