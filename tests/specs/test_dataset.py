"""Labels and regions of data sets."""

import pytest
from pydantic import ValidationError

from scanseg.specs import DatasetSpec


def describe(**changes):
    fields = {
        "name": "tumours",
        "channel_names": ("MRI",),
        "labels": {"background": 0, "whole": (1, 2, 3, 4), "core": (1, 3, 4), "enhancing": (4,)},
        "regions_class_order": (2, 1, 4),
        "file_ending": ".nii.gz",
    }
    return DatasetSpec(**(fields | changes))


def test_each_region_has_an_output():
    dataset = describe()

    assert (dataset.has_regions, dataset.num_outputs) == (True, 3)
    assert dataset.known_values == {0, 1, 2, 3, 4}


def test_labels_have_outputs_in_the_order_of_values_and_regions_in_listed_order():
    listed = {"b": 2, "ignore": 11, **{f"c{value}": value for value in (10, 3, 4, 5, 6, 7, 8, 9)}, "a": 1}
    dataset = describe(labels={**listed, "background": 0}, regions_class_order=None)

    assert [*dataset.foreground.values()] == [(value,) for value in range(1, 11)]
    assert [*describe().foreground] == ["whole", "core", "enhancing"]


def test_the_class_order_holds_one_value_of_each_region():
    with pytest.raises(ValidationError, match=r"2 is not in enhancing \(4,\)"):
        describe(regions_class_order=(2, 1, 2))
    with pytest.raises(ValidationError, match="2 values for 3 regions"):
        describe(regions_class_order=(2, 1))


def test_the_ignore_label_has_no_output():
    dataset = describe(labels={"background": 0, "a": 1, "ignore": 2}, regions_class_order=None)

    assert (dataset.num_outputs, dataset.ignore_label) == (2, 2)
    with pytest.raises(ValidationError, match="expected ignore to have the highest label value, got 2"):
        describe(labels={"background": 0, "a": 1, "ignore": 2, "b": 3}, regions_class_order=None)
    regions = describe(labels={"background": 0, "a": (1, 2), "b": 2, "ignore": 3}, regions_class_order=(1, 2))
    assert (regions.num_outputs, regions.ignore_label) == (2, 3)


def test_colours_of_labels_are_left_out_of_the_json_unless_given():
    labels = {"background": 0, "road": 1, "tree": 2}
    plain = describe(labels=labels, regions_class_order=None)
    assert "label_colours" not in plain.to_json()
    coloured = describe(labels=labels, regions_class_order=None, label_colours={"tree": "#00fF10"})
    assert DatasetSpec.model_validate_json(coloured.to_json()) == coloured
    assert coloured.colours == {2: (0, 255, 16)}
    assert coloured.without_colours() == plain
    with pytest.raises(ValidationError, match="label_colours: expected names of labels, got sky"):
        describe(label_colours={"sky": "#0000ff"})
    with pytest.raises(ValidationError, match="label_colours"):
        describe(labels=labels, regions_class_order=None, label_colours={"tree": "green"})
