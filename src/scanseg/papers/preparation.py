"""Prepare a reproduction: convert its data, plan, preprocess, and write the setup."""

from dataclasses import dataclass
from pathlib import Path

from scanseg.errors import UsageError
from scanseg.files import write_text
from scanseg.models import PLAN_FILE
from scanseg.papers.data import (
    conversion_notes,
    convert_if_needed,
    divide,
    few_cases,
    store_instances,
    store_protocol_data,
)
from scanseg.papers.experiments import Experiment
from scanseg.papers.protocols import ProtocolChoices, protocol_plan
from scanseg.papers.request import ReproductionRequest
from scanseg.papers.scoring import Scoring
from scanseg.planning import Prepared
from scanseg.preprocessing import Store
from scanseg.runtime import RunContext
from scanseg.settings import apply_settings, compare_settings
from scanseg.specs import Plan, ReproductionSetup

_SETUP, _STORE, _INSTANCES, _DATASET = "setup.json", "store", "instances", "dataset"


@dataclass(frozen=True)
class PreparedReproduction:
    """A reproduction that is ready for training."""

    experiment: Experiment
    setup: ReproductionSetup
    prepared: Prepared
    """Plan and store of the paper's own network."""
    folder: Path

    @property
    def scoring(self) -> Scoring:
        """The scoring of the protocol."""
        published = self.setup.protocol == "published"
        return self.experiment.published if published else self.experiment.held_out

    @property
    def instances(self) -> Path | None:
        """Folder of the instance maps, if instances are scored."""
        return self.folder / _INSTANCES if self.scoring.instances else None


def is_prepared(output: Path) -> bool:
    """Return whether a folder holds a prepared reproduction.

    Args:
        output: The folder.
    """
    return (output / _SETUP).is_file()


def prepare_reproduction(
    experiment: Experiment,
    source: Path | None,
    output: Path,
    request: ReproductionRequest,
    *,
    context: RunContext,
) -> None:
    """Convert, plan and preprocess.

    The setup is written last and marks the folder as prepared.

    Args:
        experiment: The experiment.
        source: Folder of the data set in its original form.
        output: Folder to write.
        request: The user's choices.
        context: Worker processes and progress.

    Raises:
        InputError: The data set is faulty.
        UsageError: The source is missing, or a setting is invalid.
    """
    if source is None:
        raise UsageError(f"{output}: nothing to resume. Give the folder of {request.data}.")
    dataset = convert_if_needed(request.data, source, output / _DATASET, context=context)
    data = divide(dataset, paper=request.paper, protocol=request.protocol)
    if request.quick:
        data = few_cases(data)
    choices = ProtocolChoices(
        protocol=request.protocol,
        variant=request.variant,
        optimizer=request.optimizer,
        with_encoder=request.encoder_weights is not None,
        choose_best=not data.chosen_on_scored,
        quick=request.quick,
        settings=request.all_settings,
    )
    plan = protocol_plan(experiment, dataset, choices, context=context)
    store_protocol_data(data, plan, output / _STORE, context=context)
    if experiment.published.instances:
        store_instances(data, output / _INSTANCES)
    setup = ReproductionSetup(
        paper=request.paper,
        data=request.data,
        num_axes=experiment.num_axes,
        protocol=request.protocol,
        variant=request.named_variant,
        quick=request.quick,
        encoder=request.encoder,
        optimizer=request.optimizer,
        scored_cases=data.scored,
        scored=data.description,
        chosen_on_scored=data.chosen_on_scored,
        notes=conversion_notes(dataset),
    )
    write_text(output / PLAN_FILE, plan.to_json())
    write_text(output / _SETUP, setup.to_json())


def open_reproduction(
    experiment: Experiment, output: Path, request: ReproductionRequest
) -> PreparedReproduction:
    """Open a prepared reproduction.

    Args:
        experiment: The experiment.
        output: Its folder.
        request: The user's choices.

    Raises:
        UsageError: The folder holds another reproduction.
    """
    setup = ReproductionSetup.read(output / _SETUP)
    requested = {
        "paper": request.paper,
        "data": request.data,
        "num_axes": experiment.num_axes,
        "protocol": request.protocol,
        "variant": request.named_variant,
        "quick": request.quick,
        "optimizer": request.optimizer if setup.optimizer else None,
    }
    existing = setup.model_dump()
    faults = [
        f"{name} is {existing[name]}, not {value}"
        for name, value in requested.items()
        if existing[name] != value
    ]
    # The weights may be in another folder on this machine.
    if Path(setup.encoder).name != Path(request.encoder).name:
        faults.append(f"encoder is {setup.encoder}, not {request.encoder}")
    plan = Plan.read(output / PLAN_FILE)
    faults += compare_settings(plan, apply_settings(plan, request.all_settings))
    if faults:
        raise UsageError(f"{output} holds a reproduction where {'; '.join(faults)}. Choose another output.")
    prepared = Prepared(plan, Store.open(output / _STORE))
    return PreparedReproduction(experiment, setup, prepared, output)
