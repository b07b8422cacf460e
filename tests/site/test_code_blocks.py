"""The examples in Python on the pages run, and every block of code is run by a test or has a reason not to be."""

import re
from pathlib import Path

import numpy as np
import pytest

from tests.factories import write_picture
from tests.papers.test_documented_commands import PAGES as PAGES_OF_COMMANDS
from tests.test_doctests import files  # noqa: F401 - the fixture with the data that examples name

ROOT = Path(__file__).resolve().parents[2]
FENCED = re.compile(
    r"^```(?P<cell>\{code-cell\} )?(?P<kind>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
INDENTED = re.compile(r"^    \S", re.MULTILINE)
PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
    if not re.search("docs/(decisions|results)/", path.as_posix())
]

NAMES = {
    'train("DATASET", "models/first"': 'train("DATASET", "TRAINED"',
    'device="cuda"': 'device="cpu"',
    'prediction.image, "image.png"': 'prediction.image, "shown.png"',
    '"new_scans"': '"IMAGES"',
    '"older/scan_0000.nii.gz"': '"image.png"',
    "tolerance_mm=2.0)": "tolerance_mm=2.0, num_workers=0)",
    '"REFERENCES")': '"REFERENCES", num_workers=0)',
    '"IMAGES", "LABELS")': '"IMAGES", "LABELS", num_workers=0)',
    '"spleen": 2})': '"spleen": 2}, num_workers=0)',
    "max_minutes=2)": "max_minutes=0.01, size='small', device='cpu', num_workers=0)",
    '"image.nii.gz"': '"image.png"',
    '"scan.nii.gz"': '"image.png"',
    '"models/first"': '"MODEL"',
    '"first-onnx"': '"EXPORTED"',
    "nnUNetTrainer__nnUNetPlans__3d_fullres": "NNUNET",
    '"NNUNET", "MODEL"': '"NNUNET", "IMPORTED"',
    'convert("folder", "IMAGES", "DATASET"': 'convert("folder", "IMAGES", "CONVERTED"',
}
"""Words of the pages and the small data of the test. The other words are on the pages as they are here."""

NOT_RUN = {
    "scanseg.list_series": "needs a model of volumes; docs/tutorials/dicom.md runs the same calls",
    "scanseg.export_onnx": "docs/tutorials/onnx-on-a-cpu.md runs the same calls",
    "@ray.remote": "needs Ray and several GPUs",
    "request.files": "needs a web server and a volume; tests/inference/test_images_in_memory.py covers the inputs",
    "spacing=(3.0, 0.8, 0.8)": "needs a model of volumes; tests/inference/test_images_in_memory.py covers the inputs",
    "graphed(": "tests/networks/test_graphed_loops.py runs the three loops",
    "SlidingWindowInferer": "tests/networks/test_graphed_loops.py runs the three loops",
    "autograd.set_multithreading_enabled": "has the loss of the loop above it, which needs a GPU",
    "scanseg.predict_cohort": "starts processes for minutes; tests/cohort and docs/tutorials/cohort.md run it",
    "monai.bundle": "needs an exported bundle; tests/interop/test_monai_bundle.py runs the configuration",
    "Client(": "needs a server at its port; tests/serving runs servers and clients",
    "torch.export": "tests/networks/test_export.py exports every network, which takes minutes",
    "uncertainty=True": "needs a model with mirroring; tests/inference/test_folder.py covers the maps",
    "(40, 56, 40)": "builds full-size networks; tests/networks covers the arguments",
}
"""Reasons why a block in Python is not run here, by words in it."""

RUN_ELSEWHERE = {
    "CONTRIBUTING.md": "tools of development: checks run them, and benchmarks need idle machines",
    "AGENTS.md": "scanseg demo: tests/demo",
    "docs/architecture.md": "diagrams",
    "docs/cluster.md": "docs/tutorials/cohort.md and tests/cohort; SLURM is not available",
    "docs/monai.md": "tests/interop/test_monai_bundle.py",
    "docs/comparing.md": "docs/tutorials/comparing-with-seeds.md runs the commands, tests/experiments the options",
    "docs/deployment.md": "installation and containers: scripts/check_extras.py; no container engine in tests",
    "docs/dicom.md": "docs/tutorials/dicom.md runs the commands",
    "docs/experiments.md": "records of attempts, whose data and machines are named there",
    "docs/formats.md": "outputs",
    "docs/gallery.md": "tests/pretrained/test_shipped.py runs the model; the data set is not shipped",
    "docs/get-started.md": "the commands of README.md and of the tutorials",
    "docs/index.md": "make demo: tests/demo",
    "docs/models.md": "tests/pretrained; addresses need the internet",
    "docs/nnunet.md": "docs/tutorials/from-nnunet.md runs the import, tests/interop the export",
    "docs/onnx.md": "docs/tutorials/onnx-on-a-cpu.md runs the commands",
    "docs/performance.md": "made from records by benchmarks.page, on GPUs",
    "docs/releasing.md": "steps of a release, for its workflow",
    "docs/reports.md": "tests/reports runs the commands and their options",
    "docs/server.md": "tests/serving runs servers, requests and the client",
    "docs/tutorials/cohort.md": "its last block needs a Ray cluster, which tests/cohort/test_ray.py starts",
    "docs/viewer.md": "tests/serving runs the viewer in a browser",
    "docs/training.md": "tests/training and tests/experiments; SLURM and several GPUs are not available",
}
"""How the commands of a page are run, or why not, for pages outside of `tests/papers/test_documented_commands.py`."""


def blocks_of(page):
    return list(FENCED.finditer((ROOT / page).read_text(encoding="utf-8")))


def reason_of(code):
    return next((reason for words, reason in NOT_RUN.items() if words in code), None)


PYTHON = [page for page in PAGES if any(not b["cell"] and b["kind"] == "python" for b in blocks_of(page))]


@pytest.fixture
def here(files, tmp_path, monkeypatch):  # noqa: F811
    """The folder of the examples, with pictures and masks of one's own."""
    monkeypatch.chdir(files)
    masks = np.zeros((32, 32), np.uint8)
    masks[4:12, 4:12], masks[16:24, 16:24] = 1, 2
    for name in "abcde":
        write_picture(files / "IMAGES" / f"{name}.png", masks * 60)
        write_picture(files / "LABELS" / f"{name}.png", masks)
    return files


@pytest.mark.parametrize("page", PYTHON)
def test_examples_in_python_run(page, here):
    namespace = {"__name__": "example"}
    for block in blocks_of(page):
        if block["cell"] or block["kind"] != "python":
            continue
        code = block["code"]
        for word, replacement in NAMES.items():
            code = code.replace(word, replacement)
        if reason_of(block["code"]) is None:
            exec(compile(code, page, "exec"), namespace)


def test_every_reason_is_used():
    codes = [block["code"] for page in PYTHON for block in blocks_of(page)]
    assert [words for words in NOT_RUN if not any(words in code for code in codes)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_page_with_commands_is_run_or_has_a_reason(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    commands = [b for b in blocks_of(page) if not b["cell"] and b["kind"] == "bash"]
    has_commands = bool(commands) or INDENTED.search(FENCED.sub("", text)) is not None
    listed = page in RUN_ELSEWHERE or page in PAGES_OF_COMMANDS
    assert listed or not has_commands, "Add the page, with its test or a reason, to RUN_ELSEWHERE."


@pytest.mark.parametrize("reason", [*NOT_RUN.values(), *RUN_ELSEWHERE.values()])
def test_files_in_reasons_exist(reason):
    named = re.findall(r"(?:tests|docs|scripts)/[\w./-]+\w", reason)
    assert [name for name in named if not (ROOT / name).exists()] == []
