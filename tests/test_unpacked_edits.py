"""Single steps that read weights where they lie, while somebody edits these."""

import numpy as np
import pytest

import fastrnn
from support import Net, assert_same_bits, in_threads, is_taken, problem, random

NET = Net("lstm", 24, 40, layers=2, bidirectional=True)


def test_inside_an_edit_and_behind_it():
    layer, p = NET.build(), problem(NET, steps=1, batch=1)
    before, _, tape = layer.forward(p.x)
    with layer.edit() as weights:
        for w in weights.values():
            w *= 0.5
        inside, _, _ = layer.forward(p.x)
        assert not is_taken(layer), "nobody may read what is being edited"
        with pytest.raises(ValueError, match="^tape: expected a tape of the present weights"):
            layer.backward(tape, before)
    after, _, _ = layer.forward(p.x)
    assert is_taken(layer)
    np.testing.assert_array_equal(inside, after)
    assert (before != after).any()


class Edited:
    """A native network whose first pass begins when another thread's edit does."""

    def __init__(self, native, edit, method="plain_forward"):
        self.native, self.edit, self.method = native, edit, method

    def __getattr__(self, name):
        if name == self.method and self.edit:
            self.edit, edit = None, self.edit
            edit()
        return getattr(self.native, name)


def test_an_edit_that_begins_during_a_step(monkeypatch):
    """the step reads half-edited weights: it is computed again"""
    layer, twin, p = NET.build(), NET.build(), problem(NET, steps=1, batch=1)

    def double(module):
        with module.edit() as weights:
            for w in weights.values():
                w *= 2

    make = layer._packing._make
    monkeypatch.setattr(layer._packing, "_make", lambda: Edited(make(), lambda: double(layer)))
    y, _, tape = layer.forward(p.x)
    assert not is_taken(layer)
    double(twin)
    np.testing.assert_array_equal(y, twin.forward(p.x)[0])
    monkeypatch.setattr(tape.lease, "native", tape.lease.native.native)
    g, wanted = layer.backward(tape, p.dy), twin.backward(twin.forward(p.x)[2], p.dy)
    assert_same_bits(g.weights, wanted.weights)


def test_threads_that_train_while_another_edits():
    """every result is that of the weights at some moment between two edits"""
    net = Net("lstm", 16, 96)
    layer, p, scales = net.build(), problem(net, steps=1, batch=1), (1.0, 0.5, 0.25, 2.0)
    weights = layer.state_dict()

    def results(module):
        y, _, tape = module.forward(p.x)
        try:
            return y.tobytes(), module.backward(tape, p.dy).weights["weight_hh_l0"].tobytes()
        except ValueError:  # the weights have changed since
            return y.tobytes(), None

    possible = {}
    for scale in scales:
        twin = net.build()
        twin.load_state_dict({name: w * np.float32(scale) for name, w in weights.items()})
        y, g = results(twin)
        possible[y] = g

    def work(k):
        for i in range(150):
            if k == 0:
                layer.load_state_dict(
                    {n: w * np.float32(scales[i % 4]) for n, w in weights.items()}
                )
                continue
            y, g = results(layer)
            assert y in possible and g in (None, possible[y])

    in_threads(4, work)


def test_a_linear_layer_whose_weights_change_during_a_pass(monkeypatch):
    linear, x = fastrnn.Linear(5, 16, seed=1), random(1, 5)

    def double():
        with linear.edit() as weights:
            for w in weights.values():
                w *= 2

    before = linear(x)
    make = linear._packing._make
    monkeypatch.setattr(linear._packing, "_make", lambda: Edited(make(), double, "run"))
    linear._packing._lease = None
    y, _ = linear.forward(x)
    assert not is_taken(linear)
    np.testing.assert_array_equal(y, 2 * before)
