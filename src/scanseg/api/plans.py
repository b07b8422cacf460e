"""Functions that plan and prepare a training."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from scanseg.api.paths import AnyPath
from scanseg.progress import ProgressChoice
from scanseg.progress_display import display
from scanseg.runtime import RunContext, keep_workers
from scanseg.settings import Settings, setting_texts
from scanseg.specs import Plan, PlanSize

if TYPE_CHECKING:
    from scanseg.cohort import EngineName
    from scanseg.planning import PlanRequest
    from scanseg.training import Purpose, StepTiming, WarmUp


def make_plan(
    dataset: AnyPath,
    *,
    recipe: str | None = None,
    size: PlanSize | None = None,
    like: AnyPath | None = None,
    settings: Settings = (),
    device: str = "auto",
    num_workers: int | None = None,
    progress: ProgressChoice = True,
) -> Plan:
    """Check a raw data set, compute its fingerprint, and plan a training.

    Args:
        dataset: Folder of the raw data set.
        recipe: Name of the recipe, see `scanseg.planning.RECIPES`. Defaults to `xlstm-unet`, for colour pictures to
            `xlstm-unet-fast`.
        size: `small` for a CPU, `medium` for a small GPU, or `full`. Defaults to `small` for the fast recipes on a CPU,
            otherwise to `full`.
        like: Model folder whose plan is taken over for the data set, for fine-tuning.
        settings: Changes to the plan: texts `path.to.key=value`, or a dictionary of values by path.
        device: Device of the training, for the default size.
        num_workers: Processes that read cases. `None`: one per core, at most 16; 0 for small data sets.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Raises:
        InputError: The data set is faulty, or the network refuses the settings.
        UsageError: The recipe or a setting is unknown or invalid.

    Example:
        >>> import scanseg
        >>> plan = scanseg.make_plan("DATASET", recipe="plain-unet", settings={"training.epochs": 50})
        >>> plan.recipe, plan.training.epochs
        ('plain-unet', 50)
    """
    from scanseg.planning import make_plan as plan_dataset

    with display(progress) as shown:
        return plan_dataset(
            Path(dataset),
            plan_request(recipe=recipe, size=size, like=like, settings=settings),
            context=RunContext(device=device, num_workers=num_workers, progress=shown),
        )


def time_step(plan: Plan | AnyPath, *, device: str = "auto", progress: ProgressChoice = True) -> "StepTiming":
    """Measure the time of a training step on random patches.

    Args:
        plan: The plan, or its file.
        device: `cpu`, `cuda`, `cuda:N`, `mps`, or `auto` for the first available one.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Returns:
        Time and memory of a step. The time is `None` if the device has too little memory.

    Example:
        >>> import scanseg
        >>> scanseg.time_step("plan.json", device="cpu").seconds > 0
        True
    """
    from scanseg.training import time_step as measure

    opened = plan if isinstance(plan, Plan) else Plan.read(Path(plan))
    with display(progress) as shown:
        return measure(opened, context=RunContext(device=device, progress=shown))


def warm_up(
    plan: Plan | AnyPath,
    *,
    purpose: "Purpose | None" = None,
    device: str = "auto",
    progress: ProgressChoice = True,
) -> "WarmUp":
    """Compile the GPU kernels of a training or prediction, and check them.

    Triton compiles kernels at their first use and keeps them in its cache (`TRITON_CACHE_DIR`). Afterwards the first
    step or prediction with the plan starts at once, in any process.

    Args:
        plan: The plan, its file, a model folder, or the folder of a cross-validation.
        purpose: `training` or `prediction`. `None`: prediction for folders, both for plans.
        device: `cuda`, `cuda:N`, or `auto` for the first GPU.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Returns:
        Device, number of kernels and duration.

    Raises:
        UsageError: The device is no GPU with CUDA, or Triton is missing.
        ScansegError: The plan does not fit into memory.

    Example:
        >>> import scanseg
        >>> scanseg.warm_up("plan.json", device="cpu")
        Traceback (most recent call last):
        ...
        scanseg.errors.UsageError: warm-up: expected a GPU with CUDA, got cpu...
    """
    from scanseg.training import read_plans
    from scanseg.training import warm_up as compile_plans

    is_folder = not isinstance(plan, Plan) and Path(plan).is_dir()
    plans = [plan] if isinstance(plan, Plan) else read_plans(Path(plan))
    both: tuple[Purpose, ...] = ("prediction",) if is_folder else ("training", "prediction")
    with display(progress) as shown:
        context = RunContext(device=device, progress=shown)
        return compile_plans(plans, purposes=both if purpose is None else (purpose,), context=context)


def preprocess(
    source: AnyPath,
    *,
    store: AnyPath,
    recipe: str | None = None,
    size: PlanSize | None = None,
    settings: Settings = (),
    num_workers: int | None = None,
    on: "EngineName | None" = None,
    ray_address: str | None = None,
    slurm_options: Mapping[str, object] | None = None,
    progress: ProgressChoice = True,
) -> Path:
    """Preprocess a data set for training.

    Existing cases are reused.

    Args:
        source: Folder of a raw data set, or a plan file.
        store: Folder of stores, to give to trainings.
        recipe: Name of the recipe for a data set. Defaults to `xlstm-unet`, for colour pictures to `xlstm-unet-fast`.
        size: `small` for a CPU, `medium` for a small GPU, or `full`. Defaults to `full`.
        settings: Changes to the plan: texts `path.to.key=value`, or a dictionary of values by path.
        num_workers: Processes that read cases. `None`: one per core, at most 16; 0 for small data sets.
        on: `ray` to preprocess on the machines of a Ray cluster, which see all files under the same paths. `slurm`
            preprocesses in jobs of SLURM, each with a share of the cases.
        ray_address: Address of the Ray cluster. `None`: `RAY_ADDRESS`, the cluster of this machine, or a new one on it.
        slurm_options: With `slurm`: `jobs`, `gpus` (defaults to 0 here), `cpus`, `time` in minutes, and long options of
            `sbatch`, by name.
        progress: True: show progress on stderr. False: show none. Or a function that is called with each update.

    Returns:
        Folder of the store, inside `store`.

    Raises:
        InputError: The data set or the plan is faulty.
        UsageError: Options exclude each other.

    Example:
        >>> import scanseg
        >>> folder = scanseg.preprocess("plan.json", store="stores")
        >>> folder.parent.name
        'stores'
    """
    from scanseg.cohort import open_engine
    from scanseg.planning import TrainingSource, find_plan, prepare_store

    options = {"gpus": 0, **(slurm_options or {})} if on == "slurm" else slurm_options
    with (
        display(progress) as shown,
        open_engine(
            on,
            ray_address=ray_address,
            slurm_options=options,
            output=Path(store),
            cases_in_jobs=True,
        ) as engine,
        keep_workers(),
    ):
        context = RunContext(num_workers=num_workers, progress=shown, engine=engine)
        opened = TrainingSource.open(Path(source))
        # The machine that preprocesses may lack the GPU of the training.
        default: PlanSize | None = size or ("full" if opened.plan is None else None)
        plan = find_plan(
            opened, plan_request(recipe=recipe, size=default, settings=settings), context=context
        )
        return prepare_store(plan, opened, Path(store), context=context).store.folder


def plan_request(
    *,
    recipe: str | None = None,
    size: PlanSize | None = None,
    like: AnyPath | None = None,
    settings: Settings = (),
    overrides: Mapping[str, object] | None = None,
) -> "PlanRequest":
    """Combine the choices for a plan.

    Settings with options of their own come before the others.
    """
    from scanseg.planning import PlanRequest

    named = tuple(f"{path}={value}" for path, value in (overrides or {}).items() if value is not None)
    return PlanRequest(
        recipe=recipe,
        size=size,
        like=None if like is None else Path(like),
        settings=(*named, *setting_texts(settings)),
    )
