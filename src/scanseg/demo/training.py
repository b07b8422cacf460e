"""Networks of the demo: settings, training and scores."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scanseg import api
from scanseg.demo.anatomy import UNSEEN_SLABS
from scanseg.files import write_text
from scanseg.progress import ProgressUpdate
from scanseg.runtime import RunContext, raise_if_stopped

DemoRecipe = Literal["xlstm-unet", "msvm-unet"]

_SHARED_SETTINGS = (
    'preprocessing.normalizations=[{"kind": "none"}]',
    'augmentation=[{"kind": "brightness", "factor_range": [0.6, 1.4]}, {"kind": "mirror", "axes": [0, 1]}]',
    'training.optimizer={"kind": "adamw", "lr": 0.004, "weight_decay": 0.01}',
    'training.schedule={"kind": "cosine", "final_lr": 1e-5, "warmup_fraction": 0.05}',
    "training.validation_batches=4",
)
"""Settings of both recipes.

The slabs share one scale of intensities and differ in shading, so the augmentation changes the brightness.
"""
SETTINGS: dict[DemoRecipe, tuple[str, ...]] = {
    "msvm-unet": (
        *_SHARED_SETTINGS,
        "preprocessing.axis_order=[1, 0, 2]",
        "preprocessing.slice_size=[160, 160]",
        "sampling.patch_size=[160, 160]",
        "sampling.batch_size=6",
        "network.dims=[24, 48, 96, 192]",
        "network.depths=[1, 1, 2, 1]",
        "network.decoder_depth=1",
        "training.epochs=5",
    ),
    "xlstm-unet": (
        *_SHARED_SETTINGS,
        "sampling.patch_size=[32, 32, 32]",
        "sampling.batch_size=2",
        "network.variant=bot",
        "network.features=[16, 32, 48, 64]",
        "network.strides=[[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]",
        "network.kernel_sizes=[[3, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]]",
        "network.num_blocks_encoder=1",
        "network.num_blocks_decoder=1",
        "training.epochs=3",
        "training.iterations_per_epoch=80",
        "inference.overlap=0.25",
    ),
}
"""Settings of each recipe for a small network and a short training."""


@dataclass(frozen=True)
class NetworkJob:
    """Training and scores of one network. It can be pickled."""

    recipe: DemoRecipe
    settings: tuple[str, ...]
    """Changes to the plan of the recipe."""
    output: Path
    """Folder of the demo."""

    @property
    def name(self) -> str:
        """Name for messages and progress."""
        return self.recipe

    @property
    def report(self) -> Path:
        """File of the scores."""
        return self.output / "reports" / f"{self.recipe}.json"

    def run(self, context: RunContext) -> None:
        """Train the network, and write predictions and scores of the unseen slabs.

        Args:
            context: Device, progress and stopping.

        Raises:
            InterruptionError: A signal came.
        """

        def progress(update: ProgressUpdate) -> None:
            raise_if_stopped(context.should_stop, f"{self.name} was stopped. Run the demo again")
            context.progress(update)

        dataset, predictions = self.output / "dataset", self.output / "predictions" / self.recipe
        model = self.output / "models" / self.recipe
        api.train(
            dataset,
            model,
            recipe=self.recipe,
            device=context.device,
            settings=self.settings,
            num_workers=0,
            progress=progress,
        )
        predictor = api.load(model, device=context.device)
        predictor.predict_folder(self.output / "unseen", predictions, progress=progress)
        report = api.evaluate(
            predictions, dataset / "labelsTr", cases=UNSEEN_SLABS, num_workers=0, progress=progress
        )
        write_text(self.report, report.to_json())
