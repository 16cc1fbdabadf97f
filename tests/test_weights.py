"""Weights: initial values, names, state_dict, copies and pickles; test_edits.py changes them."""

import pickle

import numpy as np
import pytest

import fastrnn
from fastrnn._initial import orthogonal
from support import (
    DTYPES,
    KINDS,
    LAYERS,
    Net,
    assert_same_bits,
    clones,
    net_of,
    problem,
    rejects,
    run,
)

each_kind = pytest.mark.parametrize("kind", KINDS)
NET = Net("lstm", 5, 7, layers=2, bidirectional=True)


# initial values


@pytest.mark.parametrize("dtype", DTYPES)
@each_kind
def test_uniform_in_one_over_root_of_hidden(kind, dtype):
    net = net_of(kind, 30, 64, layers=2, bidirectional=True, dtype=dtype)
    for name, w in net.build().state_dict().items():
        assert w.dtype == dtype and np.abs(w).max() <= 1 / 8, name
        assert np.abs(w).max() > 0.9 / 8, name
        assert abs(w.std() - 1 / 8 / np.sqrt(3)) < 0.01, name


def test_shapes_and_order():
    layer = fastrnn.LSTM(3, 5, num_layers=2, bidirectional=True, proj_size=2)
    shapes = {name: w.shape for name, w in layer.state_dict().items()}
    assert list(shapes)[:6] == [
        "weight_ih_l0",
        "weight_hh_l0",
        "bias_ih_l0",
        "bias_hh_l0",
        "weight_hr_l0",
        "weight_ih_l0_reverse",
    ]
    assert shapes["weight_ih_l0"] == (20, 3)
    assert shapes["weight_ih_l1_reverse"] == (20, 4)
    assert shapes["weight_hh_l1"] == (20, 2)
    assert shapes["weight_hr_l1"] == (2, 5)
    assert shapes["bias_hh_l0_reverse"] == (20,)
    assert len(shapes) == 20
    assert list(fastrnn.GRU(3, 5, bias=False).state_dict()) == ["weight_ih_l0", "weight_hh_l0"]


@each_kind
def test_seed(kind):
    net = net_of(kind, 5, 7)
    assert_same_bits(net.build(seed=3).state_dict(), net.build(seed=3).state_dict())
    draws = [net.build(seed=s).state_dict()["weight_ih_l0"].tobytes() for s in (3, 4, None, None)]
    assert len(set(draws)) == 4


@pytest.mark.parametrize("kind", LAYERS)
def test_orthogonal(kind):
    layer = kind(5, 9, num_layers=2, orthogonal=True, seed=1, dtype=np.float64)
    for name, w in layer.state_dict().items():
        if name.startswith("weight_hh"):
            for gate in w.reshape(-1, 9, 9):
                np.testing.assert_allclose(gate @ gate.T, np.eye(9), atol=1e-12)


def test_an_orthogonal_matrix_is_as_likely_as_its_negative():
    """QR of LAPACK alone would give one of the two"""
    draws = (fastrnn.RNN(1, 1, orthogonal=True, seed=s) for s in range(20))
    assert {float(layer.state_dict()["weight_hh_l0"][0, 0]) for layer in draws} == {-1.0, 1.0}


@pytest.mark.parametrize("shape", [(6, 6), (7, 4)])
def test_an_orthogonal_matrix_is_the_factor_of_its_draw(shape):
    """the one beside an R with a positive diagonal: with the signs of LAPACK it is not uniform"""
    for seed in range(5):
        q = orthogonal(*shape, np.random.default_rng(seed))
        r = q.T @ np.random.default_rng(seed).standard_normal(shape)
        np.testing.assert_allclose(np.tril(r, -1), 0, atol=1e-12)
        assert q.shape == shape and (np.diag(r) > 0).all()


def test_orthogonal_with_projection():
    layer = fastrnn.LSTM(5, 9, proj_size=4, orthogonal=True, seed=1, dtype=np.float64)
    for gate in layer.state_dict()["weight_hh_l0"].reshape(4, 9, 4):
        np.testing.assert_allclose(gate.T @ gate, np.eye(4), atol=1e-12)


@each_kind
def test_orthogonal_leaves_the_other_weights(kind):
    net = net_of(kind, 5, 7, layers=2, bidirectional=True)
    plain, made = (net.build(orthogonal=flag).state_dict() for flag in (False, True))
    same = {name for name in plain if plain[name].tobytes() == made[name].tobytes()}
    assert plain.keys() - same == {name for name in plain if name.startswith("weight_hh")}


@pytest.mark.parametrize("value", [1.5, 0.0])
def test_forget_bias(value):
    options = dict(num_layers=2, bidirectional=True, seed=1)
    weights = fastrnn.LSTM(5, 7, forget_bias=value, **options).state_dict()
    plain = fastrnn.LSTM(5, 7, **options).state_dict()
    for end in ("l0", "l0_reverse", "l1", "l1_reverse"):
        total = weights[f"bias_ih_{end}"] + weights[f"bias_hh_{end}"]
        assert (total[7:14] == value).all()
        usual = plain[f"bias_ih_{end}"] + plain[f"bias_hh_{end}"]
        assert (total[:7] == usual[:7]).all() and (total[14:] == usual[14:]).all()


# reading and loading


def test_state_dict_is_a_copy():
    layer = NET.build()
    before = {name: w.copy() for name, w in layer.parameters().items()}
    for w in layer.state_dict().values():
        w[...] = 0
    assert_same_bits(layer.parameters(), before)


@each_kind
def test_load_state_dict(kind, isa):
    net = net_of(kind, 5, 7, layers=2, bidirectional=True)
    p, source, target = problem(net, steps=4, batch=3), net.build(seed=1), net.build(seed=2)
    run(target, p)  # packs the weights that will be replaced
    weights = source.state_dict()
    target.load_state_dict(weights)
    wanted = run(source, p)
    assert_same_bits(run(target, p), wanted)
    for w in weights.values():
        w[...] = 0  # the layer took copies
    assert_same_bits(run(target, p), wanted)


def test_load_state_dict_takes_strided_arrays():
    source, target = NET.build(seed=1), NET.build(seed=2)
    target.load_state_dict({k: np.asfortranarray(w) for k, w in source.state_dict().items()})
    assert_same_bits(target.state_dict(), source.state_dict())


def test_load_state_dict_lists_everything_wrong_and_loads_nothing():
    layer = NET.build()
    before, bad = layer.state_dict(), NET.build(seed=2).state_dict()
    del bad["bias_hh_l1"], bad["weight_hh_l0_reverse"]
    bad["weight_xx_l0"] = np.zeros(3, np.float32)
    bad["weight_ih_l0"] = np.zeros((28, 6), np.float32)
    bad["bias_ih_l0"] = bad["bias_ih_l0"].astype(np.float64)
    with pytest.raises(ValueError) as caught:
        layer.load_state_dict(bad)
    message = str(caught.value)
    for part in (
        "bias_hh_l1",
        "weight_hh_l0_reverse",
        "weight_xx_l0",
        "weight_ih_l0: expected shape [28, 5], got [28, 6]",
        "bias_ih_l0: expected",
        "float64",
    ):
        assert part in message
    assert "missing" in message and "unexpected" in message
    assert_same_bits(layer.state_dict(), before)


def cells(state):
    """The weights of a layer as torch's cells call them"""
    return {name.removesuffix("_l0"): w for name, w in state.items()}


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (
            cells,
            '; a cell\'s names have no _l0: {f"{name}_l0": w for name, w in state_dict.items()}',
        ),
        (lambda s: {f"rnn.{k}": w for k, w in s.items()}, "; these names begin with 'rnn.'"),
        (lambda s: {f"a.b.{k}": w for k, w in cells(s).items()}, "; these names begin with 'a.b.'"),
        (
            lambda s: {f"{p}.{k}": w for p in ("head", "in", "out") for k, w in s.items()},
            "; these names begin with 'head.' or 'in.' or 'out.'",
        ),
        (
            lambda s: {"head.bias": s["bias_ih_l0"]} | {f"rnn.{k}": w for k, w in s.items()},
            "; some of these begin with 'rnn.'",
        ),
        (
            lambda s: {f"parametrizations.{k}.original1": w for k, w in s.items()},
            "; torch.nn.utils.parametrize.remove_parametrizations(module, name) ends those",
        ),
        (
            lambda s: {f"{k}_{end}": w for k, w in s.items() for end in "gv"},
            "; torch.nn.utils.remove_weight_norm(module, name) ends those",
        ),
        (lambda s: {f"rnn.{k}": w for k, w in s.items() if "bias" not in k}, ""),
        (lambda s: {k.upper(): w for k, w in s.items()}, ""),
        (lambda s: s | {"rnn.weight_ih_l0": s["weight_ih_l0"]}, ""),
        (lambda s: {k: w for k, w in s.items() if "bias" not in k}, None),
    ],
)
def test_load_state_dict_says_how_to_name_them(given, hint):
    layer = fastrnn.LSTM(3, 4, seed=1)
    before = layer.state_dict()
    wrong = given(fastrnn.LSTM(3, 4, seed=2).state_dict())
    with pytest.raises(ValueError) as caught:
        layer.load_state_dict(wrong)
    last = str(caught.value).splitlines()[-1]
    if hint is None:
        assert last.startswith("state_dict: missing")
    else:
        unexpected = ", ".join(k for k in wrong if k not in before)
        assert last.removeprefix("state_dict:").strip() == f"unexpected {unexpected}{hint}"
    assert_same_bits(layer.state_dict(), before)
    if hint and "no _l0" in hint:  # does what it says
        expression = hint.partition(": ")[2]
        layer.load_state_dict(eval(expression, {"state_dict": wrong}))


def test_load_state_dict_of_its_own_views_swapped():
    """a later source is an earlier target: all are read before any is written"""
    layer = NET.build()
    before, views = layer.state_dict(), layer.parameters()
    one, other = "bias_ih_l0", "bias_hh_l0"
    assert before[one].tobytes() != before[other].tobytes()
    layer.load_state_dict(views | {one: views[other], other: views[one]})
    assert_same_bits(layer.state_dict(), before | {one: before[other], other: before[one]})


@pytest.mark.parametrize("bad", [None, [1, 2], 3])
def test_load_state_dict_of_no_dict(bad):
    with pytest.raises(TypeError, match="state_dict: expected a dict"):
        NET.build().load_state_dict(bad)


# copies


def test_replacing_an_entry_instead_of_its_values_does_not_pass_unnoticed():
    """p[name] = array would rebind a key of a dict: here it writes the values"""
    layer = NET.build()
    wanted = np.ones_like(layer.parameters()["bias_ih_l0"])
    with layer.edit() as weights:
        weights["bias_ih_l0"] = wanted
    assert (layer.parameters()["bias_ih_l0"] == wanted).all()
    assert not np.shares_memory(layer.parameters()["bias_ih_l0"], wanted)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones(28), "expected dtype float32, got float64; try bias_ih_l0.astype(np.float32)"),
        (np.ones(28, int), "expected dtype float32, got int64"),
        (np.ones(1, np.float32), "expected shape [28], got [1]"),
        (np.ones((1, 28), np.float32), "expected shape [28], got [1, 28]"),
        (1, "expected an array, got int"),
        (np.ma.ones(28, np.float32), "expected a plain array, got a masked one"),
    ],
)
def test_an_edit_neither_casts_nor_broadcasts(value, message):
    """as load_state_dict does not"""
    layer = NET.build()
    before = layer.state_dict()
    with rejects(ValueError, f"edit: bias_ih_l0: {message}"), layer.edit() as weights:
        weights["bias_ih_l0"] = value
    assert_same_bits(layer.state_dict(), before)


def test_edit_is_a_mapping_in_the_order_of_parameters():
    layer = NET.build()
    with layer.edit() as weights:
        assert list(weights) == list(layer.parameters()) and len(weights) == len(layer.parameters())


def test_edit_of_no_weight_lists_what_there_is():
    layer = NET.build()
    for act in (lambda p: p["bias"], lambda p: p.__setitem__("bias", 1)):
        expected = pytest.raises(KeyError, match="edit: expected one of weight_ih_l0, .*got 'bias'")
        with expected as caught, layer.edit() as weights:
            act(weights)
        assert caught.value.__suppress_context__, "the name alone, not the lookup's error before it"
    with pytest.raises(KeyError) as caught, layer.edit() as weights:
        _ = weights["bias" * 1000]
    assert len(str(caught.value)) < 1000
    with layer.edit() as weights:
        assert "bias" not in weights and weights.get("bias") is None


@each_kind
def test_copies_compute_the_same_and_share_nothing(kind, isa):
    net = net_of(kind, 5, 7, layers=2, bidirectional=True)
    p, layer = problem(net, steps=4, batch=3, lengths="ragged"), net.build(num_threads=1)
    layer.eval()
    wanted = run(layer, p)
    for twin in clones(layer):
        assert type(twin) is type(layer) and repr(twin) == repr(layer)
        assert not twin.training and twin.num_threads == 1
        assert_same_bits(run(twin, p), wanted)
        with twin.edit() as weights:
            for w in weights.values():
                w *= 0.5
        assert_same_bits(run(layer, p), wanted)
        assert run(twin, p)["y"].tobytes() != wanted["y"].tobytes()


@pytest.mark.parametrize("make", [NET.build, lambda: fastrnn.Linear(3, 2)])
def test_a_pickle_over_buffers_of_the_callers(make):
    """read-only ones, or ones that two layers would share: a layer owns its weights"""
    layer, buffers = make(), []
    data = pickle.dumps(layer, 5, buffer_callback=buffers.append)
    assert buffers
    wanted, shared = layer.state_dict(), [bytearray(b.raw()) for b in buffers]
    for given in ([bytes(b.raw()) for b in buffers], shared, shared):
        twin = pickle.loads(data, buffers=given)
        assert_same_bits(twin.state_dict(), wanted)
        with twin.edit() as weights:
            for w in weights.values():
                w *= 2
        twin.load_state_dict(wanted)
        with twin.edit() as weights:
            for w in weights.values():
                w[...] = 7


def test_a_copy_does_not_take_the_tape():
    layer = NET.build()
    y, _, tape = layer.forward(problem(NET, steps=4, batch=3).x)
    for twin in clones(layer):
        with pytest.raises(ValueError, match="tape: "):
            twin.backward(tape, y)


def test_pickles_hold_no_packed_weights():
    net = Net("lstm", 64, 128)
    layer = net.build()
    weights = sum(w.nbytes for w in layer.state_dict().values())
    run(layer, problem(net, steps=4, batch=3))
    assert len(pickle.dumps(layer)) < weights + 4096


@pytest.mark.parametrize("text", [
    "RNN(3, 5)",
    "LSTM(3, 5)",
    "GRU(3, 5, bias=False)",
    "GRU(3, 5, batch_first=True)",
    "RNN(3, 5, num_layers=2, nonlinearity='relu', dropout=0.5)",
    "LSTM(3, 5, num_layers=3, proj_size=2, bias=False, batch_first=True, dropout=0.25, "
    "bidirectional=True, dtype='float64', num_threads=2)",
])  # fmt: skip
def test_repr_names_what_differs(text):
    assert repr(eval(text, dict(vars(fastrnn)))) == text


def test_attributes():
    layer = fastrnn.LSTM(3, 5, 2, False, True, 0.5, True, 4)
    assert (layer.input_size, layer.hidden_size, layer.num_layers) == (3, 5, 2)
    assert (layer.bias, layer.batch_first, layer.bidirectional) == (False, True, True)
    assert (layer.dropout, layer.proj_size, layer.dtype) == (0.5, 4, np.float32)
    layer = fastrnn.RNN(3, 5, 2, "relu", False, True, 0.5, True)
    assert (layer.nonlinearity, layer.bias, layer.bidirectional) == ("relu", False, True)
