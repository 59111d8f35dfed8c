"""Change, rate, doubling time and verdict between two sizes of a tumor, by hand-made numbers."""

import dataclasses
import math

import pytest

from crossmoda.errors import InputError
from crossmoda.measurement.growth import CRITERIA, Growth, Repeatability, TumorSize

VOLUME, LINEAR = CRITERIA["volume"], CRITERIA["linear"]


def size(volume_mm3: float, spread: float = 0.05, axial_mm: float = 12.0, extrameatal_mm: float | None = None):
    return TumorSize(volume_mm3, spread, axial_mm, extrameatal_mm)


def growth(before, after, days: int | None = 731, criterion=VOLUME) -> Growth:
    return Growth(before, after, days, criterion)


@pytest.mark.parametrize(
    ("before", "after", "spread", "verdict"),
    [
        (1000, 1000, 0.05, "stable"),
        (1000, 1190, 0.05, "stable"),  # changed beyond the repeatability, but less than the criterion
        (1000, 1200, 0.05, "grown"),
        (1000, 790, 0.05, "shrunk"),
        (1000, 1250, 0.3, "uncertain"),  # by the criterion, but within the repeatability
        (1000, 1000, 0.3, "uncertain"),  # neither no change nor one of 20 % can be excluded
        (1000, 3000, 0.3, "grown"),
    ],
)
def test_the_verdict_needs_the_criterion_and_the_repeatability(before, after, spread, verdict):
    assert growth(size(before, spread), size(after, spread)).verdict == verdict


def test_the_linear_criterion_takes_the_extrameatal_diameter_outside_the_canal():
    grown = growth(size(1000, extrameatal_mm=8.0), size(1000, axial_mm=12.0, extrameatal_mm=10.5), criterion=LINEAR)
    assert grown.linear_mm is not None and grown.linear_mm[1] == pytest.approx(2.5) and grown.verdict == "grown"
    within = growth(size(300, extrameatal_mm=0.0), size(300, axial_mm=12.4, extrameatal_mm=0.0), criterion=LINEAR)
    assert within.linear_mm is not None and within.linear_mm[1] == pytest.approx(0.4) and within.verdict == "stable"
    more = dataclasses.replace(LINEAR, least=3.0)
    assert growth(size(1, axial_mm=9), size(1, axial_mm=11.5), criterion=more).verdict == "stable"


def test_a_tumor_that_doubles_in_two_years_has_that_doubling_time_and_rate():
    result = growth(size(500), size(1000), days=730)
    years = 730 / 365.25
    assert result.doubling_years is not None and result.doubling_years[1] == pytest.approx(years)
    assert result.percent_per_year is not None
    assert result.percent_per_year[1] == pytest.approx(100 * (2 ** (1 / years) - 1))
    low, measured, high = result.change_percent or (0, 0, 0)
    assert measured == pytest.approx(100) and math.log(1 + high / 100) - math.log(2) == pytest.approx(
        math.hypot(0.05, 0.05)
    )
    assert low < measured < high


def test_what_is_not_known_is_none():
    result = growth(size(500), size(480), days=None)
    assert result.percent_per_year is None and result.doubling_years is None
    assert growth(size(500), size(480)).doubling_years is None, "a tumor that shrinks does not double"
    almost = growth(size(500), size(505))
    assert almost.doubling_years is not None and almost.doubling_years[2] is None, "no growth is possible, too"
    assert growth(size(500), size(700), days=10).percent_per_year is None


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [(None, size(300), "appeared"), (size(300), None, "removed"), (None, None, "no tumor")],
)
def test_without_a_tumor_in_one_scan_there_is_no_number(before, after, verdict):
    result = growth(before, after)
    assert result.verdict == verdict and verdict in result.sentence.lower()
    for value in (result.change_mm3, result.change_percent, result.percent_per_year, result.linear_mm):
        assert value is None


def test_the_model_card_states_the_repeatability_and_a_damaged_entry_is_refused():
    assert Repeatability.of({"growth_repeatability": {"factor": 2.0, "offset": 0.0}}).share(0.1) == pytest.approx(
        0.2 / math.sqrt(2)
    )
    assert Repeatability.of({}) is None
    negative, undefined, partial = {"factor": -1.0, "offset": 0}, {"factor": math.nan, "offset": 0}, {"factor": 2.0}
    for entry in ({"factor": "much", "offset": 0}, 3, None, negative, undefined, partial):
        with pytest.raises(InputError, match="growth_repeatability: numbers for factor, offset"):
            Repeatability.of({"growth_repeatability": entry})
