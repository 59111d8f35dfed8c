"""Work on many cases."""

from pathlib import Path

import pytest

from crossmoda import batch
from crossmoda.dataset import Case
from crossmoda.errors import NOT_ENOUGH_MEMORY, InputError


class Fatal(InputError):
    pass


def cases(*names: str) -> list[Case]:
    return [Case(name, "hrT2", Path(name)) for name in names]


def test_failures_are_named_and_the_rest_goes_on():
    def work(case, _progress):
        if case.id == "bad":
            raise InputError("It is bad.")
        return case.id.upper()

    done, failed = batch.for_each(cases("a", "bad", "b", "a"), work)
    assert done == {"a": "A", "b": "B"} and failed["bad"] == "It is bad."


def test_a_case_that_needs_too_much_memory_is_named_and_the_rest_goes_on():
    def work(case, _progress):
        if case.id == "large":
            raise MemoryError
        return case.id

    done, failed = batch.for_each(cases("a", "large", "b"), work)
    assert list(done) == ["a", "b"] and failed == {"large": NOT_ENOUGH_MEMORY}


def test_a_duplicate_id_is_refused_without_repeating_the_first():
    worked = []
    done, failed = batch.for_each(cases("a", "a"), lambda case, _progress: worked.append(case.id) or 1)
    assert worked == ["a"] and done == {"a": 1} and "Duplicate" in failed["a"]
    done, failed = batch.for_each(cases("a", "A"), lambda case, _progress: 1)  # one folder on Windows and macOS
    assert done == {"a": 1} and "Duplicate" in failed["A"]


def test_a_fatal_error_and_a_bug_end_all():
    def full_disk(_case, _progress):
        raise Fatal("The disk is full.")

    with pytest.raises(Fatal):
        batch.for_each(cases("a", "b"), full_disk, fatal=(Fatal,))
    assert set(batch.for_each(cases("a", "b"), full_disk)[1]) == {"a", "b"}
    with pytest.raises(ZeroDivisionError):
        batch.for_each(cases("a"), lambda _case, _progress: 1 / 0)


def test_progress_runs_from_0_to_1_over_all_cases_and_names_them():
    told = []

    def work(_case, progress):
        progress(0.0, "begin")
        progress(1.0, "end")

    batch.for_each(cases("a", "b"), work, lambda fraction, message: told.append((fraction, message)))
    assert told == [(0.0, "a: begin"), (0.5, "a: end"), (0.5, "b: begin"), (1.0, "b: end")]
