"""The numbers of a case, the same for every library: weights, input, lengths, output gradient."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np

from bench.cases import GATES, Case
from fastrnn.convert import to_bfloat16

Arrays = dict[str, np.ndarray]
STREAM_STEPS = 16  # steps compared before a stream is timed


@dataclass(frozen=True)
class Problem:
    case: Case
    weights: Arrays  # by torch's names
    x: np.ndarray  # [T, B, I]; a stream's is [STREAM_STEPS, B, I]
    lengths: np.ndarray | None  # [B] int64
    dy: np.ndarray  # [T, B, D*H], zero past each row's end

    @property
    def live(self) -> int:
        """Rows times steps that are computed."""
        case = self.case
        return case.T * case.B if self.lengths is None else int(self.lengths.sum())


def make(case: Case) -> Problem:
    rng = np.random.default_rng(crc32(case.name.encode()))
    steps = STREAM_STEPS if case.stream else case.T
    x = rng.standard_normal((steps, case.B, case.inputs)).astype(case.dtype)
    dy = rng.standard_normal((steps, case.B, case.directions * case.H)).astype(case.dtype)
    lengths = None
    if case.ragged:
        lengths = rng.integers(case.T // 5, case.T, size=case.B, endpoint=True)
        dy[np.arange(steps)[:, None] >= lengths] = 0
    weights = torch_weights(case, rng)
    if case.bfloat16:
        weights = to_bfloat16(weights)
    if case.group == "denormals":
        weights |= {k: np.zeros_like(b) for k, b in weights.items() if k.startswith("bias")}
    if case.denormal:
        # the state decays through the denormals and this input keeps it there
        x[10:] *= 1e-40
        dy *= 1e-40
    return Problem(case, weights, x, lengths, dy)


def torch_weights(case: Case, rng: np.random.Generator) -> Arrays:
    """Uniform in 1/sqrt(H), as torch initialises; names and order are torch's too."""
    rows, bound = GATES[case.cell] * case.H, case.H**-0.5
    weights = {}
    for layer in range(case.layers):
        inputs = case.inputs if layer == 0 else case.directions * case.H
        shapes = {
            "weight_ih": (rows, inputs),
            "weight_hh": (rows, case.H),
            "bias_ih": (rows,),
            "bias_hh": (rows,),
        }
        for end in ("", "_reverse")[: case.directions]:
            for name, shape in shapes.items():
                value = rng.uniform(-bound, bound, shape).astype(case.dtype)
                weights[f"{name}_l{layer}{end}"] = value
    return weights
