"""Scores of a model and their sources, as files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scanseg.errors import InputError
from scanseg.files import write_text
from scanseg.preprocessing import Store, open_array
from scanseg.specs import FileStamp, InstanceReport, Report, ScoreSources

if TYPE_CHECKING:
    from scanseg.models.folder import ModelFolder, TrainedWeights

VALIDATION_FILE = "validation.json"
_SCORE_SOURCES = "validation-sources.json"


@dataclass(frozen=True, eq=False)
class ScoreFiles:
    """Files of the scores of a model."""

    folder: "ModelFolder"

    def validation_path(self, weights: "TrainedWeights | None" = None) -> Path:
        """Return the file of the validation scores.

        Args:
            weights: The scored weights. `None`: the exported ones.
        """
        if weights is None or self.folder.exports(weights):
            return self.folder.path / VALIDATION_FILE
        return self.folder.path / f"validation-{weights}.json"

    def read_validation(self) -> Report:
        """Read the scores of the validation cases with the exported weights.

        Raises:
            InputError: The file is missing or damaged.
        """
        return Report.read(self.validation_path())

    def write_validation(self, report: Report, *, weights: "TrainedWeights") -> None:
        """Write the scores of the validation cases.

        Args:
            report: The scores.
            weights: The scored weights.
        """
        write_text(self.validation_path(weights), report.to_json())

    def has_current_validation(self, store: Store) -> bool:
        """Return whether the validation scores belong to weights and cases.

        Scores that were made without a record of their sources are current if the label maps, where they are kept, have
        the shapes of the cases.

        Args:
            store: Store of the cases.
        """
        record = self.folder.read_run()
        cases = () if record is None else record.validation_cases
        try:
            for name in cases:
                if self.folder.prediction_path(name).is_file():
                    shape = store.case(name).geometry.source_shape
                    open_array(self.folder.prediction_path(name), shape=shape)
        except InputError:
            return False
        return self._has_sources(
            self.folder.path / _SCORE_SOURCES, self.folder.weights_file("exported"), store, cases
        )

    def write_validation_sources(self, store: Store, cases: Sequence[str]) -> None:
        """Record the sources of the scores of the exported weights.

        Args:
            store: Store of the validation cases.
            cases: Names of the validation cases.
        """
        self._write_sources(
            self.folder.path / _SCORE_SOURCES, self.folder.weights_file("exported"), store, cases
        )

    def read_test(self, weights: "TrainedWeights") -> Report | None:
        """Read the scores of the test cases.

        Args:
            weights: The scored weights.

        Returns:
            The scores, or `None` if the test cases were not scored.
        """
        path = self._test_path(weights)
        return Report.read(path) if path.is_file() else None

    def read_test_instances(self, weights: "TrainedWeights") -> InstanceReport | None:
        """Read the instance scores of the test cases.

        Args:
            weights: The scored weights.

        Returns:
            The scores, or `None` if instances were not scored.
        """
        path = self._test_path(weights, suffix="-instances")
        return InstanceReport.read(path) if path.is_file() else None

    def has_current_test(
        self, store: Store, cases: Sequence[str], *, weights: "TrainedWeights", instances: bool
    ) -> bool:
        """Return whether the test scores are complete and current.

        Args:
            store: Store of the test cases.
            cases: Names of the test cases.
            weights: The scored weights.
            instances: Instances must be scored too.
        """
        if not self._test_path(weights).is_file():
            return False
        if instances and not self._test_path(weights, suffix="-instances").is_file():
            return False
        sources = self._test_sources_path(weights)
        return self._has_sources(sources, self.folder.weights_path(weights), store, cases)

    def write_test(
        self,
        report: Report,
        instances: InstanceReport | None,
        *,
        weights: "TrainedWeights",
        store: Store,
        cases: Sequence[str],
    ) -> None:
        """Write the scores of the test cases and their sources.

        Args:
            report: Scores of labels.
            instances: Scores of instances, if they were scored.
            weights: The scored weights.
            store: Store of the test cases.
            cases: Names of the test cases.
        """
        # The report of labels marks the scores as complete, and the sources as current: they come last.
        if instances is not None:
            write_text(self._test_path(weights, suffix="-instances"), instances.to_json())
        write_text(self._test_path(weights), report.to_json())
        self._write_sources(self._test_sources_path(weights), self.folder.weights_path(weights), store, cases)

    def _test_path(self, weights: "TrainedWeights", *, suffix: str = "") -> Path:
        return self.folder.path / f"test-{weights}{suffix}.json"

    def _test_sources_path(self, weights: "TrainedWeights") -> Path:
        return self.folder.path / f"sources-{weights}.json"

    def _has_sources(self, path: Path, weights: Path, store: Store, cases: Sequence[str]) -> bool:
        """Return whether scores belong to weights and cases.

        Args:
            path: Record of the sources. Scores without one are taken as current.
            weights: File of the weights.
            store: Store of the cases.
            cases: Names of the cases.
        """
        try:
            stored = {name: store.case(name) for name in cases}
            if not path.is_file():
                return True
            sources = ScoreSources.read(path)
            digests = {name: store.case_digest(case) for name, case in stored.items()}
        except InputError:
            return False
        return sources.cases == digests and sources.weights.matches(weights)

    def _write_sources(self, path: Path, weights: Path, store: Store, cases: Sequence[str]) -> None:
        """Record the weights and the cases of scores."""
        sources = ScoreSources(
            weights=FileStamp.of(weights),
            cases={name: store.case_digest(store.case(name)) for name in cases},
        )
        write_text(path, sources.to_json())
