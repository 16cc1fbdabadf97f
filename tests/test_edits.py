"""Editing weights: what is computed in, during and after a block, and what tapes are worth then."""

import numpy as np
import pytest

import fastrnn
from fastrnn._packing import Packing
from support import KINDS, Net, assert_same_bits, clones, net_of, problem, run

each_kind = pytest.mark.parametrize("kind", KINDS)
each_that_takes = pytest.mark.parametrize(
    "make",
    [lambda: Net("gru", 5, 16).build(), lambda: fastrnn.Linear(5, 16)],
    ids=["gru", "linear"],
)
NET = Net("lstm", 5, 7, layers=2, bidirectional=True)


def test_parameters_are_read_only_views():
    layer = NET.build()
    parameters = layer.parameters()
    assert list(parameters) == list(layer.state_dict())
    for w in parameters.values():
        with pytest.raises(ValueError, match="read-only"):
            w *= 2
    with layer.edit() as weights:
        weights["bias_ih_l0"][...] = 7
    assert (parameters["bias_ih_l0"] == 7).all()


@each_kind
def test_edit_changes_what_is_computed(kind, isa):
    net = net_of(kind, 5, 7, layers=2)
    p, layer = problem(net, steps=4, batch=3), net.build()
    before = run(layer, p)
    with layer.edit() as weights:
        for w in weights.values():
            w *= 0.5
    after = run(layer, p)
    assert after["y"].tobytes() != before["y"].tobytes()
    fresh = net.build(seed=9)
    fresh.load_state_dict(layer.state_dict())
    assert_same_bits(run(fresh, p), after)


def test_edit_counts_after_an_exception_too(isa):
    p, layer = problem(NET, steps=4, batch=3), NET.build()
    before = run(layer, p)
    with pytest.raises(ZeroDivisionError), layer.edit() as weights:
        weights["weight_hh_l0"] *= 0.5
        1 / 0  # noqa: B018
    assert run(layer, p)["y"].tobytes() != before["y"].tobytes()


def test_what_a_call_computes_with_is_not_packed_over():
    """the call may be another thread's; else new weights take the place of the old"""
    packing = NET.build()._packing
    used = packing.acquire()
    with packing.editing(None):
        pass
    new = packing.acquire()
    assert new.native is not used.native
    new.users.pop()
    with packing.editing(None):
        pass
    assert packing.acquire().native is new.native


def test_weights_are_packed_once_for_calls_that_come_together():
    """one of them packs while the other waits for the lock, and takes what it finds then"""
    packed = []
    packing = Packing(list, lambda native, *_: packed.append(native))

    class Late:
        """the lock, which another call has taken before this one"""

        def __enter__(self):
            packing.lock = lock
            first.append(packing.acquire())
            lock.acquire()

        def __exit__(self, *_):
            lock.release()

    lock, first = packing.lock, []
    packing.lock = Late()
    lease = packing.acquire()
    assert lease is first[0] and len(packed) == 1
    assert len(lease.users) == 2, "both are at work with it"


@pytest.mark.parametrize("make", [NET.build, lambda: fastrnn.Linear(5, 2)])
def test_an_edit_just_as_backward_begins(make):
    """by another thread, between the call and its mark that it uses the weights"""
    layer = make()
    y, *_, tape = layer.forward(problem(NET, steps=4, batch=3).x)

    class Late(list):
        def append(self, user):
            with layer.edit():
                pass
            super().append(user)

    tape.lease.users = Late()
    with pytest.raises(ValueError, match="tape: .*changed"):
        layer.backward(tape, y)
    assert not tape.lease.users


@pytest.mark.parametrize(
    "make", [lambda: Net("rnn_tanh", 640, 640).build(), lambda: fastrnn.Linear(640, 640)]
)
def test_an_edit_of_large_weights(make):
    """of 1.6 MB, which lie elsewhere than they were drawn"""
    x = np.ones((1, 1, 640), np.float32)
    for compute in (lambda layer: layer.forward(x)[0], lambda layer: layer(x)):
        layer = make()
        assert np.any(compute(layer)[0])
        with layer.edit() as weights:
            for w in weights.values():
                w[...] = 0
        assert not np.any(compute(layer)[0])


@each_that_takes
def test_an_edit_that_has_begun_when_a_step_ends(make, monkeypatch):
    """which has read its weights where they lie, maybe half-edited ones: it is computed again"""
    layer, acquire, x = make(), Packing.acquire, np.ones((1, 1, 5), np.float32)
    edit = layer.edit()

    def late(self, *use):
        lease = acquire(self, *use)
        if lease.taken:
            edit.__enter__()
        return lease

    monkeypatch.setattr(Packing, "acquire", late)
    layer.forward(x)
    assert layer._packing.begun == 1 and not layer._packing._lease.taken
    edit.__exit__(None, None, None)


@each_that_takes
def test_a_pass_back_keeps_a_network_that_others_have_packed_since(make):
    """it began with weights that were taken: the next lease has the same network"""
    layer, x = make(), np.ones((1, 1, 5), np.float32)
    *_, tape = layer.forward(x)
    layer(x)
    native = layer._packing._lease.native
    assert native is tape.lease.native and tape.lease.taken
    tape.lease.users.append(None)  # a pass back that runs
    for still in (True, False):
        with layer.edit():
            pass
        layer(x)
        assert (layer._packing._lease.native is not native) == still
        native = layer._packing._lease.native


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("make", [NET.build, lambda: fastrnn.Linear(5, 2)])
def test_no_backward_inside_an_edit(make, before):
    """the first one would pack half-edited weights for itself; later ones are void all the same"""
    layer, x = make(), problem(NET, steps=4, batch=3).x
    y, *_, tape = layer.forward(x)
    if before:
        layer.backward(tape, y)
    void = pytest.raises(
        ValueError, match="^tape: expected .* present weights, got one made before"
    )
    with layer.edit() as weights:
        with void:
            layer.backward(tape, y)
        with layer.edit(), void:
            layer.backward(tape, y)
        with void:
            layer.backward(tape, y)
        next(iter(weights.values()))[...] = 0
        y, *_, inside = layer.forward(x)
        with void:
            layer.backward(inside, y)
    for each in (tape, inside):
        with void:
            layer.backward(each, y)
    y, *_, tape = layer.forward(x)
    layer.backward(tape, y)


@pytest.mark.parametrize("make", [NET.build, lambda: fastrnn.Linear(5, 2)])
def test_an_edit_that_begins_during_backward(make, monkeypatch):
    """in another thread: what backward has packed of the weights may be half of each"""
    layer, x = make(), problem(NET, steps=4, batch=3).x
    y, *_, tape = layer.forward(x)
    lease = layer._packing.acquire()
    native = lease.native

    class Edited:
        def __getattr__(self, name):
            def late(*given):
                edit = layer.edit()
                edit.__enter__()
                kept.append(edit)
                return getattr(native, name)(*given)

            return late

    kept, lease.native = [], Edited()
    with pytest.raises(ValueError, match="^tape: expected .* present weights"):
        layer.backward(tape, y)
    assert kept


@pytest.mark.parametrize("make", [NET.build, lambda: fastrnn.Linear(5, 2)])
def test_calls_inside_an_edit(make):
    """as the docstring says: with the weights before it, or where those were never used, as is"""
    x = problem(NET, steps=4, batch=3).x

    def results(layer):
        y = layer(x)
        return (y if isinstance(layer, fastrnn.Linear) else y[0]).tobytes()

    layer, twin = make(), make()
    twin.load_state_dict(layer.state_dict())
    before = results(layer)
    for module in (layer, twin):
        with module.edit() as weights:
            for w in weights.values():
                w *= 0.5
            inside = results(module)
            for w in weights.values():
                w *= 0.5
        assert (inside == before) == (module is layer)
        assert results(module) not in (inside, before)


def test_edited_arrays_close_with_the_block():
    layer = NET.build()
    with layer.edit() as weights:
        kept = weights["weight_hh_l0"]
    with pytest.raises(ValueError, match="read-only"):
        kept *= 2


@pytest.mark.parametrize("make", [NET.build, lambda: fastrnn.Linear(3, 2)])
def test_weights_are_not_attributes(make):
    layer = make()
    for twin in (layer, *clones(layer)):
        for name, w in twin.state_dict().items():
            with pytest.raises(AttributeError, match=rf'^{name}: .*edit.*p\["{name}"\] = '):
                setattr(twin, name, np.zeros_like(w))
        twin.note = "mine"  # other attributes are free
        assert all(copy.note == "mine" for copy in clones(twin))
