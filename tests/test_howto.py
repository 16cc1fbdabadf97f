"""The recipes of docs/howto.md do what they say."""

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import fastrnn
from documents import (
    compiled,
    keras_model,
    of_characters,
    of_halves,
    of_onnx,
    of_shipping,
    of_training,
    run,
)
from support import assert_same_bits, random


@pytest.fixture
def howto(tmp_path, monkeypatch):
    return compiled("docs/howto.md", tmp_path, monkeypatch)


def test_weights_in_half_the_bytes(howto):
    """are found, saved in half the size, and cost little"""
    given = [*of_shipping(), *of_halves()]
    if isinstance(given[0], str):
        pytest.skip(f"not installed: {given[0]}")
    space, _ = run(howto[:4], given)
    lstm = space["lstm"]
    assert all(
        not (w.view(np.uint32) & 0xFFFF).any() for w in lstm.parameters().values() if w.ndim == 2
    )
    assert 0 < space["change"] < 0.02
    sizes = [Path(name).stat().st_size for name in ("model.safetensors", "small.safetensors")]
    assert sizes[1] < 0.75 * sizes[0]  # of small layers the biases are much
    assert_same_bits(fastrnn.load("small.safetensors")["lstm"].state_dict(), lstm.state_dict())
    (weight,) = space["model"].parameters()
    assert weight.tolist() == [[1.0, 3.140625]]


def test_training_goes_on_from_its_checkpoint(howto):
    """with the same bits, and it learns"""

    class InterruptionError(Exception):
        pass

    def print_until(epoch):
        def show(line):
            lines.append(line)
            if line.startswith(f"epoch {epoch}:"):
                raise InterruptionError

        return show

    lines, results = [], []
    for stops in ([], [7, 15]):
        Path("checkpoint.pkl").unlink(missing_ok=True)
        for epoch in stops:
            with pytest.raises(InterruptionError):
                run(howto[4:6], of_training(), print=print_until(epoch))
        space, _ = run(howto[4:6], of_training(), print=print_until(None))
        results.append({**space["lstm"].state_dict(), "best": np.array(space["best"])})
    assert_same_bits(*results)
    assert results[0]["best"] > 0.9 and len(lines) == 20 + 7 + 9 + 6


def test_an_embedding_is_learnt(howto):
    """and a stream continues the text"""
    given = list(of_characters())
    space, _ = run(howto[6:8], given[:2])
    own, lstm, head = space["own"], space["lstm"], space["head"]
    text, ids, history = space["text"], space["ids"], space["history"]
    assert history[0] > 2 and np.mean(history[-10:]) < 0.3
    written = space["write"]("how ", 60)
    assert len(written) == 64 and set(written.split()[1:-1]) <= set(text.split())
    logits = head(lstm.stream().process(own["embedding"][ids[:200]]))
    loss, _ = fastrnn.losses.cross_entropy(logits, ids[1:201])
    assert loss < 0.3
    assert_same_bits(fastrnn.load("model.safetensors")["own"], own)
    assert fastrnn.load_metadata("model.safetensors")["letters"] == "".join(space["letters"])
    dtable, dx = np.zeros_like(own["embedding"]), random(6, 3, 16)
    np.add.at(dtable, ids[:18].reshape(6, 3), dx)
    found = space["table_gradient"](ids[:18].reshape(6, 3), dx)
    np.testing.assert_allclose(found, dtable, rtol=1e-5, atol=1e-6)

    before = own["embedding"].copy()
    run(howto[8:9], given[2:3], **space)
    assert (own["embedding"] != before).any()


def assert_gradient(loss, array, found):
    """that of a few numbers of an array, by central differences"""
    rng = np.random.default_rng(0)
    for at in {tuple(rng.integers(0, array.shape)) for _ in range(5)}:
        value, ends = array[at], []
        for step in (1e-5, -1e-5):
            array[at] = value + step
            ends.append(loss())
        array[at] = value
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(found[at], rel=1e-5, abs=1e-9)


def test_a_table_tied_to_the_head(howto):
    """its gradient has both parts, and the view follows the steps"""
    space, _ = run(howto[6:7], list(of_characters())[:1])
    lstm = fastrnn.LSTM(4, 4, seed=0, dtype=np.float64)
    head = fastrnn.Linear(4, 6, seed=1, dtype=np.float64)
    ids, table = np.arange(15).reshape(5, 3) % 6, head.parameters()["weight"]
    space["own"] = {"embedding": table}

    def parts(weight):
        with head.edit() as p:
            p["weight"][...] = weight
        y, _, tape = lstm.forward(table[ids[:-1]])
        logits, head_tape = head.forward(y)
        return tape, head_tape, *fastrnn.losses.cross_entropy(logits, ids[1:])

    weight = table.copy()
    tape, head_tape, _, dlogits = parts(weight)
    g_head = head.backward(head_tape, dlogits)
    g_lstm = lstm.backward(tape, g_head.input)
    g_head.weights["weight"] += space["table_gradient"](ids[:-1], g_lstm.input)
    assert_gradient(lambda: parts(weight)[2], weight, g_head.weights["weight"])
    parts(weight)
    fastrnn.optim.SGD([lstm, head], lr=0.1).step([g_lstm, g_head])
    np.testing.assert_array_equal(table, head.state_dict()["weight"])
    assert (table != weight).any()


def test_decay_of_matrices(howto):
    """one step is AdamW's for them, and Adam's for the rest"""
    given = list(of_characters())
    space, _ = run(howto[6:7], given[:1])
    layers = space["lstm"], space["head"]
    old = [layer.state_dict() for layer in layers]
    batch = next(space["batches"](1))
    _, (_, *grads) = space["gradients"](batch)
    space["batches"] = lambda count: [batch]
    wanted = []
    for rule, decay in (("AdamW", 0.1), ("Adam", 0.0)):
        optimizer = getattr(fastrnn.optim, rule)(layers, lr=3e-3, weight_decay=decay)
        optimizer.step(grads)
        wanted.append([layer.state_dict() for layer in layers])
        for layer, weights in zip(layers, old, strict=True):
            layer.load_state_dict(weights)
    run(howto[9:10], [{}], **space)
    for layer, decayed, not_decayed in zip(layers, *wanted, strict=True):
        for name, found in layer.state_dict().items():
            assert found.tobytes() == (decayed if found.ndim > 1 else not_decayed)[name].tobytes()
            assert (decayed[name] != not_decayed[name]).any()


def test_pieces_of_ragged_rows(howto):
    """without learning they are the whole; with it the loss falls"""
    space, _ = run(howto[11:12], [{}])
    lengths = np.array([70, 3, 96, 32, 41])
    x, target = random(96, 5, 4), random(96, 5, 1) / 9
    y, wanted = space["lstm"](x, lengths=lengths)
    counts = np.arange(96)[:, None] < lengths
    loss, _ = fastrnn.losses.mse(space["head"](y), target, mask=counts)
    space["optimizer"].lr = 0.0
    mean, state = space["train_in_pieces"](x, target, lengths)
    assert mean == pytest.approx(loss, rel=1e-6)
    assert [part.tobytes() for part in state] == [part.tobytes() for part in wanted]
    space["optimizer"].lr = 1e-2
    history = [space["train_in_pieces"](x, target, lengths)[0] for _ in range(20)]
    assert history[-1] < 0.7 * history[0]


def test_learning_from_every_sample(howto):
    """the next value of a wave becomes known; the LSTM packs nothing for it"""
    space, _ = run(howto[12:13], [{}])
    angle = np.arange(601, dtype=np.float32) / 5
    wave = np.stack([np.sin(angle), np.cos(3 * angle), np.sin(angle + 1)], 1)
    state, errors = None, []
    for x, answer in zip(wave[:-1], wave[1:, 0], strict=True):
        p, state, kept = space["predict"](x, state)
        space["learn"](answer, kept)
        errors.append((p - answer) ** 2)
        assert space["lstm"]._packing._lease.taken
    assert np.mean(errors[-100:]) < 0.1 * np.mean(errors[:50])
    with pytest.raises(ValueError, match="^tape: "):
        space["learn"](0.0, kept)


def test_an_encoder_and_a_decoder(howto):
    """with the gradients that central differences find, in double"""
    space, _ = run(howto[13:14], [{}])
    h = random(4, 2, 3)
    joined = space["side_by_side"](h)
    assert joined.shape == (2, 2, 6) and (joined[1, :, 3:] == h[3]).all()
    assert (joined[0, :, :3] == h[0]).all() and (space["apart"](joined) == h).all()
    double = dict(dtype=np.float64, seed=0)
    space["encoder"] = fastrnn.GRU(8, 24, num_layers=2, bidirectional=True, **double)
    space["decoder"] = fastrnn.GRU(16, 48, num_layers=2, **double)
    space["head"] = fastrnn.Linear(48, 10, **double)
    x, inputs = random(6, 3, 8, dtype=np.float64), random(4, 3, 16, dtype=np.float64)
    targets = np.array([[1, 2, 3], [4, 5, 6], [7, -1, 8], [9, -1, -1]])
    given = x, np.array([6, 0, 4]), inputs, targets
    _, grads = space["gradients"](*given)
    for name, g in zip(("encoder", "decoder", "head"), grads, strict=True):
        weights = space[name].state_dict()

        def loss(name=name, weights=weights):
            space[name].load_state_dict(weights)
            return space["gradients"](*given)[0]

        for key, weight in weights.items():
            assert_gradient(loss, weight, g.weights[key])
        loss()


def test_a_layer_norm(howto):
    """is torch's, and its gradients are those that central differences find"""
    space, _ = run(howto[14:15], [{}])
    norm, x, dy = space["norm"], random(5, 2, 32), random(5, 2, 32, seed=1)
    norm["weight"][...], norm["bias"][...] = random(32), random(32, seed=2)
    y, kept = space["layer_norm"](x)
    dx, of_arrays = space["layer_norm_gradients"](kept, dy)
    assert {y.dtype, dx.dtype, *(g.dtype for g in of_arrays.values())} == {np.dtype(np.float32)}
    assert fastrnn.optim.SGD(norm).step(of_arrays) is None
    if find_spec("torch"):
        import torch

        module = torch.nn.LayerNorm(32)
        module.load_state_dict({name: torch.from_numpy(a) for name, a in norm.items()})
        wanted = module(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(space["layer_norm"](x)[0], wanted, atol=2e-6)

    norm |= {name: a.astype(np.float64) for name, a in norm.items()}
    x, dy = x.astype(np.float64), dy.astype(np.float64)
    loss = lambda: np.vdot(space["layer_norm"](x)[0], dy)  # noqa: E731
    dx, of_arrays = space["layer_norm_gradients"](space["layer_norm"](x)[1], dy)
    for array, found in ((x, dx), *((norm[name], of_arrays[name]) for name in norm)):
        assert_gradient(loss, array, found)


def test_a_convolution(howto):
    """is torch's, its gradients are the numerical ones, and a stream goes through it"""
    space, _ = run(howto[-3:-2], [{}])
    conv, gru, K, x = space["conv"], space["gru"], space["K"], random(9, 2, 6)
    y, _ = space["forward"](x)
    stream = gru.stream(2)
    for t in range(K, len(x) + 1):
        a = np.maximum(conv(space["windows"](x[t - K : t], K))[0], 0)
        assert stream.step(a).tobytes() == y[t - K].tobytes()
    if find_spec("torch"):
        import torch

        weights = {name: torch.from_numpy(w) for name, w in conv.state_dict().items()}
        theirs = torch.nn.Conv1d(6, 16, K)
        theirs.load_state_dict({**weights, "weight": weights["weight"].reshape(16, 6, K)})
        wanted = theirs(torch.from_numpy(x).permute(1, 2, 0)).permute(2, 0, 1).detach().numpy()
        np.testing.assert_allclose(conv(space["windows"](x, K)), wanted, atol=1e-6)

    space["conv"] = fastrnn.Linear(6 * K, 16, dtype=np.float64, seed=0)
    space["gru"] = fastrnn.GRU(16, 32, dtype=np.float64, seed=1)
    x, dy = x.astype(np.float64), random(5, 2, 32).astype(np.float64)
    weight = space["conv"].state_dict()["weight"]

    def loss():
        with space["conv"].edit() as p:
            p["weight"][...] = weight
        return np.vdot(space["forward"](x)[0], dy)

    dx, (g_conv, _) = space["gradients"](space["forward"](x)[1], dy)
    assert_gradient(loss, x, dx)
    assert_gradient(loss, weight, g_conv.weights["weight"])


USUAL = ["Sigmoid", "Tanh", "Tanh"]


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({}, True),
        (dict(input_forget=0, layout=0), True),  # torch's newer exporter writes them down
        (dict(activations=USUAL * 2), True),
        (dict(activations=[*USUAL, "Sigmoid", "Tanh", "Relu"]), False),
        (dict(input_forget=1), False),
        (dict(clip=3.0), False),
        (dict(direction="reverse"), False),
        (dict(inputs=["X", "W", "R", "B", "", "", "", "P"]), False),
    ],
    ids=str,
)
def test_the_onnx_recipe_refuses_what_is_not_available(howto, options, taken):
    """and takes defaults that are written down"""
    pytest.importorskip("onnx")
    try:
        run(howto[-2:-1], [of_onnx(**options)])
    except AssertionError:
        assert not taken
    else:
        assert taken


def test_the_keras_recipe_reads_no_padding(howto):
    space, _ = run(howto[-1:], [dict(keras_model=keras_model())])
    x = random(2, 6, 3)
    x[1, 4:] = 0
    y = space["predict"](x)
    assert y.shape == (2, 2)
    np.testing.assert_array_equal(y[1], space["predict"](x[1:, :4])[0])


@pytest.mark.parametrize(
    "settings",
    [
        dict(activation="relu"),
        dict(recurrent_activation="hard_sigmoid"),
        dict(reset_after=False),
        dict(go_backwards=True),
    ],
    ids=str,
)
def test_the_keras_recipe_refuses_other_settings(howto, settings):
    """of weights that look like those of any other layer"""
    model = keras_model()
    for name, value in settings.items():
        value = SimpleNamespace(__name__=value) if isinstance(value, str) else value
        setattr(model.layers[1].forward_layer, name, value)
    with pytest.raises(AssertionError):
        run(howto[-1:], [dict(keras_model=model)])
