"""Reports of predictions, models, comparisons and reproductions: content, escaping, no address outside."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

import scanseg
from scanseg.errors import InputError, UsageError
from scanseg.evaluation import METRIC_RULES
from scanseg.reports import Cell, Page, Section, Table, write_page
from scanseg.specs import ComparisonRecord
from tests.factories import SMALL_XLSTM_UNET_2D, write_disks, write_labels
from tests.reports.conftest import SHAPE, cube


class Content(HTMLParser):
    """Texts, headings and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self._tag = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._tag = tag
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_data(self, data):
        self.texts.append(data)
        if self._tag == "h2" and data.strip():
            self.headings.append(data)

    def handle_endtag(self, tag):
        self._tag = ""


def read(path: Path) -> Content:
    text = path.read_text()
    content = Content(text)
    outside = [each for each in content.addresses if not each.startswith(("data:image/", "#"))]
    assert outside == []
    assert "default-src 'none'" in text
    assert "script" not in content.tags
    assert "url(" not in text
    return content


def joined(content: Content) -> str:
    return " ".join(" ".join(content.texts).split())


def test_predictions_with_references(make_predictions, tmp_path):
    predictions, references, images = make_predictions()
    output = tmp_path / "new" / "report.html"
    scanseg.report(predictions, output, references=references, images=images, num_workers=0, progress=False)
    content = read(output)
    assert content.headings == [
        *(
            "Scores",
            "Cases",
            "Distributions",
            "Volumes",
            "Reliability",
            "Uncertainty and errors",
            "Confusion",
        ),
        *("Unusual predictions", "Prediction"),
    ]
    text = joined(content)
    assert "Best: case_0" in text
    assert "Worst: case_2" in text
    assert "liver <b>" in text
    assert content.tags.count("b") == 4  # the numbers of the headline, no name of a label
    # Shifts of 0, 1 and 2 voxels along x of cubes of 4: Dice 1, 0.75 and 0.5
    assert "0.7500 ± 0.2500" in text
    assert "Expected calibration error, predictions" in text
    assert content.tags.count("img") == 9 + 2 + 3 + 1 + 2 + 1


def test_the_calibration_error_of_a_report_is_that_of_its_probabilities(make_predictions, tmp_path):
    predictions, references, images = make_predictions(1)
    output = tmp_path / "report.html"
    scanseg.report(predictions, output, references=references, images=images, num_workers=0, progress=False)
    # All voxels are right with a confidence of 0.9.
    assert re.search(r"Expected calibration error, predictions 0\.100\d", joined(read(output)))


def test_predictions_without_references(make_predictions, tmp_path):
    predictions, _, images = make_predictions(6, with_maps=False)
    write_labels(predictions / "case_9.nii.gz", cube(0, 1, size=10), spacing=(2.0, 1.0, 1.0))
    output = tmp_path / "report.html"
    scanseg.report(predictions, output, images=images, num_workers=0, progress=False)
    content = read(output)
    assert content.headings[:3] == ["Unusual predictions", "Cases", "Volumes and components"]
    text = joined(content)
    assert "Unusual: case_9" in text
    assert "no voxel, but 6 of 7 cases have it" in text
    assert "images of 1 case were not found" in text
    assert "0.054 in 1" in text  # 27 voxels of 2 mm^3


def test_label_maps_without_names(make_predictions, tmp_path):
    predictions, references, _ = make_predictions(2, with_maps=False)
    for folder in (predictions, references):
        (folder / "dataset.json").unlink()
        write_labels(folder / "case_1.nii.gz", cube(2, 77), spacing=(2.0, 1.0, 1.0))
    output = tmp_path / "report.html"
    scanseg.report(predictions, output, references=references, num_workers=0, progress=False)
    assert {"77", "1", "2"} <= set(read(output).texts)


def test_evaluate_writes_a_report_from_its_scores(make_predictions, tmp_path, command):
    predictions, references, _ = make_predictions()
    output, html = tmp_path / "scores.json", tmp_path / "report.html"
    words = ("--report", html, "--num-workers", 0, "--rule", "transunet")
    outcome = command("evaluate", predictions, references, "-o", output, *words)
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.endswith(f"report: {html}\n")
    assert METRIC_RULES["transunet"].description in joined(read(html))
    again = command("evaluate", predictions, references, "-o", tmp_path / "other.json", "--report", html)
    assert (again.code, "already exists" in again.stderr) == (2, True)
    instances = command(
        "evaluate",
        predictions,
        references,
        "-o",
        tmp_path / "o.json",
        "--report",
        "r.html",
        "--instances",
        "numbers",
    )
    assert (instances.code, "--report: only for label maps" in instances.stderr) == (2, True)


SETTINGS = (
    *SMALL_XLSTM_UNET_2D,
    *("training.epochs=2", "training.iterations_per_epoch=2", "training.validation_batches=1"),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Return a folder with a data set and a model of two epochs."""
    folder = tmp_path_factory.mktemp("trained")
    dataset = write_disks(folder / "disks", numbers=range(5))
    scanseg.train(
        dataset,
        folder / "model",
        settings=SETTINGS,
        recipe="xlstm-unet-2d",
        size="small",
        device="cpu",
        num_workers=0,
        progress=False,
    )
    return folder


@pytest.mark.parametrize("kept", [False, True])
def test_a_model(trained, tmp_path, kept, monkeypatch):
    model = trained / "model"
    if kept:
        from scanseg.models import ModelFolder
        from scanseg.training.validation import write_prediction

        folder = ModelFolder.open(model)
        record = folder.read_run()
        shape = folder.scores.read_validation() and (24, 24)
        write_prediction(folder, record.validation_cases[0], np.ones(shape, np.uint8))
        from scanseg.reports import stored_cases

        monkeypatch.setattr(stored_cases, "load", None)  # nothing is predicted
    output = tmp_path / "report.html"
    scanseg.report(model, output, device="cpu", num_workers=0, progress=False)
    content = read(output)
    expected = ["Scores", "Cases", "Distributions", *(["Confusion"] if kept else []), "Curves", "Training"]
    assert [each for each in content.headings if each != "Volumes"] == expected
    text = joined(content)
    assert "xlstm-unet-2d, size small" in text
    assert re.search(r"Seed 0 ", text)
    assert "torch" in text
    assert content.tags.count("img") == 2 + (2 if "HD95 of each" in text else 1) + 2 + kept


def test_a_model_without_its_store_has_no_pictures(trained, tmp_path):
    output = tmp_path / "report.html"
    stores = trained / "scanseg-stores"
    stores.rename(trained / "elsewhere")
    try:
        scanseg.report(trained / "model", output, device="cpu", num_workers=0, progress=False)
    finally:
        (trained / "elsewhere").rename(stores)
    content = read(output)
    assert "Cases" not in content.headings
    assert "Pictures are missing" in joined(content)


def test_the_command_train_writes_the_report(trained, tmp_path, command):
    words = (
        "--device",
        "cpu",
        "--num-workers",
        0,
        "--store",
        trained / "scanseg-stores",
        "--recipe",
        "xlstm-unet-2d",
    )
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    outcome = command("train", trained / "disks", "-o", tmp_path / "m", "--size", "small", *words, *settings)
    assert outcome.code == 0, outcome.stderr
    assert f"report: {tmp_path / 'm' / 'report.html'}" in outcome.stdout
    assert "Training" in read(tmp_path / "m" / "report.html").headings


def test_a_comparison(tmp_path):
    arm = {"settings": [], "num_parameters": 5, "std": None, "seed_std": None, "labels": {"a": 0.5}}
    run = {"seed": 0, "fold": 0, "model": "x", "mean_dice": 0.5, "epochs_done": 1, "seconds": 60.0}
    arms = [{**arm, "name": name, "mean_dice": 0.5, "runs": [run]} for name in ("<i>none", "Enc")]
    comparison = {
        **dict.fromkeys(("seed_std", "exceeds_seeds")),
        "arm": "Enc",
        "baseline": "<i>none",
        "gain": 0.0,
        "num_cases": 3,
        "num_better": 1,
        "p_value": 1.0,
        "p_corrected": 1.0,
    }
    spec = {
        "title": "t",
        "question": "q",
        "recipe": "xlstm-unet",
        "arms": [{"name": "<i>none"}, {"name": "Enc"}],
    }
    record = ComparisonRecord.model_validate(
        {"spec": spec, "dataset": "d", "arms": arms, "comparisons": [comparison], "missing": ["Enc, seed 1"]}
    )
    (tmp_path / "comparison.json").write_text(record.to_json())
    scanseg.report(tmp_path, tmp_path / "report.html", progress=False)
    content = read(tmp_path / "report.html")
    assert content.headings == ["Result", "Spread", "Arms", "Trainings"]
    assert "i" not in content.tags
    assert "<i>none" in joined(content)
    assert "1 training missing, first Enc, seed 1" in joined(content)


def test_every_text_of_a_page_is_escaped(tmp_path):
    bad = "<script>alert(1)</script>\"'&"
    section = Section(
        bad, (bad,), ((bad, bad),), (Table((bad,), [(Cell(bad),)], bad),), legend=((bad, "#000000"),)
    )
    write_page(Page(bad, bad, ((bad, bad),), (section,), (bad,)), tmp_path / "page.html")
    content = read(tmp_path / "page.html")
    assert joined(content).count("<script>alert(1)</script>\"'&") == 15


@pytest.mark.parametrize(
    ("target", "message"),
    [("missing", "got nothing"), ("empty", "expected label maps, got none")],
)
def test_other_folders_are_refused(target, message, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        scanseg.report(tmp_path / target, tmp_path / "report.html", progress=False)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_is_named_before_the_work(make_predictions, tmp_path, monkeypatch, package):
    predictions, _, _ = make_predictions(1)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=f"expected {package}.*pip install"):
        scanseg.report(predictions, tmp_path / "report.html", progress=False)


def test_references_do_not_fit_a_model(trained, tmp_path):
    with pytest.raises(UsageError, match="Leave them out"):
        scanseg.report(trained / "model", tmp_path / "r.html", references=tmp_path, progress=False)


def test_show_draws_files(make_predictions, tmp_path, command):
    predictions, references, images = make_predictions(1)
    image, label_map = images / "case_0_0000.nii.gz", predictions / "case_0.nii.gz"
    output = tmp_path / "planes.png"
    outcome = command("show", image, label_map, "-o", output, "--reference", references / "case_0.nii.gz")
    assert (outcome.code, outcome.stdout) == (0, f"{output}: three planes\n"), outcome.stderr
    with Picture.open(output) as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(10**6)}
    assert {(0, 114, 178), (230, 159, 0)} <= colours
    assert command("show", image, "-o", tmp_path / "film.gif").stdout.endswith("film of 10 axial slices\n")
    assert "already exists" in command("show", image, "-o", output).stderr
    montage = command(
        "show", image, label_map, "-o", tmp_path / "m.png", "--layout", "montage", "--labels", "a=1,b=2"
    )
    assert montage.stdout.endswith("montage\n")


def test_show_refuses_other_grids_and_endings(make_predictions, tmp_path, command):
    predictions, _, images = make_predictions(1)
    image, label_map = images / "case_0_0000.nii.gz", predictions / "case_0.nii.gz"
    write_labels(tmp_path / "other.nii.gz", np.zeros(SHAPE, np.uint8), spacing=(1.0, 1.0, 1.0))
    outcome = command("show", image, tmp_path / "other.nii.gz", "-o", tmp_path / "a.png")
    assert (outcome.code, "expected the grid of the image" in outcome.stderr) == (1, True)
    assert command("show", image, label_map, "-o", tmp_path / "a.txt").code == 2
    assert (
        "expected numbers, got colours"
        in command("show", image, label_map, "-o", tmp_path / "a.png", "--labels", "a=#ff0000").stderr
    )
