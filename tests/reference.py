"""RNN, LSTM and GRU in float64 NumPy: the oracle of the tests, and a text to learn them from.

Every cell is two functions: `forward` does one step and returns the new state with what it
must remember; `backward`, right below it, is the chain rule applied to those lines from the
last to the first, down to da, the gradient with respect to W x + b_ih (and what goes to the
state by U h + b_hh). Backpropagation through time is `sweep_backward`: the steps, last to first.

Shapes (n rows that are alive at a step, T steps, B rows, L layers, D directions, H hidden
units, P = proj_size or H, I inputs):

    x [T, B, I]    y [T, B, D*P]    h [L*D, B, P]    c [L*D, B, H]    inside a cell [n, .]

`w` holds one layer's weights in one direction under torch's names without the suffix:
weight_ih [G*H, I], weight_hh [G*H, P], bias_ih [G*H], bias_hh [G*H], weight_hr [P, H];
`dw` holds the sums of their gradients. A d in front of a name means dLoss/dname.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np


def sigmoid(x):
    return 0.5 + 0.5 * np.tanh(0.5 * x)  # this form never overflows


def d_sigmoid(y):  # in terms of y = sigmoid(x)
    return y * (1 - y)


def d_tanh(y):  # in terms of y = tanh(x)
    return 1 - y * y


def linear(x, w, name):
    """x W^T + b; name is ih (from the input), hh (from the last h) or hr (the projection)."""
    y = x @ w[f"weight_{name}"].T
    return y + w[f"bias_{name}"] if f"bias_{name}" in w else y


def linear_backward(dy, x, w, dw, name):
    dw[f"weight_{name}"] += dy.T @ x
    if f"bias_{name}" in w:
        dw[f"bias_{name}"] += dy.sum(axis=0)
    return dy @ w[f"weight_{name}"]


class RnnTanh:
    """h' = tanh(W x + U h)    (Elman 1990)"""

    gates = 1
    has_c = False

    @staticmethod
    def forward(x, state, w):
        (h,) = state
        new = np.tanh(linear(x, w, "ih") + linear(h, w, "hh"))
        return (new,), (h, new)

    @staticmethod
    def backward(saved, dstate, w, dw):
        h, new = saved
        da = dstate[0] * d_tanh(new)
        return da, (linear_backward(da, h, w, dw, "hh"),)


class RnnRelu:
    """h' = max(0, W x + U h)"""

    gates = 1
    has_c = False

    @staticmethod
    def forward(x, state, w):
        (h,) = state
        new = np.maximum(0, linear(x, w, "ih") + linear(h, w, "hh"))
        return (new,), (h, new)

    @staticmethod
    def backward(saved, dstate, w, dw):
        h, new = saved
        da = np.where(new <= 0, 0, dstate[0])
        return da, (linear_backward(da, h, w, dw, "hh"),)


class Lstm:
    """c' = f c + i g,  h' = V (o tanh c')    (Hochreiter & Schmidhuber 1997; V: Sak et al. 2014)"""

    gates = 4
    has_c = True  # beside h

    @staticmethod
    def forward(x, state, w):
        h, c = state
        i, f, g, o = np.split(linear(x, w, "ih") + linear(h, w, "hh"), 4, axis=1)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        new_c = f * c + i * g
        tanh_c = np.tanh(new_c)
        m = o * tanh_c
        new_h = linear(m, w, "hr") if "weight_hr" in w else m
        return (new_h, new_c), (h, c, i, f, g, o, tanh_c, m)

    @staticmethod
    def backward(saved, dstate, w, dw):
        h, c, i, f, g, o, tanh_c, m = saved
        dh, dc = dstate
        dm = linear_backward(dh, m, w, dw, "hr") if "weight_hr" in w else dh
        dc = dc + dm * o * d_tanh(tanh_c)
        di = dc * g * d_sigmoid(i)
        df = dc * c * d_sigmoid(f)
        dg = dc * i * d_tanh(g)
        do = dm * tanh_c * d_sigmoid(o)
        da = np.concatenate([di, df, dg, do], axis=1)
        return da, (linear_backward(da, h, w, dw, "hh"), dc * f)


class Gru:
    """h' = (1 - z) n + z h,  n = tanh(W x + r (U h))    (Cho et al. 2014; reset after U)"""

    gates = 3
    has_c = False

    @staticmethod
    def forward(x, state, w):
        (h,) = state
        xr, xz, xn = np.split(linear(x, w, "ih"), 3, axis=1)
        hr, hz, hn = np.split(linear(h, w, "hh"), 3, axis=1)
        r, z = sigmoid(xr + hr), sigmoid(xz + hz)
        n = np.tanh(xn + r * hn)
        return ((1 - z) * n + z * h,), (h, r, z, n, hn)

    @staticmethod
    def backward(saved, dstate, w, dw):
        h, r, z, n, hn = saved
        (dnew,) = dstate
        dn = dnew * (1 - z) * d_tanh(n)
        dz = dnew * (h - n) * d_sigmoid(z)
        dr = dn * hn * d_sigmoid(r)
        dh = linear_backward(np.concatenate([dr, dz, dn * r], axis=1), h, w, dw, "hh")
        return np.concatenate([dr, dz, dn], axis=1), (dh + dnew * z,)


CELLS = {"rnn_tanh": RnnTanh, "rnn_relu": RnnRelu, "lstm": Lstm, "gru": Gru}


# One layer in one direction. A row is alive at step t while t < its length: walking up, rows
# leave at their ends; walking down (reverse), they join there. Dead rows keep their state.


def sweep(cell, x, state, lengths, reverse, w):
    """x [T, B, I], state of [B, .] arrays -> y [T, B, P], the final state, what was saved"""
    state = [s.copy() for s in state]
    y = np.zeros((*x.shape[:2], state[0].shape[1]))
    steps = []
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        live = np.flatnonzero(lengths > t)
        new, saved = cell.forward(x[t, live], [s[live] for s in state], w)
        for s, value in zip(state, new, strict=True):
            s[live] = value
        y[t, live] = new[0]
        steps.append((t, live, saved))
    return y, state, steps


def sweep_backward(cell, x, dy, dstate, steps, w, dw):
    """dy [T, B, P], dstate of [B, .] arrays -> dx [T, B, I], the initial state's gradient,
    the norm of da [T, B]"""
    dstate = [d.copy() for d in dstate]
    dx, norms = np.zeros(x.shape), np.zeros(x.shape[:2])
    for t, live, saved in reversed(steps):
        dh, *rest = (d[live] for d in dstate)
        da, dold = cell.backward(saved, (dh + dy[t, live], *rest), w, dw)
        dx[t, live] = linear_backward(da, x[t, live], w, dw, "ih")
        norms[t, live] = np.linalg.norm(da, axis=1)
        for d, value in zip(dstate, dold, strict=True):
            d[live] = value
    return dx, dstate, norms


# The network: layers on top of each other, two directions side by side.


@dataclass
class Tape:
    cell: Any
    weights: dict
    layers: list  # for each layer: (its input, steps of each direction)
    masks: Any
    state: tuple  # the initial one


def layout(weights):
    """(number of layers, suffixes of the directions), read from the names"""
    count = 1 + max(int(re.search(r"_l(\d+)", name)[1]) for name in weights)
    return count, ("", "_reverse") if "weight_ih_l0_reverse" in weights else ("",)


def pick(weights, layer, suffix):
    """the weights of one layer and direction, under names without the suffix"""
    tail = f"_l{layer}{suffix}"
    return {name[: -len(tail)]: w for name, w in weights.items() if name.endswith(tail)}


def zero_state(cell, weights, batch):
    count, suffixes = layout(weights)
    hidden = len(weights["weight_hh_l0"]) // CELLS[cell].gates
    width = weights["weight_hh_l0"].shape[1]
    sizes = (width, hidden) if CELLS[cell].has_c else (width,)
    return tuple(np.zeros((count * len(suffixes), batch, size)) for size in sizes)


def forward(cell, weights, x, state=None, lengths=None, masks=None):
    """y, final state (a tuple: (h,) or (h, c)), tape. masks: for each layer but the last an
    array [T, B, D*P] that multiplies its output (dropout: 0 or 1 / (1 - p)), or None."""
    weights = {name: np.asarray(w, np.float64) for name, w in weights.items()}
    steps, batch = x.shape[:2]
    lengths = np.full(batch, steps) if lengths is None else np.asarray(lengths)
    state = zero_state(cell, weights, batch) if state is None else state
    state = tuple(np.asarray(s, np.float64) for s in state)
    final = tuple(np.empty(s.shape) for s in state)
    count, suffixes = layout(weights)
    tape = Tape(CELLS[cell], weights, [], masks, state)
    y = np.asarray(x, np.float64)
    for layer in range(count):
        if layer and masks is not None:
            y = y * masks[layer - 1]
        x, outputs, saved = y, [], []
        for direction, suffix in enumerate(suffixes):
            row = layer * len(suffixes) + direction
            y, last, steps_saved = sweep(
                tape.cell,
                x,
                [s[row] for s in state],
                lengths,
                direction == 1,
                pick(weights, layer, suffix),
            )
            for s, value in zip(final, last, strict=True):
                s[row] = value
            outputs.append(y)
            saved.append(steps_saved)
        y = np.concatenate(outputs, axis=2)
        tape.layers.append((x, saved))
    return y, final, tape


def backward(tape, dy=None, dstate=None):
    """gradients of the input, of the initial state (a tuple) and of every weight (a dict), and
    the norm of da at each step [L*D, T, B], given the gradients of y and of the final state (a
    tuple; None, or an entry None, is zero)"""
    dweights = {name: np.zeros(w.shape) for name, w in tape.weights.items()}
    dstate = (None,) * len(tape.state) if dstate is None else dstate
    dstate = [
        np.zeros(s.shape) if d is None else np.asarray(d, np.float64)
        for s, d in zip(tape.state, dstate, strict=True)
    ]
    dstate0 = tuple(np.empty(s.shape) for s in tape.state)
    norms = np.empty((len(tape.state[0]), *tape.layers[0][0].shape[:2]))
    _, suffixes = layout(tape.weights)
    width = len(suffixes) * tape.state[0].shape[2]
    dx = np.zeros((*tape.layers[0][0].shape[:2], width)) if dy is None else dy
    for layer in reversed(range(len(tape.layers))):
        x, saved = tape.layers[layer]
        dy, dx = np.split(np.asarray(dx, np.float64), len(suffixes), axis=2), np.zeros(x.shape)
        for direction, suffix in enumerate(suffixes):
            row = layer * len(suffixes) + direction
            d, first, norms[row] = sweep_backward(
                tape.cell,
                x,
                dy[direction],
                [s[row] for s in dstate],
                saved[direction],
                pick(tape.weights, layer, suffix),
                pick(dweights, layer, suffix),
            )
            dx += d
            for s, value in zip(dstate0, first, strict=True):
                s[row] = value
        if layer and tape.masks is not None:
            dx = dx * tape.masks[layer - 1]
    return dx, dstate0, dweights, norms
