"""A model on its device: plans, networks and their properties."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from scanseg.errors import UsageError
from scanseg.inference.arrays import Device
from scanseg.inference.inputs import orientation_warning
from scanseg.inference.model_digest import compute_digest
from scanseg.inference.networks import Networks
from scanseg.inference.plan_predictor import PlanPredictor
from scanseg.inference.postprocessing import NOTHING
from scanseg.inference.prediction import Prediction, PreparedImage
from scanseg.specs import CaseGeometry, Plan, PostprocessingSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

    from scanseg.inference.predictor import Predictor
    from scanseg.runtime import Precision


class LoadedModel(ABC):
    """A network with its plan, first stage (cascade) and members (ensemble)."""

    def __init__(
        self,
        plan: Plan,
        network: "nn.Module | Networks",
        *,
        device: "torch.device | None" = None,
        model: str = "a network in memory",
        postprocessing: PostprocessingSpec = NOTHING,
        first_stage: "Predictor | None" = None,
        members: "Sequence[Predictor]" = (),
        precision: "Precision | None" = None,
        cuda_graph: bool = True,
        warnings: Sequence[str] = (),
        temperatures: Sequence[float] | None = None,
    ) -> None:
        """Move a network to a device and set it to evaluation.

        Args:
            plan: Plan of the network: preprocessing, windows and labels.
            network: Network of the plan, or networks of another library on their device.
            device: Device of a network of PyTorch. `None`: the CPU. Networks of another library have their own.
            model: Source of the network, for the record of predictions.
            postprocessing: Components to remove from label maps. Defaults to none.
            first_stage: First stage of a cascade. It segments an image before this network does.
            members: Predictors of other plans for the same labels. All probabilities are averaged on the grid of the
                image. The members' own postprocessing is not applied.
            precision: Precision of the network's products. `None`: that of the plan's training.
            cuda_graph: On a GPU with CUDA, replay the network's passes as a CUDA graph. Results are equal. Small
                batches are much faster, and the graph needs the memory of one pass. If a pass cannot be captured, the
                reason is logged and passes run directly.
            warnings: Warnings about the model, which each prediction repeats.
            temperatures: Temperature of each output for probabilities and uncertainty, see
                `scanseg.inference.uncertainty.to_probabilities`. Label maps do not depend on it. `None`: all are 1.

        Raises:
            UsageError: The device does not support the precision.
            ScansegError: The network does not fit into memory.
        """
        self.plan = plan
        self.model = model
        self.postprocessing = postprocessing
        self.first_stage = first_stage
        self.members = tuple(members)
        if self.members and temperatures is not None:
            raise UsageError("temperatures: expected none for the mean of several plans. Leave them out.")
        self.temperatures = None if temperatures is None else tuple(temperatures)
        self._warnings = tuple(warnings)
        if not isinstance(network, Networks):
            from scanseg.inference.torch_networks import TorchNetworks

            network = TorchNetworks(
                network,
                device=device,
                precision=precision or plan.training.precision,
                cuda_graph=cuda_graph,
            )
        self.networks: Networks = network
        self._plan_predictor = PlanPredictor(plan, self.networks, temperatures=self.temperatures)

    @property
    def network(self) -> Any:
        """The network: a module of PyTorch, or a function of arrays in an exported model."""
        return self.networks.network

    @property
    def device(self) -> Device:
        """Device of the computation."""
        return self.networks.device

    @property
    def libraries(self) -> tuple[str, ...]:
        """Names of the Python packages that compute, for records."""
        return self.networks.libraries

    def describe_device(self) -> str:
        """Return the device with its product name or its threads."""
        return self.networks.describe_device()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the model, which each prediction repeats."""
        unknown = orientation_warning(self.plan)
        return tuple(dict.fromkeys((*self._warnings, *(() if unknown is None else (unknown,)))))

    @property
    def precision(self) -> str:
        """Type of the networks' products, such as `bfloat16`.

        Several types are joined by ` + `.
        """
        own = self.networks.precision
        return " + ".join(dict.fromkeys((own, *(member.precision for member in self.members))))

    @property
    def recipe(self) -> str:
        """Name of the recipe, or names joined by ` + `."""
        return " + ".join((self.plan.recipe, *(member.recipe for member in self.members)))

    def compute_digest(self) -> str:
        """Return the model digest: a checksum of plans, weights and postprocessing.

        Returns:
            8 hexadecimal digits. The weights of all networks are read.
        """
        return compute_digest(self)

    def mirrors(self, *, mirror: bool | None) -> bool:
        """Return whether predictions of the first plan or of a member are averaged over flips.

        Args:
            mirror: The request. `None`: as the plans' `inference.mirror` say.

        Raises:
            UsageError: `mirror` is true, and no plan has mirror axes.
        """
        self.mirror_axes(mirror=mirror)
        return any(each._averages(mirror=mirror) for each in (self, *self.members))

    def _averages(self, *, mirror: bool | None) -> bool:
        """Return whether this plan's predictions are averaged over flips."""
        return self.plan.inference.mirror if mirror is None else mirror

    def mirror_axes(self, *, mirror: bool | None) -> tuple[int, ...]:
        """Return the patch axes of mirroring of the first plan.

        Args:
            mirror: Average over flips. False: no axes. `None`: the plan's `inference.mirror`.

        Raises:
            UsageError: `mirror` is true, and no plan has mirror axes.
        """
        if mirror and not any(each.plan.inference.mirror_axes for each in (self, *self.members)):
            raise UsageError(
                "mirroring: expected axes in the plan's inference.mirror_axes, got none. Predict without mirroring."
            )
        return self.plan.inference.mirror_axes if self._averages(mirror=mirror) else ()

    def num_members(self, *, mirror: bool | None) -> int:
        """Return the number of averaged predictions: one per network and flip.

        Args:
            mirror: Average over flips along the plans' `inference.mirror_axes`. `None`: as the plans'
                `inference.mirror` say.

        Raises:
            UsageError: `mirror` is true, and no plan has mirror axes.
        """
        self.mirror_axes(mirror=mirror)
        return sum(
            each._plan_predictor.num_members(mirror=each._averages(mirror=mirror))
            for each in (self, *self.members)
        )

    def warm_up(self) -> None:
        """Segment random images, which makes the first case fast.

        Raises:
            ScansegError: Memory ran out.
        """
        for member in (self, *self.members):
            if member.first_stage is not None:
                member.first_stage.warm_up()
            member._plan_predictor.warm_up()

    def explained_memory(self, geometry: CaseGeometry) -> AbstractContextManager[None]:
        """Explain too little memory for an image, with advice.

        Args:
            geometry: Geometry of the network's grid in the source.

        Returns:
            Context that raises `ScansegError` if its block runs out of memory.
        """
        return self._plan_predictor.explained_memory(geometry)

    @abstractmethod
    def predict_prepared(self, prepared: PreparedImage) -> Prediction:
        """Segment an image that `prepare` returned."""
