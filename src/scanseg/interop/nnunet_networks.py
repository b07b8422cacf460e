"""Networks of ours in the form that nnU-Net builds from its plans."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from pydantic import TypeAdapter
from torch import Tensor, nn

from scanseg.networks import build_network
from scanseg.specs import NetworkSpec

CLASS_NAME = f"{__name__}.NetworkForNNUNet"
"""Name of the class in nnU-Net's plans (`network_class_name`)."""
_NETWORK: TypeAdapter[NetworkSpec] = TypeAdapter(NetworkSpec)
NETWORK_PREFIX = "network."
"""Prefix of our names in the weights of the class."""


class NetworkForNNUNet(nn.Module):
    """A network of scanseg with the interface that nnU-Net expects.

    nnU-Net builds it by the name of the class and the arguments in its plans, without a change to nnU-Net. Prediction
    and training need scanseg in the same environment.

    Args:
        input_channels: Channels of the images.
        num_classes: Channels of the logits.
        network: Document of the network, as in `network` of our plans.
        patch_size: Voxels of a patch per axis.
        strides: Strides of the stages, from which nnU-Net computes the sizes of the targets of deep supervision.
        deep_supervision: Return the logits of every decoder stage.

    Raises:
        InputError: The patch size or a setting of the network is invalid.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        network: Mapping[str, Any],
        patch_size: Sequence[int],
        strides: Sequence[Sequence[int]],
        deep_supervision: bool = True,
    ) -> None:
        super().__init__()
        self.strides = tuple(map(tuple, strides))
        spec = read_network(network)
        self.network = build_network(
            spec, in_channels=input_channels, num_classes=num_classes, patch_size=tuple(patch_size)
        )
        self._has_stages = bool(getattr(spec, "deep_supervision", False))
        self.deep_supervision = deep_supervision

    @property
    def decoder(self) -> "NetworkForNNUNet":
        """The object with the attribute `deep_supervision`, which nnU-Net switches."""
        return self

    def forward(
        self, x: Float[Tensor, "batch channel *space"]
    ) -> Float[Tensor, "batch class *space"] | tuple[Float[Tensor, "batch class *stage_space"], ...]:
        """Return the logits: of every decoder stage with deep supervision, else of the last one."""
        if not self._has_stages:
            logits = self.network(x)
            return (logits,) if self.deep_supervision else logits
        return self.network(x, every_stage=self.deep_supervision)


def read_network(content: Mapping[str, Any]) -> NetworkSpec:
    """Read the document of a network.

    Args:
        content: The document.

    Raises:
        ValidationError: It is not valid.
    """
    return _NETWORK.validate_python(content)


def architecture_for_nnunet(spec: NetworkSpec, *, patch_size: Sequence[int]) -> dict[str, Any]:
    """Return a network of ours as in nnU-Net's plans.

    Args:
        spec: The network.
        patch_size: Voxels of a patch per axis.
    """
    axes = spec.num_axes
    single = ((1,) * axes, (2,) * axes)
    """Strides with one target, for networks without deep supervision."""
    strides = getattr(spec, "strides", single) if getattr(spec, "deep_supervision", False) else single
    return {
        "network_class_name": CLASS_NAME,
        "arch_kwargs": {
            "network": spec.model_dump(mode="json"),
            "patch_size": list(patch_size),
            "strides": [list(stride) for stride in strides],
        },
        "_kw_requires_import": [],
    }
