"""OpenVINO, CPU plugin: latency hint, float32 (its default may be bfloat16), shared memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle

import numpy as np
import openvino as ov

from bench.libraries import Prepared, fastest
from bench.libraries.onnx_model import model
from bench.problem import Arrays, Problem


def prepare(problem: Problem) -> Prepared:
    return fastest(_candidates(problem), problem.case.pause)


def _candidates(problem: Problem) -> Iterator[Prepared]:
    case, core = problem.case, ov.Core()
    graph = core.read_model(model(problem), b"")
    for threads in range(1, case.threads + 1):
        compiled = core.compile_model(graph, "CPU", {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": 1,
        })  # fmt: skip
        adapt = _stream if case.stream else _sequence
        yield adapt(compiled, problem, f"{threads} threads")


def _tensor(array: np.ndarray) -> ov.Tensor:
    return ov.Tensor(array, shared_memory=True)


def _sequence(compiled: ov.CompiledModel, problem: Problem, variant: str) -> Prepared:
    request = compiled.create_infer_request()
    request.set_tensor("x", _tensor(problem.x))
    if problem.lengths is not None:
        request.set_tensor("n", _tensor(problem.lengths.astype(np.int32)))
    names = ["y", "h", "c"] if problem.case.cell == "lstm" else ["y", "h"]

    def run() -> None:
        request.infer(share_inputs=True, share_outputs=True)

    def result() -> Arrays:
        run()
        return {name: request.get_tensor(name).data.copy() for name in names}

    return Prepared(run, result, variant)


def _stream(compiled: ov.CompiledModel, problem: Problem, variant: str) -> Prepared:
    """Two requests in turn, each writing the state that the other reads."""
    states = ("h", "c") if problem.case.cell == "lstm" else ("h",)
    x = problem.x[:1].copy()  # the buffer a caller writes each sample into
    here, there = ({s: np.zeros((1, 1, problem.case.H), np.float32) for s in states} for _ in "ab")

    def bind(source: Arrays, target: Arrays) -> ov.InferRequest:
        request = compiled.create_infer_request()
        request.set_tensor("x", _tensor(x))
        for s in states:
            request.set_tensor(f"{s}0", _tensor(source[s]))
            request.set_tensor(s, _tensor(target[s]))
        return request

    both = bind(here, there), bind(there, here)
    turns = cycle(both)

    def run() -> None:
        next(turns).infer(share_inputs=True, share_outputs=True)

    def result() -> Arrays:
        nonlocal turns
        turns = cycle(both)
        for value in here.values():
            value[:] = 0
        ys = []
        for step, sample in enumerate(problem.x):
            x[0] = sample
            run()
            ys.append((there, here)[step % 2]["h"].copy())
        return {"y": np.concatenate(ys)}

    return Prepared(run, result, variant)
