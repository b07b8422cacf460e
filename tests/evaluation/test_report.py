import json
import math
import sys

import pytest

from scanseg.errors import UsageError
from scanseg.evaluation import CaseScores, Report, make_report, summary_rows
from scanseg.evaluation.report import summarise
from scanseg.evaluation.scores import LabelScores


def scores(dice, hd95=1.0, nsd=0.5):
    asd = None if hd95 is None else hd95 / 2
    return LabelScores(dice=dice, hd95=hd95, asd=asd, nsd=nsd, volume_ml=2.0, reference_volume_ml=3.0)


CASES = [
    CaseScores("one", {"liver": scores(0.8, 2.0), "spleen": scores(0.4, 6.0)}),
    CaseScores("two", {"liver": scores(0.6, 4.0), "spleen": scores(None, None, None)}),
    CaseScores("three", {"liver": scores(0.0, math.inf, 0.0), "spleen": scores(None, None, None)}),
]
LABELS = {"liver": (1,), "spleen": (2,)}


def report(cases=CASES):
    return make_report(
        cases, labels=LABELS, ignore_label=None, predictions="p", references="r", labels_from="dataset.json"
    )


def test_means_leave_out_uncounted_scores():
    summary = summarise(CASES, labels=("liver", "spleen"))
    liver, spleen = summary.labels["liver"], summary.labels["spleen"]
    assert liver.dice.mean == pytest.approx(1.4 / 3)
    assert liver.dice.std == pytest.approx(
        math.sqrt(((0.8 - 1.4 / 3) ** 2 + (0.6 - 1.4 / 3) ** 2 + (1.4 / 3) ** 2) / 2)
    )
    assert liver.dice.count == 3
    assert (liver.hd95.mean, liver.hd95.count, liver.hd95_infinite) == (3.0, 2, 1)
    assert (spleen.dice.mean, spleen.dice.std, spleen.dice.count, spleen.hd95_infinite) == (0.4, None, 1, 0)
    assert summary.label_means() == {"liver": liver.dice.mean, "spleen": 0.4}


def test_both_means():
    summary = summarise(CASES, labels=("liver", "spleen"))
    assert summary.num_cases == 3
    assert summary.mean_over_labels.dice == pytest.approx((1.4 / 3 + 0.4) / 2)
    assert summary.mean_over_cases.dice == pytest.approx((0.6 + 0.6 + 0.0) / 3)
    assert summary.mean_over_labels.hd95 == pytest.approx((3 + 6) / 2)
    assert summary.mean_over_labels.asd == pytest.approx((1.5 + 3) / 2)
    assert summary.mean_over_cases.asd == pytest.approx((2 + 2) / 2)
    assert summary.mean_over_cases.hd95 == pytest.approx((4 + 4) / 2)


def test_json_has_the_documented_fields():
    content = json.loads(report().to_json())
    assert [case["case"] for case in content["cases"]] == ["one", "two", "three"]
    assert content["cases"][0]["labels"]["liver"] == {
        "dice": 0.8,
        "hd95": 2.0,
        "asd": 1.0,
        "hd95_infinite": False,
        "nsd": 0.5,
        "volume_ml": 2.0,
        "reference_volume_ml": 3.0,
    }
    missed = content["cases"][2]["labels"]["liver"]
    assert (missed["dice"], missed["hd95"], missed["hd95_infinite"]) == (0.0, None, True)
    nowhere = content["cases"][2]["labels"]["spleen"]
    assert (nowhere["dice"], nowhere["hd95"], nowhere["hd95_infinite"]) == (None, None, False)
    assert (content["rule"], content["distance_unit"]) == ("skip", "mm")
    assert content["tolerances_mm"] == {"liver": 2.0, "spleen": 2.0}
    assert (content["predictions"], content["references"], content["labels_from"]) == (
        "p",
        "r",
        "dataset.json",
    )
    assert set(content["summary"]) == {"num_cases", "labels", "mean_over_labels", "mean_over_cases"}


def test_report_comes_back_from_json(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(report().to_json())
    assert Report.read(path) == report()


def test_nothing_counted_has_no_mean():
    nothing = [CaseScores("one", {name: scores(None, None, None) for name in LABELS})]
    summary = report(nothing).summary
    assert summary.mean_over_labels.dice is None
    assert summary.mean_over_cases.dice is None


def test_table():
    head, *rows = summary_rows(report())
    assert head == (
        "label",
        "Dice",
        "HD95 (mm)",
        "infinite HD95",
        "ASD (mm)",
        "NSD",
        "volume (ml)",
        "reference (ml)",
        "cases",
    )
    assert rows[0] == (
        "liver",
        "0.4667 ± 0.4163",
        "3.00 ± 1.41",
        "1",
        "1.50 ± 0.71",
        "0.3333 ± 0.2887",
        "2.00 ± 0.00",
        "3.00 ± 0.00",
        "3",
    )
    assert rows[1][:2] == ("spleen", "0.4000")
    assert rows[2][:3] == ("mean over labels", "0.4333", "4.50")
    assert rows[3][:3] == ("mean over cases", "0.4000", "4.00")
    assert {len(row) for row in rows} == {len(head)}
    assert summary_rows(report([CASES[2]]))[2][1] == "-"


def test_a_frame_has_one_row_per_case_and_label():
    pytest.importorskip("pandas")
    frame = report().to_frame()
    assert list(frame.columns[:3]) == ["case", "label", "dice"]
    assert list(zip(frame["case"], frame["label"], strict=True))[:3] == [
        ("one", "liver"),
        ("one", "spleen"),
        ("two", "liver"),
    ]
    assert frame["dice"].tolist()[:3] == [0.8, 0.4, 0.6]
    assert math.isnan(frame["dice"].iloc[3])
    assert frame["hd95_infinite"].tolist() == [False, False, False, False, True, False]
    assert frame.groupby("label")["dice"].mean()["liver"] == pytest.approx(1.4 / 3)


def test_a_frame_without_pandas_names_the_installation(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match=r"expected pandas.*Run: pip install pandas"):
        report().to_frame()
