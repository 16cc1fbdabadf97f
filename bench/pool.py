"""Many live streams on one core: a StreamPool beside ONNX Runtime, called per stream and once.

    python -m bench.pool

All streams step each time. The pool gets them in a shuffled order and finds each one's memory;
ONNX Runtime's batched call gets its states as one array in a fixed order, which is its best case: a
service whose streams come and go would gather and scatter them, too. Its per-stream calls have
their buffers bound once, which is its fastest way. One thread each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

import fastrnn
from bench.cases import Case
from bench.problem import Arrays, Problem, make
from bench.timing import NOISY, Plan, interleave

STREAMS = (1, 16, 256, 4096)
HIDDEN = 128
FRAME = 0.032  # seconds of audio in a frame of voice-activity detection
CHECKED = 3  # steps compared before anything is timed
ONE_BY_ONE, BATCHED = "onnxruntime, per stream", "onnxruntime, batched"


@dataclass(frozen=True)
class Contender:
    """step(x) advances all streams; run() does it with the x that is timed."""

    step: Callable[[np.ndarray], np.ndarray]  # [n, I] -> [n, H]
    run: Callable[[], object]


def _pool(problem: Problem) -> Contender:
    case = problem.case
    layer = fastrnn.LSTM(case.inputs, case.H)
    layer.load_state_dict(problem.weights)
    pool = fastrnn.StreamPool(layer, case.B)
    ids = np.array([pool.join() for _ in range(case.B)])
    order = np.random.default_rng(1).permutation(case.B)
    back, ids = np.argsort(order), ids[order]
    x, out = problem.x[0][order], np.empty((case.B, case.H), np.float32)
    return Contender(lambda x: pool.step(ids, x[order])[back], lambda: pool.step(ids, x, out))


def _onnx_binding(session: Any, x: np.ndarray, source: Arrays, target: Arrays) -> Any:
    binding = session.io_binding()
    for name, value in {"x": x, **{f"{s}0": v for s, v in source.items()}}.items():
        binding.bind_input(name, "cpu", 0, np.float32, value.shape, value.ctypes.data)
    for name, value in target.items():
        binding.bind_output(name, "cpu", 0, np.float32, value.shape, value.ctypes.data)
    return binding


def _onnx(problem: Problem, rows: int) -> Contender:
    """`rows` streams in each call: 1, or all of them."""
    from dataclasses import replace

    from bench.libraries.onnx_model import model
    from bench.libraries.use_onnxruntime import _session

    case = problem.case
    graph = model(replace(problem, case=replace(case, B=rows)))
    session = _session(graph, 1, spin=False)
    x = problem.x[:1].copy()  # [1, n, I], the buffer that frames arrive in
    states = [{s: np.zeros((1, case.B, case.H), np.float32) for s in "hc"} for _ in range(2)]
    turns = []
    for source, target in (states, states[::-1]):
        parts = [slice(i, i + rows) for i in range(0, case.B, rows)]
        turns.append(
            [
                _onnx_binding(session, x[:, p], *({s: v[:, p] for s, v in state.items()}
                                                  for state in (source, target)))
                for p in parts
            ]
        )  # fmt: skip
    at, call = 0, session.run_with_iobinding

    def run() -> None:
        nonlocal at
        for binding in turns[at]:
            call(binding)
        at = 1 - at

    def step(rows: np.ndarray) -> np.ndarray:
        x[0] = rows
        run()
        return states[at]["h"][0].copy()

    return Contender(step, run)


def prepare(streams: int) -> dict[str, Contender]:
    """All contenders, after they agreed on a few steps."""
    problem = make(Case(group="stream", cell="lstm", T=1, B=streams, H=HIDDEN, threads=1))
    found = {"fastrnn": _pool(problem)}
    if find_spec("onnxruntime") and find_spec("onnx"):
        found |= {ONE_BY_ONE: _onnx(problem, 1), BATCHED: _onnx(problem, streams)}
    for x in problem.x[:CHECKED]:
        results = {name: contender.step(x) for name, contender in found.items()}
        for name, y in results.items():
            worst = float(np.abs(y - results["fastrnn"]).max())
            assert worst <= 1e-5, f"{streams} streams: {name} differs by {worst:.3g}"
    return found


def measure(plan: Plan) -> list[dict[str, Any]]:
    rows = []
    for streams in STREAMS:
        found = prepare(streams)
        times = interleave({name: contender.run for name, contender in found.items()}, plan)
        each = {name: times.time(name) / streams for name in times.seconds}
        ratios = {name: times.ratio(name, "fastrnn") for name in each if name != "fastrnn"}
        rows.append({"streams": streams, "each": each, "ratios": ratios,
                     "seconds": times.seconds, "others": times.others})  # fmt: skip
    rows[-1]["real_time"] = _real_time(rows[-1]["each"]["fastrnn"], plan)
    return rows


def _real_time(each: float, plan: Plan) -> dict[str, float]:
    """A step of about as many streams as one core computes as fast as their frames come."""
    streams = int(FRAME / each)
    problem = make(Case(group="stream", cell="lstm", T=1, B=streams, H=HIDDEN, threads=1))
    return {"streams": streams, "seconds": interleave({"": _pool(problem).run}, plan).time("")}


def section(rows: list[dict[str, Any]]) -> str:
    """The section of docs/performance.md."""
    from bench.report import short, table  # which imports this file

    names = list(rows[0]["each"])
    peers = [name for name in names if name != "fastrnn"]
    head = ["live streams", *names, *(f"ratio to {name.split(', ')[1]}" for name in peers)]
    body = []
    for row in rows:
        mark = " *" if row["others"] > NOISY else ""
        shown = [short(row["each"][name]) for name in names]
        ratios = [f"{row['ratios'][name]:.2f}" for name in peers]
        body.append([f"{row['streams']:,}{mark}", *shown, *ratios])
    text = (
        f"Microseconds for one step of one stream, LSTM {HIDDEN} on {HIDDEN} inputs, one thread,\n"
        "all streams stepping together: `StreamPool.step` (shuffled ids), ONNX Runtime called\n"
        "once for each stream with bound buffers, and called once for all with their states in\n"
        "one array. An asterisk: other processes were busy.\n\n"
    )
    full = rows[-1]["real_time"]
    frames = (
        f"\nA step of {full['streams']:,} live streams took {full['seconds'] * 1e3:.1f} ms. So one "
        f"core serves about {served(full):,}\nstreams of {FRAME * 1e3:.0f} ms voice frames in real "
        "time (one step a frame, nothing else computed).\n"
    )
    return text + table(head, body) + frames


def served(full: dict[str, float]) -> int:
    """Streams that are done within a frame, by the step measured; rounded down to three digits."""
    streams = full["streams"] * FRAME / full["seconds"]
    unit = 10 ** max(0, len(str(int(streams))) - 3)
    return int(streams // unit * unit)


if __name__ == "__main__":
    argparse.ArgumentParser(
        prog="python -m bench.pool",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    sys.exit(print(section(measure(Plan()))))
