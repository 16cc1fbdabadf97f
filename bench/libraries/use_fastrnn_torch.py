"""fastrnn's kernels as modules of PyTorch: called as torch's own layers are; ragged batches are not
packed, they come with their lengths."""

from __future__ import annotations

from functools import partial
from typing import Any

import fastrnn.torch
from bench.libraries import Prepared, use_torch
from bench.problem import Problem


def prepare(problem: Problem, made: Any = None) -> Prepared:
    return use_torch.prepare(
        problem, fastrnn.torch, lambda layer, lengths: partial(layer, lengths=lengths), made
    )
