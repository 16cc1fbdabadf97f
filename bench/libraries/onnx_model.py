"""The case as an ONNX model, for the two runtimes that read it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from bench.problem import Arrays, Problem

OPERATOR = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}
# ONNX orders gates i o f c and z r h, torch i f g o and r z n.
ORDER = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}
IR_VERSION = 10  # older than the newest, so that runtimes a little behind onnx read it
OPSET = 17


def model(problem: Problem) -> bytes:
    """Inputs x, for ragged cases n, for streams h0 and c0; outputs y (not for streams), h and c.

    A stream's y is its h: asking for one output less is a step's cheapest form.
    """
    case = problem.case
    states = ["h", "c"] if case.cell == "lstm" else ["h"]
    steps = 1 if case.stream else case.T
    state_shape = [case.layers * case.directions, case.B, case.H]
    inputs = [_value("x", [steps, case.B, case.inputs])]
    outputs = [_value(s, state_shape) for s in states]
    if case.ragged:
        inputs.append(_value("n", [case.B], TensorProto.INT32))
    if case.stream:
        inputs += [_value(f"{s}0", state_shape) for s in states]
    else:
        outputs.append(_value("y", [steps, case.B, case.directions * case.H]))
    constants = {"rows": np.array([0, 0, -1])}
    nodes = [n for layer in range(case.layers) for n in _layer(problem, layer, states, constants)]
    if case.layers > 1:
        nodes += [_concat([f"{s}{i}" for i in range(case.layers)], s) for s in states]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "case", inputs, outputs, tensors)
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION).SerializeToString()


def _value(name: str, shape: list[int], kind: int = TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def _concat(parts: list[str], name: str):
    return helper.make_node("Concat", parts, [name], axis=0)


def _layer(problem: Problem, layer: int, states: list[str], constants: Arrays) -> Iterator:
    """One recurrent node, then [T, D, B, H] to [T, B, D*H]. Adds its weights to `constants`."""
    case, last = problem.case, layer == problem.case.layers - 1
    weights = _weights(problem, layer)
    constants |= weights
    ends = [f"{s}{layer}" if case.layers > 1 else s for s in states]
    inputs = ["x" if layer == 0 else f"y{layer}", *weights, "n" if case.ragged else ""]
    inputs += [f"{s}0" for s in states] if case.stream else []
    options = {"linear_before_reset": 1} if case.cell == "gru" else {}
    yield helper.make_node(
        OPERATOR[case.cell], inputs, ["" if case.stream else f"raw{layer}", *ends],
        hidden_size=case.H, direction="bidirectional" if case.bidirectional else "forward",
        **options,
    )  # fmt: skip
    if not case.stream:
        yield helper.make_node("Transpose", [f"raw{layer}"], [f"rows{layer}"], perm=[0, 2, 1, 3])
        y = "y" if last else f"y{layer + 1}"
        yield helper.make_node("Reshape", [f"rows{layer}", "rows"], [y])


def _weights(problem: Problem, layer: int) -> Arrays:
    """W [D, G*H, I], R [D, G*H, H] and B [D, 2*G*H] of a layer, in ONNX's gate order."""
    case = problem.case
    order = ORDER[case.cell]

    def gates(name: str, end: str) -> np.ndarray:
        weight = problem.weights[f"{name}_l{layer}{end}"]
        return np.concatenate([np.split(weight, len(order))[g] for g in order])

    ends = ("", "_reverse")[: case.directions]
    biases = [np.concatenate([gates("bias_ih", e), gates("bias_hh", e)]) for e in ends]
    return {
        f"W{layer}": np.stack([gates("weight_ih", e) for e in ends]),
        f"R{layer}": np.stack([gates("weight_hh", e) for e in ends]),
        f"B{layer}": np.stack(biases),
    }
