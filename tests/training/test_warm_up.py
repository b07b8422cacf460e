"""A warm-up requests all kernels of a plan. On the CPU of these tests nothing is compiled."""

import pytest
import torch

import scanseg
from scanseg.errors import InputError, UsageError
from scanseg.models import ModelFolder
from scanseg.progress import ProgressUpdate
from scanseg.runtime import RunContext
from scanseg.specs import Plan
from scanseg.training import read_plans, warm_up
from scanseg.training.step import TrainingStep
from scanseg.training.step_timing import random_batch


@pytest.fixture
def module(monkeypatch):
    """The module, whose device may be a CPU. Each requested pass has three kernels."""
    import importlib

    module = importlib.import_module("scanseg.training.warm_up")
    module.passes = []

    def compile_kernels(run, network, *, num_threads, context):
        module.passes.append((network.training, torch.is_grad_enabled(), tuple(run().shape)))
        for done in (1, 2, 3):
            context.progress(ProgressUpdate("compiling kernels", done, 3))

    monkeypatch.setattr(module, "_require_kernels", lambda device: None)
    monkeypatch.setattr(module, "compile_kernels", compile_kernels)
    return module


def test_a_prediction_runs_a_full_batch_and_one_window(module, plan):
    made = Plan.read(plan)
    made = made.model_copy(update={"inference": made.inference.model_copy(update={"window_batch": 4})})
    found = warm_up([made], purposes=("prediction",), context=RunContext(device="cpu"))
    shape = (made.dataset.num_outputs, *made.sampling.patch_size)
    assert module.passes == [(False, False, (1, *shape)), (False, False, (4, *shape))]
    assert found.num_kernels == 6
    assert found.purposes == ("prediction",)


def test_its_batches_are_those_of_a_training(plan, train, monkeypatch):
    """Other dtypes have other kernels."""
    batches, run = [], TrainingStep.run

    def noting(step, batch, **options):
        batches.append(batch)
        return run(step, batch, **options)

    monkeypatch.setattr(TrainingStep, "run", noting)
    train()
    made = random_batch(Plan.read(plan), torch.device("cpu"))
    for name in ("images", "label_maps"):
        found, expected = getattr(made, name), getattr(batches[0], name)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.is_contiguous()
        assert expected.is_contiguous()


def test_a_training_runs_a_step_and_a_validation(module, monkeypatch, plan):
    steps = []

    class Step(module.TrainingStep):
        def run(self, batch, *, lr):
            steps.append(("step", tuple(batch.images.shape), self._plan.training.cuda_graph))
            return super().run(batch, lr=lr)

        def logits(self, batch):
            steps.append(("validation", tuple(batch.images.shape)))
            return super().logits(batch)

    monkeypatch.setattr(module, "TrainingStep", Step)
    made, state = Plan.read(plan), torch.get_rng_state()
    warm_up([made], purposes=("training",), context=RunContext(device="cpu"))
    shape = (made.sampling.batch_size, made.num_inputs, *made.sampling.patch_size)
    assert steps == [("step", shape, False), ("validation", shape)]
    assert torch.equal(torch.get_rng_state(), state)


def test_plans_are_found_in_files_and_models(plan, tmp_path):
    made = Plan.read(plan)
    ModelFolder.create(tmp_path / "model", made)
    assert read_plans(plan) == read_plans(tmp_path / "model") == [made]
    with pytest.raises(InputError, match="no such file or folder"):
        read_plans(tmp_path / "missing")


def test_folders_are_for_prediction_and_plans_for_both(module, plan, tmp_path):
    ModelFolder.create(tmp_path / "model", Plan.read(plan))
    assert scanseg.warm_up(tmp_path / "model", device="cpu").purposes == ("prediction",)
    assert scanseg.warm_up(plan, device="cpu").purposes == ("training", "prediction")
    assert scanseg.warm_up(plan, purpose="training", device="cpu").purposes == ("training",)


def test_without_a_gpu_the_reason_is_stated(plan):
    with pytest.raises(UsageError, match=r"expected a GPU with CUDA, got cpu\. Only kernels of GPUs"):
        scanseg.warm_up(plan, device="cpu")


def test_the_command_states_it_too(command, plan):
    outcome = command("warm-up", plan, "--device", "cpu")
    assert outcome.code == 2
    assert outcome.stderr.startswith("error: warm-up: expected a GPU with CUDA, got cpu.")


@pytest.mark.gpu
def test_on_a_gpu_nothing_is_left_to_compile(plan, tmp_path, monkeypatch, command):
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path / "cache"))
    outcome = command("warm-up", plan)
    assert outcome.code == 0, outcome.stderr
    assert "kernels for training and prediction" in outcome.stdout
    late = []
    monkeypatch.setattr(
        triton.knobs.runtime,
        "jit_post_compile_hook",
        lambda *, repr, is_manual_warmup, **others: late.append(repr),
    )
    warm_up([Plan.read(plan)], purposes=("training", "prediction"), context=RunContext(device="cuda"))
    assert late == []
