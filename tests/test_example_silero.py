"""examples/silero_vad.py on a recorded conversation; needs the extra `examples` and data.txt."""

import numpy as np
import pytest

import fastrnn
from support import example

silero = example("silero_vad", "onnx", "onnxruntime", "silero-vad", "pyannote.audio")
onnx = silero.onnx


@pytest.fixture(scope="module")
def heard():
    return silero.frames(silero.read_wav(silero.conversation()))


PUBLISHED = [
    "silero_vad_16k_sequence",
    "silero_vad",
    "silero_vad_16k_op15",
    "silero_vad_op18_ifless",
]


@pytest.fixture(scope="module", params=PUBLISHED)
def expected(request, heard):
    step = silero.whole_network(f"{request.param}.onnx")
    return np.array([step(frame) for frame in heard])


def test_probabilities_are_onnx_runtimes(isa, heard, expected):
    detector = silero.Detector()
    got = np.array([detector(frame) for frame in heard])
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    assert got.min() < 0.05 and got.max() > 0.95  # it is speech and silence, not one answer


def test_rounded_weights_decide_the_same(heard):
    detector, rounded = silero.Detector(), silero.Detector()
    rounded.round_weights()
    assert rounded.lstm.explain(1, 1).layers[0]["weights"] == "bfloat16"
    expected, got = (np.array([each(f) for f in heard]) for each in (detector, rounded))
    assert 0 < np.abs(got - expected).max() < 0.01
    np.testing.assert_array_equal(got >= 0.5, expected >= 0.5)


def test_reset_forgets_all(heard):
    detector = silero.Detector()
    first = [detector(frame) for frame in heard[200:240]]
    again = [detector(frame) for frame in heard[200:240]]
    detector.reset()
    assert again != first  # the memory and the context of the first pass
    assert [detector(frame) for frame in heard[200:240]] == first


def test_steps_give_the_bits_of_the_sequence(isa, heard):
    detector = silero.Detector()
    features = np.array([detector.features(frame) for frame in heard])
    steps = np.array([detector.stream.step(x) for x in features])
    assert steps.tobytes() == detector.lstm(features)[0].tobytes()


def test_gates_of_onnx_arrive_in_place():
    """random weights, in which a gate or a bias out of place shows at once"""
    rng, inputs, hidden, steps = np.random.default_rng(1), 5, 7, 20
    shapes = {"W": (1, 4 * hidden, inputs), "R": (1, 4 * hidden, hidden), "B": (1, 8 * hidden)}
    weights = {k: rng.standard_normal(s).astype(np.float32) for k, s in shapes.items()}
    x = rng.standard_normal((steps, 1, inputs)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("LSTM", ["X", "W", "R", "B"], ["Y"], hidden_size=hidden)],
        "lstm",
        [onnx.helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, x.shape)],
        [onnx.helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, (steps, 1, 1, hidden))],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 16)])
    model.ir_version = 8
    (expected,) = silero.session(model).run(None, {"X": x})
    got, _ = silero.lstm_from_onnx(*weights.values())(x)
    np.testing.assert_allclose(got[:, 0], expected[:, 0, 0], rtol=0, atol=1e-6)


def test_segments():
    quiet, loud, between = [0.1], [0.9], [0.4]
    frame = silero.FRAME / silero.RATE

    def found(*pieces):
        return [
            (round(b / frame), round(e / frame)) for b, e in silero.segments(np.concatenate(pieces))
        ]

    assert found(quiet * 9) == found(between * 9) == []
    assert found(quiet * 3, loud * 2, quiet * 9) == [(3, 5)]
    assert found(loud * 3) == [(0, 3)]  # the end of the recording ends it
    assert found(loud, quiet * 4, loud, quiet * 5, loud) == [(0, 6), (11, 12)]
    assert found(loud, between * 9, quiet * 9) == [(0, 10)]  # between the thresholds it goes on


def test_script(capsys, monkeypatch):
    monkeypatch.setattr(
        silero, "microseconds", lambda calls: [float(call() is None) for call in calls]
    )
    silero.main(silero.conversation())
    text = capsys.readouterr().out
    assert text.count("speech from") >= 2
    agree = float(text.split("% of")[0].split()[-1])
    assert agree > 95  # measured 98.5: a person's ear, and 32 ms of rounding
    assert text.count("LSTM alone") == 3 and text.count("whole step") == 3


def test_wav_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "cd.wav"
    with silero.wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 44100, 0, "NONE", ""))
        file.writeframes(bytes(400))
    with pytest.raises(ValueError, match=r"expected 16000 Hz, 1 channel, 2 bytes, got \(44100, 2"):
        silero.read_wav(path)


def test_state_is_the_networks(heard):
    """after some speech, (h, c) are what ONNX Runtime's LSTM holds"""
    detector = silero.Detector()
    assert isinstance(detector.stream, fastrnn.Stream)
    state = np.zeros((2, 1, 1, 128), np.float32)
    name = detector.onnx_lstm.get_inputs()[0].name
    for frame in heard[230:260]:
        features = detector.features(frame)
        detector.stream.step(features)
        feed = {name: features.reshape(1, 1, 128), "h": state[0], "c": state[1]}
        _, *state = detector.onnx_lstm.run(None, feed)
    for got, expected in zip(detector.stream.state, state, strict=True):
        np.testing.assert_allclose(got.ravel(), expected.ravel(), rtol=0, atol=1e-5)
