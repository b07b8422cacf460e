"""Files around the code: workflows, templates, containers, the conda recipe, the scripts of a release."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from scripts import build_release, check_extras, sbom

import scanseg

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
CONDA_NAMES = {"torch": "pytorch", "blosc2": "python-blosc2", "matplotlib": "matplotlib-base"}
"""Names of packages on conda-forge, if they differ from PyPI's."""


def read_yaml(path):
    yaml = pytest.importorskip("yaml", reason="needs pyyaml, of the extra dev")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_targets_of_the_makefile(path):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    workflow = read_yaml(path)
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert commands
    for command in commands:
        program, target, *_ = command.split()
        assert program == "make"
        assert target in targets
    assert workflow["permissions"] == {"contents": "read"}


def test_the_tests_run_on_all_supported_pythons_and_systems():
    matrix = read_yaml(ROOT / ".github/workflows/test.yml")["jobs"]["test"]["strategy"]["matrix"]
    prefix = "Programming Language :: Python :: "
    supported = [line.removeprefix(prefix) for line in PROJECT["classifiers"] if line.startswith(prefix)]
    assert matrix["python"] == supported
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}


def test_only_the_publishing_job_may_identify_itself():
    jobs = read_yaml(ROOT / ".github/workflows/release.yml")["jobs"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["environment"]["name"] == "pypi"
    assert "permissions" not in jobs["build"]
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda p: p.stem
)
def test_issue_templates_have_what_github_needs(path):
    form = read_yaml(path)
    if path.stem == "config":
        assert form == {"blank_issues_enabled": True}
        return
    assert {"name", "description", "body"} <= form.keys()
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_containers_install_the_wheel_offline_and_run_without_root(path):
    text = path.read_text(encoding="utf-8")
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    instructions = [line.split()[0] for line in lines]
    assert set(instructions) <= {"FROM", "RUN", "ENV", "USER", "WORKDIR", "ENTRYPOINT", "CMD"}
    (install,) = [line for line in lines if "pip install" in line]
    assert {"--no-index", "--no-cache-dir", "--find-links"} <= set(install.split())
    (user,) = [line.split()[1] for line in lines if line.startswith("USER")]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert instructions.index("USER") < instructions.index("ENTRYPOINT")
    assert "latest" not in lines[0]
    assert json.loads(lines[instructions.index("ENTRYPOINT")].partition(" ")[2]) == ["scanseg"]


def test_the_development_container_calls_a_target_of_the_makefile():
    document = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    program, target = document["postCreateCommand"].split()
    assert program == "make"
    assert f"\n{target}:" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_conda_recipe_has_the_requirements_of_the_wheel():
    recipe = read_yaml(ROOT / "conda/recipe.yaml")
    parts = [re.fullmatch(r"([\w-]+)>=([\d.]+)", line) for line in PROJECT["dependencies"]]
    expected = {f"{CONDA_NAMES.get(part[1], part[1].lower())} >={part[2]}" for part in parts}
    assert set(recipe["requirements"]["run"]) == {*expected, f"python {PROJECT['requires-python']}"}
    assert recipe["about"]["summary"] == PROJECT["description"]


def test_the_citation_is_complete_and_has_no_second_version():
    citation = read_yaml(ROOT / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "license"} <= citation.keys()
    assert "version" not in citation
    urls = {reference.get("url", "") for reference in citation["references"]}
    assert {"https://arxiv.org/abs/2408.13735", "https://arxiv.org/abs/2407.01530"} <= urls


def test_a_release_has_the_version_of_its_tag_and_a_section_in_the_changelog(tmp_path, monkeypatch):
    assert build_release.version() == scanseg.__version__
    with pytest.raises(SystemExit, match=r"tag v9\.9\.9: expected v"):
        build_release.check_tag("v9.9.9")
    (tmp_path / "src/scanseg").mkdir(parents=True)
    (tmp_path / "src/scanseg/version.py").write_text('__version__ = "1.2.3"\n')
    monkeypatch.setattr(build_release, "ROOT", tmp_path)
    (tmp_path / "CHANGELOG.md").write_text("## [Unreleased]\n")
    with pytest.raises(SystemExit, match=r"CHANGELOG\.md: expected a section 1\.2\.3"):
        build_release.check_tag("v1.2.3")
    (tmp_path / "CHANGELOG.md").write_text("## [1.2.3] - unreleased\n")
    with pytest.raises(
        SystemExit, match=r"expected ## \[1\.2\.3\] - YYYY-MM-DD, got .* unreleased\. Write the day"
    ):
        build_release.check_tag("v1.2.3")
    (tmp_path / "CHANGELOG.md").write_text("## [1.2.3] - 2026-12-01\n")
    build_release.check_tag("v1.2.3")


def test_the_changelog_has_a_section_of_the_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## \[(.+?)\](?: - (?:unreleased|\d{4}-\d{2}-\d{2}))?$", text, re.MULTILINE)
    assert sections[0] == "Unreleased"
    assert scanseg.__version__ in sections


def test_every_extra_has_an_example():
    assert {"none", *check_extras.extras()} == set(check_extras.EXAMPLES)
    for program in check_extras.EXAMPLES.values():
        compile(program, "example", "exec")


@pytest.mark.parametrize("extra", ["none", "h5", "dicom", "tensorboard", "tiff"])
def test_the_examples_of_extras_run(extra, tmp_path, monkeypatch):
    libraries = {"h5": "h5py", "dicom": "highdicom", "tensorboard": "tensorboard", "tiff": "imagecodecs"}
    if extra in libraries:
        pytest.importorskip(libraries[extra], reason=f"needs the extra {extra}")
    monkeypatch.chdir(tmp_path)
    exec(compile(check_extras.EXAMPLES[extra], "example", "exec"), {})


def test_all_dependencies_have_open_licences():
    licences = {name: sbom.licence_of(found) for name, found in sbom.needed_packages().items()}
    assert {"torch", "numpy", "pydantic"} <= licences.keys()
    assert {name: text for name, text in licences.items() if not sbom.ALLOWED.search(text)} == {}
    assert not sbom.ALLOWED.search("GPL-3.0-or-later")
    assert not sbom.ALLOWED.search("unknown")


def test_an_audit_fails_on_vulnerable_and_on_skipped_packages(capsys, monkeypatch):
    fine = {"name": "numpy", "version": "2.4.6", "vulns": []}
    vulnerable = {
        "name": "pillow",
        "version": "1.0",
        "vulns": [{"id": "CVE-1", "fix_versions": ["1.1", "2.0"]}],
    }
    skipped = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}
    assert sbom.audit_faults({"dependencies": [fine]}) == []
    faults = sbom.audit_faults({"dependencies": [fine, vulnerable, skipped]})
    assert faults[0].startswith("pillow 1.0: CVE-1, fixed in 1.1, 2.0.")
    assert faults[1].startswith("1 of 3 packages were not audited: torch. Check")

    pins = []
    monkeypatch.setattr(sbom, "look_up", lambda given: pins.extend(given) or {"dependencies": [skipped]})
    assert sbom.audit(sbom.needed_packages()) == 1
    assert "not audited" in capsys.readouterr().err
    assert any(pin.startswith("torch==") for pin in pins)
    assert not [pin for pin in pins if "+" in pin]


def test_an_audit_without_pip_audit_or_report_says_so(monkeypatch):
    monkeypatch.setattr(sbom, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"nothing was audited\. Install it: pip install pip-audit"):
        sbom.look_up(["numpy==2.0"])
    monkeypatch.setattr(sbom, "find_spec", lambda name: name)
    failed = subprocess.CompletedProcess([], 1, "", "Traceback\nconnection refused")
    monkeypatch.setattr(sbom.subprocess, "run", lambda *given, **options: failed)
    with pytest.raises(SystemExit, match=r"nothing was audited: connection refused\. Check the network"):
        sbom.look_up(["numpy==2.0"])
