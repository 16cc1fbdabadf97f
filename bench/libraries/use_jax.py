"""jax: the equations in a lax.scan, compiled. It takes every core the process may use."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from bench.libraries import Prepared
from bench.problem import Arrays, Problem

Weights = dict[str, jax.Array]
State = tuple[jax.Array, ...]


def _cell(kind: str, wx: jax.Array, uh: jax.Array, state: State) -> State:
    if kind == "rnn":
        return (jnp.tanh(wx + uh),)
    if kind == "lstm":
        i, f, g, o = jnp.split(wx + uh, 4, axis=-1)
        c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c
    (wr, wz, wn), (ur, uz, un) = jnp.split(wx, 3, axis=-1), jnp.split(uh, 3, axis=-1)
    z = jax.nn.sigmoid(wz + uz)
    n = jnp.tanh(wn + jax.nn.sigmoid(wr + ur) * un)
    return ((1 - z) * n + z * state[0],)


def prepare(problem: Problem) -> Prepared:
    case = problem.case
    weights = {name: jnp.asarray(w) for name, w in problem.weights.items()}
    x, dy = jnp.asarray(problem.x), jnp.asarray(problem.dy)
    zero = (jnp.zeros((case.B, case.H), x.dtype),) * (2 if case.cell == "lstm" else 1)

    def forward(w: Weights, x: jax.Array, state: State) -> tuple[jax.Array, State]:
        def step(state: State, wx: jax.Array) -> tuple[State, jax.Array]:
            uh = state[0] @ w["weight_hh_l0"].T + w["bias_hh_l0"]
            state = _cell(case.cell, wx, uh, state)
            return state, state[0]

        state, y = jax.lax.scan(step, state, x @ w["weight_ih_l0"].T + w["bias_ih_l0"])
        return y, state

    if case.training:
        return _training(forward, weights, x, dy, zero)
    compiled = jax.jit(forward)
    return (_stream if case.stream else _inference)(compiled, weights, x, zero)


def _inference(forward, weights: Weights, x: jax.Array, zero: State) -> Prepared:
    def run() -> tuple[jax.Array, State]:
        return jax.block_until_ready(forward(weights, x, zero))

    def result() -> Arrays:
        y, state = run()
        return {"y": np.asarray(y)} | {
            name: np.asarray(s)[None] for name, s in zip("hc", state, strict=False)
        }

    return Prepared(run, result)


def _training(forward, weights: Weights, x, dy, zero: State) -> Prepared:
    @jax.jit
    def both(weights: Weights, x: jax.Array, dy: jax.Array) -> tuple:
        y, pull = jax.vjp(lambda w, x: forward(w, x, zero)[0], weights, x)
        return y, pull(dy)

    def run() -> tuple:
        return jax.block_until_ready(both(weights, x, dy))

    def result() -> Arrays:
        y, (dw, dx) = run()
        return {name: np.asarray(a) for name, a in {"y": y, "dx": dx, **dw}.items()}

    return Prepared(run, result)


def _stream(forward, weights: Weights, x: jax.Array, zero: State) -> Prepared:
    state, first = zero, x[:1]

    def run(x_t: jax.Array = first) -> jax.Array:
        nonlocal state
        y, state = jax.block_until_ready(forward(weights, x_t, state))
        return y

    def result() -> Arrays:
        nonlocal state
        state = zero
        return {"y": np.concatenate([run(x[t : t + 1]) for t in range(len(x))])}

    return Prepared(run, result)
