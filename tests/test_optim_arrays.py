"""Optimizers of a caller's own arrays: alone, and beside modules."""

import copy
import pickle

import numpy as np
import pytest

import fastrnn
from fastrnn import optim
from optim_support import each_rule, kept, optimizer, some, train
from support import (
    DTYPES,
    LAYOUTS,
    assert_same_bits,
    in_layout,
    random,
    random_gradients,
    rejects,
)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@each_rule
def test_an_array_is_trained_as_a_layers_weight_is(rule, layout, dtype):
    """wherever it lies, with the same bits"""
    layer = fastrnn.Linear(4, 15, bias=False, seed=1, dtype=dtype)
    start = layer.state_dict()["weight"].reshape(3, 5, 4)
    array = in_layout(start, layout)
    base = array if array.base is None else array.base
    opt, twin = optimizer(rule, layer), optimizer(rule, {"weight": array})
    for grads in random_gradients(layer, 3):
        opt.step(grads)
        twin.step({"weight": in_layout(grads["weight"].reshape(3, 5, 4), layout)})
    assert array.tobytes() == layer.parameters()["weight"].tobytes()
    assert array.tobytes() != start.tobytes()
    assert np.shares_memory(array, base), "in place"


@each_rule
def test_beside_modules(rule):
    """each at its place of the gradients, as if it were trained alone"""
    lstm, head, own = fastrnn.LSTM(4, 5, seed=1), fastrnn.Linear(5, 2, seed=1), some()
    parts = [fastrnn.LSTM(4, 5, seed=1), some(), fastrnn.Linear(5, 2, seed=1)]
    opt = optimizer(rule, [lstm, own, head])
    train(opt)
    for part in parts:
        train(optimizer(rule, part))
    assert_same_bits(lstm.state_dict(), parts[0].state_dict())
    assert_same_bits(own, parts[1])
    assert_same_bits(head.state_dict(), parts[2].state_dict())
    assert opt.modules[0] is lstm and opt.modules[2] is head
    assert_same_bits(opt.modules[1].parameters(), own)
    assert repr(opt) == repr(optimizer(rule, lstm))


@each_rule
def test_an_axis_of_one_may_have_any_stride(rule):
    """such as None makes, which is 0"""
    flat, wide = {"a": random(5)}, {"a": random(5)[:, None]}
    assert wide["a"].strides[1] == 0
    for own, shape in ((flat, (5,)), (wide, (5, 1))):
        optimizer(rule, own).step({"a": random(5).reshape(shape)})
    assert flat["a"].tobytes() == wide["a"].tobytes()


def test_the_rest_of_memory_is_left_alone():
    wide = random(4, 6)
    before = wide.copy()
    train(optim.Adam({"a": wide[:, :2], "b": wide[:, 4:]}, lr=0.1))
    assert (wide[:, 2:4] == before[:, 2:4]).all()
    assert (wide[:, :2] != before[:, :2]).all() and (wide[:, 4:] != before[:, 4:]).all()


@pytest.mark.parametrize("steps", [0, 2])
@each_rule
def test_training_resumes_from_a_state_dict(rule, steps):
    own, layer = some(), fastrnn.GRU(2, 3, seed=1)
    opt = optimizer(rule, [own, layer])
    train(opt, steps)
    twin, other = kept(own), fastrnn.GRU(2, 3)
    other.load_state_dict(layer.state_dict())
    again = getattr(optim, rule)([twin, other])
    again.load_state_dict(pickle.loads(pickle.dumps(opt.state_dict())))
    for each in (opt, again):
        train(each)
    assert_same_bits(own | layer.state_dict(), twin | other.state_dict())
    wrong = opt.state_dict()
    name = "embedding.velocity" if rule == "SGD" else "embedding.mean"
    wrong["memory"][0][name] = random(7, 4, dtype="float64")
    with rejects(ValueError, f"memory[0]: {name}: expected dtype float32"):
        again.load_state_dict(wrong)


CLONES = {
    "deepcopy": copy.deepcopy,
    **{f"pickle {p}": lambda o, p=p: pickle.loads(pickle.dumps(o, p)) for p in range(2, 6)},
}


@pytest.mark.parametrize("clone", CLONES.values(), ids=CLONES)
@each_rule
def test_arrays_travel_with_their_optimizer(rule, clone):
    """and are those that travel beside it, in the dict or alone"""
    own = some()
    opt = optimizer(rule, own)
    train(opt)
    alone = clone(opt)
    twin, table, again = clone((own, own["embedding"], opt))
    before = kept(own)
    assert_same_bits(twin, own)
    for each in (again, alone):
        train(each)
    assert_same_bits(own, before)
    train(opt)
    assert_same_bits(twin, own)
    assert_same_bits(alone.modules[0].parameters(), own)
    assert table is twin["embedding"]


def test_a_copy_trains_the_same_arrays():
    own = {"w": random(3)}
    opt = optim.Adam(own)
    train(opt)
    twin = copy.copy(opt)
    before = kept(own)
    train(twin)
    assert (own["w"] != before["w"]).all() and opt.state_dict()["steps"] == 3
    assert twin.modules == opt.modules
    other = optim.SGD(opt.modules, lr=0.1)  # another rule for them
    assert other.modules == opt.modules


def test_arrays_over_read_only_buffers():
    """are read-only arrays of the caller's, which no step may change"""
    buffers = []
    data = pickle.dumps(optim.SGD({"w": random(3)}), 5, buffer_callback=buffers.append)
    frozen = pickle.loads(data, buffers=[bytes(b.raw()) for b in buffers])
    with rejects(ValueError, "modules['w']: expected a writable array, got a read-only one"):
        frozen.step({"w": random(3)})
    writable = pickle.loads(data, buffers=[bytearray(b.raw()) for b in buffers])
    train(writable)


def test_arrays_of_a_subclass(tmp_path):
    """a file in memory, as np.memmap has it, is changed there"""
    mapped = np.memmap(tmp_path / "table", np.float32, "w+", shape=(4, 3))
    mapped[...] = random(4, 3)
    plain = {"table": np.array(mapped)}
    for own in ({"table": mapped}, plain):
        train(optim.Adam(own))
    mapped.flush()
    assert (tmp_path / "table").read_bytes() == plain["table"].tobytes()


def test_arrays_as_a_module():
    """what a dict among the modules has in common with them"""
    own = some()
    (module,) = optim.SGD(own).modules
    before = module.state_dict()
    assert_same_bits(before, own)
    with module.edit() as p:
        p["scale"] = np.float32(2)
        p["embedding"] *= 2
        p["attention"][...] = 0
    assert own["scale"] == 2 and (own["embedding"] == 2 * before["embedding"]).all()
    assert not own["attention"].any()
    with pytest.raises(ValueError, match="read-only"):
        module.parameters()["embedding"][...] = 0
    module.load_state_dict(before)
    assert_same_bits(own, before)
    with rejects(ValueError, "state_dict: scale: expected shape []"):
        module.load_state_dict(before | {"scale": random(2)})
    pair = {"a": random(2), "b": random(2, seed=2)}
    swapped = {"a": pair["b"].copy(), "b": pair["a"].copy()}
    optim.SGD(pair).modules[0].load_state_dict({"a": pair["b"], "b": pair["a"]})
    assert_same_bits(pair, swapped)


def test_nothing_and_arrays_of_nothing():
    optim.Adam({}).step({})
    own = {"a": np.zeros((0, 3)), "b": np.zeros((2, 0))}
    train(optim.Adam(own))


def test_embedding_attention_and_scale_against_torch():
    torch = pytest.importorskip("torch")
    own = some()
    twins = {name: torch.nn.Parameter(torch.from_numpy(a.copy())) for name, a in own.items()}
    opt = optim.Adam(own, lr=0.01)
    theirs = torch.optim.Adam(twins.values(), lr=0.01)
    for grads in random_gradients(opt.modules[0], 10):
        for name, twin in twins.items():
            twin.grad = torch.from_numpy(np.array(grads[name]))
        opt.step(grads)
        theirs.step()
    for name, twin in twins.items():
        np.testing.assert_allclose(own[name], twin.detach().numpy(), rtol=2e-5, atol=2e-6)
