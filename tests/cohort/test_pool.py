"""Distribution of cases to workers that end: without processes."""

import time
from collections import Counter
from concurrent.futures import Future
from functools import partial
from types import SimpleNamespace

import pytest

from scanseg.cohort.model_worker import LoadedFacts, PredictedFiles
from scanseg.cohort.pool import ModelPool, Place
from scanseg.errors import ScansegError, UsageError
from scanseg.inference import FolderWork
from scanseg.inference.header_warnings import HeaderWarnings
from scanseg.runtime import WorkerEndedError
from scanseg.specs import PredictedCase


class FakeWorker:
    """Worker that answers at once, and ends at some cases."""

    def __init__(self, log, *, ends_at=(), start_error=None):
        self.log, self.ends_at, self.start_error, self.has_ended = log, ends_at, start_error, False

    def call(self, method, *arguments):
        future = Future()
        if method == "facts":
            if self.start_error is not None:
                future.set_exception(self.start_error)
            else:
                future.set_result(facts())
            return future
        case, _ = arguments
        self.log[case.name] += 1
        self.has_ended |= case.name in self.ends_at
        if self.has_ended:
            future.set_exception(WorkerEndedError("killed"))
        else:
            future.set_result(PredictedFiles(entry(case.name), (f"odd {case.name}",)))
        return future

    def close(self):
        self.log["closed"] += 1


def facts():
    values = dict.fromkeys(LoadedFacts.__dataclass_fields__)
    return LoadedFacts(**(values | {"device": "cpu", "mirrored_members": UsageError("no axes")}))


def entry(name, fault=None):
    return PredictedCase(case=name, images=(), label_map=None, probabilities=None, seconds=0.0, fault=fault)


def make_work(names, added, updates=None, *, warnings=()):
    cases = [
        SimpleNamespace(name=name, outputs=SimpleNamespace(case=SimpleNamespace(name=name, images=())))
        for name in names
    ]
    progress = (updates if updates is not None else []).append
    headers = HeaderWarnings([case.outputs for case in cases], None, warnings=warnings, progress=progress)
    return FolderWork(cases, None, headers, added.append, progress)


def test_a_case_that_ends_every_worker_fails_alone():
    log, added, updates = Counter(), [], []
    places = [Place(f"p{number}", lambda: FakeWorker(log, ends_at=("c",))) for number in range(2)]
    with ModelPool(places, num_ready=2) as pool:
        assert pool.facts.device == "2 x cpu"
        pool.run(make_work("abcdef", added, updates))
    faults = {each.case: each.fault for each in added}
    assert sorted(faults) == list("abcdef")
    assert [name for name, fault in faults.items() if fault] == ["c"]
    assert "3 workers ended at this case" in faults["c"]
    assert log["c"] == 3
    assert max(log[name] for name in "abdef") <= 2, "a neighbour is repeated at most once"
    assert updates[-1].done == updates[-1].total == 6
    warnings = [warning for update in updates for warning in update.warnings]
    assert "case a: odd a" in warnings
    assert sum("It is repeated" in warning and "case c" in warning for warning in warnings) == 2
    assert log["closed"] == 3 + 2, "every worker is closed"


@pytest.mark.parametrize(
    ("names", "expected"), [("ab", ["a", "b"]), ("abc", ["ac", "b"]), ("abcd", ["ac", "bd"])]
)
def test_few_cases_are_spread_over_all_workers(names, expected):
    logs, added = [Counter(), Counter()], []
    with ModelPool([Place("p", partial(FakeWorker, log)) for log in logs], num_ready=2) as pool:
        pool.run(make_work(names, added))
    assert ["".join(sorted(set(log) - {"closed"})) for log in logs] == expected


def test_headers_are_read_while_workers_predict_and_reported_before_results(monkeypatch):
    log, added, updates, at_read = Counter(), [], [], []
    work = make_work("abcd", added, updates, warnings=("odd folder", "odd b"))
    read_next = work.headers.read_next

    def read():
        at_read.append((sum(log.values()), len(added)))
        return read_next()

    monkeypatch.setattr(work.headers, "read_next", read)
    with ModelPool([Place("p", partial(FakeWorker, log))], num_ready=1) as pool:
        pool.run(work)
    assert at_read[:2] == [(2, 0), (4, 2)], "workers get cases before and between headers"
    first, warned, *results = updates
    assert (first.done, first.warnings) == (0, ())
    assert (warned.done, warned.warnings) == (0, ("odd folder", "odd b"))
    assert [update.done for update in results] == [1, 2, 3, 4]
    warnings = [warning for update in results for warning in update.warnings]
    assert warnings == ["case a: odd a", "case c: odd c", "case d: odd d"]


class SlowWorker:
    """Worker whose cases end as soon as a case begins on another worker."""

    def __init__(self, running):
        self.running = running

    def call(self, method, *arguments):
        future = Future()
        if method == "facts":
            future.set_result(facts())
            return future
        case, _ = arguments
        for worker, other, name in [each for each in self.running if each[0] is not self]:
            self.running.remove((worker, other, name))
            other.set_result(PredictedFiles(entry(name), ()))
        if case.name == "d":
            future.set_result(PredictedFiles(entry(case.name), ()))
        else:
            self.running.append((self, future, case.name))
        return future

    def close(self):
        pass


def test_a_case_that_ends_while_others_begin_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("scanseg.cohort.pool.CALLS_AT_ONCE", 1)
    monkeypatch.setattr("scanseg.cohort.pool._POLL_SECONDS", 5.0)
    added, begin = [], time.monotonic()
    place = Place("p", partial(SlowWorker, []))
    with ModelPool([place] * 2, num_ready=2) as pool:
        pool.run(make_work("abcd", added))
    assert sorted(each.case for each in added) == list("abcd")
    assert time.monotonic() - begin < 4


def test_a_failed_start_is_repeated_and_an_error_of_the_model_is_raised():
    log, added = Counter(), []
    starts = iter([WorkerEndedError("killed"), None])
    place = Place("p", lambda: FakeWorker(log, start_error=next(starts)))
    with ModelPool([place], num_ready=1) as pool:
        pool.run(make_work("ab", added))
    assert [each.case for each in added] == ["a", "b"]
    for error, expected in (
        (UsageError("no such device"), "no such device"),
        (WorkerEndedError("killed"), "p: 3 workers ended while they loaded the model"),
    ):
        place = Place("p", lambda error=error: FakeWorker(log, start_error=error))
        with pytest.raises(ScansegError, match=expected):
            ModelPool([place], num_ready=1)
