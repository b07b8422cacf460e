"""Messages about faults of documents: paths, values, suggestions."""

import json

import pytest

from scanseg.dataset.description import read_description
from scanseg.errors import InputError, UsageError
from scanseg.settings import apply_settings
from scanseg.specs import DatasetSpec, Document, Fold, NetworkSpec, XLSTMUNetSpec


class Holder(Document):
    """A document that contains a union."""

    network: NetworkSpec
    fold: Fold


def network(**fields):
    sizes = {"features": (4, 8), "strides": ((1, 1), (2, 2)), "kernel_sizes": ((3, 3), (3, 3))}
    return XLSTMUNetSpec(**sizes | fields)


def test_a_wrong_setting_is_quoted() -> None:
    holder = Holder(network=network(), fold=Fold(train=("a",), validation=("b",)))
    with pytest.raises(UsageError, match=r"^--set network\.features=3: network\.features: Input") as caught:
        apply_settings(holder, ["network.features=3"])
    assert "xlstm-unet" not in str(caught.value)


def test_faults_of_a_whole_document_have_no_path() -> None:
    fold = Fold(train=("a",), validation=("b",))
    with pytest.raises(
        UsageError, match=r"^--set validation=\[\"a\"\]: case a is in training and in validation$"
    ):
        apply_settings(fold, ['validation=["a"]'])


def test_paths_do_not_contain_members_of_unions(tmp_path) -> None:
    file = tmp_path / "dataset.json"
    labels = {"background": 0, "a": 300}
    file.write_text(
        json.dumps({"name": "x", "channel_names": ["MR"], "labels": labels, "file_ending": ".png"})
    )
    with pytest.raises(InputError, match=r"labels\.a: .* less than or equal to 255, not 300") as caught:
        DatasetSpec.read(file)
    assert "constrained-int" not in str(caught.value)


def test_a_missing_key_is_named(tmp_path) -> None:
    file = tmp_path / "fold.json"
    file.write_text('{"train": [], "validaton": []}')
    with pytest.raises(InputError, match="validation: Field required; validaton: Extra inputs"):
        Fold.read(file)


def test_a_wrong_value_in_a_data_set_description_is_quoted(tmp_path) -> None:
    labels = {"background": 0, "a": 300}
    description = {"channel_names": {"0": "MR"}, "labels": labels, "file_ending": ".png"}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match=r"labels\.a: expected 0 to 255, got 300") as caught:
        read_description(tmp_path)
    assert "constrained-int" not in str(caught.value)
