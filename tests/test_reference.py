"""The oracle itself: against central differences, and against torch in float64."""

import itertools

import numpy as np
import pytest

import reference

SHAPES = [(1, False), (2, False), (1, True), (3, True)]  # layers, bidirectional


def random_weights(cell, inputs, hidden, layers, bidirectional, bias, proj, rng):
    gates = reference.CELLS[cell].gates
    width = proj or hidden
    weights = {}
    for layer, suffix in itertools.product(range(layers), ("", "_reverse")[: 1 + bidirectional]):
        below = inputs if layer == 0 else width * (1 + bidirectional)
        shapes = {"weight_ih": (gates * hidden, below), "weight_hh": (gates * hidden, width)}
        if bias:
            shapes |= {"bias_ih": (gates * hidden,), "bias_hh": (gates * hidden,)}
        if proj:
            shapes |= {"weight_hr": (proj, hidden)}
        for name, shape in shapes.items():
            weights[f"{name}_l{layer}{suffix}"] = rng.uniform(-0.6, 0.6, shape)
    return weights


def problem(cell, layers, bidirectional, bias=True, proj=0, lengths=None, seed=1):
    """weights, x, state, dy, dstate, masks"""
    rng = np.random.default_rng(seed)
    weights = random_weights(cell, 3, 4, layers, bidirectional, bias, proj, rng)
    steps, batch = 5, 3
    x = rng.standard_normal((steps, batch, 3))
    state = tuple(rng.standard_normal(s.shape) for s in reference.zero_state(cell, weights, batch))
    dstate = tuple(rng.standard_normal(s.shape) for s in state)
    dy = rng.standard_normal((steps, batch, (1 + bidirectional) * (proj or 4)))
    masks = [rng.integers(0, 2, dy.shape) * 2.0 for _ in range(layers - 1)]
    return weights, x, state, dy, dstate, masks


@pytest.mark.parametrize("lengths", [None, [2, 5, 0]])
@pytest.mark.parametrize(("layers", "bidirectional"), SHAPES)
@pytest.mark.parametrize("cell", reference.CELLS)
def test_gradients_match_central_differences(cell, layers, bidirectional, lengths):
    proj = 2 if cell == "lstm" and layers == 2 else 0
    weights, x, state, dy, dstate, masks = problem(cell, layers, bidirectional, proj=proj)

    def loss():
        y, final, _ = reference.forward(cell, weights, x, state, lengths, masks)
        return np.vdot(y, dy) + sum(np.vdot(s, d) for s, d in zip(final, dstate, strict=True))

    _, _, tape = reference.forward(cell, weights, x, state, lengths, masks)
    dx, dstate0, dweights, _ = reference.backward(tape, dy, dstate)
    pairs = [(x, dx), *zip(state, dstate0, strict=True)]
    pairs += [(weights[name], dweights[name]) for name in weights]
    rng = np.random.default_rng(2)
    for array, gradient in pairs:
        before, direction, slope = array.copy(), rng.standard_normal(array.shape), 0.0
        for sign in (1, -1):
            array[...] = before + sign * 1e-6 * direction
            slope += sign * loss() / 2e-6
        array[...] = before
        assert slope == pytest.approx(np.vdot(gradient, direction), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("lengths", [None, [2, 5, 1]])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("layers", "bidirectional"), SHAPES)
@pytest.mark.parametrize("cell", [*reference.CELLS, "lstm_proj"])
def test_matches_torch(cell, layers, bidirectional, bias, lengths):
    torch = pytest.importorskip("torch")
    cell, proj = cell.removesuffix("_proj"), 2 if cell.endswith("_proj") else 0
    weights, x, state, dy, dstate, _ = problem(cell, layers, bidirectional, bias, proj)
    y, final, tape = reference.forward(cell, weights, x, state, lengths)
    dx, dstate0, dweights, _ = reference.backward(tape, dy, dstate)

    options = dict(num_layers=layers, bidirectional=bidirectional, bias=bias, dtype=torch.float64)
    options |= {"proj_size": proj} if proj else {}
    options |= {"nonlinearity": cell[4:]} if cell.startswith("rnn") else {}
    twin = getattr(torch.nn, cell[:4].removesuffix("_").upper())(3, 4, **options)
    twin.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})
    x_t = torch.from_numpy(x).requires_grad_()
    state_t = tuple(torch.from_numpy(s).requires_grad_() for s in state)
    rnn = torch.nn.utils.rnn
    sequence = (
        x_t
        if lengths is None
        else rnn.pack_padded_sequence(x_t, torch.tensor(lengths), enforce_sorted=False)
    )
    y_t, final_t = twin(sequence, state_t if len(state) == 2 else state_t[0])
    final_t = final_t if len(state) == 2 else (final_t,)
    if lengths is not None:
        y_t, _ = rnn.pad_packed_sequence(y_t, total_length=len(x))
    loss = (y_t * torch.from_numpy(dy)).sum()
    for s, d in zip(final_t, dstate, strict=True):
        loss = loss + (s * torch.from_numpy(d)).sum()
    loss.backward()

    def check(ours, theirs):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-11, atol=1e-12)

    check(y, y_t)
    check(dx, x_t.grad)
    for ours, theirs in zip(
        (*final, *dstate0), (*final_t, *(s.grad for s in state_t)), strict=True
    ):
        check(ours, theirs)
    for name, parameter in twin.named_parameters():
        check(dweights[name], parameter.grad)


def test_missing_gradients_are_zeros():
    weights, x, state, dy, dstate, _ = problem("lstm", 2, True)
    _, _, tape = reference.forward("lstm", weights, x, state)
    both = reference.backward(tape, dy, (dstate[0], None))[0]
    parts = reference.backward(tape, dy)[0] + reference.backward(tape, None, (dstate[0], None))[0]
    np.testing.assert_allclose(both, parts, rtol=1e-12, atol=1e-13)
