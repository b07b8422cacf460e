"""Trainings and predictions of `same_results.py`, as commands.

They use names that all compared versions share, or that `RENAMED` lists.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from same_results_data import ENDINGS, NUM_CASES

SEED = 7

RENAMED = {
    "training.accumulation": "training.accumulation_steps",
    "training.average_decay": "training.ema_decay",
    "training.resident": "training.case_storage",
    "cascade.previous": "cascade.first_stage",
}
"""Settings with an old and a new name. Each tree gets the name that its own plan holds."""


@dataclass(frozen=True)
class Run:
    """One training or cross-validation, and a prediction with its model."""

    recipe: str
    dataset: str
    settings: tuple[str, ...] = ()
    """Changes to the plan, beside those of every run. FIRST is the model folder of `first`."""
    kind: Literal["train", "crossval", "fine-tune", "resume"] = "train"
    """`crossval` has two folds. `fine-tune` takes plan and weights of `first`. `resume` is interrupted once."""
    rival: str | None = None
    """Second recipe of a cross-validation."""
    first: str | None = None
    """Name of the run whose model this run needs."""
    predict_options: tuple[str, ...] = ("--probabilities",)

    @property
    def recipes(self) -> tuple[str, ...]:
        """Its one or two recipes."""
        return (self.recipe,) if self.rival is None else (self.recipe, self.rival)


SHORT = ("training.iterations_per_epoch=2", "training.validation_batches=1")
VOLUME = ("network.features=[4, 8, 8]",)
PICTURE = ("network.features=[4, 8, 8, 8]",)
COLUMN = (
    *("network.features=[4, 8]", "network.strides=[[1, 1, 1], [2, 2, 2]]"),
    *("network.kernel_sizes=[[3, 3, 3], [3, 3, 3]]", "inference.overlap=0.25"),
)
PLAIN_COLUMN = (*COLUMN, "network.num_convs_encoder=[1, 1]", "network.num_convs_decoder=[1]")
RESIDUAL_COLUMN = (*COLUMN, "network.num_blocks_encoder=[1, 2]", "network.num_convs_decoder=[1]")
SMALL_MSVM = ("network.dims=[8, 12, 16, 24]", "network.depths=[1, 1, 2, 1]", "network.decoder_depth=1")
EVERY_CHOICE = (
    *("training.accumulation=2", "training.resident=disk", "training.average_decay=0.9"),
    *("training.export=best", "training.score_both=true", "training.mirror_validation=true"),
    *('training.loss.label_weights={"ball": 3}', 'sampling.label_weights={"box": 2}'),
    *("training.validate_every=1", 'training.early_stop={"patience_epochs": 5}'),
    *("augmentation.0.elastic_probability=0.5", "training.schedule.warmup_fraction=0.3"),
)
LONGER = (*VOLUME, "training.iterations_per_epoch=15", "training.checkpoint_seconds=0")
LOW = "xlstm-unet-low, two folds"
AFTER_LOW = ("cascade.previous=FIRST",)

UNETR = ("network.features=4", "network.hidden_size=48", "network.mlp_dim=96", "network.num_heads=4")
ALL_MAPS = ("--probabilities", "--mirror", "--uncertainty")

RUNS = {
    "xlstm-unet, volumes": Run("xlstm-unet", "volumes", VOLUME),
    "xlstm-unet, regions": Run("xlstm-unet", "regions", VOLUME, predict_options=ALL_MAPS),
    "xlstm-unet, pictures": Run("xlstm-unet", "pictures", PICTURE),
    "xlstm-unet-2d": Run("xlstm-unet-2d", "volumes", VOLUME),
    LOW: Run("xlstm-unet-low", "columns", COLUMN, kind="crossval"),
    "xlstm-unet-cascade": Run("xlstm-unet-cascade", "columns", (*COLUMN, *AFTER_LOW), first=LOW),
    "xlstm-unet-fast": Run("xlstm-unet-fast", "regions", VOLUME),
    "msvm-unet, pictures": Run("msvm-unet", "pictures"),
    "msvm-unet, volumes": Run("msvm-unet", "volumes", SMALL_MSVM),
    "residual-unet": Run("residual-unet", "regions", VOLUME),
    "residual-unet-low": Run("residual-unet-low", "columns", RESIDUAL_COLUMN),
    "residual-unet-cascade": Run(
        "residual-unet-cascade", "columns", (*RESIDUAL_COLUMN, *AFTER_LOW), first=LOW
    ),
    "plain-unet, pictures": Run("plain-unet", "pictures", PICTURE),
    "plain-unet, every choice": Run("plain-unet", "volumes", (*VOLUME, *EVERY_CHOICE)),
    "plain-unet-2d": Run("plain-unet-2d", "regions", VOLUME),
    "plain-unet-low": Run("plain-unet-low", "columns", PLAIN_COLUMN),
    "plain-unet-cascade": Run("plain-unet-cascade", "columns", (*PLAIN_COLUMN, *AFTER_LOW), first=LOW),
    "plain-unet-fast": Run("plain-unet-fast", "volumes", VOLUME),
    "plain-unet and plain-unet-2d, two folds": Run(
        "plain-unet", "volumes", VOLUME, kind="crossval", rival="plain-unet-2d", predict_options=ALL_MAPS
    ),
    "dynunet": Run("dynunet", "volumes", VOLUME),
    "segresnet": Run("segresnet", "volumes", ("network.features=8",)),
    "unetr": Run("unetr", "volumes", UNETR),
    "swin-unetr": Run("swin-unetr", "volumes", ("network.features=12",)),
    "xlstm-unet, fine-tuned": Run("xlstm-unet", "volumes", kind="fine-tune", first="xlstm-unet, volumes"),
    "xlstm-unet, interrupted": Run("xlstm-unet", "volumes", LONGER, kind="resume"),
}
"""Name to run; a run stands behind the run that it needs."""


def commands_of(run: Run, folder: Path, *, data: Path, names: Mapping[str, str]) -> list[list[str]]:
    """Return the commands of a run: train or cross-validate, predict, evaluate.

    Args:
        run: The run.
        folder: Its folder, beside those of the other runs.
        data: Folder of the data sets.
        names: Setting to its name in the tree, for settings with two names.
    """
    dataset, model, predictions = data / run.dataset, folder / "model", folder / "predictions"
    first = str(folder.parent / folder_name(run.first) / "model") if run.first else ""
    settings = [*SHORT, *run.settings]
    options = ["--batch-size", "2", "--num-workers", "0", "--store", str(folder / "stores")]
    if run.kind == "fine-tune":
        options += ["--initial-weights", first]
    else:
        options += [word for recipe in run.recipes for word in ("--recipe", recipe)]
    if run.kind == "crossval":
        settings += ["training.epochs=2", f"training.seed={SEED}"]
        options += ["--devices", "cpu"]
    else:
        options += ["--fold", "0", "--epochs", "2", "--seed", str(SEED)]
        options += ["--device", "cpu", "--keep-predictions"]
    for setting in settings:
        name, _, value = setting.partition("=")
        options += ["--set", f"{names.get(name, name)}={value.replace('FIRST', first)}"]
    image = dataset / "imagesTr" / f"case_{NUM_CASES - 1}_0000{ENDINGS[run.dataset]}"
    command = "crossval" if run.kind == "crossval" else "train"
    return [
        [command, str(dataset), "-o", str(model), *options],
        ["predict", str(model), str(image), "-o", str(predictions), "--device", "cpu", *run.predict_options],
        [
            *("evaluate", str(predictions), str(dataset / "labelsTr"), "-o", str(folder / "report.json")),
            *("--only-predicted", "--num-workers", "0"),
        ],
    ]


def folder_name(run_name: str) -> str:
    """Return the name of a run's folder."""
    return run_name.replace(", ", "-").replace(" ", "-")
