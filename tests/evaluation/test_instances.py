import errno
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from scanseg.errors import InputError, UsageError
from scanseg.evaluation import (
    convert_to_instances,
    evaluate_instances,
    instances,
    score_instances,
)
from scanseg.evaluation.instances import find_instances
from scanseg.imaging import read_instance_map, read_label_map, write_instance_map, write_label_map
from scanseg.runtime import RunContext
from scanseg.specs import InstanceReport
from tests.factories import image_of

HERE = ("--num-workers", 0)


def like(shape, spacing=None):
    """Return an empty image."""
    return image_of(np.zeros((1, *shape)), spacing=spacing)


def brute_force_f1(prediction, reference, *, iou, border):
    """Return the F1 from its definition: masks one by one, and scipy's assignment over all pairs."""

    def instances(numbers):
        edge = np.ones(numbers.shape, bool)
        if border == 0:
            edge[:] = False
        else:
            edge[..., border:-border, border:-border] = False
        masks = [numbers == number for number in np.unique(numbers) if number]
        return [mask for mask in masks if not (mask & edge).any()]

    ours, theirs = instances(prediction), instances(reference)
    if not ours and not theirs:
        return None
    ious = np.array([[(a & b).sum() / (a | b).sum() for b in theirs] for a in ours]).reshape(
        len(ours), len(theirs)
    )
    rows, columns = linear_sum_assignment(-(ious >= iou).astype(float) - ious / 1000)
    hits = int((ious[rows, columns] >= iou).sum())
    return 2 * hits / (len(ours) + len(theirs))


def cells(rng, shape, *, sigma=1.6, part=0.45):
    noise = ndimage.gaussian_filter(rng.normal(size=shape), sigma)
    return ndimage.label(noise > np.quantile(noise, 1 - part))[0]


@given(st.integers(0, 10_000), st.sampled_from([0.2, 0.35, 0.5, 0.7]), st.sampled_from([0, 1, 2]))
@settings(max_examples=60, deadline=None)
def test_f1_equals_scipys_assignment(seed, iou, border):
    rng = np.random.default_rng(seed)
    shape = (24, 31) if seed % 3 else (4, 15, 17)
    reference = cells(rng, shape)
    moved = np.roll(reference, rng.integers(-2, 3, len(shape)), axis=range(len(shape)))
    prediction = np.where(rng.random(shape) < 0.1, 0, moved)
    ours = score_instances(prediction, reference, iou=iou, border=border)
    assert ours.f1 == pytest.approx(brute_force_f1(prediction, reference, iou=iou, border=border), abs=1e-12)


def test_values_by_hand():
    reference, prediction = np.zeros((2, 20, 30), int)
    reference[4:8, 4:8] = 7
    prediction[4:8, 4:6] = 3  # 8 of 16: overlap exactly a half, a match
    reference[4:8, 10:14] = 9
    prediction[4:8, 10:11] = 4  # 4 of 16: no match, so one false and one missed
    reference[4:8, 16:20] = 2
    prediction[4:7, 16:20] = 8  # 12 of 16
    reference[1:5, 22:26] = 5  # reaches into the two pixels at the border: left out
    prediction[12:15, 27:29] = 6  # likewise
    scores = score_instances(prediction, reference)
    assert (scores.true_positives, scores.false_positives, scores.false_negatives) == (2, 1, 1)
    assert scores.f1 == scores.precision == scores.recall == pytest.approx(2 / 3)
    assert scores.mean_iou == pytest.approx((0.5 + 0.75) / 2)
    assert scores.panoptic_quality == pytest.approx(1.25 / 3)
    with_border = score_instances(prediction, reference, border=0)
    assert (with_border.false_positives, with_border.false_negatives) == (2, 2)


def test_most_pairs_then_the_largest_overlap():
    # One instance is half in each of two others. Either of these could match it, and one does.
    reference, prediction = np.zeros((2, 9, 20), int)
    reference[3:6, 4:12] = 1
    prediction[3:6, 4:8], prediction[3:6, 8:12] = 1, 2
    scores = score_instances(prediction, reference)
    assert (scores.true_positives, scores.false_positives, scores.false_negatives) == (1, 1, 0)
    # With a low threshold the greedy choice (the largest overlap first) would leave one instance without a match.
    reference[:], prediction[:] = 0, 0
    reference[3:6, 2:8], reference[3:6, 8:10] = 1, 2
    prediction[3:6, 3:10], prediction[3:6, 2:3] = 1, 2
    scores = score_instances(prediction, reference, iou=0.15, border=0)
    assert scores.true_positives == 2


def test_images_without_instances_are_not_counted():
    nothing, something = np.zeros((2, 9, 9), int)
    something[4, 4] = 1
    assert score_instances(nothing, nothing).f1 is None
    assert score_instances(nothing, something).f1 == 0
    assert score_instances(something, nothing).f1 == 0
    assert score_instances(nothing, something).precision is None


def test_large_images_are_scored_in_tiles(rng, monkeypatch):
    reference = cells(rng, (60, 75))
    prediction = np.roll(reference, 1, axis=0)
    monkeypatch.setattr(instances, "TILED_PIXELS", 60 * 75 - 1)
    monkeypatch.setattr(instances, "TILE", 40)
    tiled = score_instances(prediction, reference)
    parts = [
        score_instances(prediction[y : y + 40, x : x + 40], reference[y : y + 40, x : x + 40])
        for y in (0, 40)
        for x in (0, 40)
    ]
    assert tiled.true_positives == sum(part.true_positives for part in parts) > 0
    assert tiled.f1 == (parts[0] + parts[1] + parts[2] + parts[3]).f1


@pytest.mark.parametrize("shape", [(12, 20), (9, 12, 20)])
def test_instances_of_interior_and_boundary(shape):
    label_map = np.zeros(shape, np.uint8)
    inner = (slice(None),) * (len(shape) - 2) if len(shape) == 2 else (slice(2, 7),)
    deep = (slice(None),) * (len(shape) - 2) if len(shape) == 2 else (slice(3, 6),)
    label_map[(*inner, slice(2, 9), slice(2, 9))] = 2
    label_map[(*inner, slice(2, 9), slice(9, 16))] = 2
    label_map[(*deep, slice(3, 8), slice(3, 8))] = 1
    label_map[(*deep, slice(3, 8), slice(10, 15))] = 1
    found = find_instances(label_map)
    assert found.max() == 2
    assert ((found > 0) == (label_map == 1)).all()
    grown = find_instances(label_map, grow=1)
    first, second = (grown[(*deep, slice(5, 6), slice(x, x + 1))].max() for x in (5, 12))
    assert first != second
    expected = np.zeros(shape, int)
    expected[(*inner, slice(2, 9), slice(2, 9))] = first
    expected[(*inner, slice(2, 9), slice(9, 16))] = second
    np.testing.assert_array_equal(grown, expected)
    np.testing.assert_array_equal(find_instances(label_map, grow=1, boundary=None), found)


def two_discs(distance: int, radius: int = 8) -> np.ndarray:
    """Return a label map of the joined interiors of two discs, in a boundary of two pixels."""
    y, x = np.mgrid[:40, :60]
    label_map = np.zeros((40, 60), np.uint8)
    for value, size in ((2, radius + 2), (1, radius)):
        for centre in (30 - distance / 2, 30 + distance / 2):
            label_map[(y - 20) ** 2 + (x - centre) ** 2 <= size**2] = value
    return label_map


def test_interiors_are_split_at_a_neck():
    label_map = two_discs(15)
    assert find_instances(label_map).max() == 1
    found = find_instances(label_map, neck=0.6, grow=2)
    assert found.max() == 2
    assert ((found > 0) == (label_map > 0)).all()
    left, right = found[20, 20], found[20, 40]
    assert left != right
    assert (found[:, :29][found[:, :29] > 0] == left).all()
    assert (found[:, 32:][found[:, 32:] > 0] == right).all()
    sizes = np.bincount(found.ravel())[1:]
    assert abs(int(sizes[0]) - int(sizes[1])) <= 0.1 * sizes.max()


@pytest.mark.parametrize("distance", [0, 6])
def test_a_disc_and_an_oval_stay_whole(distance):
    label_map = two_discs(distance)
    np.testing.assert_array_equal(find_instances(label_map, neck=0.6), find_instances(label_map))


def test_an_instance_at_the_edge_of_the_image_has_no_neck_there():
    label_map = np.ones((12, 12), np.uint8)
    label_map[:, 6:] = 0
    assert find_instances(label_map, neck=0.6).max() == 1


def test_touching_balls_are_split_in_3d():
    z, y, x = np.mgrid[:24, :24, :40]
    label_map = np.zeros((24, 24, 40), np.uint8)
    for centre in (12, 27):
        label_map[(z - 12) ** 2 + (y - 12) ** 2 + (x - centre) ** 2 <= 64] = 1
    assert find_instances(label_map).max() == 1
    assert find_instances(label_map, neck=0.6).max() == 2


def test_a_neck_above_1_is_refused():
    with pytest.raises(InputError, match="neck from 0 to 1"):
        find_instances(np.zeros((3, 3), np.uint8), neck=1.5)


def test_corners_connect_and_other_values_do_not():
    label_map = np.array([[1, 0, 0, 2], [0, 1, 0, 3], [0, 0, 0, 1]], np.uint8)
    assert find_instances(label_map).max() == 2
    assert find_instances(label_map, interior=3, boundary=2, grow=1).max() == 1
    assert find_instances(np.zeros((3, 3), np.uint8), grow=2).max() == 0


def test_small_instances_can_be_left_out():
    label_map = np.zeros((9, 20), np.uint8)
    label_map[4, 2], label_map[2:5, 6:8], label_map[2:7, 11:16] = 1, 1, 2
    label_map[3:6, 12:15] = 1
    assert find_instances(label_map).max() == 3
    large = find_instances(label_map, min_voxels=7)
    assert (large.max(), (large > 0).sum()) == (1, 9)
    # Sizes count after growing, and numbers have no gaps.
    grown = find_instances(label_map, grow=1, min_voxels=10)
    assert (grown.max(), (grown > 0).sum()) == (1, 25)
    assert find_instances(label_map, min_voxels=6).max() == 2
    assert find_instances(label_map, min_voxels=100).max() == 0


def test_faults():
    with pytest.raises(InputError) as caught:
        score_instances(np.zeros((2, 3)), np.full((2, 4), -1), iou=0, border=-1)
    for part in ("(2, 3)", "(2, 4)", "float64", "the number -1", "at most 1, got 0", "0 or more, got -1"):
        assert part in str(caught.value)
    with pytest.raises(InputError, match="min_voxels -1"):
        find_instances(np.zeros((2, 2), int), min_voxels=-1)
    with pytest.raises(InputError, match="interior 2, boundary 2"):
        find_instances(np.zeros((2, 2), int), interior=2)


@pytest.mark.parametrize("ending", [".png", ".tif", ".nii.gz"])
def test_instance_maps_come_back_from_files(tmp_path, ending):
    numbers = np.arange(600, dtype=np.int64).reshape(20, 30)
    write_instance_map(tmp_path / f"a{ending}", numbers, like=like((20, 30)))
    image = read_instance_map(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(image.array[0], numbers)
    assert image.array.dtype == np.int32


def test_very_many_instances(tmp_path):
    numbers = np.array([[0, 70000]])
    with pytest.raises(
        InputError, match=r"expected instance values from 0 to 65535, got values from 0 to 70000"
    ):
        write_instance_map(tmp_path / "a.png", numbers, like=like((1, 2)))
    write_instance_map(tmp_path / "a.tif", numbers, like=like((1, 2)))
    assert read_instance_map(tmp_path / "a.tif").array.max() == 70000
    write_instance_map(tmp_path / "b.nii.gz", numbers, like=like((1, 2)))
    with pytest.raises(InputError, match="Renumber the labels"):
        read_label_map(tmp_path / "b.nii.gz")


@pytest.fixture
def folders(tmp_path):
    """Return folders of label maps and of instance maps of two images.

    All three instances of the first image are found, and none of the two of the second.
    """
    for name in ("p", "r"):
        (tmp_path / name).mkdir()
    reference, label_map = np.zeros((30, 40), int), np.zeros((30, 40), np.uint8)
    for number, left in enumerate((4, 14, 24), start=1):
        reference[5:12, left : left + 7] = 100 * number
        label_map[5:12, left : left + 7] = 2
        label_map[6:11, left + 1 : left + 6] = 1
    write_instance_map(tmp_path / "r" / "a.png", reference, like=like((30, 40)))
    write_label_map(tmp_path / "p" / "a.png", label_map, like=like((30, 40)))
    reference[:, 24:] = 0
    write_instance_map(tmp_path / "r" / "b.png", reference, like=like((30, 40)))
    write_label_map(tmp_path / "p" / "b.png", np.zeros((30, 40), np.uint8), like=like((30, 40)))
    return tmp_path / "p", tmp_path / "r"


def test_images_without_a_prediction_are_left_out_on_request(folders, command, tmp_path):
    (folders[0] / "a.png").unlink()
    call = ("evaluate", *folders, "--instances", "components", "-o", tmp_path / "f1.json", *HERE)
    assert command(*call).code == 1
    outcome = command(*call, "--only-predicted")
    assert outcome.code == 0, outcome.stderr
    assert "note: 1 reference without a prediction was left out\n" in outcome.stdout
    report = InstanceReport.read(tmp_path / "f1.json")
    assert ([case.case for case in report.cases], report.unpredicted) == (["b"], ("a",))


def test_command(folders, command, tmp_path):
    words = ("evaluate", *folders, *HERE)
    outcome = command(*words, "--instances", "components", "-o", tmp_path / "f1.json")
    assert outcome.code == 0, outcome.stderr
    report = InstanceReport.read(tmp_path / "f1.json")
    # 25 of 49 pixels are interior: an overlap just above a half.
    assert report.cases[0].mean_iou == pytest.approx(25 / 49)
    assert [case.f1 for case in report.cases] == [1, 0]
    summary = report.summary
    assert (summary.f1.mean, summary.median_f1) == (0.5, 0.5)
    assert summary.f1.std == pytest.approx(math.sqrt(0.5))
    assert summary.pooled_f1 == pytest.approx(6 / 8)
    assert "0.7500" in outcome.stdout
    grown = command(*words, "--instances", "grown", "--iou", 0.99, "-o", tmp_path / "grown.json")
    assert grown.code == 0, grown.stderr
    assert InstanceReport.read(tmp_path / "grown.json").cases[0].f1 == 1
    strict = command(*words, "--instances", "components", "--iou", 0.6, "-o", tmp_path / "s.json")
    assert strict.code == 0
    assert InstanceReport.read(tmp_path / "s.json").summary.pooled_f1 == 0


def test_converted_predictions_are_scored_as_numbers(folders, command, tmp_path):
    words = ("data", "instances", folders[0], *HERE)
    none = command(*words, "-o", tmp_path / "none", "--min-voxels", 50)
    assert none.code == 0, none.stderr
    assert read_instance_map(tmp_path / "none" / "a.png").array.max() == 0
    outcome = command(*words, "-o", tmp_path / "instances", "--min-voxels", 49)
    assert outcome.code == 0, outcome.stderr
    numbers = read_instance_map(tmp_path / "instances" / "a.png").array[0]
    assert numbers.max() == 3
    colours = tmp_path / "instances" / "colours"
    assert outcome.stdout.endswith(f"in colours, to look at: {colours}\n")
    np.testing.assert_array_equal(read_label_map(colours / "a.png").array[0] > 0, numbers > 0)
    report = evaluate_instances(
        tmp_path / "instances", folders[1], iou=1.0, context=RunContext(num_workers=0)
    )
    assert [case.f1 for case in report.cases] == [1, 0]
    assert report.cases[0].panoptic_quality == 1


def test_volumes_are_converted_on_their_grid(tmp_path):
    label_map = np.zeros((6, 8, 9), np.uint8)
    label_map[1:3, 1:3, 1:3], label_map[4, 5, 6] = 1, 1
    write_label_map(tmp_path / "a.nii.gz", label_map, like=like((6, 8, 9), (3.0, 1.0, 0.5)))
    (path,) = convert_to_instances(tmp_path / "a.nii.gz", tmp_path / "out", context=RunContext(num_workers=0))
    image = read_instance_map(path)
    assert image.spacing == (3.0, 1.0, 0.5)
    assert image.array.max() == 2


def test_faults_are_reported_together(folders, tmp_path):
    predictions, references = folders
    write_label_map(predictions / "a.png", np.zeros((30, 41), np.uint8), like=like((30, 41)))
    (predictions / "b.png").write_bytes(b"no image")
    with pytest.raises(InputError) as caught:
        evaluate_instances(predictions, references, instances="components", context=RunContext(num_workers=0))
    for part in ("(30, 41) and (30, 40)", "b.png"):
        assert part in str(caught.value)
    with pytest.raises(InputError, match=r"b\.png"):
        convert_to_instances(predictions, tmp_path / "out", context=RunContext(num_workers=0))
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="would replace"):
        convert_to_instances(predictions, predictions, context=RunContext(num_workers=0))


def test_a_full_disk_leaves_no_instance_maps_behind(folders, command, tmp_path, monkeypatch):
    from scanseg.imaging import writing

    before = sorted(path.name for path in tmp_path.iterdir())
    write, written = writing.write_pillow, []

    def fill_the_disk(path, numbers, **options):
        write(path, numbers)
        written.append(path)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing, "write_pillow", fill_the_disk)
    outcome = command("data", "instances", folders[0], "-o", tmp_path / "instances", "--num-workers", 0)
    assert [path.parent.name for path in written][1] == "colours"
    assert (outcome.code, outcome.stdout) == (1, "")
    assert outcome.after_start == f"error: {tmp_path / 'instances' / 'b.png'}: No space left on device\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_existing_instance_maps_are_not_replaced(folders, command, tmp_path):
    (tmp_path / "instances").mkdir()
    (tmp_path / "instances" / "a.png").write_text("mine")
    outcome = command("data", "instances", folders[0], "-o", tmp_path / "instances", "--num-workers", 0)
    assert outcome.code == 2
    assert (
        outcome.after_start
        == f"error: {tmp_path / 'instances'} already exists. Choose a new folder, or remove it.\n"
    )
    assert (tmp_path / "instances" / "a.png").read_text() == "mine"


def test_label_maps_are_no_references(folders, tmp_path):
    folders[1].rename(tmp_path / "labelsTr")
    (tmp_path / "instancesTr").mkdir()
    with pytest.raises(UsageError, match="instancesTr"):
        evaluate_instances(
            folders[0], tmp_path / "labelsTr", instances="components", context=RunContext(num_workers=0)
        )


def test_an_unknown_encoding_of_instances_is_refused_by_name(tmp_path):
    with pytest.raises(UsageError, match=r"instances 'cells' is unknown\. Choose numbers, components, grown"):
        evaluate_instances(tmp_path, tmp_path, instances="cells", context=RunContext(num_workers=0))


def test_options_without_effect_are_refused(folders, command, tmp_path):
    outcome = command("evaluate", *folders, "--iou", 0.5, "--border", 1, "-o", tmp_path / "x.json")
    assert outcome.code == 2
    assert outcome.stderr == (
        "error: --iou, --border: expected --instances too. Add it, or leave these options out.\n"
    )
    outcome = command(
        "evaluate", *folders, "--instances", "numbers", "--rule", "skip", "-o", tmp_path / "x.json"
    )
    assert outcome.code == 2
    assert outcome.stderr == "error: --rule: only for label maps, not with --instances. Leave one out.\n"


def test_real_nuclei(shared_data):
    folder = shared_data / "dsb2018" / "instances"
    for path in sorted(folder.iterdir())[:3]:
        numbers = read_instance_map(path).array[0]
        assert numbers.max() > 1, path.name
        moved = np.roll(numbers, 2, axis=0)
        ours = score_instances(moved, numbers)
        assert ours.f1 == pytest.approx(brute_force_f1(moved, numbers, iou=0.5, border=2), abs=1e-6)
        assert score_instances(numbers, numbers).f1 == 1
