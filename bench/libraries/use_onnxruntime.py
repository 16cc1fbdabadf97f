"""ONNX Runtime, CPU provider.

Tried for every case: one thread or two, spinning or sleeping, for streams a plain run or bound
buffers (these save three of the seven microseconds of H = 32).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, product

import numpy as np
import onnxruntime as ort

from bench.libraries import Prepared, fastest
from bench.libraries.onnx_model import model
from bench.problem import Arrays, Problem


def prepare(problem: Problem) -> Prepared:
    return fastest(_candidates(problem), problem.case.pause)


def _candidates(problem: Problem) -> Iterator[Prepared]:
    graph, case = model(problem), problem.case
    for threads, spin in product(range(1, case.threads + 1), (True, False)):
        if threads == 1 and spin:
            continue  # nobody to spin
        session = _session(graph, threads, spin)
        variant = f"{threads} threads, {'spinning' if spin else 'sleeping'}"
        if case.stream:
            yield _stream_plain(session, problem, f"{variant}, plain")
            yield _stream_bound(session, problem, f"{variant}, bound")
        else:
            yield _sequence(session, problem, variant)


def _session(graph: bytes, threads: int, spin: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    for pool in ("intra_op", "inter_op"):
        options.add_session_config_entry(f"session.{pool}.allow_spinning", str(int(spin)))
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _sequence(session: ort.InferenceSession, problem: Problem, variant: str) -> Prepared:
    feed = {"x": problem.x}
    if problem.lengths is not None:
        feed["n"] = problem.lengths.astype(np.int32)
    names = [output.name for output in session.get_outputs()]

    def run() -> list[np.ndarray]:
        return session.run(names, feed)

    def result() -> Arrays:
        return dict(zip(names, run(), strict=True))

    return Prepared(run, result, variant)


def _zero_states(problem: Problem) -> Arrays:
    names = ("h", "c") if problem.case.cell == "lstm" else ("h",)
    return {s: np.zeros((1, 1, problem.case.H), np.float32) for s in names}


def _stream_plain(session: ort.InferenceSession, problem: Problem, variant: str) -> Prepared:
    first = problem.x[:1]
    state = _zero_states(problem)
    names = list(state)
    feeds = [f"{s}0" for s in names]
    values = list(state.values())

    def run(x: np.ndarray = first) -> np.ndarray:
        nonlocal values
        values = session.run(names, {"x": x, **dict(zip(feeds, values, strict=True))})
        return values[0]

    def result() -> Arrays:
        nonlocal values
        values = list(_zero_states(problem).values())
        return {"y": np.concatenate([run(x[None]) for x in problem.x])}

    return Prepared(run, result, variant)


def _stream_bound(session: ort.InferenceSession, problem: Problem, variant: str) -> Prepared:
    """Two bindings in turn, each writing the state that the other reads."""
    x = problem.x[:1].copy()  # the buffer a caller writes each sample into
    here, there = _zero_states(problem), _zero_states(problem)

    def bind(source: Arrays, target: Arrays) -> ort.IOBinding:
        binding = session.io_binding()
        for name, value in {"x": x, **{f"{s}0": v for s, v in source.items()}}.items():
            binding.bind_input(name, "cpu", 0, np.float32, value.shape, value.ctypes.data)
        for name, value in target.items():
            binding.bind_output(name, "cpu", 0, np.float32, value.shape, value.ctypes.data)
        return binding

    turns = cycle((bind(here, there), bind(there, here)))

    def run() -> None:
        session.run_with_iobinding(next(turns))

    def result() -> Arrays:
        nonlocal turns
        turns = cycle((bind(here, there), bind(there, here)))
        for value in here.values():
            value[:] = 0
        ys = []
        for step, sample in enumerate(problem.x):
            x[0] = sample
            run()
            ys.append((there, here)[step % 2]["h"].copy())
        return {"y": np.concatenate(ys)}

    return Prepared(run, result, variant)
