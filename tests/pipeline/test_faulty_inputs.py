"""Faulty inputs to every command: one message that names the file, and nothing half written."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

IMAGE, LABELS = "imagesTr/case_1_0000.nii.gz", "labelsTr/case_1.nii.gz"
SMALL_NETWORK = (
    *("sampling.patch_size=[16, 16, 16]", "network.features=[4, 8]"),
    *("network.strides=[[1, 1, 1], [2, 2, 2]]", "network.kernel_sizes=[[3, 3, 3], [3, 3, 3]]"),
)


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def replace_by_text(path: Path) -> None:
    path.write_text("no image\n")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


def drop_axis(path: Path) -> None:
    sitk.WriteImage(sitk.ReadImage(str(path))[:, :, 5], str(path))


def add_axis(path: Path) -> None:
    volume = sitk.ReadImage(str(path))
    sitk.WriteImage(sitk.JoinSeries([volume, volume]), str(path))


def _change(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    before = sitk.ReadImage(str(path))
    after = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(before)))
    after.SetSpacing(before.GetSpacing())
    after.SetOrigin(before.GetOrigin())
    after.SetDirection(before.GetDirection())
    sitk.WriteImage(after, str(path))


def fill_with_nan(path: Path) -> None:
    _change(path, lambda array: np.full_like(array, np.nan))


def put_one_nan(path: Path) -> None:
    def change(array: np.ndarray) -> np.ndarray:
        array[0, 0, 0] = np.nan
        return array

    _change(path, change)


def cut(path: Path) -> None:
    _change(path, lambda array: array[2:])


def stretch_to_255(path: Path) -> None:
    _change(path, lambda array: (array > 0).astype(np.uint8) * 255)


def use_unknown_value(path: Path) -> None:
    _change(path, lambda array: array + np.uint8(5))


def move(path: Path) -> None:
    volume = sitk.ReadImage(str(path))
    volume.SetSpacing((3.0, 1.2, 1.5))
    sitk.WriteImage(volume, str(path))


DATA_FAULTS = [
    (truncate, IMAGE),
    (truncate, LABELS),
    (replace_by_text, IMAGE),
    (replace_by_text, LABELS),
    (empty, IMAGE),
    (drop_axis, IMAGE),
    (add_axis, IMAGE),
    (fill_with_nan, IMAGE),
    (put_one_nan, IMAGE),
    (cut, LABELS),
    (move, LABELS),
    (stretch_to_255, LABELS),
    (use_unknown_value, LABELS),
    (remove, LABELS),
    (remove, IMAGE),
    (remove, "dataset.json"),
    (replace_by_text, "dataset.json"),
]


def assert_clear(outcome, name: str, *, code: int = 1) -> None:
    """One message for people, which names the file or its case."""
    assert outcome.code == code
    assert any(line.startswith("error: ") for line in outcome.stderr.splitlines())
    assert outcome.stderr.count("error: ") == 1
    assert "Traceback" not in outcome.stderr
    case = name.split("/")[-1].split(".")[0].removesuffix("_0000")
    assert case in outcome.stderr
    assert outcome.stdout == ""


@pytest.fixture
def faulty(volume_dataset: Path, tmp_path: Path) -> Path:
    """A copy of the volumes that a test may damage."""
    return Path(shutil.copytree(volume_dataset, tmp_path / "faulty"))


@pytest.mark.parametrize(("damage", "name"), DATA_FAULTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_faulty_data_set(command, faulty: Path, tmp_path: Path, damage: Callable, name: str) -> None:
    damage(faulty / name)
    plan, model = tmp_path / "plan.json", tmp_path / "model"
    outcome = command("check", faulty, "--num-workers", 0)
    assert_clear(outcome, name)
    assert "NaN" in outcome.stderr or damage not in (fill_with_nan, put_one_nan)
    assert_clear(command("plan", faulty, "--recipe", "xlstm-unet", "-o", plan, "--num-workers", 0), name)
    assert_clear(command("train", faulty, "-o", model, "--device", "cpu", "--num-workers", 0), name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faulty"]


def test_all_faults_are_in_one_message(command, faulty: Path) -> None:
    truncate(faulty / IMAGE)
    stretch_to_255(faulty / "labelsTr/case_2.nii.gz")
    cut(faulty / "labelsTr/case_3.nii.gz")
    outcome = command("check", faulty, "--num-workers", 0)
    assert_clear(outcome, IMAGE)
    for case in ("case_1", "case_2", "case_3"):
        assert case in outcome.stderr


def test_faults_found_by_worker_processes_read_the_same(command, faulty: Path) -> None:
    truncate(faulty / IMAGE)
    alone, workers = (command("check", faulty, "--num-workers", count) for count in (0, 2))
    assert (workers.code, workers.stdout) == (alone.code, alone.stdout)
    assert workers.stderr.splitlines()[-1:] == alone.after_start.splitlines()


def test_pictures_of_another_kind(command, raster_dataset: Path, tmp_path: Path) -> None:
    faulty = Path(shutil.copytree(raster_dataset, tmp_path / "faulty"))
    picture = faulty / "imagesTr" / "case_2_0000.png"
    with Image.open(picture) as image:
        gray = image.convert("L")
    gray.save(picture)
    assert_clear(command("check", faulty, "--num-workers", 0), picture.name)
    truncate(picture)
    assert_clear(command("check", faulty, "--num-workers", 0), picture.name)


def test_folders_that_are_not_there(command, tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    for words in (
        ("check", absent),
        ("plan", absent, "--recipe", "msvm-unet", "-o", tmp_path / "plan.json"),
        ("train", absent, "-o", tmp_path / "model"),
        ("predict", absent, absent, "-o", tmp_path / "out"),
        ("evaluate", absent, absent, "-o", tmp_path / "report.json"),
        ("weights", "verify", absent),
    ):
        assert_clear(command(*words), absent.name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 1}', '{"format": 1, "recipe": "x", "epochs": 3}', "\x00\x01"]
)
def test_a_faulty_plan(command, tmp_path: Path, content: str) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(content)
    assert_clear(command("train", plan, "-o", tmp_path / "model"), plan.name)
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "training.epoch=3"), "training has no 'epoch'"),
        (("--set", "training.epochs=0"), "training.epochs: Input should be greater than 0"),
        (("--epochs", "-1"), "training.epochs"),
        (("--lr", "nan"), "lr"),
        (("--batch-size", "0"), "batch_size"),
        (("--device", "gpu"), "device 'gpu' is unknown. Choose auto, cpu, cuda, cuda:N or mps."),
        (("--device", "cuda:99"), "cuda:99"),
        (("--fold", "17"), "fold"),
        (("--max-minutes", "0"), "max_minutes"),
    ],
)
def test_options_that_cannot_be_carried_out(
    command, volume_dataset: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    outcome = command("train", volume_dataset, "-o", tmp_path / "model", "--num-workers", 0, *words)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert message in outcome.stderr
    assert outcome.after_start.count("\n") <= 2
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("damage", [truncate, replace_by_text, empty], ids=lambda damage: damage.__name__)
def test_a_faulty_record(command, tmp_path: Path, golden: Path, damage: Callable) -> None:
    record = Path(shutil.copy(golden / "msvm_unet_2d.safetensors", tmp_path))
    record.chmod(0o644)
    damage(record)
    assert_clear(command("weights", "verify", record), record.name)


def test_a_record_is_verified(command, golden: Path) -> None:
    outcome = command("weights", "verify", golden / "msvm_unet_2d.safetensors")
    assert outcome.code == 0
    assert "msvm_unet_2d.safetensors" in outcome.stdout


def test_a_record_beyond_its_bounds_fails(command, golden: Path, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(golden / "msvm_unet_2d.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    tensors["output.0"][0, 0, 0, 0] += 1e-6
    save_file(tensors, tmp_path / "changed.safetensors", metadata=metadata)
    outcome = command("weights", "verify", tmp_path / "changed.safetensors")
    assert outcome.code == 1
    assert "FAILED" in outcome.stdout


@pytest.fixture
def predictions(volume_dataset: Path, tmp_path: Path) -> Path:
    """A copy of the references as predictions that a test may damage."""
    return Path(shutil.copytree(volume_dataset / "labelsTr", tmp_path / "predictions"))


@pytest.mark.parametrize(
    "damage",
    [truncate, replace_by_text, empty, drop_axis, cut, move, use_unknown_value, remove],
    ids=lambda damage: damage.__name__,
)
def test_a_faulty_prediction(
    command, volume_dataset: Path, predictions: Path, tmp_path: Path, damage: Callable
) -> None:
    damage(predictions / "case_1.nii.gz")
    report = tmp_path / "report.json"
    outcome = command("evaluate", predictions, volume_dataset / "labelsTr", "-o", report, "--num-workers", 0)
    assert_clear(outcome, "case_1.nii.gz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions"]


def test_cases_without_a_prediction_are_left_out_by_naming_the_others(
    command, volume_dataset: Path, predictions: Path, tmp_path: Path
) -> None:
    (predictions / "case_1.nii.gz").unlink()
    report = tmp_path / "report.json"
    call = ("evaluate", predictions, volume_dataset / "labelsTr", "-o", report, "--num-workers", 0)
    refused = command(*call)
    assert refused.code == 1
    assert "(--case)" in refused.stderr
    assert command(*call, "--case", "case_2", "--case", "case_3").code == 0
    assert [case["case"] for case in json.loads(report.read_text())["cases"]] == ["case_2", "case_3"]


def test_cases_without_a_prediction_are_left_out_and_counted(
    command, volume_dataset: Path, predictions: Path, tmp_path: Path
) -> None:
    for case in ("case_1", "case_3"):
        (predictions / f"{case}.nii.gz").unlink()
    report = tmp_path / "report.json"
    call = ("evaluate", predictions, volume_dataset / "labelsTr", "-o", report, "--num-workers", 0)
    outcome = command(*call, "--only-predicted")
    assert outcome.code == 0, outcome.stderr
    assert "note: 2 references without a prediction were left out\n" in outcome.stdout
    content = json.loads(report.read_text())
    assert content["unpredicted"] == ["case_1", "case_3"]
    assert [case["case"] for case in content["cases"]] == ["case_0", "case_2", "case_4"]


def test_a_report_that_cannot_be_written(command, volume_dataset: Path, predictions: Path) -> None:
    words = ("evaluate", predictions, volume_dataset / "labelsTr", "--num-workers", 0)
    outcome = command(*words, "-o", predictions)
    assert outcome.code == 2
    assert outcome.stderr.startswith(
        f"error: {predictions}: expected a file, got a folder. Name a file in it"
    )
    report = predictions / "report.json"
    assert command(*words, "-o", report).code == 0
    assert json.loads(report.read_text())["summary"]["num_cases"] == 5


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_where_a_file_is_to_be_written(
    command, volume_dataset: Path, predictions: Path, tmp_path: Path, exists: bool
) -> None:
    folder = tmp_path / "plans"
    if exists:
        folder.mkdir()
    for words in (("evaluate", predictions, volume_dataset / "labelsTr"), ("plan", volume_dataset)):
        outcome = command(*words, "-o", f"{folder}/", "--num-workers", 0)
        assert (outcome.code, outcome.stdout) == (2, "")
        assert (
            outcome.stderr == f"error: {folder}/: expected a file, got a folder. "
            f"Name a file in it, such as {folder}/NAME.json.\n"
        )
    assert folder.is_dir() == exists


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_a_pipe_is_not_replaced_by_a_report(
    command, volume_dataset: Path, predictions: Path, tmp_path: Path
) -> None:
    """Such as `-o /dev/null --overwrite`, which root could have done."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    outcome = command("evaluate", predictions, volume_dataset / "labelsTr", "-o", pipe, "--overwrite")
    assert (outcome.code, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith(f"error: {pipe}: expected a file, got a device or a pipe")
    assert pipe.is_fifo()


def test_a_folder_without_write_permission_is_reported_before_the_work(
    command, volume_dataset: Path, predictions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_allowed(path: Path, mode: int) -> bool:  # what root may do does not depend on a folder's mode
        return path != tmp_path

    words = ("evaluate", predictions, volume_dataset / "labelsTr", "--num-workers", 0)
    inside = predictions / "case_1.nii.gz" / "new" / "report.json"
    outcome = command(*words, "-o", inside)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert f"expected a folder at {inside.parents[1]}, got a file" in outcome.stderr
    monkeypatch.setattr(os, "access", is_allowed)
    outcome = command(*words, "-o", tmp_path / "new" / "report.json")
    assert (outcome.code, outcome.stdout) == (2, "")
    assert f"no permission to write to {tmp_path}." in outcome.stderr


def test_reports_and_plans_that_are_there_are_replaced_only_if_asked(
    command, volume_dataset: Path, predictions: Path, tmp_path: Path
) -> None:
    report, plan = tmp_path / "report.json", tmp_path / "plan.json"
    small = [word for setting in SMALL_NETWORK for word in ("--set", setting)]
    for output, words in (
        (report, ("evaluate", predictions, volume_dataset / "labelsTr")),
        (plan, ("plan", volume_dataset, "--recipe", "xlstm-unet", *small)),
    ):
        output.write_text("mine")
        refused = command(*words, "-o", output, "--num-workers", 0)
        assert (refused.code, refused.stdout) == (2, "")
        assert refused.stderr == (
            f"error: {output} already exists. Choose another path or pass --overwrite.\n"
        )
        assert output.read_text() == "mine"
        assert command(*words, "-o", output, "--num-workers", 0, "--overwrite").code == 0
        assert json.loads(output.read_text())


@pytest.fixture(scope="module")
def untrained(volume_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose network has learnt nothing; not to be changed."""
    from scanseg import make_plan
    from scanseg.models import ModelFolder

    plan = make_plan(volume_dataset, recipe="xlstm-unet", settings=SMALL_NETWORK, num_workers=0)
    folder = ModelFolder.create(tmp_path_factory.mktemp("untrained") / "model", plan)
    folder.write_weights(folder.build_network().state_dict())
    return folder.path


@pytest.fixture
def unseen(volume_dataset: Path, tmp_path: Path) -> Path:
    """Two images to segment that a test may damage."""
    folder = tmp_path / "unseen"
    folder.mkdir()
    for case in (1, 2):
        shutil.copy(volume_dataset / "imagesTr" / f"case_{case}_0000.nii.gz", folder)
    return folder


@pytest.mark.parametrize(
    "damage",
    [truncate, replace_by_text, empty, drop_axis, add_axis, fill_with_nan, put_one_nan],
    ids=lambda damage: damage.__name__,
)
def test_a_faulty_image_to_segment(
    command, untrained: Path, unseen: Path, tmp_path: Path, damage: Callable
) -> None:
    damage(unseen / "case_1_0000.nii.gz")
    output = tmp_path / "output"
    outcome = command("predict", untrained, unseen, "-o", output, "--device", "cpu")
    assert_clear(outcome, "case_1_0000.nii.gz")
    written = {path.name for path in output.iterdir()} if output.exists() else set()
    assert written <= {"case_2.nii.gz", "dataset.json", "prediction.json"}


def test_a_model_that_finds_no_memory(
    command, untrained: Path, unseen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def to(network: torch.nn.Module, device: torch.device) -> torch.nn.Module:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.nn.Module, "to", to)
    outcome = command("predict", untrained, unseen, "-o", tmp_path / "output", "--device", "cpu")
    assert_clear(outcome, untrained.name)
    assert f"not enough memory on cpu for the network of {untrained}. " in outcome.stderr
    assert outcome.after_start.count("\n") == 1
    assert not (tmp_path / "output").exists()


def test_images_that_do_not_fit_the_model(
    command, untrained: Path, raster_dataset: Path, unseen: Path, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    outcome = command("predict", untrained, raster_dataset / "imagesTr", "-o", output)
    assert_clear(outcome, "imagesTr")
    picture = raster_dataset / "imagesTr" / "case_1_0000.png"
    other = tmp_path / "other"
    assert_clear(command("predict", untrained, picture, "-o", other, "--device", "cpu"), picture.name)
    assert not list(output.glob("case*")) + list(other.glob("case*"))


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (truncate, "model.safetensors"),
        (empty, "model.safetensors"),
        (remove, "model.safetensors"),
        (truncate, "plan.json"),
        (remove, "plan.json"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_faulty_model(
    command, untrained: Path, unseen: Path, tmp_path: Path, damage: Callable, name: str
) -> None:
    model = Path(shutil.copytree(untrained, tmp_path / "model"))
    damage(model / name)
    outcome = command("predict", model, unseen, "-o", tmp_path / "output", "--device", "cpu")
    assert_clear(outcome, name)
    assert not (tmp_path / "output").exists()


def test_a_case_that_is_in_neither_folder(
    command, volume_dataset: Path, predictions: Path, tmp_path: Path
) -> None:
    words = ("evaluate", predictions, volume_dataset / "labelsTr", "-o", tmp_path / "report.json")
    outcome = command(*words, "--case", "case_1", "--case", "cse_2")
    assert_clear(outcome, "cse_2")
    assert "case cse_2: neither in" in outcome.stderr
    assert outcome.stderr.count("cse_2") == 1
