"""A model folder: `plan.json`, `model.safetensors`, `run.json`, `metrics.jsonl` and `state/` for resuming.

Beside `model.safetensors`, which prediction uses, lie `best.safetensors` or `last.safetensors`, whichever it is not.
"""

import errno
import json
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from filelock import FileLock, Timeout
from pydantic import JsonValue
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scanseg.errors import InputError, UsageError, reason_of
from scanseg.files import write_text, written_whole
from scanseg.messages import listed
from scanseg.networks import build_network
from scanseg.runtime import memory_for
from scanseg.specs import Plan, RunRecord, TrainingState

_PLAN = "plan.json"
_RUN = "run.json"
_WEIGHTS = "model.safetensors"
_LOCK = ".lock"
_METRICS = "metrics.jsonl"
_STATE = "state"
_CHECKPOINT = "iteration-"
_PREDICTIONS = "validation"

Weights = Literal["exported", "last", "best"]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """All that a training needs to go on exactly; random draws follow from the seed and the iteration."""

    state: TrainingState
    network: dict[str, Tensor]
    """The network's state dict."""
    optimizer: dict[str, Tensor]
    """The optimizer's tensors by `PARAMETER.NAME`."""
    average: dict[str, Tensor] | None = None
    """State dict of the network with averaged weights, where they are averaged."""
    best: dict[str, Tensor] | None = None
    """State dict of the network that was best on validation patches."""


@dataclass(frozen=True, eq=False)
class ModelFolder:
    """A model on disk."""

    path: Path
    plan: Plan

    @classmethod
    def create(cls, path: Path, plan: Plan) -> "ModelFolder":
        """Make a new model folder and write its plan.

        Raises:
            UsageError: The folder holds something already.
        """
        cls.require_new(path)
        path.mkdir(parents=True, exist_ok=True)
        write_text(path / _PLAN, plan.to_json())
        return cls(path, plan)

    @staticmethod
    def require_new(path: Path) -> None:
        """Make sure that a model can be written to a place.

        Raises:
            UsageError: There is something already.
        """
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file; name a folder that is to be written.")
        if path.exists() and any(entry.name != _LOCK for entry in path.iterdir()):
            raise UsageError(
                f"{path} exists and is not an empty folder. Choose another place, remove it, or go on with the "
                f"training in it by --resume."
            )

    @classmethod
    def open(cls, path: Path) -> "ModelFolder":
        """Open a model folder.

        Raises:
            InputError: There is no such folder, or its plan cannot be read.
        """
        if path.is_file():
            known = f"; give its folder, {path.parent}" if (path.parent / _PLAN).is_file() else ""
            raise InputError(f"{path} is a file, not a model folder{known}.")
        if not path.is_dir():
            raise InputError(f"{path} is not a model folder: there is no such folder.")
        if not (path / _PLAN).is_file():
            inside = sorted(str(folder.parent) for folder in path.glob(f"*/{_PLAN}"))
            known = f"; models in it are {listed(inside)}" if inside else ""
            raise InputError(f"{path} is not a model folder: it holds no {_PLAN}{known}.")
        return cls(path, Plan.read(path / _PLAN))

    def prediction_path(self, case: str) -> Path:
        """Return the file in which the label map of a validation case is kept."""
        return self.path / _PREDICTIONS / f"{case}.b2nd"

    def claim(self) -> FileLock:
        """Return a lock that is held while the model is trained; it ends with its process, however that ends.

        Raises:
            UsageError: Another training holds it.
        """
        lock = FileLock(self.path / _LOCK, blocking=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise UsageError(
                f"a training is running in {self.path}; wait for it, stop it, or choose another model folder."
            ) from error
        return lock

    def build_network(self) -> nn.Module:
        """Build the plan's network, freshly initialised from torch's random state."""
        return network_of(self.plan)

    def load_network(self, *, device: torch.device, weights: Weights = "exported") -> nn.Module:
        """Build the network with the trained weights, ready for prediction.

        Args:
            device: Where to predict.
            weights: Those the training chose to export, the last, or the best on validation patches.

        Raises:
            InputError: The weights are missing, damaged, or of another network.
            ScansegError: The memory does not suffice.
        """
        path = self.weights_path(weights)
        with memory_for(f"the network of {self.path}", device=device):
            network = self.build_network()
            load_weights(network, read_tensors(path), source=path)
            return network.to(device).eval()

    def weights_path(self, weights: Weights = "exported") -> Path:
        """Return the file of weights.

        Raises:
            InputError: There is none.
            UsageError: There are no weights of this name.
        """
        if weights not in get_args(Weights):
            raise UsageError(f"weights {weights!r} are unknown; choose {', '.join(get_args(Weights))}")
        record = self.read_run()
        exported = record.exported.checkpoint if record and record.exported else None
        path = self.path / (_WEIGHTS if weights in ("exported", exported) else f"{weights}.safetensors")
        if path.is_file():
            return path
        if (self.path / _WEIGHTS).is_file():
            raise InputError(
                f"{self.path} holds no {path.name}: its training measured nothing on validation patches; "
                f"leave the choice of weights out."
            )
        raise InputError(f"{self.path} holds no {_WEIGHTS}: its training has not finished (see --resume).")

    def write_weights(self, weights: Mapping[str, Tensor], name: Weights = "exported") -> None:
        """Write weights: those that prediction uses, or others that it can be asked to use."""
        path = self.path / (_WEIGHTS if name == "exported" else f"{name}.safetensors")
        with written_whole(path) as temporary:
            write_tensors(weights, temporary)

    def write_run(self, record: RunRecord) -> None:
        """Write the record of the run."""
        write_text(self.path / _RUN, record.to_json())

    def read_run(self) -> RunRecord | None:
        """Read the record of the run; None where the training was stopped before it began."""
        path = self.path / _RUN
        return RunRecord.read(path) if path.exists() else None

    def append_metrics(self, metrics: Mapping[str, JsonValue]) -> None:
        """Add a line to the metrics."""
        with (self.path / _METRICS).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(metrics) + "\n")

    def read_metrics(self) -> list[dict[str, JsonValue]]:
        """Read the metrics, a dictionary an epoch; a line cut short by a crash is left out."""
        path = self.path / _METRICS
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("}\n")]

    def keep_metrics(self, epochs_done: int) -> None:
        """Drop the metrics of later epochs; they will be made again."""
        kept = self.read_metrics()[:epochs_done]
        write_text(self.path / _METRICS, "".join(json.dumps(line) + "\n" for line in kept))

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint; it takes the place of the last one once it is whole.

        One of the same state that is there already is kept.
        """
        state = self.path / _STATE
        state.mkdir(exist_ok=True)
        final = state / f"{_CHECKPOINT}{checkpoint.state.iterations_done:09d}"
        while (there := _state_in(final)) is not None and there != checkpoint.state:
            final = final.with_name(f"{final.name}-more")
        if there is None:
            _replace_checkpoint(final, checkpoint)
        for older in state.iterdir():
            if older != final:
                shutil.rmtree(older, ignore_errors=True)

    def read_checkpoint(self) -> Checkpoint | None:
        """Read the newest checkpoint; None where the training was stopped before the first."""
        found = sorted((self.path / _STATE).glob(f"{_CHECKPOINT}*"))
        if not found:
            return None
        return _read_whole(found[-1])


def check_network(plan: Plan) -> None:
    """Make sure that the network of a plan can be built, without taking memory for its weights.

    Raises:
        InputError: The network refuses its description, or the patch size.
    """
    with torch.device("meta"):
        network_of(plan)


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], *, source: Path) -> None:
    """Put weights into a network.

    Raises:
        InputError: Names or shapes differ; all of them are listed.
    """
    expected = network.state_dict()
    faults = [f"{name} is missing" for name in expected if name not in weights]
    faults += [f"{name} is unexpected" for name in weights if name not in expected]
    faults += [
        f"{name} has shape {tuple(weights[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if faults:
        raise InputError(f"{source} does not fit the network of its plan: {'; '.join(faults)}")
    network.load_state_dict(weights)


def network_of(plan: Plan) -> nn.Module:
    """Build a plan's network, on the device that is torch's default."""
    return build_network(
        plan.network,
        in_channels=plan.num_inputs,
        num_classes=plan.dataset.num_outputs,
        patch_size=plan.sampling.patch_size,
    )


def _replace_checkpoint(final: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint beside its place, and put it there when it is whole."""
    temporary = final.with_name(f".writing-{final.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    write_tensors(checkpoint.network, temporary / "network.safetensors")
    write_tensors(checkpoint.optimizer, temporary / "optimizer.safetensors")
    for name, tensors in (("average", checkpoint.average), ("best", checkpoint.best)):
        if tensors is not None:
            write_tensors(tensors, temporary / f"{name}.safetensors")
    (temporary / "state.json").write_text(checkpoint.state.to_json(), encoding="utf-8")
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)


def _read_whole(folder: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        InputError: A part of it is missing or damaged.
    """
    average, best = (folder / f"{name}.safetensors" for name in ("average", "best"))
    return Checkpoint(
        state=TrainingState.read(folder / "state.json"),
        network=read_tensors(folder / "network.safetensors"),
        optimizer=read_tensors(folder / "optimizer.safetensors"),
        average=read_tensors(average) if average.exists() else None,
        best=read_tensors(best) if best.exists() else None,
    )


def _state_in(folder: Path) -> TrainingState | None:
    """Return the state of a checkpoint; None unless all of it is there and can be read."""
    try:
        return _read_whole(folder).state
    except InputError:
        return None


def _as_stored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring tensors into the form in which they are written."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors to a safetensors file, which others may read as they may any new file.

    Raises:
        OSError: It cannot be written.
    """
    path.touch()  # safetensors makes files that their owner alone can read
    mode = stat.S_IMODE(path.stat().st_mode)
    try:
        save_file(_as_stored(tensors), path)
        path.chmod(mode)
    except SafetensorError as error:
        raise OSError(errno.EIO, f"cannot be written ({error})", str(path)) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        InputError: It is missing or damaged.
    """
    try:
        path.open("rb").close()  # safetensors says of a file that may not be read that it is not there
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({reason_of(error)})") from error
