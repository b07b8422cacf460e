"""Plans of nnU-Net are no plans of scanseg."""

import json


def test_plans_of_nnunet_are_refused_in_one_sentence(command, tmp_path):
    plans = {
        "dataset_name": "Dataset004_Hippocampus",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "configurations": {"2d": {"batch_size": 366}, "3d_fullres": {"batch_size": 9}},
    }
    path = tmp_path / "nnUNetPlans.json"
    path.write_text(json.dumps(plans))
    outcome = command("train", path, "-o", tmp_path / "model")
    assert outcome.code == 2
    assert outcome.after_start.count("\n") == 1
    assert (
        "expected a plan of scanseg, got nnU-Net's plans. Plan the data set by scanseg plan" in outcome.stderr
    )
    assert not (tmp_path / "model").exists()
    path.write_text(json.dumps({"configurations": {}}))
    assert "not a valid Plan" in command("train", path, "-o", tmp_path / "model").stderr
