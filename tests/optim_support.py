"""What the tests of optimizers of a caller's own arrays share."""

import numpy as np
import pytest

from fastrnn import optim
from support import random, random_gradients

OPTIONS = {
    "SGD": dict(lr=0.1, momentum=0.9, weight_decay=0.01),
    "Adam": dict(lr=0.1, weight_decay=0.01),
    "AdamW": dict(lr=0.1, weight_decay=0.01),
}
each_rule = pytest.mark.parametrize("rule", OPTIONS)


def optimizer(rule, modules):
    return getattr(optim, rule)(modules, **OPTIONS[rule])


def some():
    """arrays as a model may have them: two dtypes, strides, a number"""
    return {
        "embedding": random(7, 4),
        "attention": random(6, 5, dtype="float64").T,
        "columns": random(3, 8)[:, 1::2],
        "scale": np.array(0.5, np.float32),
    }


def train(opt, steps=3):
    for grads in zip(*(random_gradients(m, steps) for m in opt.modules), strict=True):
        opt.step(grads)


def kept(own):
    return {name: array.copy() for name, array in own.items()}
