import dataclasses
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tifffile

from scanseg.dataset.digest import compute_dataset_digest
from scanseg.dataset.raw import open_dataset
from scanseg.dataset.splits import find_splits
from scanseg.errors import InputError
from scanseg.imaging import read_image, read_label_map
from scanseg.preprocessing import store_building, write_array
from scanseg.preprocessing.case import preprocess_case
from scanseg.preprocessing.store import Store, store_name
from scanseg.preprocessing.store_building import build_store
from scanseg.progress import ignore_progress
from scanseg.runtime import RunContext
from scanseg.specs import DatasetSpec, NoNormalization, PreprocessingSpec, Splits, ZScoreNormalization
from tests.factories import write_dataset, write_description

SPEC = PreprocessingSpec(normalizations=(ZScoreNormalization(),), spacing=(3.0, 0.4, 0.6))


@pytest.fixture
def build(tmp_path):
    def build(
        dataset,
        *,
        preprocessing=SPEC,
        splits=None,
        num_workers=0,
        folder=tmp_path / "store",
        progress=ignore_progress,
    ):
        return build_store(
            dataset,
            preprocessing=preprocessing,
            splits=splits or find_splits(dataset),
            folder=folder,
            context=RunContext(num_workers=num_workers, progress=progress),
        )

    return build


def content(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_read_arrays_equal_the_preprocessed_ones(make_dataset, build, tmp_path, num_workers):
    dataset = open_dataset(make_dataset(3))
    updates = []
    built = build(dataset, num_workers=num_workers, progress=updates.append)
    assert updates[-1].done == updates[-1].total == 3
    store = Store.open(tmp_path / "store")
    assert store.index == built.index
    assert [stored.case for stored in store.index.cases] == ["case_0", "case_1", "case_2"]
    assert store.index.splits == find_splits(dataset)
    for case in dataset.cases:
        label_map = read_label_map(case.label_map).array[0]
        expected = preprocess_case(read_image(case.images), label_map, SPEC)
        stored = store.case(case.name)
        assert stored.geometry == expected.geometry
        assert stored.label_values == (0, 1, 2)
        image = store.read_image(stored)
        assert image.dtype == np.float16
        assert image.flags.writeable
        np.testing.assert_array_equal(image, expected.image.astype(np.float16))
        np.testing.assert_array_equal(store.read_label_map(stored), expected.label_map)
        np.testing.assert_array_equal(store.read_reference(stored), label_map)


def test_a_second_call_does_nothing(make_dataset, build, tmp_path):
    dataset = open_dataset(make_dataset(3))
    build(dataset)
    before = content(tmp_path / "store/cases")
    updates = []
    build(dataset, progress=updates.append)
    assert content(tmp_path / "store/cases") == before
    assert updates == []


def test_an_interrupted_store_is_refused_for_reading_and_completed(
    make_dataset, build, tmp_path, monkeypatch
):
    dataset = open_dataset(make_dataset(3))

    def interrupt(progress):
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(dataset, progress=interrupt)
    with pytest.raises(InputError, match="unfinished"):
        Store.open(tmp_path / "store")
    before = content(tmp_path / "store/cases")
    updates = []
    build(dataset, progress=updates.append)
    assert [update.detail for update in updates] == ["", "case_2"]
    assert before.items() <= content(tmp_path / "store/cases").items()
    assert len(Store.open(tmp_path / "store").index.cases) == 3


def test_a_case_that_was_interrupted_midway_leaves_nothing(make_dataset, build, tmp_path, monkeypatch):
    dataset = open_dataset(make_dataset(2))
    calls = []

    def fail(path, array):
        calls.append(path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("scanseg.preprocessing.store_building.write_array", fail)
        with pytest.raises(KeyboardInterrupt):
            build(dataset)
    assert calls
    assert list((tmp_path / "store/cases").iterdir()) == []
    (tmp_path / "store/cases/.writing-1-case_0").mkdir()  # left by a killed process
    build(dataset)
    assert sorted(path.name for path in (tmp_path / "store/cases").iterdir()) == ["case_0", "case_1"]


def test_processes_that_need_the_same_store_build_it_in_turn(make_dataset, tmp_path):
    """Two trainings of different folds may start at the same time."""
    code = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from scanseg.preprocessing.store_building import build_store
        from scanseg.dataset.splits import find_splits
        from scanseg.dataset.raw import open_dataset
        from scanseg.runtime import RunContext
        from scanseg.specs import DatasetSpec, NoNormalization, PreprocessingSpec
        raw, updates = open_dataset(Path(sys.argv[1])), []
        build_store(
            raw,
            preprocessing=PreprocessingSpec(normalizations=(NoNormalization(),)),
            splits=find_splits(raw),
            folder=Path(sys.argv[2]),
            context=RunContext(num_workers=0, progress=lambda update: updates.append(update.detail)),
        )
        print(len(updates))
        """
    )
    command = [sys.executable, "-c", code, str(make_dataset(12)), str(tmp_path / "store")]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    ends = [(*process.communicate(), process.returncode) for process in processes]
    assert sorted(ends) == [("0\n", "", 0), ("13\n", "", 0)]
    assert len(Store.open(tmp_path / "store").index.cases) == 12


def test_unknown_labels_are_refused(make_dataset, build):
    """A plan may be trained after its data set has changed, without a check before."""
    dataset = open_dataset(make_dataset(2))
    fewer = DatasetSpec.model_validate(dataset.spec.model_dump() | {"labels": {"background": 0, "a": 1}})
    with pytest.raises(InputError, match=r"^case case_0: label map case_0.nii.gz: .* got unknown values 2"):
        build(dataclasses.replace(dataset, spec=fewer))


@pytest.mark.parametrize("finished", [True, False])
def test_another_content_is_refused(make_dataset, build, tmp_path, finished):
    dataset = open_dataset(make_dataset(2))
    build(dataset)
    if not finished:
        (tmp_path / "store/store.json").rename(tmp_path / "store/unfinished.json")
    other = SPEC.model_copy(update={"crop_to_nonzero": False})
    with pytest.raises(
        InputError,
        match=r"another preprocessing \(crop_to_nonzero: expected False, got True\)\. Choose another",
    ):
        build(dataset, preprocessing=other)
    renamed = dataclasses.replace(dataset, spec=dataset.spec.model_copy(update={"name": "other"}))
    with pytest.raises(InputError, match=r"another dataset \(name: expected 'other', got 'raw'\)"):
        build(renamed)


def test_a_folder_of_other_files_is_refused(make_dataset, build, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store/thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"expected a store or an empty folder, got thesis\.tex"):
        build(open_dataset(make_dataset(2)))
    assert (tmp_path / "store/thesis.tex").exists()


def test_changed_sources_are_preprocessed_again_and_removed_ones_go(
    make_dataset, build, tmp_path, volume_writer
):
    folder = make_dataset(3)
    build(open_dataset(folder))
    volume_writer(folder / "labelsTr/case_1.nii.gz", np.ones((5, 12, 10), np.uint8))
    (folder / "labelsTr/case_2.nii.gz").unlink()
    (folder / "imagesTr/case_2_0000.nii.gz").unlink()
    updates = []
    store = build(open_dataset(folder), progress=updates.append)
    assert [update.detail for update in updates] == ["", "case_1"]
    assert [stored.case for stored in store.index.cases] == ["case_0", "case_1"]
    assert store.case("case_1").label_values == (1,)
    assert not (tmp_path / "store/cases/case_2").exists()


def test_changed_voxels_of_a_header_are_preprocessed_again(build, tmp_path, rng):
    folder = tmp_path / "data"
    cases = {
        f"case_{n}": (rng.normal(size=(5, 8, 9)).astype(np.float32), np.ones((5, 8, 9), np.uint8))
        for n in (0, 1)
    }
    write_dataset(folder, cases, labels={"background": 0, "a": 1}, file_ending=".mhd")
    first = compute_dataset_digest(open_dataset(folder))
    build(open_dataset(folder))
    voxels = folder / "labelsTr/case_1.raw"
    voxels.write_bytes(bytes(voxels.stat().st_size))
    updates = []
    store = build(open_dataset(folder), progress=updates.append)
    assert [update.detail for update in updates] == ["", "case_1"]
    assert store.case("case_1").label_values == (0,)
    voxels.write_bytes(b"")
    assert compute_dataset_digest(open_dataset(folder)) != first
    voxels.unlink()
    with pytest.raises(InputError, match="case case_1: "):
        build(open_dataset(folder))


def test_a_changed_spacing_of_a_tiff_file_is_preprocessed_again(build, tmp_path, rng):
    folder, labels = tmp_path / "data", {"background": 0, "a": 1}
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for name in ("imagesTr/a_0001_0000", "imagesTr/a_0002_0000", "labelsTr/a_0001", "labelsTr/a_0002"):
        tifffile.imwrite(folder / f"{name}.tif", rng.integers(0, 2, (5, 8, 9)).astype(np.uint8))
    write_description(folder, labels=labels, file_ending=".tif")
    build(open_dataset(folder))
    for name in ("imagesTr", "labelsTr"):
        (folder / name / "a_0002.json").write_text('{"spacing": [3.0, 0.4, 0.6]}')
    updates = []
    store = build(open_dataset(folder), progress=updates.append)
    assert [update.detail for update in updates] == ["", "a_0002"]
    assert store.case("a_0002").geometry.source_spacing == (3.0, 0.4, 0.6)
    assert store.case("a_0001").geometry.source_spacing == (1.0, 1.0, 1.0)


def test_new_folds_replace_those_of_the_index(make_dataset, build, tmp_path):
    dataset = open_dataset(make_dataset(2))
    build(dataset)
    build(dataset, splits=Splits(source="mine", folds=()))
    assert Store.open(tmp_path / "store").index.splits.source == "mine"


def test_nan_after_preprocessing_is_refused(make_dataset, build, monkeypatch):
    def make_nan(image, label_map, preprocessing):
        case = preprocess_case(image, label_map, preprocessing)
        case.image[0, 0, 0, 0] = np.nan
        return case

    monkeypatch.setattr(store_building, "preprocess_case", make_nan)
    with pytest.raises(InputError, match=r"case case_\d: .*after preprocessing, got nan"):
        build(open_dataset(make_dataset(2)))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_errors_name_the_case(make_dataset, build, volume_writer, num_workers):
    folder = make_dataset(2)
    volume_writer(folder / "imagesTr/case_1_0000.nii.gz", np.full((5, 12, 10), 1e6, np.float32))
    spec = PreprocessingSpec(normalizations=(NoNormalization(),))
    with pytest.raises(
        InputError, match=r"case case_1: .* \(half precision\) after preprocessing, got 1e\+06"
    ):
        build(open_dataset(folder), preprocessing=spec, num_workers=num_workers)


def test_no_store_missing_cases_and_damaged_arrays(make_dataset, build, tmp_path):
    with pytest.raises(InputError, match=r"no store \(no store\.json\)"):
        Store.open(tmp_path / "nothing")
    store = build(open_dataset(make_dataset(2)))
    with pytest.raises(InputError, match="no case x among the 2"):
        store.case("x")
    image = tmp_path / "store/cases/case_0/image.b2nd"
    for damaged in (b"", b"rubbish" * 99, image.read_bytes()[:700]):
        image.write_bytes(damaged)
        with pytest.raises(InputError, match=r"image\.b2nd: damaged"):
            store.read_image(store.case("case_0"))
    image.unlink()
    with pytest.raises(InputError, match=r"case case_0: .*image.b2nd is missing"):
        Store.open(tmp_path / "store")


def test_the_name_depends_on_data_set_source_and_preprocessing():
    name = store_name("Dataset 001/Heart", SPEC, source="/data/heart")
    assert name.startswith("Dataset-001-Heart-")
    assert name == store_name("Dataset 001/Heart", SPEC.model_copy(), source="/data/heart")
    assert name != store_name("Dataset 001/Heart", SPEC, source="/other/heart")
    assert name != store_name("Dataset 001/Heart", SPEC, source=None)
    assert name != store_name(
        "Dataset 001/Heart", SPEC.model_copy(update={"image_order": 1}), source="/data/heart"
    )


def test_a_store_is_read_without_image_libraries(make_dataset, build, tmp_path):
    build(open_dataset(make_dataset(2)))
    script = textwrap.dedent(
        """
        import sys
        for name in ("SimpleITK", "PIL", "tifffile", "matplotlib"):
            sys.modules[name] = None
        from pathlib import Path
        import scanseg.preprocessing
        store = scanseg.preprocessing.Store.open(Path(sys.argv[1]))
        case = store.case("case_1")
        print(store.read_image(case).shape, store.read_label_map(case).shape, store.read_reference(case).shape)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "store")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert done.stderr == ""
    assert done.stdout.strip() == "(1, 5, 15, 12) (5, 15, 12) (5, 12, 10)"


def test_real_data(shared_data, build):
    dataset = open_dataset(shared_data / "hippocampus")
    few = dataclasses.replace(dataset, cases=dataset.cases[:4])
    store = build(few, splits=Splits(source="none", folds=()), preprocessing=SPEC)
    for case in few.cases:
        reference = store.read_reference(store.case(case.name))
        np.testing.assert_array_equal(reference, read_label_map(case.label_map).array[0])


@pytest.mark.parametrize("name", ["image.b2nd", "label_map.b2nd", "reference.b2nd", "case.json"])
@pytest.mark.parametrize("damage", ["remove", "cut", "empty", "other shape"])
def test_damaged_files_of_a_case_are_made_again(make_dataset, build, tmp_path, name, damage):
    dataset = open_dataset(make_dataset(2))
    before = build(dataset)
    images = [before.read_image(case) for case in before.index.cases]
    path = tmp_path / "store/cases/case_1" / name
    if damage == "remove":
        path.unlink()
    elif damage == "other shape" and path.suffix == ".b2nd":
        path.unlink()
        write_array(path, np.zeros((3, 3), np.uint8))
    else:
        path.write_bytes(path.read_bytes()[:80] if damage == "cut" else b"")
    updates = []
    store = build(dataset, progress=updates.append)
    assert [update.detail for update in updates] == ["", "case_1"]
    assert store.index == before.index
    for case, image in zip(store.index.cases, images, strict=True):
        np.testing.assert_array_equal(store.read_image(case), image)


@pytest.mark.parametrize("name", ["store.json", "unfinished.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 1000, '{"format": 2}'])
def test_a_damaged_index_says_how_to_go_on(make_dataset, build, tmp_path, name, content):
    dataset = open_dataset(make_dataset(2))
    build(dataset)
    (tmp_path / "store/store.json").unlink()
    (tmp_path / "store" / name).write_text(content)
    with pytest.raises(
        InputError, match=rf"{name}: .* Delete the folder {tmp_path}/store to build the store"
    ):
        build(dataset)


def test_a_store_is_unfinished_while_its_cases_are_replaced(make_dataset, build, tmp_path, volume_writer):
    folder = make_dataset(3)
    build(open_dataset(folder))
    for number in range(2):
        volume_writer(folder / f"labelsTr/case_{number}.nii.gz", np.ones((5, 12, 10), np.uint8))

    def interrupt(update):
        if update.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(open_dataset(folder), progress=interrupt)
    with pytest.raises(InputError, match="unfinished store"):
        Store.open(tmp_path / "store")
    store = build(open_dataset(folder))
    assert [case.label_values for case in store.index.cases] == [(1,), (1,), (0, 1, 2)]


def test_arrays_of_another_shape_than_the_index_are_refused(make_dataset, build, tmp_path):
    store = build(open_dataset(make_dataset(2)))
    case = store.case("case_0")
    for name, read in (
        ("image", store.read_image),
        ("label_map", store.read_label_map),
        ("reference", store.read_reference),
    ):
        path = tmp_path / f"store/cases/case_0/{name}.b2nd"
        path.unlink()
        write_array(path, np.zeros((2, 2, 2), np.uint8))
        with pytest.raises(InputError, match=rf"{name}\.b2nd: expected shape"):
            read(case)


def test_the_digest_of_a_case_follows_its_sources(make_dataset, build, volume_writer):
    folder = make_dataset(2)
    store = build(open_dataset(folder))
    before = [store.case_digest(case) for case in store.index.cases]
    assert before == [store.case_digest(case) for case in build(open_dataset(folder)).index.cases]
    volume_writer(folder / "labelsTr/case_1.nii.gz", np.ones((5, 12, 10), np.uint8))
    store = build(open_dataset(folder))
    after = [store.case_digest(case) for case in store.index.cases]
    assert [new == old for new, old in zip(after, before, strict=True)] == [True, False]
