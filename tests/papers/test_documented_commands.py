"""Every command that the pages show of data sets, scores, papers and weights runs, on small data and for a short time.

The words are those of the pages. Names in capitals are folders of the data sets; what only makes a run short is added.
"""

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from scanseg.batches import Batch
from scanseg.converters import NAMED_DATASETS, convert_dataset, find_dataset
from scanseg.dataset.raw import open_dataset
from scanseg.imaging import write_instance_map
from scanseg.models import ModelFolder
from scanseg.networks import MSVMUNet, ours_to_official
from scanseg.papers.ready_comparisons import ready_comparisons
from scanseg.planning import RECIPES
from scanseg.runtime import RunContext
from scanseg.specs import Plan
from scanseg.specs.records.comparison import ComparisonRecord
from scanseg.training import step_timing
from tests.converters import forms
from tests.factories import write_picture

from .sources import SOURCES, volume, write_case

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md",
    "docs/datasets.md",
    "docs/evaluation.md",
    "docs/prediction.md",
    "docs/papers/msvm-unet.md",
    "docs/papers/xlstm-unet.md",
)
NAMES = {
    "SYNAPSE": "synapse",
    "ACDC": "acdc",
    "AMOS22": "abdomen-mr",
    "ENDOVIS": "endovis17",
    "CELLS": "neurips-cell",
    "BRATS": "brats23",
    "DSB2018": "dsb2018",
    "KVASIR": "kvasir-seg",
    "TASK04": "hippocampus",
}
OWN_FOLDERS = {
    "IMAGES": lambda folder: [forms.picture(folder / f"{name}.png", forms.SHAPE) for name in "ab"],
    "LABELS": lambda folder: [write_picture(folder / f"{name}.png", forms.squares(1, 2)) for name in "ab"],
    "BRAINS": forms.named_channels,
    "SCANS": forms.structures,
    "STREETS": forms.colour_masks,
}
"""Writers of own folders by their name in a command."""
ENCODER = "vssm1_tiny_0230s_ckpt_epoch_264.pth"
CPU = ("--num-workers", "0")
SMALL_SLICES = (
    *("sampling.patch_size=[32, 32]", "preprocessing.slice_size=[32, 32]", "training.epochs=1"),
    *("sampling.batch_size=4", "training.validation_batches=1"),
)
SMALL_MSVM = (
    *SMALL_SLICES,
    *("network.dims=[4, 8, 12, 16]", "network.depths=[1, 1, 1, 1]", "network.decoder_depth=1"),
)
SMALL_XLSTM = (
    *(
        "sampling.batch_size=2",
        "network.features=[4, 8, 8]",
        "network.num_blocks_encoder=1",
        "augmentation=[]",
    ),
    *("network.num_blocks_decoder=1", "training.epochs=1", "training.iterations_per_epoch=2"),
    *("training.validation_batches=1", 'training.optimizer={"kind": "adamw", "lr": 0.01}'),
)
SMALL_STAGES = {
    2: (
        *("sampling.patch_size=[16, 16]", "network.features=[4, 8, 8]"),
        *("network.strides=[[1, 1], [2, 2], [2, 2]]", "network.kernel_sizes=[[3, 3], [3, 3], [3, 3]]"),
    ),
    3: (
        *("sampling.patch_size=[8, 16, 16]", "network.features=[4, 8, 8, 8]"),
        "network.strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]]",
        "network.kernel_sizes=[[3, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]]",
    ),
}
"""With fewer stages the `enc` variant has no sequence layer."""


def blocks_of(page):
    """Return the commands of a page, those that follow each other together."""
    found = [[]]
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        if line.startswith("    scanseg "):
            found[-1].append(shlex.split(line, comments=True)[1:])
        else:
            found.append([])
    return [block for block in found if block]


COMMANDS = [(page, words) for page in PAGES for block in blocks_of(page) for words in block]


def of_kind(*kinds):
    """Return the commands that begin with such words, each once, for `parametrize`."""
    found = {" ".join(words): (page, words) for page, words in COMMANDS if " ".join(words).startswith(kinds)}
    assert found
    return [pytest.param(page, words, id=line) for line, (page, words) in found.items()]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder, in which commands are given."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _one_timed_patch(monkeypatch):
    """Let `plan` time one step on one patch. The networks have their full size."""
    random_batch = step_timing.random_batch

    def one_patch(plan, device):
        batch = random_batch(plan, device)
        return Batch(batch.images[:1], batch.label_maps[:1])

    monkeypatch.setattr(step_timing, "_SLOW_SECONDS", 0.0)
    monkeypatch.setattr(step_timing, "random_batch", one_patch)


def make_sources(words):
    """Write the sources whose names are among the words."""
    for word in words:
        name, _, rest = word.partition("/")
        if name in NAMES and not Path(name).exists():
            SOURCES[NAMES[name]](Path(name) / rest)
        elif word in OWN_FOLDERS:
            OWN_FOLDERS[word](Path(word))
        elif word == "colours.csv":
            Path(word).write_text("road,255,0,0\ntree,0,255,0\nsky,0,0,255\n")
        elif word == "FLARE22":
            for number in range(2):
                folder = Path(word)
                image = folder / "images" / f"FLARE22_Tr_{number:04d}_0000.nii.gz"
                write_case(
                    image, folder / "labels" / f"FLARE22_Tr_{number:04d}.nii.gz", seed=number, num_labels=13
                )
        elif word == "OBJECTS":
            for number in range(2):
                numbers = np.zeros((6, 12, 12), np.int32)
                numbers[1:5, 2:6, 2:6], numbers[1:5, 2:6, 7:11] = 1, 300
                image = Path(word) / "images" / f"{number}.nii.gz"
                write_case(image, Path("labels.nii.gz"), seed=number, num_labels=1, shape=numbers.shape)
                (Path(word) / "instances").mkdir(exist_ok=True)
                write_instance_map(
                    Path(word) / "instances" / image.name, numbers, like=volume(numbers.astype(np.float32))
                )


def make_dataset(name, folder="DATASET"):
    """Convert a small source into the raw layout."""
    SOURCES[name](Path("source"))
    convert_dataset(find_dataset(name), Path("source"), Path(folder), context=RunContext(num_workers=0))


@pytest.mark.parametrize(("page", "words"), of_kind("data list", "data convert"))
def test_data_sets(page, words, here, command):
    make_sources(words)
    outcome = command(*words, *(CPU if words[1] == "convert" else ()))
    assert outcome.code == 0, outcome.stderr
    if "--dry-run" in words:
        assert "nothing was written" in outcome.stdout
    elif words[1] == "convert":
        dataset = open_dataset(Path(words[words.index("-o") + 1]))
        assert len(dataset.cases) > 0
        assert f"by {words[2]} from" in outcome.stdout


def test_every_data_set_is_shown_being_converted():
    assert {words[2] for _, words in COMMANDS if words[:2] == ["data", "convert"]} == {
        "folder",
        *NAMED_DATASETS,
    }


@pytest.mark.parametrize(
    ("page", "words"), of_kind("evaluate predictions", "evaluate instances", "data instances")
)
def test_scores(page, words, here, command):
    instances = "--instances" in words or words[0] == "data"
    make_dataset("dsb2018" if instances else "acdc" if "voxels" in words else "abdomen-mr")
    part = "Ts" if (here / "DATASET" / "labelsTs").is_dir() else "Tr"
    shutil.copytree(here / "DATASET" / f"labels{part}", here / "predictions")
    if "DATASET/labelsTs" in words and part == "Tr":
        shutil.copytree(here / "DATASET" / "labelsTr", here / "DATASET" / "labelsTs")
    (here / "REFERENCES").mkdir()
    for path in (here / "predictions").iterdir():
        shutil.copy(path, here / "REFERENCES")
    shutil.copy(here / "DATASET" / "dataset.json", here / "REFERENCES")
    if instances:
        for name in ("instancesTs", "instances")[: 1 if words[0] == "data" else 2]:
            shutil.copytree(here / "DATASET" / "instancesTs", here / name)
    if "--only-predicted" in words:
        next(path for path in (here / "predictions").iterdir() if path.name != "dataset.json").unlink()

    outcome = command(*words, *CPU)

    assert outcome.code == 0, outcome.stderr
    output = here / words[words.index("-o") + 1]
    if words[0] == "data":
        assert len([path for path in output.iterdir() if path.is_file()]) == 2
        assert len(list((output / "colours").iterdir())) == 2
    elif "--instances" in words:
        assert '"f1"' in output.read_text()
    else:
        rule = words[words.index("--rule") + 1] if "--rule" in words else "skip"
        assert f'"rule": "{rule}"' in output.read_text()


def reproductions():
    """Return the reproductions of the pages, each resumed one after its first run."""
    found = []
    for _, words in COMMANDS:
        if words[0] != "reproduce":
            continue
        if "--resume" in words:
            found[-1].append(words)
        else:
            found.append([words])
    # Six networks of three axes take 12 s, and nine a minute.
    return [
        pytest.param(
            lines,
            id=" ".join(lines[0]),
            marks=[pytest.mark.slow] if {"all", "brats23"}.intersection(lines[0]) else [],
        )
        for lines in found
    ]


@pytest.mark.parametrize("lines", reproductions())
def test_reproductions(lines, here, command):
    if any("all" in words or "segresnet" in " ".join(words) for words in lines):
        pytest.importorskip("monai", reason='pip install "scanseg[baselines]"')
    for words in lines:
        make_sources(words)
        short = [word if word != "cuda" else "cpu" for word in words]
        if "--encoder-weights" in words:
            torch.save(
                {"model": ours_to_official(MSVMUNet(3, 2).encoder.state_dict(), kind="vmamba")}, ENCODER
            )
            short += [word for setting in SMALL_SLICES for word in ("--set", setting)]
        elif "--quick" not in words:
            short.append("--quick")
        short += ["--seeds", "0", *CPU] + ([] if "--device" in words else ["--device", "cpu"])
        outcome = command(*short)
        assert outcome.code == 0, outcome.stderr
        output = here / words[words.index("-o") + 1]
        baselines = words[words.index("--baselines") + 1].split(",") if "--baselines" in words else []
        text = (output / "table.md").read_text()
        assert ("Still missing" in text) == ("--prepare" in words)
        assert all(f"| {baseline} | here |" in text for baseline in baselines if baseline != "all")
        assert all((output / f"table.{ending}").is_file() for ending in ("csv", "html", "json"))


@pytest.mark.parametrize(("page", "words"), of_kind("compare"))
def test_studies(page, words, here, command):
    if words[1] in ("list", "show"):
        outcome = command(*words)
        assert outcome.code == 0, outcome.stderr
        assert "msvm-unet-decoder" in outcome.stdout or '"arms"' in outcome.stdout
        return
    spec = ready_comparisons()[words[1]]
    is_msvm = spec.recipe.startswith("msvm-unet")
    make_dataset("acdc" if is_msvm else "hippocampus")
    if words[1] in ("networks-2d", "pictures"):  # the settings below are of one network
        outcome = command(*words, "--prepare", *CPU)
        assert outcome.code == 0, outcome.stderr
        assert f"{3 * len(spec.all_arms)} trainings" in outcome.stdout
        return
    # The settings are of one network.
    arms = [arm for arm in spec.all_arms if arm.recipe is None or is_msvm]
    if words[1] == "msvm-unet-tuned":
        arms = arms[:3]
    settings = SMALL_MSVM
    if not is_msvm:
        settings = (*SMALL_XLSTM, *SMALL_STAGES[2 if spec.recipe.endswith("-2d") else 3])
    short = [word for setting in settings for word in ("--set", setting)]
    short += [] if "--seeds" in words else ["--seeds", "0"]
    short += [] if "--folds" in words else ["--folds", "0"]
    short += [] if len(arms) == len(spec.all_arms) else ["--arms", ",".join(arm.name for arm in arms)]

    outcome = command(*words, *short, "--devices", "cpu", *CPU)

    assert outcome.code == 0, outcome.stderr
    output = here / words[words.index("-o") + 1]
    text = (output / "comparison.md").read_text()
    assert all(f"| {arm.name} | 1 |" in text for arm in arms)
    if "blocks" in words[1]:
        outcomes = ComparisonRecord.read(output / "comparison.json").arms
        assert len({arm.num_parameters for arm in outcomes}) == len(arms)
    assert (output / "comparison.png").stat().st_size > 5000


def test_a_comparison_of_ones_own_is_planned(here, command):
    text = (ROOT / "docs/comparing.md").read_text(encoding="utf-8")
    (here / "compare.json").write_text(text.partition("```json\n")[2].partition("```")[0])
    make_dataset("hippocampus")
    words = blocks_of("docs/comparing.md")[0][0]

    outcome = command(*words[: words.index("--devices")], "--prepare", *CPU)

    assert outcome.code == 0, outcome.stderr
    assert all(name in outcome.stdout for name in ("nnU-Net", "xLSTM-UNet", "MSVM-UNet", "9 trainings"))


def test_a_published_checkpoint_from_the_file_to_the_score(here, command):
    (block,) = [block for block in blocks_of("docs/papers/msvm-unet.md") if block[0][0] == "plan"]
    assert [words[0] for words in block] == ["plan", "weights", "predict", "evaluate"]
    make_dataset("acdc")
    for words in block:
        if words[0] == "weights":
            plan = Plan.read(Path("plan.json"))
            torch.manual_seed(0)
            network = ModelFolder(here, plan).build_network()
            weights = ours_to_official(network.state_dict(), kind="msvm-unet")
            saved = {f"_model.{name}": value for name, value in weights.items()}
            torch.save({"state_dict": saved, "score": np.float64(0.5)}, words[2])
        workers = CPU if words[0] in ("plan", "evaluate") else ()
        outcome = command(*words, *workers, *(("--device", "cpu") if words[0] == "predict" else ()))
        assert outcome.code == 0, outcome.stderr
        if words[0] == "weights":
            assert f"{len(network.state_dict())} tensors of msvm-unet" in outcome.stdout
    assert "myocardium" in outcome.stdout


@pytest.mark.parametrize(("page", "words"), of_kind("weights verify ../"))
def test_published_records(page, words, golden, command):
    records = [golden / Path(word).name if word.startswith("..") else word for word in words]
    outcome = command(*records)
    assert outcome.code == 0, outcome.stderr
    assert "ok" in outcome.stdout


def imports():
    """Return the imports of the pages without that of MSVM-UNet, which the test of its block has."""
    found = of_kind("weights import")
    others = [each for each in found if "msvm-unet" not in each.values[1]]
    assert len(others) == len(found) - 1
    return others


@pytest.mark.parametrize(("page", "words"), imports())
def test_imports(page, words, here, command):
    kind = words[words.index("--network") + 1]
    if kind == "vmamba":
        network = MSVMUNet(3, 2).encoder
    else:
        make_dataset("kvasir-seg")
        planned = command("plan", "DATASET", "--recipe", kind, "-o", "plan.json", *CPU)
        assert planned.code == 0, planned.stderr
        network = ModelFolder(here, Plan.read(Path("plan.json"))).build_network()
    weights = ours_to_official(network.state_dict(), kind=kind)
    key = {"xlstm-unet": "network_weights", "vmamba": "model"}[kind]
    torch.save({key: weights, "score": np.float64(0.5)}, words[2])
    outcome = command(*words)
    assert outcome.code == 0, outcome.stderr
    assert f"{len(network.state_dict())} tensors of {kind}" in outcome.stdout


def test_no_command_of_these_pages_is_left_out():
    """Those that no test here runs are the README's way from raw data to scores, which `tests/pipeline` goes."""
    here = {"data", "evaluate", "reproduce", "compare", "weights"}
    others = {(page, words[0]) for page, words in COMMANDS if words[0] not in here}
    assert others <= {
        *(("README.md", name) for name in ("check", "plan", "train", "predict", "info")),
        *(("docs/datasets.md", name) for name in ("check", "train")),
        *((page, "predict") for page in ("docs/prediction.md", "docs/papers/msvm-unet.md")),
        ("docs/papers/msvm-unet.md", "plan"),
    }
    recipes = [words[words.index("--recipe") + 1] for _, words in COMMANDS if "--recipe" in words]
    assert set(recipes) <= set(RECIPES)
