"""The user's choices for reproducing an experiment of a paper."""

from dataclasses import dataclass
from pathlib import Path

from scanseg.errors import InputError, UsageError
from scanseg.papers.protocols import Optimizer
from scanseg.specs import Paper, Protocol, Variant

_SEEDS: dict[Protocol, tuple[int, ...]] = {"published": (0,), "held-out": (0, 1, 2)}
_NO_ENCODER = (
    "MSVM-UNet is published with ImageNet weights in its encoder. Give VMamba's vssm1_tiny_0230s_ckpt_epoch_264.pth "
    "(from the releases of https://github.com/MzeroMiko/VMamba) as --encoder-weights, or pass --from-scratch. The "
    "published code trains from scratch without a message if the file is missing"
)


@dataclass(frozen=True)
class ReproductionRequest:
    """An experiment of a paper, and the choices for running it."""

    paper: Paper
    data: str
    """Name of the data set."""
    num_axes: int | None = None
    """Number of spatial axes of xLSTM-UNet. `None`: those of the paper, 2 if it has both."""
    protocol: Protocol = "held-out"
    variant: Variant = "enc"
    optimizer: Optimizer = "sgd"
    encoder_weights: Path | None = None
    """VMamba's ImageNet weights for the encoder of MSVM-UNet."""
    from_scratch: bool = False
    """Train MSVM-UNet from random weights."""
    baselines: tuple[str, ...] = ()
    """Baselines to train too."""
    seeds: tuple[int, ...] = ()
    """Random seeds. Empty: 0 for `published`, 0 to 2 for `held-out`."""
    quick: bool = False
    """Run the same steps with small networks and few cases."""
    max_minutes: float | None = None
    """Time limit of each training. The learning rate falls with the clock."""
    settings: tuple[str, ...] = ()
    """Changes to the plan, each `path.to.key=value`."""

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The given seeds, or the default ones of the protocol."""
        return self.seeds or _SEEDS[self.protocol]

    @property
    def named_variant(self) -> Variant | None:
        """The variant of xLSTM-UNet, or `None` for MSVM-UNet."""
        return self.variant if self.paper == "xlstm-unet" else None

    @property
    def all_settings(self) -> tuple[str, ...]:
        """All changes to the plan, with the time limit."""
        minutes = () if self.max_minutes is None else (f"training.max_minutes={self.max_minutes}",)
        return (*minutes, *self.settings)

    @property
    def encoder(self) -> str:
        """Origin of the encoder's initial weights. Empty: the network has none."""
        if self.paper != "msvm-unet":
            return ""
        return "from scratch" if self.from_scratch else f"ImageNet weights {self.encoder_weights}"

    def check_encoder(self) -> None:
        """Check the choice of initial weights for the encoder of MSVM-UNet.

        Raises:
            InputError: The file of the encoder's weights is missing.
            UsageError: The choices exclude each other, or one is missing.
        """
        if self.paper != "msvm-unet":
            if self.encoder_weights is not None or self.from_scratch:
                raise UsageError(
                    f"{self.paper} has no pretrained encoder. Leave --encoder-weights and --from-scratch out."
                )
            return
        if self.encoder_weights is None and not self.from_scratch:
            raise UsageError(_NO_ENCODER)
        if self.encoder_weights is not None and (self.from_scratch or self.quick):
            other = "--from-scratch" if self.from_scratch else "--quick, whose encoder is smaller,"
            raise UsageError(f"--encoder-weights and {other} exclude each other. Leave one out.")
        if self.encoder_weights is not None and not self.encoder_weights.is_file():
            raise InputError(f"{self.encoder_weights}: no such file. {_NO_ENCODER}.")
