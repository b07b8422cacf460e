"""Scripts and numbers of `docs/cluster.md`."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cluster.md"


def scripts() -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def bash() -> str:
    found = shutil.which("bash")
    if found is None:
        pytest.skip("bash is missing")
    return found


def test_scripts_are_valid(bash):
    assert len(scripts()) == 2
    for script in scripts():
        process = subprocess.run([bash, "-n"], input=script, capture_output=True, text=True)
        assert (process.returncode, process.stderr) == (0, "")


def test_the_tasks_of_an_array_share_the_images(bash, tmp_path):
    """`scanseg` is replaced by a function that prints its arguments."""
    script = next(script for script in scripts() if "--array" in script)
    (tmp_path / "images").mkdir()
    names = {f"case_{number:02}_0000.nii.gz" for number in range(10)}
    for name in names:
        (tmp_path / "images" / name).touch()
    taken = []
    for number in range(4):
        variables = {
            "MODEL": "model",
            "IMAGES": str(tmp_path / "images"),
            "OUTPUT": "out",
            "SLURM_ARRAY_TASK_COUNT": "4",
            "SLURM_ARRAY_TASK_ID": str(number),
            "PATH": "/usr/bin:/bin",
        }
        text = 'scanseg() { printf "%s\\n" "$@"; }\n' + script
        process = subprocess.run([bash, "-eu"], input=text, capture_output=True, text=True, env=variables)
        assert process.returncode == 0, process.stderr
        words = process.stdout.split()
        assert words[:2] == ["predict", "model"]
        assert words[-3:] == ["-o", f"out/part-{number}", "--skip-existing"]
        taken += [Path(word).name for word in words[2:-3]]
    assert sorted(taken) == sorted(names)


def test_the_anchor_follows_from_its_numbers():
    text = PAGE.read_text(encoding="utf-8")
    cost = 1011.05 / 126
    assert f"{cost:.2f} USD per 1000" in text
    rate = 1000 * 3.50 / 3600 / 8.02
    assert f"{rate:.3f} volumes per" in text
    assert f"{1 / rate:.1f} seconds" in text
    assert f"{126_000 / 9:,.0f} volumes per hour" in text
