"""Messages of the commands on own folders."""

import numpy as np
import pytest

from tests.factories import write_picture

from . import forms
from .forms import SHAPE, box, squares, volume_pair


@pytest.mark.parametrize(
    ("values", "advice"),
    [((1, 2), "NAME=1,NAME=2"), ((255,), "NAME=255"), ((1, 2, 3, 4, 5), "NAME=1,NAME=2,NAME=3,NAME=4,...")],
)
def test_dry_run_shows_how_to_name_labels(command, tmp_path, values, advice):
    forms.picture(tmp_path / "a" / "0.png", SHAPE)
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[0, : len(values)] = values
    write_picture(tmp_path / "b" / "0.png", label_map)
    words = ("data", "convert", "folder", tmp_path / "a", tmp_path / "b", "--dry-run")
    assert f"to name them:  --labels {advice}\n" in command(*words).stdout
    names = ",".join(f"name{value}={value}" for value in values)
    assert "to name them" not in command(*words, "--labels", names).stdout


def test_faults_of_two_folders_name_both(command, tmp_path):
    forms.picture(tmp_path / "a" / "0.png", SHAPE)
    write_picture(tmp_path / "b" / "1.png", squares(1))
    for more in (("-o", tmp_path / "out"), ("--dry-run",)):
        outcome = command("data", "convert", "folder", tmp_path / "a", tmp_path / "b", *more)
        assert f"{tmp_path / 'a'} and {tmp_path / 'b'}: " in outcome.stderr
    missing = command("data", "convert", "folder", tmp_path / "a", tmp_path / "c", "-o", tmp_path / "out")
    assert f"{tmp_path / 'c'}: no such folder" in missing.stderr
    assert "your label maps" in missing.stderr


def test_a_wrong_test_fraction_is_refused_before_files_are_read(command, tmp_path):
    words = ("data", "convert", "folder", tmp_path / "a", "-o", tmp_path / "out", "--test-fraction", "20")
    outcome = command(*words)
    assert outcome.code == 2
    assert "from 0 to below 1, got 20.0. Give 0.2 for a fifth." in outcome.stderr


def test_the_description_of_a_raw_data_set_is_not_lost_silently(command, tmp_path):
    image, label_map = (tmp_path / "in" / name for name in ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"))
    volume_pair(image, label_map, box())
    (tmp_path / "in" / "dataset.json").write_text("{}")
    words = ("data", "convert", "folder", tmp_path / "in" / "imagesTr", tmp_path / "in" / "labelsTr")
    outcome = command(*words, "--dry-run")
    assert f"scanseg data convert msd {tmp_path / 'in'} -o DATASET" in outcome.stdout
    assert "data convert msd" not in command(*words, "--dry-run", "--labels", "liver=1").stdout


def test_a_value_without_name_in_many_label_maps_is_one_line(command, tmp_path):
    for number in range(25):
        forms.picture(tmp_path / "a" / f"{number}.png", SHAPE, seed=number)
        write_picture(tmp_path / "b" / f"{number}_mask.png", squares(1, 255))
    words = (
        "data",
        "convert",
        "folder",
        tmp_path / "a",
        tmp_path / "b",
        "--labels",
        "cell=1",
        "-o",
        tmp_path / "out",
        "--num-workers",
        0,
    )
    (error,) = (line for line in command(*words).stderr.splitlines() if line.startswith("error: "))
    assert "25 cases (0, 1, 10, " in error
    path = tmp_path / "b" / "CASE_mask.png"
    assert (
        f" and 15 more): {path}: expected the values 0, 1, got 255 too. Name all of them by --labels."
        in error
    )
