"""Any damage to a file that scanseg reads gives one error that names the file, and nothing else.

NIfTI has its own tests.
"""

import copy
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import blosc2
import numpy as np
import pytest
import tifffile
import torch

from scanseg.dataset import find_splits, open_dataset
from scanseg.errors import ScansegError, UsageError
from scanseg.experiments.comparison import ComparisonSpec
from scanseg.imaging import read_image
from scanseg.models import (
    Checkpoint,
    ModelFolder,
    list_misfits,
    member_folders,
    read_ensemble,
    write_ensemble,
)
from scanseg.models.network import load_weights
from scanseg.models.tensors import read_tensors, write_tensors
from scanseg.preprocessing import Store, read_array, write_array
from scanseg.settings import apply_settings
from scanseg.specs import (
    CrossValidationRecord,
    EnsembleSpec,
    ImportRecord,
    Plan,
    PredictionRecord,
    Report,
    RunRecord,
    ScoreSources,
    StoredCase,
    TrainingState,
)
from tests.factories import make_plan, write_nested_boxes, write_picture, write_store, write_volume

_SEED = 20240607
_MOST_CHARACTERS = 2000
NASTY = [
    *(None, True, False, 0, -1, 1, 255, 256, 2**31, 2**62, 2**63, 2**64, 10**30, -(10**30)),
    *(
        1e-320,
        1e308,
        -1e308,
        0.5,
        "",
        " ",
        "x" * 5000,
        "a\nb",
        "../x",
        "/",
        ".",
        "\u202e",
        "nan",
        "\U0001f600",
    ),
    *([], {}, [[]], [None], [1, 2], [1.5, "a"], {"a": {}}, {"": None}, [[1] * 3] * 3, {"kind": "x"}),
]


def paths_of(value: object, above: tuple[int | str, ...] = ()) -> Iterator[tuple[int | str, ...]]:
    """Yield the path of every value of a JSON document."""
    yield above
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from paths_of(part, (*above, key))


def damage_document(content: object, rng: random.Random) -> bytes:
    """Return a JSON document with some values replaced, removed or added."""
    content = json.loads(json.dumps(content))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        path = rng.choice(list(paths_of(content)))
        if not path:
            content = copy.deepcopy(rng.choice(NASTY))
            continue
        place = content
        for part in path[:-1]:
            place = place[part]  # type: ignore[index]
        action = rng.randrange(6)
        if action == 0:
            del place[path[-1]]  # type: ignore[attr-defined]
        elif action == 1 and isinstance(place, dict):
            place[rng.choice(("x", "", "x" * 3000, "kind"))] = copy.deepcopy(rng.choice(NASTY))
        else:
            place[path[-1]] = copy.deepcopy(rng.choice(NASTY))  # type: ignore[index]
    return json.dumps(content).encode()


def damage_bytes(content: bytes, rng: random.Random) -> bytes:
    """Return bytes that are cut, overwritten, lengthened, or of another encoding."""
    action, at = rng.randrange(8), rng.randrange(len(content) + 1)
    damaged = bytearray(content)
    if action == 0:
        return content[:at]
    if action == 1:
        return content[:at] + bytes(rng.choices(range(256), k=rng.randrange(1, 200))) + content[at:]
    if action == 2:
        return content.decode("latin-1").encode("utf-16")
    if action == 3:
        return bytes(len(content))
    # The beginning of a file holds most of its structure.
    last = rng.choice((16, 64, 400, len(content)))
    for _ in range(rng.choice((1, 2, 8))):
        damaged[rng.randrange(min(last, len(content)))] = rng.choice(
            (0, 1, 127, 128, 255, rng.randrange(256))
        )
    return bytes(damaged)


RAW = [
    *(
        b"",
        b"\0",
        b"\xff",
        b"[" * 100_000,
        b'{"a":' * 20_000,
        b"9" * 5000,
        b"-" + b"9" * 5000,
        b"1e999",
        b"NaN",
    ),
    *(
        b'{"a": 1, "a": 2}',
        b'"\\ud800"',
        b'{"a": "\\u0000"}',
        b"\xef\xbb\xbf",
        b"[1,]",
        b"//",
        b"null",
        b'"x"',
        b"{}",
    ),
]


def damage_json(content: object, rng: random.Random) -> bytes:
    """Return a damaged JSON file."""
    kind = rng.random()
    if kind < 0.1:
        return rng.choice(RAW)
    return damage_document(content, rng) if kind < 0.8 else damage_bytes(json.dumps(content).encode(), rng)


def find_refusal(read: Callable[[], object]) -> ScansegError | None:
    """Return the error of scanseg that a call raises, if any. Other errors are faults."""
    try:
        read()
    except ScansegError as error:
        return error
    return None


def attempt(read: Callable[[], object], path: Path, content: bytes) -> bool:
    """Read a damaged file, and return whether it was refused."""
    path.write_bytes(content)
    try:
        refusal = find_refusal(read)
    except Exception as error:
        raise AssertionError(
            f"{path.name}: {type(error).__name__}: {error} for {content[:2000]!r}"
        ) from error
    if refusal is None:
        return False
    message = str(refusal)
    names = (path.name, path.stem, str(path.parent))
    assert any(name in message for name in names), f"{message[:300]!r} names no file"
    assert len(message) < _MOST_CHARACTERS, message[:300]
    assert len(message.splitlines()) <= 21, message[:300]
    return True


DOCUMENTS = {
    "plan.json": (Plan.read, json.loads(make_plan().to_json())),
    "run.json": (
        RunRecord.read,
        {
            "status": "finished",
            "fold": 0,
            "train_cases": ["a"],
            "validation_cases": ["b"],
            "device": "cpu",
            "precision": "float32",
            "versions": {"torch": "2"},
            "command": ["scanseg"],
            "started": "2024",
            "epochs_done": 1,
            "iterations_done": 2,
            "training_seconds": 1.5,
            "num_parameters": 7,
            "exported": {"checkpoint": "last", "iterations": 2, "ema": False, "patch_dice": None},
        },
    ),
    "state.json": (
        TrainingState.read,
        {
            "iterations_done": 2,
            "training_seconds": 1.5,
            "optimizer_groups": [{"lr": 0.1, "params": [0, 1]}],
            "progress": {"epochs_done": 1, "losses": [0.5, 0.25]},
        },
    ),
    "ensemble.json": (EnsembleSpec.read, {"members": ["fold_0", "fold_1"], "average": "logits"}),
    "crossval.json": (
        CrossValidationRecord.read,
        {"dataset": "x", "num_cases": 3, "configurations": [], "chosen": "x"},
    ),
    "comparison.json": (
        ComparisonSpec.read,
        {
            "title": "a",
            "question": "b?",
            "arms": [{"name": "a"}, {"name": "b", "settings": ["training.epochs=3"]}],
        },
    ),
    "import.json": (
        ImportRecord.read,
        {
            "source": "a.pth",
            "sha256": "0",
            "form": "nnunet",
            "network": "plain-unet",
            "num_tensors": 3,
            "left_out": ["a"],
        },
    ),
    "prediction.json": (
        PredictionRecord.read,
        {
            "model": "m",
            "recipe": "r",
            "device": "cpu",
            "precision": "float32",
            "mirror": False,
            "versions": {},
            "started": "2024",
            "seconds": 1.0,
            "cases": [
                {
                    "case": "a",
                    "images": ["a"],
                    "label_map": None,
                    "probabilities": None,
                    "seconds": 1,
                    "fault": "x",
                }
            ],
        },
    ),
    "validation.json": (
        Report.read,
        {"predictions": "a", "references": "b", "labels": {"x": [1]}, "cases": []},
    ),
    "validation-sources.json": (
        ScoreSources.read,
        {"weights": {"num_bytes": 1, "modified_nanoseconds": 2, "sha256": "0"}, "cases": {"a": "b"}},
    ),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents(tmp_path: Path, name: str) -> None:
    rng = random.Random(f"{_SEED} {name}")
    read, content = DOCUMENTS[name]
    path = tmp_path / name
    refused = sum(attempt(lambda: read(path), path, damage_json(content, rng)) for _ in range(120))
    assert refused > 40


def test_descriptions_and_splits_of_data_sets(tmp_path: Path) -> None:
    rng = random.Random(_SEED)
    folder = write_nested_boxes(tmp_path / "raw", 2)
    description, splits = folder / "dataset.json", folder / "splits_final.json"
    content = json.loads(description.read_text())
    forms = [
        content,
        {key: value for key, value in content.items() if key != "channel_names"} | {"modality": {"0": "MR"}},
        content | {"labels": {"0": "background", "1": "outer", "2": "inner"}},
        content | {"labels": {"background": 0, "outer": [1, 2], "inner": 2}, "regions_class_order": [1, 2]},
        content
        | {
            "dataset": {
                "case_0": {"images": ["imagesTr/case_0_0000.nii.gz"], "label": "labelsTr/case_0.nii.gz"}
            }
        },
        {
            "modality": {"0": "MR"},
            "labels": {"0": "background", "1": "a"},
            "training": [{"image": "./imagesTr/case_0_0000.nii.gz", "label": "./labelsTr/case_0.nii.gz"}],
        },
    ]
    refused = sum(
        attempt(lambda: open_dataset(folder), description, damage_json(rng.choice(forms), rng))
        for _ in range(300)
    )
    assert refused > 100
    description.write_text(json.dumps(content))
    dataset = open_dataset(folder)
    folds = [{"train": ["case_0"], "val": ["case_1"]}, {"train": ["case_1"], "validation": ["case_0"]}]
    refused = sum(attempt(lambda: find_splits(dataset), splits, damage_json(folds, rng)) for _ in range(150))
    assert refused > 50


def test_the_index_and_the_records_of_a_store(tmp_path: Path) -> None:
    rng = random.Random(_SEED)
    dataset = write_nested_boxes(tmp_path / "raw", 2)
    write_store(dataset, tmp_path / "store")
    index = tmp_path / "store/store.json"
    content = json.loads(index.read_text())

    def read() -> None:
        store = Store.open(tmp_path / "store")
        for case in store.index.cases:
            store.read_image(case)
            store.read_reference(case)

    refused = sum(attempt(read, index, damage_json(content, rng)) for _ in range(150))
    assert refused > 50
    index.write_text(json.dumps(content))
    record = tmp_path / "store/cases/case_0/case.json"
    first = json.loads(record.read_text())
    for _ in range(15):  # a damaged record is made again
        assert not attempt(lambda: write_store(dataset, tmp_path / "store"), record, damage_json(first, rng))
        stored = json.loads(record.read_text())["stored"]
        assert StoredCase.model_validate(stored) == StoredCase.model_validate(first["stored"])


def test_members_of_ensembles(tmp_path: Path) -> None:
    rng = random.Random(_SEED)
    write_ensemble(tmp_path, EnsembleSpec(members=("a", "b")))
    content = json.loads((tmp_path / "ensemble.json").read_text())
    content["members"] = ["a", "b/c", ".", ""]
    for _ in range(60):
        attempt(lambda: member_folders(tmp_path), tmp_path / "ensemble.json", damage_json(content, rng))
    assert read_ensemble is not None


def test_metrics_never_stop_a_training(tmp_path: Path) -> None:
    rng = random.Random(_SEED)
    folder = ModelFolder.create(tmp_path / "model", make_plan())
    line = {
        "epoch": 1,
        "iterations": 2,
        "seconds": 1.5,
        "lr": 0.1,
        "loss": 0.5,
        "validation_dice": {"disc": None},
    }
    for _ in range(200):
        lines = [damage_json(line, rng) for _ in range(3)]
        (folder.path / "metrics.jsonl").write_bytes(b"\n".join(lines) + b"\n")
        for metrics in folder.metrics.read():
            assert isinstance(metrics["epoch"], int)
        folder.metrics.keep(5, iterations_done=50)
        assert folder.metrics.keep(5, iterations_done=50) is None


def test_weights_and_checkpoints(tmp_path: Path) -> None:
    rng = random.Random(_SEED)
    plan = make_plan()
    folder = ModelFolder.create(tmp_path / "model", plan)
    network = folder.build_network()
    path = folder.path / "model.safetensors"
    write_tensors(network.state_dict(), path)
    content = path.read_bytes()
    refused = sum(
        attempt(
            lambda: load_weights(network, read_tensors(path), source=path), path, damage_bytes(content, rng)
        )
        for _ in range(60)
    )
    assert refused > 20
    state = TrainingState(iterations_done=1, training_seconds=1.0, optimizer_groups=({"lr": 0.1},))
    folder.write_checkpoint(
        Checkpoint(state, network={"a": torch.zeros(3)}, optimizer={"0.step": torch.ones(())})
    )
    parts = sorted(path for path in (folder.path / "state").rglob("*") if path.is_file())
    for part in parts:
        whole = part.read_bytes()
        for _ in range(25):
            attempt(folder.read_checkpoint, part, damage_bytes(whole, rng))
        part.write_bytes(whole)
    assert list_misfits({}, {}) == []


def test_compressed_arrays(tmp_path: Path) -> None:
    rng = random.Random(_SEED)
    array = np.random.default_rng(0).integers(0, 5, (1, 6, 40, 50)).astype(np.float16)
    write_array(tmp_path / "a.b2nd", array)
    content = (tmp_path / "a.b2nd").read_bytes()
    path = tmp_path / "damaged.b2nd"
    refused = 0
    for _ in range(120):
        refused += attempt(lambda: read_array(path), path, damage_bytes(content, rng))
    assert refused > 40
    assert blosc2.__version__


def write_pictures(folder: Path) -> list[Path]:
    """Write a small image in each format."""
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 255, (12, 14)).astype(np.uint8)
    volume = rng.integers(0, 500, (3, 6, 7)).astype(np.int16)
    for name in ("a.png", "a.jpg"):
        write_picture(folder / name, gray)
    write_picture(folder / "colour.png", np.stack([gray] * 3, axis=-1))
    tifffile.imwrite(folder / "a.tif", gray)
    tifffile.imwrite(folder / "volume.tif", volume, photometric="minisblack", compression="zlib")
    for name in ("a.nrrd", "a.mha", "a.mhd"):
        write_volume(folder / name, volume)
    return [path for path in sorted(folder.iterdir()) if path.suffix not in (".raw", ".zraw")]


@pytest.mark.parametrize(
    "name", ["a.png", "a.jpg", "colour.png", "a.tif", "volume.tif", "a.nrrd", "a.mha", "a.mhd"]
)
def test_images(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(f"{_SEED} {name}")
    write_pictures(tmp_path)
    content = (tmp_path / name).read_bytes()
    target = tmp_path / "damaged" / name
    target.parent.mkdir()
    for other in tmp_path.glob("a.*raw"):
        shutil.copyfile(other, target.parent / other.name)
    for _ in range(60):
        attempt(lambda: read_image([target]), target, damage_bytes(content, rng))


def test_the_spacing_beside_a_tiff(tmp_path: Path) -> None:
    rng = random.Random(_SEED)
    tifffile.imwrite(tmp_path / "a_0000.tif", np.zeros((3, 6, 7), np.uint8), photometric="minisblack")
    companion = tmp_path / "a.json"
    refused = sum(
        attempt(
            lambda: read_image([tmp_path / "a_0000.tif"]),
            companion,
            damage_json({"spacing": [3, 1, 1.5]}, rng),
        )
        for _ in range(120)
    )
    assert refused > 40


def test_settings() -> None:
    rng, plan = random.Random(_SEED), make_plan()
    content = json.loads(plan.to_json())
    known = [".".join(map(str, path)) for path in paths_of(content) if path]
    alphabet = 'abz09.=[]{}":,-+ \n\0\u0663\ud800'
    for _ in range(400):
        path = (
            rng.choice(known) if rng.random() < 0.8 else "".join(rng.choices(alphabet, k=rng.randrange(20)))
        )
        value = rng.choice(NASTY)
        text = rng.choice(
            (
                json.dumps(value),
                str(value),
                rng.choice(RAW).decode("latin-1"),
                "".join(rng.choices(alphabet, k=30)),
            )
        )
        setting = f"{path}={text}" if rng.random() < 0.95 else path + text
        refusal = find_refusal(lambda setting=setting: apply_settings(plan, [setting]))
        if refusal is not None:
            assert isinstance(refusal, UsageError)
            assert str(refusal).startswith("--set ")
            assert len(str(refusal)) < _MOST_CHARACTERS
            assert "\n" not in str(refusal)
