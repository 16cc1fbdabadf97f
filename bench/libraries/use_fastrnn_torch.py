"""fastrnn's kernels as modules of PyTorch: called exactly as torch's own layers are."""

from __future__ import annotations

import fastrnn.torch
from bench.libraries import Prepared, use_torch
from bench.problem import Problem


def prepare(problem: Problem) -> Prepared:
    return use_torch.prepare(problem, fastrnn.torch)
