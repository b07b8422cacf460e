"""Write the bill of materials (CycloneDX) and the licences of all packages that scanseg needs.

Usage: python scripts/sbom.py [--output build/sbom] [--audit]

Packages are those of this environment that scanseg and its extras for users require, directly or not. Extras that are
not installed are left out. A licence that `ALLOWED` does not have ends the program. Needs the extra `release`.

With `--audit`, pip-audit then compares the versions with PyPI's list of vulnerabilities. This needs the internet.
Packages that it could not look up count as a failure, because it would end with success.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
DEVELOPMENT = {"dev", "docs", "release"}
ALLOWED = re.compile(
    r"Apache|BSD|MIT|PSF|Python Software|ISC|MPL|Mozilla|Unlicense|Zlib|HPND|CNRI|0BSD|CC0|LicenseRef-NVIDIA|Boost"
    r"|Public Domain|Artistic|ZPL|Intel",
    re.IGNORECASE,
)
"""Licences that allow use in any program, and those of the GPU libraries that PyTorch brings."""
BY_HAND = {
    "nvidia": "NVIDIA, proprietary; installed with the CUDA build of PyTorch",
}
"""Licences of packages by the beginning of their name, if their metadata name none."""


def normalized(name: str) -> str:
    """Return the name of a package as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def applicable(lines: Iterable[str], extras: set[str]) -> Iterator[Requirement]:
    """Yield the requirements that hold on this machine with extras."""
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)
        ):
            yield requirement


def own_requirements() -> list[str]:
    """Return the requirements of scanseg and of its extras for users."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].items()
    return [
        *project["dependencies"],
        *(line for name, lines in extras if name not in DEVELOPMENT for line in lines),
    ]


def needed_packages() -> dict[str, Distribution]:
    """Return the installed packages that scanseg needs, without itself."""
    packages: dict[str, Distribution] = {}
    waiting = [(each.name, set(each.extras)) for each in applicable(own_requirements(), set())]
    while waiting:
        name, wanted = waiting.pop()
        if normalized(name) in packages:
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        packages[normalized(name)] = found
        waiting += [(each.name, set(each.extras)) for each in applicable(found.requires or (), wanted)]
    return packages


def licence_of(found: Distribution) -> str:
    """Return the licence of a package: its expression, else its classifiers, else the first line of its text."""
    metadata = found.metadata
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier") or ()
        if line.startswith("License ::")
    ]
    text = (metadata.get("License") or "").strip().splitlines()
    by_hand = [licence for name, licence in BY_HAND.items() if metadata["Name"].startswith(name)]
    candidates = [metadata.get("License-Expression"), ", ".join(classifiers), *text[:1], *by_hand]
    return next((each for each in candidates if each and each != "OSI Approved"), "unknown")


def write_bom(path: Path, packages: dict[str, Distribution]) -> None:
    """Write the CycloneDX document, reduced to the packages."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--of", "JSON"]
    document = json.loads(subprocess.check_output([*command, sys.executable], text=True))
    document["components"] = [each for each in document["components"] if normalized(each["name"]) in packages]
    kept = {each["bom-ref"] for each in document["components"]}
    document["dependencies"] = [
        {**each, "dependsOn": [ref for ref in each.get("dependsOn", ()) if ref in kept]}
        for each in document.get("dependencies", ())
        if each["ref"] in kept
    ]
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def look_up(pins: Iterable[str]) -> dict[str, Any]:
    """Return pip-audit's report about pinned packages. The program ends if there is none."""
    if find_spec("pip_audit") is None:
        sys.exit("pip-audit is not installed, so nothing was audited. Install it: pip install pip-audit")
    with tempfile.TemporaryDirectory() as folder:
        pinned, report = Path(folder) / "pinned.txt", Path(folder) / "report.json"
        pinned.write_text("\n".join(pins) + "\n", encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "pip_audit",
            "--requirement",
            str(pinned),
            "--no-deps",
            "--disable-pip",
        ]
        options = ["--format", "json", "--progress-spinner", "off", "--output", str(report)]
        done = subprocess.run([*command, *options], check=False, capture_output=True, text=True)
        if not report.exists():
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            sys.exit(f"pip-audit made no report, so nothing was audited: {reason}. Check the network.")
        return dict(json.loads(report.read_text(encoding="utf-8")))


def audit_faults(report: dict[str, Any]) -> list[str]:
    """Return a line for each vulnerability, and one for the packages that were not looked up."""
    packages = report["dependencies"]
    faults = [
        f"{each['name']} {each['version']}: {fault['id']}, fixed in "
        f"{', '.join(fault['fix_versions']) or 'no version'}. Raise its lower bound, or replace it."
        for each in packages
        for fault in each.get("vulns", ())
    ]
    skipped = [each["name"] for each in packages if "skip_reason" in each]
    if skipped:
        names = ", ".join(skipped[:5]) + (" ..." if len(skipped) > 5 else "")
        faults.append(
            f"{len(skipped)} of {len(packages)} packages were not audited: {names}. Check the network."
        )
    return faults


def audit(packages: dict[str, Distribution]) -> int:
    """Print the vulnerabilities of packages and return the exit code."""
    pins = [f"{name}=={Version(found.version).public}" for name, found in sorted(packages.items())]
    faults = audit_faults(look_up(pins))
    if faults:
        sys.stderr.write("\n".join(faults) + "\n")
        return 1
    print(f"{len(pins)} packages, no known vulnerability")
    return 0


def main() -> int:
    """Write both files, audit if asked to, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "sbom")
    parser.add_argument("--audit", action="store_true", help="look for known vulnerabilities, by pip-audit")
    arguments = parser.parse_args()
    output = arguments.output
    packages = needed_packages()
    licences = {name: licence_of(found) for name, found in sorted(packages.items())}
    refused = {name: licence for name, licence in licences.items() if not ALLOWED.search(licence)}
    if refused:
        lines = "\n".join(f"  {name}: {licence}" for name, licence in refused.items())
        sys.stderr.write(
            f"expected licences among {ALLOWED.pattern}, got\n{lines}\nReplace the package, or add it.\n"
        )
        return 1
    output.mkdir(parents=True, exist_ok=True)
    rows = [f"| {name} | {packages[name].version} | {licence} |" for name, licence in licences.items()]
    table = "\n".join(["| package | version | licence |", "|---|---|---|", *rows])
    (output / "licences.md").write_text(f"{table}\n", encoding="utf-8")
    write_bom(output / "scanseg.cdx.json", packages)
    print(f"{output}: {len(packages)} packages")
    return audit(packages) if arguments.audit else 0


if __name__ == "__main__":
    sys.exit(main())
