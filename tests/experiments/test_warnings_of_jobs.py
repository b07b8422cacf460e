"""Warnings of jobs in other processes reach the caller."""

from dataclasses import dataclass

import pytest

from scanseg.errors import InputError, ScansegError
from scanseg.experiments.scheduler import run_jobs
from scanseg.progress import ProgressUpdate, WarningCollector, ignore_progress
from scanseg.runtime import RunContext


@dataclass(frozen=True)
class Warn:
    name: str
    fails: bool = False

    def run(self, context: RunContext) -> None:
        context.report_warnings([f"{self.name} lacks a spacing"])
        context.progress(ProgressUpdate("training", 1, 2, "epoch 1/2"))
        context.report_warnings(["shared", f"{self.name} is small"])
        if self.fails:
            raise InputError("damaged")


@pytest.mark.parametrize("devices", [("cpu",), ("cpu", "cpu")], ids=["one device", "two devices"])
def test_warnings_reach_the_caller(devices):
    collector = WarningCollector(ignore_progress)
    jobs = [Warn("first"), Warn("second")]
    run_jobs(jobs, devices=devices, context=RunContext(num_workers=0, progress=collector))
    assert sorted(collector.warnings) == [
        "first is small",
        "first lacks a spacing",
        "second is small",
        "second lacks a spacing",
        "shared",
    ]


@pytest.mark.slow
def test_warnings_of_a_failed_job_reach_the_caller():
    collector = WarningCollector(ignore_progress)
    jobs = [Warn("first", fails=True), Warn("second")]
    with pytest.raises(ScansegError, match="first on cpu: damaged"):
        run_jobs(jobs, devices=("cpu", "cpu"), context=RunContext(num_workers=0, progress=collector))
    assert len(collector.warnings) == 5
