import json
import shutil

import numpy as np
import PIL.Image
import pytest
import SimpleITK

from scanseg.dataset.naming import group_files
from scanseg.dataset.raw import find_cases_of_files, open_dataset
from scanseg.errors import InputError
from tests.factories import find_cases


def names(cases):
    return [case.name for case in cases]


def test_raw_layout_of_nnunet(make_dataset):
    folder = make_dataset(
        2, num_channels=2, description="text", licence="CC", overwrite_image_reader_writer="X"
    )
    dataset = open_dataset(folder)
    assert dataset.spec.name == "raw"
    assert dataset.spec.channel_names == ("c0", "c1")
    assert names(dataset.cases) == ["case_0", "case_1"]
    assert [path.name for path in dataset.cases[0].images] == ["case_0_0000.nii.gz", "case_0_0001.nii.gz"]
    assert dataset.cases[0].label_map == folder / "labelsTr/case_0.nii.gz"


def test_regions_and_ignore(make_dataset):
    spec = open_dataset(
        make_dataset(
            labels={"background": 0, "whole": [1, 2], "core": [2], "ignore": 3},
            regions_class_order=[1, 2],
            name="raw",
        )
    ).spec
    assert spec.foreground == {"whole": (1, 2), "core": (2,)}
    assert spec.ignore_label == 3


def test_decathlon_with_channels_in_one_file(tmp_path):
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "labelsTr").mkdir()
    image = SimpleITK.GetImageFromArray(np.zeros((2, 3, 4, 5), np.float32), isVector=False)
    SimpleITK.WriteImage(image, str(tmp_path / "imagesTr/BRATS_001.nii.gz"))
    SimpleITK.WriteImage(
        SimpleITK.GetImageFromArray(np.zeros((3, 4, 5), np.uint8)),
        str(tmp_path / "labelsTr/BRATS_001.nii.gz"),
    )
    content = {
        "name": "BRATS",
        "tensorImageSize": "4D",
        "modality": {"1": "T1", "0": "FLAIR"},
        "labels": {"0": "background", "1": "edema", "2": "tumour"},
        "numTest": 1,
        "training": [{"image": "./imagesTr/BRATS_001.nii.gz", "label": "./labelsTr/BRATS_001.nii.gz"}],
        "test": ["./imagesTs/BRATS_002.nii.gz"],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    dataset = open_dataset(tmp_path)
    assert dataset.spec.labels == {"background": 0, "edema": 1, "tumour": 2}
    assert dataset.spec.channel_names == ("FLAIR", "T1")
    assert dataset.spec.file_ending == ".nii.gz"
    assert names(dataset.cases) == ["BRATS_001"]
    assert dataset.cases[0].images == (tmp_path / "imagesTr/BRATS_001.nii.gz",)


def test_older_form_of_nnunet_with_one_file_per_channel(make_dataset):
    folder = make_dataset(2, num_channels=2)
    content = {
        "modality": {"0": "A", "1": "B"},
        "labels": {"0": "background", "1": "outer", "2": "inner"},
        "training": [
            {"image": f"./imagesTr/case_{i}.nii.gz", "label": f"./labelsTr/case_{i}.nii.gz"} for i in range(2)
        ],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    dataset = open_dataset(folder)
    assert [path.name for path in dataset.cases[1].images] == ["case_1_0000.nii.gz", "case_1_0001.nii.gz"]
    (folder / "imagesTr/case_0_0001.nii.gz").unlink()
    with pytest.raises(InputError, match=r"case case_0: .*case_0_0001.nii.gz is listed in dataset.json"):
        open_dataset(folder)


def test_cases_listed_by_dataset(make_dataset):
    folder = make_dataset(2)
    entries = {"b": {"images": ["imagesTr/case_1_0000.nii.gz"], "label": "labelsTr/case_1.nii.gz"}}
    content = json.loads((folder / "dataset.json").read_text()) | {"dataset": entries}
    (folder / "dataset.json").write_text(json.dumps(content))
    dataset = open_dataset(folder)
    assert names(dataset.cases) == ["b"]
    assert dataset.cases[0].label_map == folder / "labelsTr/case_1.nii.gz"


def test_every_fault_of_the_files_is_in_one_message(make_dataset):
    folder = make_dataset(5, num_channels=2)
    (folder / "imagesTr/case_0_0001.nii.gz").unlink()
    (folder / "labelsTr/case_1.nii.gz").unlink()
    for channel in range(2):
        (folder / f"imagesTr/case_2_{channel:04d}.nii.gz").unlink()
    (folder / "imagesTr/case_3_0000.nii.gz").rename(folder / "imagesTr/case_3_0007.nii.gz")
    with pytest.raises(InputError) as caught:
        open_dataset(folder)
    message = str(caught.value)
    assert message.startswith(f"{folder}: 5 faults\n")
    assert "case case_0: missing case_0_0001.nii.gz" in message
    assert "case case_1: no label map labelsTr/case_1.nii.gz" in message
    assert "case case_2: label map case_2.nii.gz without an image in imagesTr" in message
    assert "case case_3: missing case_3_0000.nii.gz" in message
    assert "case case_3: case_3_0007.nii.gz beyond the 2 channels" in message


def test_channel_that_the_description_does_not_name(make_dataset):
    folder = make_dataset(2, num_channels=2, channel_names={"0": "only"})
    with pytest.raises(InputError, match=r"case_0_0001.nii.gz, case_1_0001.nii.gz: further channels"):
        open_dataset(folder)


def test_empty_folders_are_both_named(tmp_path):
    (tmp_path / "imagesTr").mkdir()
    content = {"channel_names": {"0": "a"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    (tmp_path / "imagesTr/a.nii").write_text("")
    with pytest.raises(InputError) as caught:
        open_dataset(tmp_path)
    assert "expected files that end in .nii.gz, got files that end in .nii." in str(caught.value)
    assert f"{tmp_path / 'labelsTr'}: no such folder" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", r"expected JSON \("),
        ("[]", "expected a JSON object"),
        ("{}", "lacks channel_names, labels, file_ending"),
        ('{"channel_names": {"0": "a", "2": "b"}}', r"consecutive numbers from 0, got \[0, 2\]"),
        (
            '{"channel_names": {"0": "a"}, "labels": {"background": 0, "a": 2}, "file_ending": ".png"}',
            "consecutive",
        ),
        ('{"modality": {"0": "a"}, "labels": {"0": "x", "1": "b", "2": "b"}}', "the names b occur twice"),
        ('{"channel_names": "CT"}', r'channel_names: expected names by number, such as .*, got "CT"'),
        (
            '{"labels": ["background", "liver"]}',
            r'expected values by name, .*, got \["background", "liver"\]',
        ),
        (
            '{"channel_names": {"0": "a"}, "labels": {"background": 0, "a": 1.5, "b": []}}',
            r"labels: expected whole numbers, or lists of them for regions, got a 1\.5, b \[\]",
        ),
        (
            '{"channel_names": {"0": "a"}, "labels": {"background": 0, "a": 1}, "file_ending": "png"}',
            r'file_ending: expected a dot at the start, got "png"\. Write "\.png"$',
        ),
    ],
)
def test_faulty_descriptions(tmp_path, text, words):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        open_dataset(tmp_path)
    assert "dataset.json" in str(caught.value)


def test_descriptions_of_other_editors(make_dataset):
    path = make_dataset(1) / "dataset.json"
    text = path.read_text()
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert open_dataset(path.parent).spec.name == "raw"
    path.write_bytes(text.replace("{", '{"licence": "für alle", ', 1).encode("latin-1"))
    with pytest.raises(
        InputError, match=r"dataset\.json: expected UTF-8 text, got byte 0xfc at 14\. Save the file as UTF-8"
    ):
        open_dataset(path.parent)


def test_an_image_of_another_ending_is_named(make_dataset):
    images = make_dataset(2) / "imagesTr"
    (images / "case_1_0000.nii.gz").rename(images / "case_1_0000.nii")
    with pytest.raises(
        InputError, match=r"without an image in imagesTr, as case_1_0000\.nii does not end in"
    ):
        open_dataset(images.parent)


def test_no_folder_and_no_description(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        open_dataset(tmp_path / "x")
    with pytest.raises(InputError, match=r"dataset\.json: cannot be read"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("suffix", ["_0000", ""])
def test_colour_pictures_hold_their_channels_in_one_file(tmp_path, suffix):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        PIL.Image.new("RGB", (4, 4)).save(tmp_path / f"imagesTr/{name}{suffix}.jpg")
        PIL.Image.new("L", (4, 4)).save(tmp_path / f"labelsTr/{name}.png")
    content = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "a": 1},
        "file_ending": ".jpg",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    dataset = open_dataset(tmp_path)
    assert names(dataset.cases) == ["a", "b"]
    assert dataset.cases[0].images == (tmp_path / f"imagesTr/a{suffix}.jpg",)
    assert dataset.cases[0].label_map == tmp_path / "labelsTr/a.png"


class TestFindCases:
    def test_folder_of_nnunet(self, make_dataset):
        cases = find_cases(
            make_dataset(2, num_channels=2) / "imagesTr", file_ending=".nii.gz", num_channels=2
        )
        assert names(cases) == ["case_0", "case_1"]
        assert all(case.label_map is None and len(case.images) == 2 for case in cases)

    def test_files_without_number(self, make_dataset):
        cases = find_cases(make_dataset(2) / "labelsTr", file_ending=".nii.gz", num_channels=1)
        assert names(cases) == ["case_0", "case_1"]

    def test_frames_of_a_film_keep_their_numbers(self, tmp_path):
        for number in range(3):
            PIL.Image.new("RGB", (4, 4)).save(tmp_path / f"frame_{number:04d}.png")
        cases = find_cases(tmp_path, file_ending=".png", num_channels=3)
        assert names(cases) == ["frame_0000", "frame_0001", "frame_0002"]

    def test_a_further_channel_of_a_case_that_has_one_is_refused(self, make_dataset):
        folder = make_dataset(2) / "imagesTr"
        shutil.copy(folder / "case_1_0000.nii.gz", folder / "case_1_0001.nii.gz")
        message = (
            r"imagesTr: case_1_0001\.nii\.gz: a further channel, expected one channel for each case, such as "
            r"case_1_0000\.nii\.gz\. Move it elsewhere, .* such as case_1_0001_0000\.nii\.gz$"
        )
        with pytest.raises(InputError, match=message):
            find_cases(folder, file_ending=".nii.gz", num_channels=1)
        both = [folder / f"case_1_{channel:04d}.nii.gz" for channel in range(2)]
        with pytest.raises(InputError, match=r"case_1_0001\.nii\.gz: a further channel"):
            find_cases_of_files(both, num_channels=1)
        shutil.copy(folder / "case_1_0000.nii.gz", folder / "case_0_0002.nii.gz")
        with pytest.raises(InputError, match=r"case_0_0002\.nii\.gz, case_1_0001\.nii\.gz: further channels"):
            find_cases(folder, file_ending=".nii.gz", num_channels=1)
        # A file that is named explicitly is a case.
        assert names(find_cases_of_files(both[1:], num_channels=1)) == ["case_1_0001"]
        for path in folder.iterdir():
            shutil.move(path, folder / f"{path.name.removesuffix('.nii.gz')}_0000.nii.gz")
        cases = find_cases(folder, file_ending=".nii.gz", num_channels=1)
        assert names(cases) == ["case_0_0000", "case_0_0002", "case_1_0000", "case_1_0001"]

    @pytest.mark.parametrize("numbers", [(1, 4), (42,), range(12), (0, 10, 20)])
    def test_names_that_end_in_four_digits_without_a_channel(self, tmp_path, numbers):
        """AMOS begins at `amos_0001`. A grey film may begin at 0000, and has many frames or leaves some out."""
        for number in numbers:
            PIL.Image.new("L", (4, 4)).save(tmp_path / f"amos_{number:04d}.png")
        cases = find_cases(tmp_path, file_ending=".png", num_channels=1)
        assert names(cases) == [f"amos_{number:04d}" for number in numbers]

    def test_names_that_are_known_from_label_maps(self, tmp_path):
        for number in range(2):
            PIL.Image.new("L", (4, 4)).save(tmp_path / f"frame_{number:04d}.png")
        known = {"frame_0000", "frame_0001"}
        files = sorted(tmp_path.iterdir())
        grouped = group_files(files, file_ending=".png", num_channels=1, known_cases=known)
        assert grouped.cases.keys() == known

    def test_grey_pictures_as_channels(self, tmp_path):
        for number in range(3):
            PIL.Image.new("L", (4, 4)).save(tmp_path / f"frame_{number:04d}.png")
        cases = find_cases(tmp_path, file_ending=".png", num_channels=3)
        assert names(cases) == ["frame"]

    def test_a_grey_picture_among_those_in_colour_is_a_case(self, tmp_path):
        """It is refused when it is read. The other pictures stay cases."""
        PIL.Image.new("L", (4, 4)).save(tmp_path / "a_0000.png")
        with pytest.raises(
            InputError, match=r"missing a_0001\.png, a_0002\.png\. .* or one file that holds all 3"
        ):
            find_cases(tmp_path, file_ending=".png", num_channels=3)
        (tmp_path / "b_0000.png").write_bytes(b"no picture")
        PIL.Image.new("RGB", (4, 4)).save(tmp_path / "c_0000.png")
        assert names(find_cases(tmp_path, file_ending=".png", num_channels=3)) == ["a", "b", "c"]
        (tmp_path / "a_0000.png").unlink()
        (tmp_path / "c_0000.png").unlink()
        assert names(find_cases(tmp_path, file_ending=".png", num_channels=3)) == ["b"]

    def test_one_file(self, make_dataset, tmp_path):
        folder = make_dataset(2, num_channels=2) / "imagesTr"
        (case,) = find_cases_of_files([folder / "case_1_0000.nii.gz"], num_channels=2)
        assert case.name == "case_1"
        assert [path.name for path in case.images] == ["case_1_0000.nii.gz", "case_1_0001.nii.gz"]
        (case,) = find_cases_of_files([folder / "case_1_0000.nii.gz"], num_channels=1)
        assert case.images == (folder / "case_1_0000.nii.gz",)
        assert case.name == "case_1"

    def test_files_of_all_channels_are_one_case(self, make_dataset):
        """A shell lists them for `imagesTs/*.nii.gz`."""
        folder = make_dataset(2, num_channels=2) / "imagesTr"
        assert names(find_cases_of_files(sorted(folder.iterdir()), num_channels=2)) == ["case_0", "case_1"]

    def test_one_file_that_lacks_channels(self, make_dataset):
        file = make_dataset(1) / "labelsTr/case_0.nii.gz"
        with pytest.raises(InputError, match="expected a channel number, or 2 channels in one file"):
            find_cases_of_files([file], num_channels=2)

    def test_missing_files(self, tmp_path):
        with pytest.raises(InputError, match="no such file or folder"):
            find_cases_of_files([tmp_path / "x"], num_channels=1)
        with pytest.raises(InputError, match="no such folder"):
            find_cases(tmp_path / "x", file_ending=".nii.gz", num_channels=1)
        with pytest.raises(InputError, match=r"expected files that end in .nii.gz, got no files"):
            find_cases(tmp_path, file_ending=".nii.gz", num_channels=1)
        (tmp_path / "patient").mkdir()
        with pytest.raises(
            InputError, match=r"expected files that end in .nii.gz, got only folders: patient"
        ):
            find_cases(tmp_path, file_ending=".nii.gz", num_channels=1)

    def test_one_name_for_two_files(self, tmp_path):
        PIL.Image.new("L", (4, 4)).save(tmp_path / "a.png")
        PIL.Image.new("L", (4, 4)).save(tmp_path / "a_0000.png")
        with pytest.raises(InputError, match=r"case a: a.png and a_0000.png have the same name"):
            find_cases(tmp_path, file_ending=".png", num_channels=1)


@pytest.mark.parametrize(
    ("name", "num_cases", "num_channels"), [("hippocampus", 200, 1), ("brats2015", 3, 2)]
)
def test_real_data_sets(shared_data, name, num_cases, num_channels):
    dataset = open_dataset(shared_data / name)
    assert len(dataset.cases) == num_cases
    assert all(len(case.images) == num_channels for case in dataset.cases)
