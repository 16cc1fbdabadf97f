"""Initial weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._arguments import Array, Shape
from ._spec import Spec


def uniform(shape: Shape, bound: float, dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
    """Draw from U(-bound, bound): torch's default with bound = 1 / sqrt(hidden_size)."""
    return rng.uniform(-bound, bound, shape).astype(dtype)


def orthogonal(rows: int, columns: int, rng: np.random.Generator) -> Array:
    """Draw a rows x columns matrix, rows >= columns, with orthonormal columns.

    QR of a Gaussian matrix, with the signs of R's diagonal taken out so that the draw is uniform
    over orthogonal matrices (Saxe et al. 2014; torch.nn.init.orthogonal_).
    """
    q, r = np.linalg.qr(rng.standard_normal((rows, columns)))
    q *= np.where(np.diag(r) < 0, -1.0, 1.0)
    return q


def recurrent(
    spec: Spec, rng: np.random.Generator, forget_bias: float | None, orthogonal_weights: bool
) -> dict[str, Array]:
    """Draw every weight of `spec` from U(-1/sqrt(H), 1/sqrt(H)), then apply the two options.

    `forget_bias` (Jozefowicz et al. 2015) is the whole of the forget gate's bias: it is written to
    bias_ih, and bias_hh, which is added to it, gets 0. `orthogonal_weights` replaces each gate's
    H x P block of weight_hh (Saxe et al. 2014).
    """
    size = spec.hidden_size
    bound = 1.0 / math.sqrt(size)
    weights = {
        name: uniform(shape, bound, spec.dtype, rng) for name, shape in spec.shapes().items()
    }
    for name, weight in weights.items():
        if orthogonal_weights and name.startswith("weight_hh"):
            for gate in weight.reshape(-1, size, spec.output_size):
                gate[...] = orthogonal(size, spec.output_size, rng)
        if forget_bias is not None and name.startswith("bias"):
            weight[size : 2 * size] = forget_bias if name.startswith("bias_ih") else 0.0
    return weights
