"""Hashes that every FMA instruction set, compiler and machine must reproduce."""

import json

import numpy as np
import pytest

from bits import GOLDEN, golden_cases, splitmix
from support import run

pytestmark = pytest.mark.usefixtures("fma_isa")
CASES = golden_cases()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_golden_bits(name, threads):
    golden = json.loads(GOLDEN.read_text())
    assert CASES.keys() == golden.keys(), "run python tests/bits.py"
    assert CASES[name].hashes(num_threads=threads) == golden[name]


def test_generator_is_the_published_one():
    assert splitmix(2, 0).tolist() == [
        (0xE220A8397B1DCDAF >> 40) * 2.0**-23 - 1,  # first outputs of splitmix64 from seed 0
        (0x6E789E6AA1B965F4 >> 40) * 2.0**-23 - 1,
    ]


def test_chaotic_case_is_chaotic():
    """a change of the input in the twelfth digit, at the start, is large at the end"""
    case = CASES["lstm_chaotic_float64"]
    p, layer = case.problem(), case.layer()
    before = run(layer, p)["y"]
    p.x[0, 0, 0] += 1e-12
    assert np.abs(run(layer, p)["y"] - before)[-100:, 0].max() > 0.1
