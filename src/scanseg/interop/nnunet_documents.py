"""Plans of nnU-Net v2, as far as prediction and training need them.

Source: Isensee et al. 2021, doi:10.1038/s41592-020-01008-z. The form is that of nnU-Net 2.8, and the form of the
first versions of nnU-Net v2, whose configurations hold the network beside the other settings.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from scanseg.documents import read_json
from scanseg.errors import InputError
from scanseg.messages import listed
from scanseg.specs import describe_faults

PLANS_FILE = "plans.json"
"""File of the plans in a folder of a training."""
_MOST_PARENTS = 20
"""Largest number of configurations that inherit from each other."""
_OLD_CLASSES = {
    "PlainConvUNet": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "ResidualEncoderUNet": "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
}
"""Network classes of plans in the old form."""
_OLD_INTENSITIES = "foreground_intensity_properties_by_modality"


class _NNUNetDocument(BaseModel):
    """A document of nnU-Net. Unknown keys are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class IntensityProperties(_NNUNetDocument):
    """Intensities of the foreground of a channel."""

    mean: float
    std: float
    percentile_00_5: float
    percentile_99_5: float


class Architecture(_NNUNetDocument):
    """Class and arguments of a network."""

    network_class_name: str
    arch_kwargs: dict[str, Any]


class NNUNetConfiguration(_NNUNetDocument):
    """A configuration of the plans, such as `3d_fullres`, with inherited values."""

    preprocessor_name: str = "DefaultPreprocessor"
    batch_size: int = Field(gt=0)
    patch_size: tuple[int, ...] = Field(min_length=2, max_length=3)
    spacing: tuple[float, ...] = Field(min_length=2, max_length=3)
    normalization_schemes: tuple[str, ...] = Field(min_length=1)
    use_mask_for_norm: tuple[bool, ...]
    resampling_fn_data: str
    resampling_fn_data_kwargs: dict[str, Any] = Field(default_factory=dict)
    resampling_fn_probabilities: str
    resampling_fn_probabilities_kwargs: dict[str, Any] = Field(default_factory=dict)
    resampling_fn_seg: str
    resampling_fn_seg_kwargs: dict[str, Any] = Field(default_factory=dict)
    architecture: Architecture
    batch_dice: bool = True
    previous_stage: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_old_form(cls, content: Any) -> Any:
        if isinstance(content, dict) and "architecture" not in content and "UNet_class_name" in content:
            return content | {"architecture": _old_architecture(content)}
        return content

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if len(self.use_mask_for_norm) != len(self.normalization_schemes):
            raise ValueError(
                f"use_mask_for_norm: expected one value per channel ({len(self.normalization_schemes)}), got "
                f"{len(self.use_mask_for_norm)}"
            )
        if len(self.spacing) != len(self.patch_size):
            raise ValueError(
                f"spacing: expected as many axes as patch_size {self.patch_size}, got {self.spacing}"
            )
        return self


class NNUNetPlans(_NNUNetDocument):
    """The plans of a data set."""

    dataset_name: str
    plans_name: str
    image_reader_writer: str = "SimpleITKIO"
    transpose_forward: tuple[int, int, int]
    label_manager: str = "LabelManager"
    foreground_intensity_properties_per_channel: dict[str, IntensityProperties]
    original_median_shape_after_transp: tuple[float, float, float]
    configurations: dict[str, dict[str, Any]]

    @model_validator(mode="before")
    @classmethod
    def _read_old_form(cls, content: Any) -> Any:
        if isinstance(content, dict) and _OLD_INTENSITIES in content:
            return {"foreground_intensity_properties_per_channel": content[_OLD_INTENSITIES]} | content
        return content

    def configuration(self, name: str, path: Path) -> NNUNetConfiguration:
        """Return a configuration with everything that it inherits.

        Args:
            name: Name of the configuration.
            path: File of the plans, for messages.

        Raises:
            InputError: The configuration is missing or invalid.
        """
        content = self._inherited(name, path)
        try:
            return NNUNetConfiguration.model_validate(content)
        except ValidationError as error:
            faults = describe_faults(error, content=content)
            raise InputError(f"{path}: configuration {name}: {faults}.") from error

    def _inherited(self, name: str, path: Path) -> dict[str, Any]:
        """Return the settings of a configuration and of its parents."""
        settings: dict[str, Any] = {}
        parent: Any = name
        for _ in range(_MOST_PARENTS):
            if parent not in self.configurations:
                known = listed(list(self.configurations))
                raise InputError(f"{path}: expected a configuration of {known}, got {parent!r}.")
            settings = self.configurations[parent] | settings
            parent = self.configurations[parent].get("inherits_from")
            if parent is None:
                return settings
        raise InputError(f"{path}: configuration {name}: expected parents without a cycle (inherits_from).")


def read_plans(path: Path) -> NNUNetPlans:
    """Read plans of nnU-Net.

    Args:
        path: The file, `plans.json` or `nnUNetPlans.json`.

    Raises:
        InputError: The file cannot be read, or holds no plans of nnU-Net v2.
    """
    content = read_json(path)
    try:
        return NNUNetPlans.model_validate(content)
    except ValidationError as error:
        faults = describe_faults(error, content=content)
        raise InputError(f"{path}: not plans of nnU-Net v2: {faults}.") from error


def _old_architecture(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the architecture of a configuration in the old form.

    Its networks have instance norm and leaky ReLU.
    """
    name = content["UNet_class_name"]
    try:
        convolutions = content["n_conv_per_stage_encoder"]
        num_stages, axes = len(convolutions), len(content["patch_size"])
        features = [
            min(content["UNet_base_num_features"] * 2**stage, content["unet_max_num_features"])
            for stage in range(num_stages)
        ]
        counts = "n_blocks_per_stage" if name == "ResidualEncoderUNet" else "n_conv_per_stage"
        arguments = {
            "n_stages": num_stages,
            "features_per_stage": features,
            "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
            "kernel_sizes": content["conv_kernel_sizes"],
            "strides": content["pool_op_kernel_sizes"],
            counts: convolutions,
            "n_conv_per_stage_decoder": content["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        }
    except KeyError as error:
        raise ValueError(f"{error.args[0]} is missing from a configuration in the old form") from error
    except TypeError as error:
        raise ValueError(f"expected lists of numbers for the stages of the network ({error})") from error
    return {"network_class_name": _OLD_CLASSES.get(str(name), str(name)), "arch_kwargs": arguments}
