"""Models exported to ONNX predict the label maps of PyTorch, without PyTorch."""

import hashlib
import json
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch

import scanseg
from scanseg.errors import InputError, ScansegError, UsageError
from scanseg.imaging import read_label_map
from scanseg.interop import onnx_export
from scanseg.interop.onnx_graph import to_onnx
from scanseg.models import write_ensemble
from scanseg.specs import CascadeSpec, EnsembleSpec, ExportedModel, PostprocessingSpec
from tests.networks.test_network_contract import SPECS, built, image

from .conftest import NETWORKS, plan_of, write_model

onnx = pytest.importorskip("onnx", reason='pip install "scanseg[onnx]"')
pytest.importorskip("onnxscript", reason='pip install "scanseg[onnx]"')
onnxruntime = pytest.importorskip("onnxruntime", reason='pip install "scanseg[onnx]"')

# Predicts as on a machine without PyTorch: each argument is the words of one command.
WITHOUT_TORCH = """
import sys
from scanseg.cli import main
for words in sys.argv[1:]:
    code = main(words.split("|"))
    assert code == 0, words
    loaded = [name for name in sys.modules if name.partition(".")[0] == "torch"]
    assert not loaded, loaded[:5]
"""
LEAST_AGREEMENT = 0.9999
"""Fraction of voxels with the label of PyTorch."""


def predict_without_torch(*commands):
    words = ["|".join(["predict", *map(str, command)]) for command in commands]
    outcome = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stderr


def agreement(folder, reference):
    """Return the fraction of voxels with equal labels, over all label maps of two folders."""
    equal, total, names = 0, 0, [path.name for path in sorted(reference.iterdir())]
    names = [name for name in names if name.endswith((".png", ".nii.gz"))]
    assert len(names) == 2
    for name in names:
        label_map, expected = (read_label_map(each / name).array[0] for each in (folder, reference))
        assert len(np.unique(expected)) > 1  # else every network would agree
        equal, total = equal + int((label_map == expected).sum()), total + expected.size
    return equal / total


@pytest.fixture(scope="module")
def export_of(tmp_path_factory):
    """Export the model of a network once: its folder, the folder of the export, and its document."""
    folder = tmp_path_factory.mktemp("families")

    @cache
    def export(name):
        model, exported = write_model(folder / name, plan_of(name)), folder / f"{name}-onnx"
        return model, exported, scanseg.export_onnx(model, exported, progress=False)

    return export


def test_both_families_predict_as_by_torch_without_importing_it(export_of, images, tmp_path):
    commands, expected = [], []
    for name in ("msvm-unet", "xlstm-unet-2d", "xlstm-unet-3d"):
        plan = plan_of(name)
        model, exported, document = export_of(name)
        graph = onnx.load(exported / "network-0.onnx")
        assert [each.version for each in graph.opset_import if each.domain == ""] == [20]
        assert not {node.op_type for node in graph.graph.node} & {"Loop", "Scan", "If"}
        assert document.networks[0].largest_difference < 1e-3 * max(1, document.networks[0].largest_logit)
        words = [exported, images[plan.num_axes], "-o"]
        commands.append((*words, tmp_path / f"{name}-without"))
        scanseg.load(model, device="cpu").predict_folder(images[plan.num_axes], tmp_path / f"{name}-with")
        expected.append((tmp_path / f"{name}-without", tmp_path / f"{name}-with"))
    predict_without_torch(*commands)
    for found, reference in expected:
        assert agreement(found, reference) >= LEAST_AGREEMENT
        record = json.loads((found / "prediction.json").read_text())
        assert record["versions"]["onnxruntime"] == onnxruntime.__version__
        assert "torch" not in record["versions"]
        assert "onnxruntime" in record["device"]


def test_openvino_predicts_as_torch_without_importing_it(export_of, images, tmp_path):
    pytest.importorskip("openvino", reason='pip install "scanseg[openvino]"')
    model, exported, _ = export_of("xlstm-unet-2d")
    options = ("--runtime", "openvino", "--mirror", "--uncertainty")
    predict_without_torch((exported, images[2], "-o", tmp_path / "without", *options))
    scanseg.load(model, device="cpu").predict_folder(images[2], tmp_path / "with", mirror=True)
    assert agreement(tmp_path / "without", tmp_path / "with") >= LEAST_AGREEMENT
    assert len(list((tmp_path / "without" / "disagreement").iterdir())) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
@torch.no_grad()
def test_every_network_of_the_table_gives_the_logits_of_torch(name):
    if SPECS[name].kind in ("dynunet", "segresnet", "unetr", "swin-unetr"):
        pytest.importorskip("monai", reason='pip install "scanseg[baselines]"')
    network = built(name).eval()
    content = to_onnx(network, image(name), opset=20, name=name)
    assert not {node.op_type for node in onnx.load_from_string(content).graph.node} & {"Loop", "Scan"}
    session = onnxruntime.InferenceSession(content)
    for batch in (1, 3):
        windows = image(name, batch=batch)
        expected = network(windows)
        logits = torch.from_numpy(session.run(None, {"windows": windows.numpy()})[0])
        # Measured: 1.4e-6 of the largest logit.
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5 * max(1.0, expected.abs().max()))


def write_pair(folder, *, average):
    """Write an ensemble of networks of one plan, or of volumes and slices."""
    first = plan_of("plain-3d")
    other = first
    if average == "probabilities":
        fields = {name: getattr(first, name) for name in ("dataset", "preprocessing", "num_axes")}
        fields["preprocessing"] = first.preprocessing.model_dump()
        other = plan_of("plain-2d", **fields)
    write_model(folder / "a", first, seed=0)
    write_model(folder / "b", other, seed=1)
    spec = PostprocessingSpec(largest_component=("first",))
    write_ensemble(folder, EnsembleSpec(members=("a", "b"), average=average, postprocessing=spec))
    return folder


def write_cascade(folder):
    """Write a second stage with the first stage in its folder."""
    write_model(folder, plan_of("plain-3d", cascade=CascadeSpec()), seed=1)
    write_model(folder / "first_stage", plan_of("plain-3d"), seed=0)
    return folder


@pytest.mark.parametrize("kind", ["logits", "probabilities", "cascade"])
def test_ensembles_and_cascades_predict_as_by_torch(kind, images, tmp_path):
    model = write_cascade(tmp_path / kind) if kind == "cascade" else write_pair(tmp_path / kind, average=kind)
    document = scanseg.export_onnx(model, tmp_path / "exported", progress=False)
    assert len(document.networks) == 2
    source = images[3] / "case_0.nii.gz"
    options = {"mirror": kind != "cascade", "probabilities": True, "uncertainty": True}
    expected = scanseg.load(model, device="cpu").predict(source, **options)
    found = scanseg.load(tmp_path / "exported").predict(source, **options)
    assert len(np.unique(expected.label_map)) > 1
    assert (found.label_map == expected.label_map).mean() >= LEAST_AGREEMENT
    for name in ("probabilities", "entropy", "disagreement"):
        value, other = getattr(found, name), getattr(expected, name)
        if other is None:
            assert value is None
        else:
            # float16 has 3 digits
            np.testing.assert_allclose(value.astype(float), other.astype(float), atol=2e-3, err_msg=name)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model folder, and its export."""
    folder = tmp_path_factory.mktemp("exported")
    model = write_model(folder / "model", plan_of("plain-2d"))
    scanseg.export_onnx(model, folder / "onnx", opset=23, progress=False)
    return model, folder / "onnx"


@pytest.fixture
def copied(exported, tmp_path):
    """A copy of the export, and a function that replaces fields of its document."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in exported[1].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())

    def change(**fields):
        document = json.loads((folder / "model.json").read_text())
        document["model"]["networks"][0].update(fields)
        (folder / "model.json").write_text(json.dumps(document))

    return folder, change


def test_the_document_describes_the_model(exported):
    model, folder = exported
    document = ExportedModel.read(folder / "model.json")
    predictor = scanseg.load(model, device="cpu")
    assert document.model.plan == predictor.plan
    assert document.model_digest == predictor.compute_digest()
    assert (document.opset, document.model.input_shape) == (23, (1, 16, 16))
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "network-0.onnx"]


def other_network():
    return to_onnx(built("plain-2d").eval(), image("plain-2d"), opset=20, name="other")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_damaged_and_hostile_networks_are_refused_in_one_message(copied, runtime):
    pytest.importorskip(runtime)
    folder, change = copied
    path, whole = folder / "network-0.onnx", (folder / "network-0.onnx").read_bytes()

    def refused(content, match, *, trusted=True):
        path.write_bytes(content)
        if trusted:
            change(sha256=hashlib.sha256(content).hexdigest())
        with pytest.raises(InputError, match=match) as caught:
            scanseg.load(folder, runtime=runtime)
        assert "\n" not in str(caught.value)

    refused(whole[:-100], r"network-0\.onnx: expected the checksum .* Copy the whole folder", trusted=False)
    refused(whole[: len(whole) // 2], rf"network-0\.onnx: {runtime} cannot read the network")
    refused(b"", rf"network-0\.onnx: {runtime} cannot read the network")
    refused(b"\x80\x04cos\nsystem\n(S'true'\ntR.", rf"network-0\.onnx: {runtime} cannot read the network")
    refused(other_network(), r"expected one input of shape \('batch', 1, 16, 16\), got .*3, 64, 64")
    path.unlink()
    with pytest.raises(InputError, match=r"network-0\.onnx: cannot be read \(No such file"):
        scanseg.load(folder, runtime=runtime)


def test_files_outside_of_the_folder_are_refused(copied, tmp_path):
    folder, change = copied
    change(file="../network-0.onnx")
    with pytest.raises(InputError, match=r"model\.json: not a valid ExportedModel: model\.networks\.0\.file"):
        scanseg.load(folder)
    change(file="network-0.onnx")
    (folder / "network-0.onnx").rename(tmp_path / "elsewhere.onnx")
    (folder / "network-0.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(InputError, match=r"expected a file in its folder, got a link to .*elsewhere\.onnx"):
        scanseg.load(folder)


def test_a_damaged_document_is_refused(copied):
    folder, _ = copied
    document = json.loads((folder / "model.json").read_text())

    def refused(content, match):
        (folder / "model.json").write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(InputError, match=match):
            scanseg.load(folder)

    refused(json.dumps(document)[:-20], r"model\.json: expected JSON")
    refused(document | {"format": 2}, r"model\.json: not a valid ExportedModel: format")
    part = document["model"]
    refused(document | {"model": part | {"input_shape": [1, 8, 8]}}, r"input_shape: expected \(1, 16, 16\)")
    refused(document | {"model": part | {"first_stage": part}}, "first_stage: expected none by the plan")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--device", "cuda"), "device cuda: expected cpu for the exported model"),
        (("--weights", "last"), "weights last: expected exported for the exported model"),
        (("--precision", "bfloat16"), "precision bfloat16: expected float32 for the exported model"),
    ],
)
def test_options_of_torch_are_refused(command, exported, images, tmp_path, words, message):
    outcome = command("predict", exported[1], images[2], "-o", tmp_path / "out", *words)
    assert outcome.code == 2
    assert message in outcome.stderr
    assert not (tmp_path / "out").exists()


def test_a_runtime_needs_an_exported_model(command, exported, images, tmp_path):
    outcome = command("predict", exported[0], images[2], "-o", tmp_path / "out", "--runtime", "onnxruntime")
    assert outcome.code == 2
    assert f"Export it by scanseg export onnx {exported[0]} -o FOLDER" in outcome.stderr


def test_missing_packages_are_named_with_their_command(command, exported, images, tmp_path, monkeypatch):
    model, folder = exported
    for name in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, name, None)
        outcome = command("predict", folder, images[2], "-o", tmp_path / "out", "--runtime", name)
        assert outcome.code == 2
        assert f"Run: pip install {name}" in outcome.stderr
    outcome = command("export", "onnx", model, "-o", tmp_path / "out")
    assert outcome.code == 2
    assert 'Run: pip install "scanseg[onnx]"' in outcome.stderr
    assert not (tmp_path / "out").exists()


def test_a_file_that_differs_from_torch_is_not_written(exported, tmp_path, monkeypatch):
    other = to_onnx(
        scanseg.load(write_model(tmp_path / "other", plan_of("plain-2d"), seed=5), device="cpu").network,
        torch.zeros(2, 1, *NETWORKS["plain-2d"][1]),
        opset=20,
        name="other",
    )
    monkeypatch.setattr(onnx_export, "to_onnx", lambda *_, **__: other)
    with pytest.raises(ScansegError, match=r"expected logits within .* of PyTorch's, got a difference of"):
        scanseg.export_onnx(exported[0], tmp_path / "out", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_exports_are_refused_before_any_work(exported, tmp_path):
    model, folder = exported
    with pytest.raises(UsageError, match="expected a new or empty folder, but it exists"):
        scanseg.export_onnx(model, folder, progress=False)
    with pytest.raises(UsageError, match="expected a model folder, got an exported model"):
        scanseg.export_onnx(folder, tmp_path / "out", progress=False)
    with pytest.raises(UsageError, match="opset 19: expected 20 to 23"):
        scanseg.export_onnx(model, tmp_path / "out", opset=19, progress=False)
    assert not (tmp_path / "out").exists()


def test_the_command_lists_the_networks(command, exported, tmp_path):
    outcome = command("export", "onnx", exported[0], "-o", tmp_path / "out")
    assert outcome.code == 0
    assert "network-0.onnx" in outcome.stdout
    assert "1 network, opset 20" in outcome.stdout
