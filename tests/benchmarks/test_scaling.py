"""Times of training steps on several GPUs, without a GPU."""

from benchmarks.scaling import main, summarize
from tests.factories import make_plan


def test_ratios_of_the_medians():
    rounds = {
        "one": [60.0, 62.0, 90.0],
        "share": [31.0, 31.0, 40.0],
        "strong": [31.0, 33.0, 32.0],
        "weak": [64.0] * 3,
    }
    result = summarize(rounds)
    assert result["ms_a_step"] == {"one": 62.0, "share": 31.0, "strong": 32.0, "weak": 64.0}
    assert result["strong_scaling"] == 1.938
    assert result["strong_scaling_without_messages"] == 2.0
    assert result["weak_efficiency"] == 0.969


def test_more_gpus_than_the_machine_has_are_refused(capsys, tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text(make_plan().to_json())
    assert main([str(plan), "store", "-o", str(tmp_path / "r.json"), "--gpus", "64"]) == 2
    assert "expected at least 2 and at most the GPUs of this machine" in capsys.readouterr().err
