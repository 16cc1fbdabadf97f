"""The record: weekly CO2 at Mauna Loa, what a forecaster sees of it, and its naive forecasts.

Data: Keeling, C.D. and T.P. Whorf (2004), Carbon Dioxide Information Analysis Center, Oak Ridge
National Laboratory; public domain. Its first lines (data/co2_mauna_loa.csv) say more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import resources

import numpy as np

from .._arguments import Array

YEAR = 52  # weeks; the season moves by a day and a quarter a year against it
DECADE = 520
HORIZONS = (4, 13, 26)  # weeks ahead
HELD_OUT = 1996  # the first year that training does not see
_START = np.datetime64("1958-03-29")


@dataclass(frozen=True)
class Record:
    """One value a week; where none was measured, one interpolated between its neighbours."""

    co2: Array  # [N] parts per million
    measured: Array  # [N] bool
    dates: Array  # [N] datetime64[D]

    @property
    def years(self) -> Array:
        """Calendar years, [N]."""
        years: Array = self.dates.astype("datetime64[Y]").astype(int) + 1970
        return years

    @property
    def first_held_out(self) -> int:
        """The first week of the held-out years."""
        return int(np.searchsorted(self.years, HELD_OUT))


def load() -> Record:
    """Read the record and fill its gaps by linear interpolation."""
    text = resources.files("fastrnn").joinpath("data/co2_mauna_loa.csv").read_text("ascii")
    lines = [line for line in text.splitlines() if not line.startswith("#")][1:]
    raw = np.array([math.nan if line == "-" else float(line) for line in lines])
    measured, weeks = ~np.isnan(raw), np.arange(len(raw))
    co2 = np.interp(weeks, weeks[measured], raw[measured])
    return Record(co2, measured, _START + 7 * weeks)


@dataclass(frozen=True)
class Task:
    """Forecasting as arrays. Week k of the arrays is week k + YEAR of the record."""

    inputs: Array  # [N - YEAR, 4] float32
    targets: Array  # [N - YEAR, len(HORIZONS)] float32, NaN where the record has ended
    scale: Array  # [len(HORIZONS)] parts per million in one unit of targets


def make_task(record: Record) -> Task:
    """Inputs: the week's and the year's change, and the season; targets: the change to come.

    Means and scales are those of the training years.
    """
    co2, last = record.co2, record.first_held_out
    weekly = np.diff(co2, prepend=co2[0])[YEAR:]
    yearly = co2[YEAR:] - co2[:-YEAR]
    day = (record.dates - record.dates.astype("datetime64[Y]")).astype(float)[YEAR:]
    angle = 2 * np.pi * day / 365.25

    def standard(values: Array) -> Array:
        known = values[: last - YEAR]
        scaled: Array = (values - known.mean()) / known.std()
        return scaled

    inputs = [standard(weekly), standard(yearly), np.sin(angle), np.cos(angle)]
    changes = np.full((len(co2), len(HORIZONS)), np.nan)
    for column, ahead in enumerate(HORIZONS):
        changes[:-ahead, column] = co2[ahead:] - co2[:-ahead]
    scale = np.array([changes[: last - h, i].std() for i, h in enumerate(HORIZONS)])
    targets = (changes / scale)[YEAR:]
    return Task(np.stack(inputs, 1).astype(np.float32), targets.astype(np.float32), scale)


def scored_weeks(record: Record, ahead: int) -> Array:
    """Return the weeks at which a forecast is made that ends in a measured held-out week."""
    ends = np.arange(record.first_held_out, len(record.co2))
    weeks: Array = ends[record.measured[ends]] - ahead
    return weeks


def naive_forecasts(co2: Array, weeks: Array, ahead: int) -> dict[str, Array]:
    """Return the three usual opponents' forecasts, made at `weeks` from values known by then."""
    season = co2[weeks + ahead - YEAR]
    return {
        "seasonal naive": season,
        "  with last year's growth": season + (co2[weeks] - co2[weeks - YEAR]),
        "  with the decade's growth": season + (co2[weeks] - co2[weeks - DECADE]) * YEAR / DECADE,
    }
