"""What optimizers refuse of a caller's own arrays and their gradients, and take as it is."""

import pickle

import numpy as np
import pytest

import fastrnn
from fastrnn import _core, _optimizer, optim
from optim_support import each_rule, kept, optimizer, some
from support import assert_same_bits, random, random_gradients, rejects

READ_ONLY = random(2)
READ_ONLY.flags.writeable = False
TABLE = random(4, 3)
LAYER = fastrnn.Linear(3, 2)
FLAT = np.zeros(210_000, np.uint8)
# Shape, dtype, memory, offset, strides: to find out whether they meet takes too long.
ENTANGLED = {
    "a": ((7, 4, 5, 7, 3, 3), "f4", FLAT, 0, (12, 80, 316, 1596, 11176, 33524)),
    "b": ((4, 6, 2, 7, 6, 6), "f4", FLAT, 51132, (12, 52, 312, 632, 4412, 26464)),
}
WRONG = {
    "integers": ({"a": np.arange(3)}, TypeError, "modules['a']: expected a float32", "int64"),
    "half": ({"a": TABLE.astype("f2")}, TypeError, "modules['a']: expected a float32", "float16"),
    "order": ({"a": TABLE.astype(">f4")}, TypeError, "modules['a']: expected a float32", ">f4"),
    "list": ([LAYER, {"a": [1.0]}], TypeError, "modules[1]['a']: expected a float32", "list"),
    "number": ({"a": 1.0}, TypeError, "modules['a']: expected a float32", "float"),
    "sum": ({"a": TABLE.sum()}, TypeError, "modules['a']: expected", "got float32, which is none"),
    "layer": ({"a": LAYER}, TypeError, "modules['a']: expected a float32", "Linear; modules stand"),
    "dict": ({"a": {"b": TABLE}}, TypeError, "modules['a']: expected a float32", "dict; modules"),
    "masked": ({"a": np.ma.array(TABLE)}, TypeError, "modules['a']: expected a plain array"),
    "name": ({1: TABLE}, TypeError, "modules: expected names of text, got 1"),
    "read-only": ([{"a": READ_ONLY}], ValueError, "modules[0]['a']: expected a writable array"),
    "view": (
        [{"a": TABLE}, LAYER.parameters()],
        ValueError,
        "modules[1]['weight']: expected a writable array, got a read-only one; of a layer give the "
        "layer itself, not its parameters, as Adam([layer])",
    ),
    "views alone": (LAYER.parameters(), ValueError, "modules['weight']: ", "give the layer itself"),
    "group": (
        [{"lr": 0.1, "params": LAYER.parameters()}],
        TypeError,
        "modules[0]: expected a dict of arrays by name, got a group of torch's; an optimizer has "
        "one set of options: make one for each group",
    ),
    "group of arrays": ({"params": [TABLE], "lr": 0.1}, TypeError, "modules: ", "got a group"),
    "group of one": ({"params": TABLE, "lr": 0.1}, TypeError, "modules['lr']: expected a float32"),
    "array": ([LAYER, TABLE], TypeError, "modules: expected fastrnn layers or dicts", "ndarray"),
    "row alone": (TABLE[0], TypeError, "modules: expected fastrnn layers or dicts", "ndarray"),
    "nothing": ([], ValueError, "modules: expected at least one, got none", ""),
    "used up": (iter([]), ValueError, "modules: expected at least one, got none", ""),
    "array alone": (TABLE, TypeError, "modules: expected fastrnn layers or dicts", "ndarray"),
    "twice": (
        {"a": TABLE, "b": TABLE},
        ValueError,
        "modules: expected arrays that share no memory, got modules['a'] and modules['b']",
    ),
    "in two dicts": (
        [{"a": TABLE}, LAYER, {"b": TABLE[1:]}],
        ValueError,
        "modules: expected arrays that share no memory, got modules[0]['a'] and modules[2]['b']",
    ),
    "overlapping": (
        {"a": TABLE[:, :2], "b": TABLE[:, 1:]},
        ValueError,
        "modules: expected arrays that share no memory",
    ),
    "too entangled to tell": (
        {name: np.ndarray(*place) for name, place in ENTANGLED.items()},
        ValueError,
        "modules: expected arrays that share no memory, got modules['a'] and modules['b']",
    ),
    "repeated": (
        {"a": np.lib.stride_tricks.as_strided(TABLE, (4, 3), (0, 4))},
        ValueError,
        "modules['a']: expected an array whose elements lie apart",
    ),
    "sliding": (
        {"a": np.lib.stride_tricks.as_strided(TABLE, (5, 3), (4, 4))},
        ValueError,
        "modules['a']: expected an array whose elements lie apart",
    ),
    "two windows": (
        {"a": np.lib.stride_tricks.as_strided(TABLE, (2, 3), (8, 4))},
        ValueError,
        "modules['a']: expected an array whose elements lie apart",
    ),
}


@pytest.mark.parametrize(("modules", "error", "message"), [
    (given, error, message) for given, error, *message in WRONG.values()
], ids=WRONG)  # fmt: skip
def test_what_cannot_be_trained(modules, error, message):
    with rejects(error, *message):
        optim.Adam(modules)


def test_the_weights_of_a_layer_are_not_ones_own():
    """a slice of them, which a block has left writable"""
    with LAYER.edit() as p:
        part = p["weight"][:1]
    with rejects(
        ValueError, "modules: expected arrays", "modules[0]['weight']", "modules[1]['part']"
    ):
        optim.SGD([LAYER, {"part": part}])


def spoil(own, how):
    """what makes a step impossible; returns what undoes it"""
    table = own["embedding"]
    if how == "replaced":
        own["embedding"] = table.copy()
    elif how == "gone":
        del own["embedding"]
    elif how == "added":
        own["more"] = random(2)
        return lambda: own.pop("more")
    elif how == "reshaped":
        table.shape = (4, 7)
        return lambda: setattr(table, "shape", (7, 4))
    else:
        table.flags.writeable = False
        return lambda: setattr(table.flags, "writeable", True)
    return lambda: own.update(embedding=table)


@pytest.mark.parametrize("how", ["replaced", "gone", "added", "reshaped", "read-only"])
@pytest.mark.filterwarnings("ignore:Setting the shape:DeprecationWarning")
@each_rule
def test_a_dict_that_is_not_what_it_was(rule, how):
    """nothing has changed then, and training goes on when it is again"""
    layer, own, twin = fastrnn.Linear(2, 3, seed=1), some(), some()
    opt = optimizer(rule, [layer, own])
    first, second = zip(*(random_gradients(m, 2) for m in opt.modules), strict=True)
    opt.step(first)
    before, state = kept(own) | layer.state_dict(), pickle.dumps(opt.state_dict())
    y, tape = layer.forward(np.ones((1, 2), np.float32))
    undo = spoil(own, how)
    expected = "modules[1]['embedding']: expected a writable" if how == "read-only" else (
        "modules[1]: expected the arrays that the optimizer was made with, differing in "
        + ("more;" if how == "added" else "embedding;")
    )  # fmt: skip
    for use in (opt.step, lambda _: opt.modules[1].edit(), lambda _: opt.modules[1].parameters()):
        with rejects(ValueError, expected):
            use(second)
    undo()
    layer.backward(tape, y)  # the tape is still good
    assert_same_bits(own | layer.state_dict(), before)
    assert pickle.dumps(opt.state_dict()) == state
    opt.step(second)
    twins = optimizer(rule, twin)
    twins.step(first[1])
    twins.step(second[1])
    assert_same_bits(own, twin)


def test_wrong_gradients_change_nothing():
    layer, own = fastrnn.Linear(2, 3, seed=1), some() | {"wide": np.array(0.5)}
    opt = optim.Adam([layer, own])
    (of_layer,), (good,) = (random_gradients(m, 1) for m in opt.modules)
    before = kept(own) | layer.state_dict()
    masked = np.ma.array(good["embedding"])
    for bad, error, *message in (
        ({}, ValueError, "grads: expected the names of modules[1] (embedding, attention, colu"),
        (good | {"more": masked}, ValueError, "grads: expected the names of modules[1]", "more"),
        (good | {"embedding": random(7, 3)}, ValueError, "grads: expected shape [7, 4] for embed"),
        (good | {"scale": random(1)}, ValueError, "grads: expected shape [] for scale, got [1]"),
        (good | {"scale": np.float64(1)}, TypeError, "grads: expected dtype float32 for scale"),
        (good | {"scale": 1.0}, TypeError, "grads: expected dtype float32 for scale, got float"),
        (good | {"wide": 1.0}, TypeError, "grads: expected dtype float64 for wide, got float"),
        (good | {"attention": good["attention"].tolist()}, TypeError, "grads:", "float64", "list"),
        (good | {"attention": [[1], [1, 2]]}, TypeError, "grads: expected dtype float64", "list"),
        (good | {"embedding": None}, TypeError, "grads: expected dtype float32", "got NoneType"),
        (good | {"embedding": masked}, TypeError, "grads: embedding: expected a plain array"),
    ):
        with rejects(error, *message):
            opt.step([of_layer, bad])
    with rejects(ValueError, "grads: expected 2 (one a module), got 1"):
        opt.step(good)
    assert_same_bits(own | layer.state_dict(), before)
    assert opt.state_dict()["steps"] == 0
    opt.step([of_layer, good | {"scale": good["scale"][()]}])  # NumPy's number for an array of none


class Refusing(np.ndarray):
    """an array that computes nothing, as one with units may"""

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        raise RuntimeError("no arithmetic")


@each_rule
def test_gradients_of_a_subclass(rule):
    """are plain numbers: a step does not end at the second of them"""
    first, second = some(), some()
    for own, kind in ((first, np.ndarray), (second, Refusing)):
        opt = optimizer(rule, own)
        for grads in random_gradients(opt.modules[0], 2):
            opt.step({name: np.asarray(grad).view(kind) for name, grad in grads.items()})
        assert all(type(a) is np.ndarray for a in opt.state_dict()["memory"][0].values())
    assert_same_bits(first, second)


@each_rule
@pytest.mark.parametrize("where", [(_optimizer, "dense"), (np, "zeros")], ids=["copies", "first"])
def test_where_there_is_no_memory_nothing_changes(rule, where, monkeypatch):
    """be it for copies of strided weights or for what the first step leaves"""
    layer, own = fastrnn.Linear(2, 3, seed=1), some()
    opt = optimizer(rule, [layer, own])
    grads = [next(iter(random_gradients(m, 1))) for m in opt.modules]
    before, function = kept(own) | layer.state_dict(), getattr(*where)
    for allowed in range(6):  # of six weights
        left = [function] * allowed

        def scarce(*args, left=left):
            if not left:
                raise MemoryError("no more")
            return left.pop()(*args)

        with monkeypatch.context() as patch, pytest.raises(MemoryError, match="no more"):
            patch.setattr(*where, scarce)
            opt.step(grads)
        assert_same_bits(own | layer.state_dict(), before)
        assert opt.state_dict()["steps"] == 0
    opt.step(grads)
    twins = [fastrnn.Linear(2, 3, seed=1), some()]
    optimizer(rule, twins).step(grads)
    assert_same_bits(own | layer.state_dict(), twins[1] | twins[0].state_dict())


@each_rule
def test_a_step_that_the_core_cannot_make_is_none(rule, monkeypatch):
    """neither counted nor remembered"""
    layer = fastrnn.Linear(2, 3, seed=1)
    opt, weights = optimizer(rule, [layer]), layer.state_dict()

    def scarce(*_):
        raise MemoryError("no more")

    grads = next(iter(random_gradients(layer, 1)))
    with monkeypatch.context() as patch, pytest.raises(MemoryError, match="no more"):
        patch.setattr(_core, "sgd", scarce)
        patch.setattr(_core, "adam", scarce)
        opt.step(grads)
    assert_same_bits(layer.state_dict(), weights)
    assert opt.state_dict()["steps"] == 0 and opt.state_dict()["memory"] == [{}]


def test_a_factors_gradient_may_be_the_other_factor():
    """loss = a b: each step reads both as they were before it"""
    own = {"a": np.array([2.0]), "b": np.array([3.0])}
    opt = optim.SGD([own, {"c": own["a"].copy()}], lr=0.5)
    opt.step([{"a": own["b"], "b": own["a"]}, {"c": own["b"][:]}])
    assert own["a"] == 2 - 0.5 * 3 and own["b"] == 3 - 0.5 * 2
    assert opt.modules[1].parameters()["c"] == 2 - 0.5 * 3


def test_a_weights_gradient_may_be_itself():
    """loss = |w|^2 / 2, with AdamW, which changes w before it uses the gradient"""
    one, two = {"w": random(3)}, {"w": random(3)}
    optim.AdamW(one, weight_decay=0.5, lr=0.5).step(one)
    optim.AdamW(two, weight_decay=0.5, lr=0.5).step(kept(two))
    assert_same_bits(one, two)


@each_rule
def test_the_gradients_may_be_a_layers_weights(rule):
    """read as they were before the step, whichever comes first: its own, or another one's"""
    layers, twins = ([fastrnn.Linear(3, 3, seed=s) for s in (1, 2, 3)] for _ in range(2))
    first, second, third = layers
    optimizer(rule, layers).step([m.parameters() for m in (first, third, second)])
    first, second, third = twins
    optimizer(rule, twins).step([m.state_dict() for m in (first, third, second)])
    for layer, twin in zip(layers, twins, strict=True):
        assert_same_bits(layer.state_dict(), twin.state_dict())
