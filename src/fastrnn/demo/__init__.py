"""`python -m fastrnn demo`: a real series, from training to streaming, with this library alone.

An LSTM learns the weekly CO2 record of Mauna Loa (Keeling & Whorf 2004, see `demo/series.py`) up to
1995 and forecasts 1996 to 2001 a month, a quarter and half a year ahead, against three
seasonal-naive forecasts. All see the same: the record up to the week a forecast is made in, gaps
filled by linear interpolation. What is scored are measured weeks only. The layer's size, the rate
and the number of epochs are the best on 1990 to 1995 after training up to 1989.
"""

from __future__ import annotations

import time

import numpy as np

from .._arguments import Array
from .forecaster import HIDDEN, MAX_NORM, ROWS, WINDOW, Forecaster
from .plot import draw
from .series import HELD_OUT, HORIZONS, YEAR, Record, load, make_task, naive_forecasts, scored_weeks
from .streaming import Streamed, stream_years


def run(epochs: int, threads: int | None, out: str) -> int:
    """Run the demo and return 0, or 1 when the forecast lost or a bit differed."""
    record = load()
    task = make_task(record)
    first = record.first_held_out
    forecaster = Forecaster(task.inputs.shape[1], threads)
    _introduce(record, forecaster)

    start = time.perf_counter()
    loss = forecaster.train(task, first, epochs)
    seconds = time.perf_counter() - start
    print(f"trained    {epochs} epochs in {seconds:.1f} s, loss {loss:.4f}\n")

    changes = np.full((len(record.co2), len(HORIZONS)), np.nan)
    changes[YEAR:] = forecaster(task.inputs) * task.scale
    forecasts = record.co2[:, None] + changes  # made in week k, for week k + HORIZONS
    won = _compare(record, forecasts)

    streamed = stream_years(forecaster, task.inputs, first - YEAR)
    _report(streamed)
    print(_draw(record, forecasts[:, -1], out))
    same = streamed.differing == 0
    print(f"\nforecast   {'beats every naive one, at every horizon' if won else 'LOSES'}")
    print(f"stream     {'gives the same bits as the batch' if same else 'DIFFERS from the batch'}")
    return 0 if won and same else 1


def _introduce(record: Record, forecaster: Forecaster) -> None:
    weights = sum(w.size for module in forecaster.modules for w in module.parameters().values())
    gaps = int(np.count_nonzero(~record.measured))
    print("CO2 at Mauna Loa, weekly means (Keeling & Whorf 2004, public domain)")
    print(
        f"record     {record.dates[0]} to {record.dates[-1]}: {len(record.co2)} weeks, of which "
        f"{gaps} not measured (interpolated, not scored)"
    )
    print(f"held out   {HELD_OUT} to {record.years[-1]}, not seen in training")
    print(
        f"model      LSTM({forecaster.lstm.input_size}, {HIDDEN}) and Linear({HIDDEN}, "
        f"{len(HORIZONS)}), {weights:,} weights"
    )
    print(
        f"training   BPTT through {WINDOW} weeks with carried state, {ROWS} stretches at once, "
        f"Adam, gradient norm <= {MAX_NORM:g}",
        flush=True,
    )


def _compare(record: Record, forecasts: Array) -> bool:
    """Print the table of errors; return whether the LSTM has the smallest at every horizon."""
    errors: dict[str, list[float]] = {}
    for column, ahead in enumerate(HORIZONS):
        weeks = scored_weeks(record, ahead)
        truth = record.co2[weeks + ahead]
        rivals = {"LSTM": forecasts[weeks, column], **naive_forecasts(record.co2, weeks, ahead)}
        for name, forecast in rivals.items():
            error = float(np.sqrt(np.mean(np.square(forecast - truth))))
            errors.setdefault(name, []).append(error)
    header = "".join(f"{f'{ahead} weeks':>10}" for ahead in HORIZONS)
    print(f"{'error on held-out years, RMSE in ppm':<36}{header}   ahead")
    for name, row in errors.items():
        print(f"  {name:<34}" + "".join(f"{error:10.3f}" for error in row))
    model = np.array(errors.pop("LSTM"))
    best = np.min(list(errors.values()), axis=0)
    gains = "".join(f"{100 * gain:9.0f}%" for gain in 1 - model / best)
    print(f"  {'less than the best naive one by':<34}{gains}\n")
    return bool(np.all(model < best))


def _report(streamed: Streamed) -> None:
    ratio = streamed.numpy_microseconds / streamed.microseconds
    print(
        f"stream     {streamed.steps} weeks one sample at a time: {streamed.differing} differ from "
        "the batch in any bit"
    )
    print(
        f"time       {streamed.microseconds:.2f} us a step, NumPy "
        f"{streamed.numpy_microseconds:.2f} us: {ratio:.1f} times faster "
        f"(they differ by {streamed.numpy_error:.0e})"
    )


def _draw(record: Record, forecast: Array, out: str) -> str:
    """Draw the forecasts farthest ahead over the held-out years."""
    ahead = HORIZONS[-1]
    ends = np.arange(record.first_held_out, len(record.co2))
    truth = np.where(record.measured, record.co2, np.nan)[ends]
    title = f"CO2 at Mauna Loa, {ahead} weeks ahead, {HELD_OUT} to {record.years[-1]}"
    return draw(record.dates[ends], truth, forecast[ends - ahead], title, out)
