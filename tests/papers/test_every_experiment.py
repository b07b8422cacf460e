"""Every experiment of both papers, under both protocols, from a source as people have it to the table."""

import csv
import json

import pytest

from scanseg.papers.experiments import EXPERIMENTS, results_of
from scanseg.specs.records.reproduction import Reproduction

PUBLISHED_VARIANT = {"published": "bot", "held-out": "enc"}
"""Which variant of xLSTM-UNet runs under which protocol by default; the others are slow tests."""


def _combinations():
    for experiment in EXPERIMENTS:
        for protocol in ("published", "held-out"):
            for variant in ("bot", "enc") if experiment.paper == "xlstm-unet" else (None,):
                usual = variant in (None, PUBLISHED_VARIANT[protocol])
                yield pytest.param(
                    experiment,
                    protocol,
                    variant,
                    marks=() if usual else pytest.mark.slow,
                    id=f"{experiment.paper}-{experiment.data}-{experiment.num_axes}d-{protocol}-{variant}",
                )


@pytest.mark.parametrize(("experiment", "protocol", "variant"), list(_combinations()))
def test_from_the_source_to_the_table(experiment, protocol, variant, source, tmp_path, command):
    words = ["reproduce", experiment.paper, source(experiment.data), "--data", experiment.data]
    words += ["--dims", experiment.num_axes, "--protocol", protocol, "--quick", "--seeds", 0]
    words += ["--from-scratch"] if variant is None else ["--variant", variant]

    outcome = command(*words, "--device", "cpu", "--num-workers", 0, "-o", tmp_path / "out")

    assert outcome.code == 0, outcome.stderr
    table = Reproduction.read(tmp_path / "out" / "table.json")
    scoring = experiment.published if protocol == "published" else experiment.held_out
    assert (table.paper, table.data, table.num_axes) == (
        experiment.paper,
        experiment.data,
        experiment.num_axes,
    )
    assert (table.rule, table.distance_unit, table.missing) == (scoring.rule, scoring.distance_unit, ())
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    here = [row for row in table.rows if row.origin == "here"]
    assert {row.method for row in here} == {experiment.paper}
    for row in here:
        assert set(row.labels) == set(plan["dataset"]["labels"]) - {"background"}
        assert "dice" in row.measures
        assert row.seeds == (0,)
    published = [row.method for row in table.rows if row.origin == "published"]
    assert published == [
        row.method for row in results_of(experiment) if row.variant is None or row.variant == variant
    ]
    assert plan["network"].get("variant") == variant

    # The text says which rule, weights, seeds and cases.
    text = (tmp_path / "out" / "table.md").read_text()
    for said in (
        f"Protocol {protocol}: ",
        f"Rule {scoring.rule} (",
        f"Weights: {here[0].checkpoint}",
        "Seeds: 0.",
        f"Trained here: {experiment.paper}, {here[0].parameters / 1e6:.2f} million parameters, 2 of 2 epochs in ",
        table.scored,
        "scores have no meaning",
    ):
        assert said in text, said
        assert said in outcome.stdout.replace("\n", " "), said
    with (tmp_path / "out" / "table.csv").open() as stream:
        assert len(list(csv.reader(stream))) == len(table.rows) + 1
    assert (tmp_path / "out" / "table.html").read_text().count("<tr>") == len(table.rows) + 1
