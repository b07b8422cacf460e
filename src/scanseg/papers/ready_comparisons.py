"""Comparisons that come with the package."""

from importlib import resources
from pathlib import Path

from scanseg.errors import UsageError
from scanseg.specs import StudySpec

_READY = "ready"


def ready_studies() -> dict[str, StudySpec]:
    """Return the studies that come with the package, by name."""
    folder = resources.files(__package__).joinpath(_READY)
    files = sorted((entry.name, entry) for entry in folder.iterdir() if entry.name.endswith(".json"))
    return {
        name.removesuffix(".json"): StudySpec.model_validate_json(entry.read_text(encoding="utf-8"))
        for name, entry in files
    }


def find_study(study: str) -> StudySpec:
    """Read a study from a file, or return one that comes with the package.

    Args:
        study: Path of a JSON file, or a name.

    Raises:
        InputError: The file describes no study.
        UsageError: There is no such file and no such name.
    """
    if Path(study).is_file():
        return StudySpec.read(Path(study))
    ready = ready_studies()
    if study not in ready:
        raise UsageError(f"study {study!r} is neither a file nor one of {', '.join(ready)}")
    return ready[study]
