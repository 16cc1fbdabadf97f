"""How large the gradient is at each step: what `run` in support.py does not compare already."""

import numpy as np
import pytest

import fastrnn
from fastrnn import functional
from support import assert_same_bits, net_of, packed, problem

pytestmark = pytest.mark.usefixtures("isa")


def test_step_norms_are_told_on_demand():
    """in x's layout, and nothing else depends on it"""
    p = problem(net_of("lstm", 5, 7, layers=2, bidirectional=True), steps=6, batch=3)
    layer, first = p.net.build(), p.net.build(batch_first=True)
    _, _, tape = layer.forward(p.x, packed(p.state))
    g, plain = (layer.backward(tape, p.dy, step_norms=told) for told in (True, np.False_))
    assert g.step_norms.shape == (4, 6, 3) and plain.step_norms is None
    assert_same_bits(g.weights | {"dx": g.input}, plain.weights | {"dx": plain.input})
    _, _, tape = first.forward(p.x.swapaxes(0, 1), packed(p.state))
    swapped = first.backward(tape, p.dy.swapaxes(0, 1), step_norms=True, input_grad=False)
    assert swapped.step_norms.swapaxes(1, 2).tobytes() == g.step_norms.tobytes()
    _, _, tape = layer.forward(p.x[:, 1], tuple(s[:, 1] for s in p.state))
    alone = layer.backward(tape, p.dy[:, 1].copy(), step_norms=True)
    assert alone.step_norms.tobytes() == g.step_norms[:, :, 1].tobytes()


@pytest.mark.parametrize("scale", [1e-200, 1e-280, 1e200, np.nan])
def test_step_norms_neither_vanish_nor_overflow(scale):
    """where their squares would (at 1e-300 some products are denormals, which the kernels flush)"""
    layer = fastrnn.GRU(3, 9, dtype=np.float64)
    y, _, tape = layer.forward(np.zeros((4, 2, 3)))
    plain = layer.backward(tape, np.ones_like(y), step_norms=True).step_norms
    scaled = layer.backward(tape, np.full_like(y, scale), step_norms=True).step_norms
    np.testing.assert_allclose(scaled, plain * scale, rtol=1e-12)


def test_step_norms_show_that_a_gradient_vanishes():
    """and that a memory cell carries it: Hochreiter & Schmidhuber 1997"""

    def norms(layer):
        y, _, tape = layer.forward(np.zeros((100, 1, 1), np.float32))
        dy = np.zeros_like(y)
        dy[-1] = 1
        return layer.backward(tape, dy, step_norms=True).step_norms[0, :, 0]

    rnn = norms(fastrnn.RNN(1, 32, seed=1))
    lstm = norms(fastrnn.LSTM(1, 32, seed=1, forget_bias=6.0))
    assert rnn[0] < 1e-6 * rnn[-1] and lstm[0] > 0.1 * lstm[-1]


def test_step_norms_is_true_or_false():
    layer = fastrnn.GRU(3, 4)
    y, _, tape = layer.forward(np.zeros((2, 1, 3), np.float32))
    for back in (layer.backward, functional.backward):
        for wrong in (None, 1, "yes"):
            with pytest.raises(TypeError, match="^step_norms: expected True or False, got"):
                back(tape, y, step_norms=wrong)


def test_a_tape_of_another_kind_of_layer():
    linear, gru = fastrnn.Linear(3, 4), fastrnn.GRU(3, 4)
    y, tape = linear.forward(np.ones((1, 3), np.float32))
    with pytest.raises(ValueError, match="^tape: expected a tape of this layer"):
        gru.backward(tape, y, step_norms=True)
