"""The state from which a training resumes exactly."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from scanseg.errors import InputError
from scanseg.models.tensors import join_misfits, list_misfits, read_tensors, write_tensors
from scanseg.specs import TrainingState

_PREFIX = "iteration-"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Everything a training needs to resume exactly.

    Random draws are not part of it: they follow from the seed and the iteration number.
    """

    state: TrainingState
    network: dict[str, Tensor]
    """The network's state dict."""
    optimizer: dict[str, Tensor]
    """The optimizer's tensors by `PARAMETER.NAME`."""
    ema: dict[str, Tensor] | None = None
    """State dict of the network with EMA weights. `None`: the plan has none."""
    best: dict[str, Tensor] | None = None
    """State dict of the best network on validation patches. `None`: not measured."""
    folder: Path | None = None
    """Folder that the checkpoint was read from, for messages. `None`: not from files."""

    def check_network(self, network: Mapping[str, Tensor], *, has_ema: bool) -> None:
        """Check that the tensors fit a network.

        Args:
            network: State dict of the network.
            has_ema: The plan has EMA weights.

        Raises:
            InputError: Tensors are missing or unexpected, or have another shape or type. The message names the file.
        """
        parts = {"network": self.network, "ema": self.ema, "best": self.best}
        expected = {
            "network": True,
            "ema": has_ema,
            "best": self.state.progress.best_iterations is not None,
        }
        for name, tensors in parts.items():
            if expected[name] and tensors is None:
                raise InputError(
                    f"{self._file(name)}: missing from the checkpoint. Restore it, or train again in another folder."
                )
            if not expected[name] and tensors is not None:
                raise InputError(
                    f"{self._file(name)}: unexpected, since the training has no such weights. Remove it, or restore "
                    f"the plan of the training."
                )
            if tensors is not None:
                self.refuse(name, list_misfits(network, tensors, same_dtype=True))

    def refuse(self, part: str, faults: Sequence[str]) -> None:
        """Raise an error if a part of the checkpoint has faults.

        Args:
            part: Name of the part: `network`, `optimizer`, `ema`, `best` or `state`.
            faults: Its faults.

        Raises:
            InputError: Faults exist. The message lists at most the first twenty.
        """
        if faults:
            raise InputError(
                f"{self._file(part)}: the checkpoint does not fit the plan: {join_misfits(faults)}. Restore the plan "
                f"or the checkpoint, or train again in another folder."
            )

    def _file(self, part: str) -> str:
        """Return the file of a part, for messages."""
        name = f"{part}.json" if part == "state" else f"{part}.safetensors"
        return name if self.folder is None else str(self.folder / name)


def write_checkpoint(state: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, which replaces the last one when it is complete.

    A complete checkpoint of the same state is kept.

    Args:
        state: Folder of the checkpoints.
        checkpoint: The checkpoint.
    """
    state.mkdir(exist_ok=True)
    final = state / f"{_PREFIX}{checkpoint.state.iterations_done:09d}"
    while (existing := _state_in(final)) is not None and existing != checkpoint.state:
        final = final.with_name(f"{final.name}-more")
    if existing is None:
        _replace_checkpoint(final, checkpoint)
    for older in state.iterdir():
        if older != final:
            shutil.rmtree(older, ignore_errors=True)


def read_checkpoint(state: Path) -> Checkpoint | None:
    """Read the newest checkpoint.

    Args:
        state: Folder of the checkpoints.

    Returns:
        The checkpoint, or `None` if none exists.

    Raises:
        InputError: A part of the checkpoint is missing or damaged.
    """
    found = sorted(state.glob(f"{_PREFIX}*"))
    return _read_whole(found[-1]) if found else None


def has_checkpoint(state: Path) -> bool:
    """Return whether a checkpoint exists, without reading it.

    Args:
        state: Folder of the checkpoints.
    """
    return any(state.glob(f"{_PREFIX}*"))


def _replace_checkpoint(final: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to a temporary folder and rename it."""
    temporary = final.with_name(f".writing-{final.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    write_tensors(checkpoint.network, temporary / "network.safetensors")
    write_tensors(checkpoint.optimizer, temporary / "optimizer.safetensors")
    for name, tensors in (("ema", checkpoint.ema), ("best", checkpoint.best)):
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
    ema, best = (folder / f"{name}.safetensors" for name in ("ema", "best"))
    return Checkpoint(
        state=TrainingState.read(folder / "state.json"),
        network=read_tensors(folder / "network.safetensors"),
        optimizer=read_tensors(folder / "optimizer.safetensors"),
        ema=read_tensors(ema) if ema.exists() else None,
        best=read_tensors(best) if best.exists() else None,
        folder=folder,
    )


def _state_in(folder: Path) -> TrainingState | None:
    """Return the state of a checkpoint, or `None` unless it is complete."""
    try:
        return _read_whole(folder).state
    except InputError:
        return None
