import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanseg.dataset.raw import RawCase, RawDataset, open_dataset
from scanseg.dataset.splits import find_splits
from scanseg.errors import InputError
from scanseg.specs import DatasetSpec

SPEC = DatasetSpec(name="x", channel_names=("a",), labels={"background": 0, "b": 1}, file_ending=".nii.gz")


def dataset(folder: Path, num_cases: int) -> RawDataset:
    cases = tuple(RawCase(f"case_{number:03d}", (), None) for number in range(num_cases))
    return RawDataset(folder, SPEC, cases)


def test_folds_of_nnunet_are_read_and_drawn_alike(shared_data):
    raw = open_dataset(shared_data / "hippocampus")
    given_splits = find_splits(raw)
    assert given_splits.source == "splits_final.json"
    drawn = find_splits(RawDataset(shared_data / "absent" / "absent", raw.spec, raw.cases))
    assert drawn.folds == given_splits.folds
    assert drawn.source == "5 folds drawn with seed 12345"


def test_one_fold_of_acdc(shared_data):
    splits = find_splits(open_dataset(shared_data / "acdc"))
    assert [(len(fold.train), len(fold.validation)) for fold in splits.folds] == [(140, 20)]


@settings(max_examples=30, deadline=None)
@given(num_cases=st.integers(2, 40), seed=st.integers(0, 2**31))
def test_drawn_folds_validate_every_case_once(num_cases, seed):
    raw = dataset(Path("/absent/x"), num_cases)
    splits = find_splits(raw, seed=seed)
    assert splits == find_splits(raw, seed=seed)
    names = sorted(case.name for case in raw.cases)
    assert len(splits.folds) == min(5, num_cases)
    assert sorted(name for fold in splits.folds for name in fold.validation) == names
    for fold in splits.folds:
        assert sorted(fold.train + fold.validation) == names
    sizes = [len(fold.validation) for fold in splits.folds]
    assert max(sizes) - min(sizes) <= 1


def test_one_case_has_no_folds(tmp_path):
    with pytest.raises(InputError, match="expected at least 2 cases for training and validation, got 1"):
        find_splits(dataset(tmp_path, 1))


@pytest.mark.parametrize("key", ["val", "validation"])
@pytest.mark.parametrize("as_list", [True, False])
def test_forms_of_the_file(tmp_path, key, as_list):
    fold = {"train": ["case_000"], key: ["case_001"]}
    (tmp_path / "splits.json").write_text(json.dumps([fold] if as_list else fold))
    splits = find_splits(dataset(tmp_path, 3))
    assert splits.source == "splits.json"
    assert splits.folds[0].validation == ("case_001",)


def test_folds_in_the_preprocessed_folder_of_nnunet(tmp_path):
    raw_folder = tmp_path / "nnUNet_raw/Dataset001_X"
    folder = tmp_path / "nnUNet_preprocessed/Dataset001_X"
    raw_folder.mkdir(parents=True)
    folder.mkdir(parents=True)
    (folder / "splits_final.json").write_text('[{"train": ["case_000"], "val": ["case_001"]}]')
    assert find_splits(dataset(raw_folder, 3)).folds[0].train == ("case_000",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('[{"train": ["case_000", "x"], "val": ["y"]}]', "fold 0: cases x, y not in the data set"),
        (
            '[{"train": ["case_001"], "val": []}, {"train": ["case_000"], "val": ["case_000"]}]',
            "fold 1: case case_000 is in training and in validation",
        ),
        ('[{"train": ["case_000", 3], "val": ["case_001"]}]', r"fold 0: train\.1: .* string, .*3\. Correct"),
        ('[{"train": [], "val": ["case_000"]}]', "fold 0: no training cases"),
        ('[{"train": ["case_000", "case_000"], "val": []}]', "case_000 more than once in train"),
        ("[]", "no folds"),
        ('{"train": []}', "val"),
        ("3", "expected a list of"),
        ("{", r"expected JSON \("),
    ],
)
def test_faulty_files(tmp_path, content, words):
    (tmp_path / "splits_final.json").write_text(content)
    with pytest.raises(InputError, match=words) as caught:
        find_splits(dataset(tmp_path, 3))
    assert "splits_final.json" in str(caught.value)


def test_one_case_may_have_no_folds(tmp_path):
    splits = find_splits(dataset(tmp_path, 1), required=False)
    assert splits.folds == ()
    assert "one case" in splits.source
    assert len(find_splits(dataset(tmp_path, 2), required=False).folds) == 2
