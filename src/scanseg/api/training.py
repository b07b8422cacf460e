"""Functions that train networks."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from scanseg.api.paths import AnyPath
from scanseg.api.plans import plan_request
from scanseg.dataset import checked_early
from scanseg.errors import UsageError
from scanseg.progress import ProgressChoice
from scanseg.progress_display import display
from scanseg.runtime import RunContext
from scanseg.settings import Settings, as_tuple
from scanseg.specs import PlanSize

if TYPE_CHECKING:
    from scanseg.cohort import EngineName
    from scanseg.experiments import CrossValidationResult
    from scanseg.runtime import Precision
    from scanseg.training import FoldChoice, TrainingResult


def train(
    source: AnyPath,
    output: AnyPath,
    *,
    recipe: str | None = None,
    size: PlanSize | None = None,
    fold: "FoldChoice | None" = None,
    initial_weights: AnyPath | None = None,
    encoder_weights: AnyPath | None = None,
    epochs: int | None = None,
    max_minutes: float | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    precision: "Precision | None" = None,
    device: str = "auto",
    resume: bool = False,
    keep_predictions: bool = False,
    store: AnyPath | None = None,
    settings: Settings = (),
    num_workers: int | None = None,
    progress: ProgressChoice = True,
) -> "TrainingResult":
    """Train a network and score it on its validation cases.

    Under `torchrun` the processes share each batch, and the main process writes the model folder.

    Args:
        source: Folder of a raw data set, or a plan file.
        output: Model folder to write, or to resume.
        recipe: Name of the recipe for a data set. Defaults to `xlstm-unet`, for colour pictures to `xlstm-unet-fast`.
        size: `small` for a CPU, `medium` for a small GPU, or `full`. Defaults to `small` for the fast recipes on a CPU,
            otherwise to `full`.
        fold: Number of the fold, or `all` cases. Defaults to 0, or to the fold of the resumed training.
        initial_weights: Model folder of the initial weights. A data set takes over its plan too.
        encoder_weights: File of ImageNet weights for the encoder of MSVM-UNet: VMamba's checkpoint, or the file from
            `scanseg weights import --network vmamba`.
        epochs: Number of epochs. Defaults to the plan's.
        max_minutes: Time limit. The learning rate falls with the clock. Defaults to the plan's.
        batch_size: Patches or slices in a batch. Defaults to the plan's.
        lr: Highest learning rate. Defaults to the plan's.
        seed: Random seed. Defaults to the plan's.
        precision: Precision of matrix products: `auto`, `float32`, `bfloat16` or `float16` (with loss scaling).
            Defaults to the plan's.
        device: `cpu`, `cuda`, `cuda:N`, `mps`, or `auto` for the first available one.
        resume: Go on from the last checkpoint in `output`, with its plan and cases. `epochs` and `max_minutes` may
            be changed, also of a finished training. Other options must be those with which the training began.
        keep_predictions: Keep the label maps of the validation cases in the model folder.
        store: Folder of stores. Defaults to `scanseg-stores` beside `output`.
        settings: Changes to the plan: texts `path.to.key=value`, or a dictionary of values by path.
        num_workers: Processes that read cases. `None`: one per core, at most 16; 0 for small data sets.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Raises:
        InputError: The data set, plan, store or initial weights are faulty, or cases of a resumed training are
            missing.
        UsageError: Options exclude each other.
        scanseg.errors.InterruptionError: SIGINT or SIGTERM came. The training can be resumed.

    Example:
        >>> import scanseg
        >>> result = scanseg.train("plan.json", "models/first", fold=0, epochs=1, device="cpu")
        >>> result.epochs_done, list(result.scores)
        (1, ['disk'])
    """
    overrides = {
        "training.epochs": epochs,
        "training.max_minutes": max_minutes,
        "sampling.batch_size": batch_size,
        "training.optimizer.lr": lr,
        "training.seed": seed,
        "training.precision": precision,
    }
    context = RunContext(device=device, num_workers=num_workers)
    early = nullcontext() if resume else checked_early(Path(source), context=context)
    with display(progress) as shown, early:
        from scanseg.experiments import train_model
        from scanseg.planning import TrainingSource

        return train_model(
            TrainingSource.open(Path(source)),
            Path(output),
            plan_request(
                recipe=recipe, size=size, like=initial_weights, settings=settings, overrides=overrides
            ),
            stores=None if store is None else Path(store),
            fold=fold,
            resume=resume,
            keep_predictions=keep_predictions,
            encoder_weights=None if encoder_weights is None else Path(encoder_weights),
            context=context.with_progress(shown),
        )


def cross_validate(
    source: AnyPath,
    output: AnyPath,
    *,
    recipes: Sequence[str] = (),
    size: PlanSize | None = None,
    devices: Sequence[str] = (),
    initial_weights: AnyPath | None = None,
    max_minutes: float | None = None,
    batch_size: int | None = None,
    ensembles: bool = True,
    resume: bool = False,
    store: AnyPath | None = None,
    settings: Settings = (),
    num_workers: int | None = None,
    on: "EngineName | None" = None,
    ray_address: str | None = None,
    slurm_options: Mapping[str, object] | None = None,
    progress: ProgressChoice = True,
) -> "CrossValidationResult":
    """Train all folds and make them one model.

    Recipe and postprocessing are chosen on the validation cases of all folds.

    Args:
        source: Folder of a raw data set, or a plan file.
        output: Folder of the cross-validation. `load` reads it as a model.
        recipes: Recipes that compete on a data set. Defaults to `xlstm-unet`, for colour pictures to
            `xlstm-unet-fast`.
        size: `small` for a CPU, `medium` for a small GPU, or `full`. Defaults to `small` for the fast recipes on a CPU,
            otherwise to `full`.
        devices: Devices that train folds at the same time. Defaults to the first available one.
        initial_weights: Model folder of the initial weights. A data set takes over its plan too.
        max_minutes: Time limit of each fold. Defaults to the plan's.
        batch_size: Patches or slices in a batch. Defaults to the plan's.
        ensembles: Let pairs of recipes compete too, by the mean of both probabilities.
        resume: Go on with the cross-validation in `output`. Finished folds are kept.
        store: Folder of stores. Defaults to `scanseg-stores` beside `output`.
        settings: Changes to the plans: texts `path.to.key=value`, or a dictionary of values by path.
        num_workers: Processes that read cases. `None`: one per core, at most 16; 0 for small data sets.
        on: `ray` to train folds and to read cases on the machines of a Ray cluster, which see all files under the same
            paths. Each fold has a GPU, or the threads of this machine.
            `slurm` trains each fold in a job of SLURM.
        ray_address: Address of the Ray cluster. `None`: `RAY_ADDRESS`, the cluster of this machine, or a new one on it.
        slurm_options: With `slurm`: `jobs`, `gpus`, `cpus`, `time` in minutes, and long options of `sbatch`, by name.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Raises:
        InputError: The data set or the plan is faulty.
        UsageError: Options exclude each other.
        ScansegError: Trainings failed. Finished ones are kept for `resume`.

    Example:
        >>> import scanseg
        >>> result = scanseg.cross_validate("plan.json", "models/folds", devices=["cpu"])
        >>> result.record.num_cases
        4
    """
    from scanseg.cohort import open_engine
    from scanseg.experiments import CrossValidationOptions
    from scanseg.experiments import cross_validate as run
    from scanseg.planning import TrainingSource

    overrides = {"training.max_minutes": max_minutes, "sampling.batch_size": batch_size}
    names = as_tuple(devices)
    if on is not None and set(names) - {"auto"}:
        raise UsageError(f"devices {', '.join(names)}: a cluster chooses its devices. Leave out the devices.")
    with (
        display(progress) as shown,
        open_engine(on, ray_address=ray_address, slurm_options=slurm_options, output=Path(output)) as engine,
    ):
        return run(
            TrainingSource.open(Path(source)),
            Path(output),
            plan_request(size=size, like=initial_weights, settings=settings, overrides=overrides),
            CrossValidationOptions(
                recipes=as_tuple(recipes),
                devices=names,
                ensembles=ensembles,
                stores=None if store is None else Path(store),
                resume=resume,
            ),
            context=RunContext(
                device=next(iter(names), "auto"), num_workers=num_workers, progress=shown, engine=engine
            ),
        )
