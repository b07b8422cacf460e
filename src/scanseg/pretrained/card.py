"""Model cards: the use of a model, its training, scores and limits."""

from collections.abc import Iterable
from pathlib import Path

from scanseg.evaluation import find_unit, summary_rows
from scanseg.messages import counted, format_duration
from scanseg.models import ModelFolder, count_parameters, is_ensemble, member_folders
from scanseg.networks import NETWORKS
from scanseg.specs import InstanceReport, Plan, Report, RunRecord
from scanseg.tables import as_markdown

CARD_FILE = "README.md"
"""File of the card in a shared model."""


def make_card(path: Path, *, name: str | None = None, about: str | None = None) -> str:
    """Write the card of a model as Markdown.

    The card has the use, the labels, the training, the scores of validation and test cases, and limits. Names of cases,
    folders and machines are left out, so that the card can be published.

    Args:
        path: Model folder, or folder of a cross-validation.
        name: Name of the model. `None`: the name of the folder.
        about: Text in Markdown after the first paragraph, such as source and licence of the data.

    Returns:
        The card.

    Raises:
        InputError: The folder is no model, or one of its records is damaged.
    """
    folders = [ModelFolder.open(member) for member in member_folders(path)]
    plan, title = folders[0].plan, name or path.resolve().name
    parts = [
        f"# {title}",
        _introduce(plan),
        *([about.strip()] if about else []),
        _describe_use(title),
        _describe_training(plan, folders, is_combined=is_ensemble(path)),
        *_describe_scores(folders),
        _describe_limits(plan, folders),
    ]
    return "\n\n".join(parts) + "\n"


def _introduce(plan: Plan) -> str:
    images = "pictures" if plan.num_axes == 2 else "volumes"
    labels = ", ".join(f"`{label}`" for label in plan.dataset.foreground)
    channels = ", ".join(f"`{channel}`" for channel in plan.dataset.channel_names)
    return f"This model of scanseg segments {labels} in {images} with the channels {channels}."


def _describe_use(name: str) -> str:
    return f"## Use\n\n    scanseg predict {name} IMAGES -o predictions"


def _describe_training(plan: Plan, folders: list[ModelFolder], *, is_combined: bool) -> str:
    """Return the section about data, network and training."""
    records = [record for folder in folders if (record := folder.read_run()) is not None]
    patch = " x ".join(map(str, plan.sampling.patch_size))
    rows = [
        ("", ""),
        ("data set", plan.dataset.name),
        (
            "network",
            f"{NETWORKS[plan.network.kind].title}, {count_parameters(plan) / 1e6:.3g} million parameters",
        ),
        ("recipe", plan.recipe if plan.size == "full" else f"{plan.recipe}, size {plan.size}"),
        ("patch", f"{patch}, batches of {plan.sampling.batch_size}"),
        ("spacing", _describe_spacing(plan)),
        ("seed", str(plan.training.seed)),
    ]
    if is_combined:
        rows.append(("networks", f"{len(folders)}, whose predictions are averaged"))
    if records:
        rows += _describe_runs(records)
    return f"## Training\n\n{as_markdown(rows)}"


def _describe_spacing(plan: Plan) -> str:
    if plan.preprocessing.spacing is None:
        return "as stored"
    sizes = ["as stored" if size is None else f"{size:.3g}" for size in plan.preprocessing.spacing]
    if plan.num_axes == 3:
        return f"{' x '.join(sizes)} mm (z, y, x)"
    return f"{' x '.join(sizes[1:])} {find_unit(plan.dataset.file_ending, ())} (y, x)"


def _describe_runs(records: list[RunRecord]) -> list[tuple[str, str]]:
    """Return rows about the trainings, from their records."""
    last = records[-1].sessions[-1]
    seconds = sum(record.training_seconds for record in records)
    exported = {record.exported.checkpoint for record in records if record.exported is not None}
    return [
        ("training cases", _range(len(record.train_cases) for record in records)),
        ("validation cases", _range(len(record.validation_cases) for record in records)),
        ("iterations", _range(record.iterations_done for record in records)),
        ("training time", format_duration(seconds)),
        ("device", f"{last.device}, {last.precision}"),
        (
            "initial weights",
            "other weights" if any(record.initial_weights for record in records) else "random",
        ),
        ("weights", " and ".join(sorted(exported)) or "of an unfinished training"),
        ("trained", last.started[:10]),
        (
            "versions",
            ", ".join(f"{name} {version}" for name, version in last.versions.items() if name != "platform"),
        ),
        *([("commit", last.commit)] if last.commit else []),
    ]


def _range(numbers: Iterable[int]) -> str:
    found = sorted(set(numbers))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def _describe_scores(folders: list[ModelFolder]) -> list[str]:
    """Return one section for each kind of scored cases."""
    sections = []
    for number, folder in enumerate(folders):
        fold = f", network {number + 1}" if len(folders) > 1 else ""
        if folder.scores.validation_path().is_file():
            sections.append(_score_section(f"Validation cases{fold}", folder.scores.read_validation()))
        record = folder.read_run()
        exported = (
            record.exported.checkpoint if record is not None and record.exported is not None else "last"
        )
        test, instances = folder.scores.read_test(exported), folder.scores.read_test_instances(exported)
        if test is not None:
            sections.append(_score_section(f"Test cases{fold}", test))
        if instances is not None:
            sections.append(_instance_section(f"Instances of test cases{fold}", instances))
    return sections


def _score_section(title: str, report: Report) -> str:
    return (
        f"## {title}\n\n{counted(report.summary.num_cases, 'case')}, rule `{report.rule}`. Scores are "
        f"mean ± standard deviation over the cases.\n\n{as_markdown(summary_rows(report))}"
    )


def _instance_section(title: str, report: InstanceReport) -> str:
    mean = report.summary.f1.mean
    score = "-" if mean is None else f"{mean:.3f}"
    images = counted(len(report.cases), "image")
    return f"## {title}\n\n{images}: mean F1 {score} at an overlap of {report.iou:g} or more."


def _describe_limits(plan: Plan, folders: list[ModelFolder]) -> str:
    """Return the section about limits that follow from the plan."""
    record = folders[0].read_run()
    lines = [
        "- The model knows one data set. On images of other scanners, stains, patients or diseases, measure it before "
        "use.",
        f"- It needs the channels {', '.join(plan.dataset.channel_names)} in this order.",
    ]
    if plan.spacing_range is not None and plan.num_axes == 3:
        low, high = (" x ".join(f"{size:.3g}" for size in sizes) for sizes in plan.spacing_range)
        lines.append(f"- The spacing of its training images was {low} to {high} mm (z, y, x).")
    if record is not None and record.exported is not None and record.exported.checkpoint == "best":
        lines.append("- The validation cases chose its weights, so their scores are optimistic.")
    lines.append("- It is no medical device.")
    return "## Limits\n\n" + "\n".join(lines)
