"""Case names become names of folders, so they are checked where they enter."""

import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanseg.dataset import RawCase, find_images, find_name_fault, open_dataset
from scanseg.dataset.case_names import MAX_NAME_BYTES, is_portable
from scanseg.errors import InputError
from scanseg.planning import make_plan, prepare_store
from scanseg.planning.preparation import PlanRequest, TrainingSource
from scanseg.runtime import RunContext

INVALID = {
    "sub-01/ses-1": "a slash",
    "../outside": "a slash",
    "..": "a dot at the start",
    ".hidden": "a dot at the start",
    "a\\b": "a backslash",
    "": "an empty name",
    "  ": "an empty name",
    "a\nb": "a control character",
    "a\0b": "a control character",
    "x" * 201: "201 bytes (at most 200)",
    "ü" * 101: "202 bytes (at most 200)",
    "\ud800": "bytes that are not UTF-8",
}
VALID = ("case_0", "patient 1", "Löwe", "案例", "a.b", "sub:01", "con", "x" * 200, "-a", "a'b", "{x}", "%s")


def listed(folder, name):
    """Give a case of a data set another name in `dataset.json`."""
    content = json.loads((folder / "dataset.json").read_text())
    content["dataset"] = {
        case: {"images": [f"imagesTr/case_{number}_0000.nii.gz"], "label": f"labelsTr/case_{number}.nii.gz"}
        for number, case in enumerate((name, "b"))
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(("name", "reason"), INVALID.items())
def test_invalid_names_are_refused_wherever_they_enter(make_dataset, name, reason):
    assert f"got {reason}. Rename the case." in find_name_fault(name)
    with pytest.raises(InputError, match="case name"):
        RawCase(name, (), None)
    with pytest.raises(InputError, match=r"dataset\.json: ") as caught:
        open_dataset(listed(make_dataset(2), name))
    assert reason in str(caught.value) or "expected texts" in str(caught.value)  # JSON has its own rules
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", VALID)
def test_valid_names_are_stored(make_dataset, tmp_path, name):
    folder, context = listed(make_dataset(2), name), RunContext(device="cpu", num_workers=0)
    plan = make_plan(folder, PlanRequest(recipe="plain-unet"), context=context)
    store = prepare_store(plan, TrainingSource(folder, dataset=folder), tmp_path, context=context).store
    assert {stored.case for stored in store.index.cases} == {name, "b"}
    store.read_image(store.case(name))


@settings(max_examples=200, deadline=None)
@given(name=st.text(max_size=210))
def test_a_valid_name_is_one_part_of_a_path(tmp_path_factory, name):
    if find_name_fault(name) is not None:
        return
    folder = tmp_path_factory.getbasetemp() / "names" / f"{name}.nii.gz"
    assert folder.parent.name == "names"
    assert len(name.encode()) <= MAX_NAME_BYTES
    folder.parent.mkdir(exist_ok=True)
    folder.touch()
    assert folder.is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such file names")
@pytest.mark.parametrize("name", ["a\\b", "a\tb", "x" * 201])
def test_invalid_names_of_files_to_predict(tmp_path, name):
    (tmp_path / f"{name}_0000.nii.gz").touch()
    (tmp_path / "b_0000.nii.gz").touch()
    found = find_images(tmp_path, file_ending=".nii.gz", num_channels=1)
    assert [case.name for case in found.cases] == ["b"]
    assert [case.name for case in found.faulty] == [name]
    assert "case name" in found.faulty[0].faults[0]


@pytest.mark.parametrize("name", ["con", "NUL", "com1", "aux.x", "a:b", "a?", "end.", "end "])
def test_names_that_windows_does_not_allow_get_a_warning(make_dataset, name):
    assert not is_portable(name)
    (warning,) = open_dataset(listed(make_dataset(2), name)).warnings
    assert warning == f"1 case has a name that Windows does not allow: {name}"
