"""A model folder: the files that a training writes and prediction reads.

| file | content |
|---|---|
| `plan.json`, `setup.json` | the plan; fold and initial weights |
| `model.safetensors` | the exported weights, which prediction uses |
| `best.safetensors`, `last.safetensors` | the other weights, if they differ from the exported ones |
| `run.json` | the run record |
| `metrics.jsonl`, `curves.png` | metrics of every epoch, and a figure of them |
| `train.log` | progress, warnings and errors of every session |
| `validation.json`, `validation/` | scores and label maps of the validation cases |
| `validation-sources.json` | checksums of the weights and the cases that were scored |
| `test-*.json`, `sources-*.json` | scores of the test cases, and checksums of their weights and cases |
| `state/` | the newest checkpoint, for resuming |
| `first_stage/` | the models of the first stage of a cascade |

No other module contains these names, except `scanseg.models.score_files` those of the scores.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from scanseg.errors import InputError, UsageError
from scanseg.files import LOCK_FILE, is_unused, make_folder, remove_unfinished, write_text, written_whole
from scanseg.messages import listed
from scanseg.models.checkpoint import Checkpoint, has_checkpoint, read_checkpoint, write_checkpoint
from scanseg.models.metrics_log import MetricsLog
from scanseg.models.network import load_weights, network_of
from scanseg.models.score_files import ScoreFiles
from scanseg.models.tensors import read_tensors, write_tensors
from scanseg.runtime import memory_for
from scanseg.specs import Plan, RunRecord, TrainingSetup

PLAN_FILE = "plan.json"
SETUP_FILE = "setup.json"
_RUN = "run.json"
_WEIGHTS = "model.safetensors"
_METRICS = "metrics.jsonl"
_CURVES = "curves.png"
_LOG = "train.log"
_STATE = "state"
_PREDICTIONS = "validation"
_FIRST_STAGE = "first_stage"

TrainedWeights = Literal["last", "best"]
"""Weights of a training: `last`, or `best` (highest Dice on validation patches)."""
Weights = Literal["exported", "last", "best"]
"""Weights to load: `exported` (chosen by the training: the last or the best), `last` or `best`."""
Status = Literal["new", "started", "trained", "finished"]
"""`new`: only a plan. `started`: a run record exists. `trained`: all epochs are done. `finished`: also validated."""


@dataclass(frozen=True, eq=False)
class ModelFolder:
    """A model on disk."""

    path: Path
    plan: Plan

    @classmethod
    def create(cls, path: Path, plan: Plan, setup: TrainingSetup | None = None) -> "ModelFolder":
        """Make a new model folder and write its plan.

        Args:
            path: The folder.
            plan: The plan.
            setup: Fold and initial weights. `None`: a model that is not trained here.

        Raises:
            UsageError: The path exists and is not an empty folder.
        """
        cls.require_new(path)
        make_folder(path)
        # The plan marks the folder as a model folder: it comes last.
        if setup is not None:
            write_text(path / SETUP_FILE, setup.to_json())
        write_text(path / PLAN_FILE, plan.to_json())
        return cls(path, plan)

    @staticmethod
    def require_new(path: Path) -> None:
        """Check that a path is free for a new model folder.

        Raises:
            UsageError: The path exists and is not an empty folder.
        """
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file. Choose a folder to write.")
        if path.exists() and not ModelFolder.is_empty(path):
            raise UsageError(
                f"{path} exists and is not an empty folder. Choose another folder, remove it, or continue its training "
                f"with --resume."
            )

    @staticmethod
    def is_empty(path: Path) -> bool:
        """Return whether a folder is free for a new model.

        A training that was killed before its plan leaves a free folder.
        """
        return path.is_dir() and is_unused(path, besides=(SETUP_FILE,))

    @classmethod
    def open(cls, path: Path) -> "ModelFolder":
        """Open a model folder.

        Raises:
            InputError: The folder is missing, or its plan cannot be read.
        """
        if path.is_file():
            hint = f" Give its folder, {path.parent}." if (path.parent / PLAN_FILE).is_file() else ""
            raise InputError(f"{path} is a file, not a model folder.{hint}")
        if not path.is_dir():
            raise InputError(f"{path}: no such folder. Give a model folder.")
        if not (path / PLAN_FILE).is_file():
            inside = sorted(str(folder.parent) for folder in path.glob(f"*/{PLAN_FILE}"))
            hint = f" Choose a model in it: {listed(inside)}." if inside else ""
            raise InputError(f"{path} is not a model folder: {PLAN_FILE} is missing.{hint}")
        return cls(path, Plan.read(path / PLAN_FILE))

    @staticmethod
    def exists(path: Path) -> bool:
        """Return whether a folder is a model folder."""
        return (path / PLAN_FILE).is_file()

    @staticmethod
    def plan_path(path: Path) -> Path:
        """Return the file of the plan in a model folder."""
        return path / PLAN_FILE

    def replace_plan(self, plan: Plan) -> "ModelFolder":
        """Write another plan, for example one with more epochs.

        Args:
            plan: The plan. Its network must fit the weights of the folder.

        Returns:
            The folder with this plan.
        """
        write_text(self.path / PLAN_FILE, plan.to_json())
        return ModelFolder(self.path, plan)

    def read_setup(self) -> TrainingSetup | None:
        """Read the choices of the training that its plan lacks.

        Returns:
            The choices. `None`: the training of an older version was stopped before its start.
        """
        path, record = self.path / SETUP_FILE, self.read_run()
        if path.is_file():
            return TrainingSetup.read(path)
        if record is None:
            return None
        return TrainingSetup(fold=record.fold, initial_weights=record.initial_weights)

    def status(self, *, with_predictions: bool = False) -> Status:
        """Return the status of the training.

        Args:
            with_predictions: `finished` also requires the label maps of all validation cases.
        """
        record = self.read_run()
        if record is None:
            return "new"
        if record.status != "finished":
            return "started"
        cases = record.validation_cases
        is_scored = not cases or self.scores.validation_path().is_file()
        has_predictions = not with_predictions or all(self.prediction_path(case).is_file() for case in cases)
        return "finished" if is_scored and has_predictions else "trained"

    @property
    def scores(self) -> ScoreFiles:
        """Scores of the validation and test cases."""
        return ScoreFiles(self)

    @property
    def metrics(self) -> MetricsLog:
        """Metrics of every epoch."""
        return MetricsLog(self.path / _METRICS)

    @property
    def curves_path(self) -> Path:
        """File of the figure of loss and validation Dice."""
        return self.path / _CURVES

    @property
    def log_path(self) -> Path:
        """File of the progress, warnings and errors of every session."""
        return self.path / _LOG

    @property
    def first_stage_path(self) -> Path:
        """Folder of the first-stage models of a cascade."""
        return self.path / _FIRST_STAGE

    def copy_to(self, target: Path) -> None:
        """Copy the files that prediction needs.

        Args:
            target: Folder to write. Existing files are replaced.
        """
        make_folder(target)
        for name in (PLAN_FILE, _RUN, _WEIGHTS):
            shutil.copyfile(self.path / name, target / name)
        if self.plan.cascade is not None:
            shutil.copytree(self.first_stage_path, target / _FIRST_STAGE, dirs_exist_ok=True)

    def prediction_path(self, case: str) -> Path:
        """Return the file of the label map of a validation case."""
        return self.path / _PREDICTIONS / f"{case}.b2nd"

    def claim(self) -> FileLock:
        """Lock the model folder during its training.

        Returns:
            The lock. It is released when its process ends, even after a crash.

        Raises:
            UsageError: Another training holds the lock.
        """
        lock = FileLock(self.path / LOCK_FILE, blocking=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise UsageError(
                f"a training is running in {self.path}. Wait for it, stop it, or choose another model folder."
            ) from error
        for folder in (self.path, self.path / _PREDICTIONS):
            remove_unfinished(folder)
        return lock

    def build_network(self) -> nn.Module:
        """Build the plan's network with random weights from torch's generator."""
        return network_of(self.plan)

    def has_checkpoint(self) -> bool:
        """Return whether a checkpoint exists."""
        return has_checkpoint(self.path / _STATE)

    def load_network(
        self, *, device: torch.device, weights: Weights | Literal["checkpoint"] = "exported"
    ) -> nn.Module:
        """Build the network with the trained weights, ready for prediction.

        Args:
            device: Device of the prediction.
            weights: Weights to load: `exported`, `last`, `best` (highest validation Dice), or `checkpoint`, the weights
                of the newest checkpoint that validation uses.

        Raises:
            InputError: The weights are missing, damaged, or of another network.
            ScansegError: The device has too little memory.
        """
        path = self.path / _STATE if weights == "checkpoint" else self.weights_path(weights)
        with memory_for(f"the network of {self.path}", device=device):
            network = self.build_network()
            tensors = self._checkpoint_weights() if weights == "checkpoint" else read_tensors(path)
            load_weights(network, tensors, source=path)
            return network.to(device).eval()

    def _checkpoint_weights(self) -> Mapping[str, Tensor]:
        """Return the weights of the newest checkpoint, EMA weights if planned."""
        checkpoint = self.read_checkpoint()
        if checkpoint is None:
            raise InputError(f"{self.path}: the training was stopped before its first checkpoint.")
        return checkpoint.network if checkpoint.ema is None else checkpoint.ema

    def weights_path(self, weights: Weights = "exported") -> Path:
        """Return the file of the weights.

        Args:
            weights: `exported`, `last` or `best` (highest validation Dice).

        Raises:
            InputError: The file is missing.
            UsageError: The name of the weights is unknown.
        """
        if weights not in get_args(Weights):
            raise UsageError(f"weights: expected one of {', '.join(get_args(Weights))}, got {weights!r}")
        path = self.weights_file(weights)
        if path.is_file():
            return path
        if (self.path / _WEIGHTS).is_file():
            raise InputError(
                f"{self.path}: {path.name} is missing, because its training has no validation on patches. Leave the "
                f"choice of weights out."
            )
        raise InputError(
            f"{self.path}: {_WEIGHTS} is missing, because its training has not finished. Continue it with --resume."
        )

    def has_weights(self, weights: Weights = "exported") -> bool:
        """Return whether the file of these weights exists."""
        return self.weights_file(weights).is_file()

    def weights_file(self, weights: Weights) -> Path:
        """Return the path of the weights, whether or not they exist."""
        is_exported = weights == "exported" or weights == self._exported()
        return self.path / (_WEIGHTS if is_exported else f"{weights}.safetensors")

    def exports(self, weights: TrainedWeights) -> bool:
        """Return whether these weights are the exported ones.

        Args:
            weights: Name of the weights.
        """
        return self._exported() == weights

    def _exported(self) -> TrainedWeights | None:
        """Return the name of the exported weights, or `None` before the export."""
        record = self.read_run()
        return record.exported.checkpoint if record and record.exported else None

    def write_weights(self, weights: Mapping[str, Tensor], name: Weights = "exported") -> None:
        """Write weights as a safetensors file.

        Args:
            weights: State dict of the network.
            name: `exported` (used by prediction), `last` or `best`.
        """
        path = self.path / (_WEIGHTS if name == "exported" else f"{name}.safetensors")
        with written_whole(path) as temporary:
            write_tensors(weights, temporary)

    def write_run(self, record: RunRecord) -> None:
        """Write the run record."""
        write_text(self.path / _RUN, record.to_json())

    def read_run(self) -> RunRecord | None:
        """Read the run record.

        Returns:
            The record, or `None` if the training stopped before its start.
        """
        path = self.path / _RUN
        return RunRecord.read(path) if path.exists() else None

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, which replaces the last one when it is complete."""
        write_checkpoint(self.path / _STATE, checkpoint)

    def read_checkpoint(self) -> Checkpoint | None:
        """Read the newest checkpoint.

        Returns:
            The checkpoint, or `None` if the training stopped before the first one.
        """
        return read_checkpoint(self.path / _STATE)
