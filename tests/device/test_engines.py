"""Every runtime on real model files, and the files that they must not run."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from msgspec import structs

from medimg_edge import engines
from medimg_edge.bundle import Bundle
from medimg_edge.errors import (
    ExtraMissing,
    ModelDeadline,
    ModelError,
    ModelLoad,
    ModelOutput,
    ModelRefused,
    NotFinite,
)
from medimg_edge.golden import FLOAT32_LIMIT, INT8_LIMIT
from medimg_edge.manifest import Input
from tests.device import hostile_models as hostile

ARTIFACTS = ["model.onnx", "model.int8.onnx", "model.tflite", "model.int8.tflite"]
PAIRS = [
    (name, runtime)
    for name in ARTIFACTS
    for runtime, each in engines.RUNTIMES.items()
    if name.endswith(each.format)
]


@pytest.fixture(scope="module")
def opened(frozen) -> Bundle:
    return Bundle.open(frozen)


@pytest.fixture
def mean() -> Bundle:
    pytest.importorskip("onnx")
    return hostile.manifest_of_mean()


@pytest.fixture
def unguarded(monkeypatch) -> None:
    """What the runtimes and the checks behind them do with files that the guards refuse."""
    for kind in ("onnx", "tflite"):
        monkeypatch.setitem(engines._GUARDS, kind, lambda *_: None)


@pytest.fixture(scope="module")
def pixels(opened) -> np.ndarray:
    """uint8 (12, H, W, C): the golden set's tensors."""
    stored = [np.frombuffer(opened.read(case.pixels), np.uint8) for case in opened.manifest.golden]
    return np.stack(stored).reshape(-1, *opened.manifest.preprocessing.shape)


def load(opened: Bundle, name: str, runtime: str | None = None) -> engines.Engine:
    kind = opened.manifest.artifacts[name].format
    if (wanted := runtime or engines.reference(kind)) not in engines.runtimes(kind):
        pytest.skip(f"{wanted} is not installed")
    return engines.load(opened.read(name), kind, opened.manifest, runtime=runtime)


@pytest.mark.parametrize(("name", "runtime"), PAIRS)
def test_the_golden_answers(opened, pixels, name, runtime):
    engine = load(opened, name, runtime)
    found = np.concatenate([engine.run(each[None])["probability"] for each in pixels])
    expected = np.array([case.probability[name] for case in opened.manifest.golden])
    limit = INT8_LIMIT if "int8" in name else FLOAT32_LIMIT
    assert np.abs(found - expected).max() <= limit
    assert engine.runtime == f"{runtime} {engines.version(runtime)}"


@pytest.mark.parametrize(("name", "runtime"), PAIRS)
def test_batches(opened, pixels, name, runtime):
    """Twelve alone, or seven and five: within float32's rounding the same."""
    engine = load(opened, name, runtime)
    alone = [engine.run(each[None]) for each in pixels]
    batches = [engine.run(pixels[:7]), engine.run(pixels[7:])]
    for output, described in opened.manifest.outputs.items():
        one = np.concatenate([each[output] for each in alone])
        seven = np.concatenate([each[output] for each in batches])
        assert one.dtype == seven.dtype == np.float32
        assert one.shape == seven.shape == (12, *described.shape[1:])
        assert np.abs(one - seven).max() <= 1e-5 * max(1, np.abs(one).max())


@pytest.mark.parametrize(("name", "runtime"), PAIRS)
def test_threads_share_an_engine(opened, pixels, name, runtime):
    """Each call has its own answer, however many run at once."""
    engine = load(opened, name, runtime)
    alone = [engine.run(each[None])["probability"] for each in pixels]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda at: (at % 12, engine.run(pixels[at % 12 :][:1])), range(240))
        for at, outputs in found:
            assert np.array_equal(outputs["probability"], alone[at])


def test_the_formats_agree(opened, pixels):
    onnx, tflite = (load(opened, name).run(pixels) for name in ("model.onnx", "model.tflite"))
    for output in opened.manifest.outputs:
        scale = max(1, np.abs(onnx[output]).max())
        assert np.abs(onnx[output] - tflite[output]).max() <= 1e-4 * scale


@pytest.mark.parametrize(("kind", "name"), [("onnx", "onnxruntime"), ("tflite", "litert")])
def test_the_reference_comes_first(kind, name):
    assert engines.reference(kind) == name
    assert (engines.runtimes(kind) or [name])[0] == name


@pytest.mark.parametrize("runtime", ["litert", "none"])
def test_a_runtime_of_another_format(opened, runtime):
    with pytest.raises(ModelLoad, match="runs no onnx files; these do: onnxruntime"):
        engines.load(opened.read("model.onnx"), "onnx", opened.manifest, runtime=runtime)
    assert engines.version("none") is None


@pytest.mark.parametrize("runtime", list(engines.RUNTIMES))
@pytest.mark.parametrize(
    "data", [b"", b"text, not a model", b"\xff" * 40, b"\x3a\xff\xff\xff\xff\x0f", b"\x0b\x0c"]
)
def test_what_is_no_model(opened, runtime, data):
    kind = engines.RUNTIMES[runtime].format
    if runtime not in engines.runtimes(kind):
        pytest.skip(f"{runtime} is not installed")
    with pytest.raises(ModelLoad, match="model"):
        engines.load(data, kind, opened.manifest, runtime=runtime)


@pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx"])
def test_a_model_cut_short(opened, name):
    data = opened.read(name)
    for length in (1, 100, len(data) // 2, len(data) - 1):
        with pytest.raises(ModelLoad):
            engines.load(data[:length], "onnx", opened.manifest)


@pytest.mark.parametrize("shape", [(1, 8, 8, 1), (1, 64, 64, 3), (1, 64, 64)])
@pytest.mark.parametrize(("name", "runtime"), [pair for pair in PAIRS if "int8" not in pair[0]])
def test_tensors_that_do_not_fit(opened, shape, name, runtime):
    with pytest.raises(ModelOutput, match=r"ONNX Runtime|LiteRT|OpenVINO"):
        load(opened, name, runtime).run(np.zeros(shape, np.uint8))


def test_a_manifest_of_another_size(opened, unguarded):
    """LiteRT fits a pooled network to any input, and would answer."""
    if not engines.installed("tflite"):
        pytest.skip("LiteRT is not installed")
    other = structs.replace(opened.manifest, input=Input(shape=(32, 48, 1)))
    with pytest.raises(ModelLoad, match=r"\(32, 48, 1\)"):
        engines.load(opened.read("model.tflite"), "tflite", other)


# Networks that are not what the manifest says


def changed(opened: Bundle, change) -> bytes:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_model_from_string(opened.read("model.onnx"))
    change(model, onnx)
    return model.SerializeToString()


def rename(model, old: str, new: str) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.name = new if value.name == old else value.name
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]


def retype(model, kind: int) -> None:
    model.graph.input[0].type.tensor_type.elem_type = kind


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda model, onnx: setattr(model.graph.node[0], "op_type", "NoSuch"), "does not load"),
        (lambda model, onnx: rename(model, "pixels", "image"), r"takes \{'image'"),
        (lambda model, onnx: rename(model, "probability", "p"), "no output 'probability'"),
        (lambda model, onnx: retype(model, onnx.TensorProto.FLOAT), r"float"),
    ],
)
def test_other_names_and_types(opened, unguarded, change, says, runtime):
    if runtime not in engines.runtimes("onnx"):
        pytest.skip(f"{runtime} is not installed")
    with pytest.raises(ModelLoad, match=says):
        engines.load(changed(opened, change), "onnx", opened.manifest, runtime=runtime)


def weights(model, onnx, value: float) -> None:
    """Every element of the largest weight becomes a value."""
    largest = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    array = onnx.numpy_helper.to_array(largest)
    largest.CopyFrom(onnx.numpy_helper.from_array(np.full_like(array, value), largest.name))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_weights_give_no_answer(opened, pixels, value):
    data = changed(opened, lambda model, onnx: weights(model, onnx, value))
    engine = engines.load(data, "onnx", opened.manifest)
    with pytest.raises(NotFinite, match="not finite"):
        engine.run(pixels[:1])


def answer_with(model, onnx, source: str, operator: str, **attributes) -> None:
    """The output ``probability`` becomes something else that is computed from a value."""
    for node in model.graph.node:
        node.output[:] = ["unused" if name == "probability" else name for name in node.output]
    made = onnx.helper.make_node(operator, [source], ["probability"], **attributes)
    model.graph.node.append(made)
    (output,) = [each for each in model.graph.output if each.name == "probability"]
    model.graph.output.remove(output)


@pytest.mark.parametrize(
    ("source", "operator", "attributes", "kind", "shape", "says"),
    [
        ("unused", "Cast", {"to": 11}, "DOUBLE", ["N", 1], "float64"),
        ("unused", "Cast", {"to": 8}, "STRING", ["N", 1], "object"),
        ("unused", "SequenceConstruct", {}, None, None, "list"),
        ("unused", "Shape", {}, "INT64", [2], "int64"),
        ("embedding", "Identity", {}, "FLOAT", ["N", 128], r"shape \(3, 128\)"),
        ("unused", "Flatten", {"axis": 0}, "FLOAT", [1, "N"], "shape"),
        ("unused", "Neg", {}, "FLOAT", ["N", 1], r"probability is in \[0, 1\]"),
        ("unused", "Exp", {}, "FLOAT", ["N", 1], r"probability is in \[0, 1\]"),
    ],
)
def test_outputs_that_are_no_probability(
    opened, unguarded, pixels, source, operator, attributes, kind, shape, says
):
    def change(model, onnx) -> None:
        answer_with(model, onnx, source, operator, **attributes)
        if kind is None:
            tensor = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, ["N", 1])
            value = onnx.helper.make_value_info(
                "probability", onnx.helper.make_sequence_type_proto(tensor)
            )
        else:
            value = onnx.helper.make_tensor_value_info(
                "probability", getattr(onnx.TensorProto, kind), shape
            )
        model.graph.output.append(value)

    engine = engines.load(changed(opened, change), "onnx", opened.manifest)
    with pytest.raises(ModelOutput, match=says):
        engine.run(pixels[:3])


# The guards, and the deadline


def test_a_loaded_model_keeps_no_second_copy(opened):
    model = opened.read("model.onnx")
    engine = engines.load(model, "onnx", opened.manifest)
    assert sys.getrefcount(model) == 2
    assert engine.run(np.zeros((1, *opened.manifest.input.shape), np.uint8))


@pytest.mark.parametrize("runtime", engines.RUNTIMES)
def test_no_runtime_sees_what_its_guard_refuses(opened, runtime, monkeypatch):
    """Whatever is asked of a runtime is asked of the guard before."""
    if engines.version(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    kind = engines.RUNTIMES[runtime].format

    def never(*_: object) -> engines.Engine:
        raise AssertionError("a runtime got to see it")

    monkeypatch.setitem(engines.RUNTIMES, runtime, engines.RUNTIMES[runtime]._replace(engine=never))
    other = structs.replace(opened.manifest, input=Input(shape=(32, 48, 1)))
    with pytest.raises(ModelRefused, match=r"\(32, 48, 1\)"):
        engines.load(opened.read(f"model.{kind}"), kind, other, runtime=runtime)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_endless_network_is_stopped(runtime, mean, unguarded):
    """And the engine goes on answering afterwards."""
    if engines.version(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    data = hostile.changed(lambda model: hostile.heavy(model, turns=5000))
    engine = engines.load(data, "onnx", mean.manifest, runtime=runtime)
    pixels = np.zeros((1, *mean.manifest.input.shape), np.uint8)
    for _ in range(2):
        started = time.monotonic()
        late = pytest.raises(ModelDeadline, match=r"longer than the 1\.5 seconds")
        with late, engines.deadline(1.5):
            engine.run(pixels)
        assert 1.5 <= time.monotonic() - started < 5


def test_a_loop_is_stopped(mean, unguarded):
    """It would run for ever; what runs beside it, by the same engine and another, does not end."""
    loop = engines.load(hostile.changed(hostile.loop), "onnx", mean.manifest)
    plain = engines.load(hostile.changed(lambda model: None), "onnx", mean.manifest)
    pixels = np.zeros((1, *mean.manifest.input.shape), np.uint8)
    started = time.monotonic()

    def run_loop() -> None:
        with engines.deadline(1):
            loop.run(pixels)

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(run_loop)
        answered = 0
        while not late.done():
            assert plain.run(pixels)["probability"].shape == (1, 2)
            answered += 1
    assert isinstance(late.exception(), ModelDeadline)
    assert 1 <= time.monotonic() - started < 5
    assert answered > 100


def test_a_batch_has_the_time_of_its_images(mean, unguarded):
    data = hostile.changed(lambda model: hostile.heavy(model, turns=5000))
    engine = engines.load(data, "onnx", mean.manifest)
    started = time.monotonic()
    with pytest.raises(ModelDeadline), engines.deadline(0.5):
        engine.run(np.zeros((3, *mean.manifest.input.shape), np.uint8))
    assert 1.5 <= time.monotonic() - started < 5


@pytest.mark.parametrize(("name", "runtime"), PAIRS)
def test_the_deadline_costs_no_answer(opened, pixels, name, runtime):
    """Twenty runs whose time is over a little before or after they end: an answer, or its error.

    What was stopped late must not stop the next.
    """
    engine = load(opened, name, runtime)
    expected = engine.run(pixels[:1])["probability"]
    for _ in range(20):
        with suppress(ModelDeadline), engines.deadline(1e-6):
            assert np.array_equal(engine.run(pixels[:1])["probability"], expected)
        assert np.array_equal(engine.run(pixels[:1])["probability"], expected)


def test_litert_announces_nothing(frozen):
    """What it writes to stderr by itself is no part of our answer."""
    if not engines.installed("tflite"):
        pytest.skip("LiteRT is not installed")
    program = (
        "import sys; from medimg_edge import Classifier\n"
        "found = Classifier(sys.argv[1], artifact='model.int8.tflite')\n"
        "found.predict(sys.argv[1] + '/golden/01-gray8.png'); print('seen', file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", program, frozen], capture_output=True, text=True)
    assert run.stderr == "seen\n"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_runtime_reports_nothing(runtime, frozen, tmp_path):
    """Both would tell their makers that they are used: in a clinic nothing may leave.

    ONNX Runtime keeps a database of what it will tell in the home of its user.
    """
    if engines.version(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    program = (
        "import sys, time\n"
        "seen = []\n"
        "watched = ('socket.', 'os.fork', 'os.posix_spawn', 'subprocess.')\n"
        "def watch(name, _):\n"
        "    if name.startswith(watched): seen.append(name)\n"
        "sys.addaudithook(watch)\n"
        "from medimg_edge import Classifier\n"
        "found = Classifier(sys.argv[1], runtime=sys.argv[2])\n"
        "found.predict(sys.argv[1] + '/golden/01-gray8.png')\n"
        "time.sleep(0.5)\n"
        "print(seen, [name for name in sys.modules if 'openvino_telemetry' in name])"
    )
    free = {name: value for name, value in os.environ.items() if name != "CI"}
    hidden = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_DATA_HOME"}
    environment = {each: value for each, value in free.items() if each not in hidden}
    environment["HOME"] = str(tmp_path)
    words = [sys.executable, "-c", program, frozen, runtime]
    run = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert (run.stdout, run.stderr) == ("[] []\n", "")
    assert os.listdir(tmp_path) == []


def test_without_openvino(frozen):
    program = (
        "import sys; sys.modules['openvino'] = None\n"
        "from medimg_edge import Classifier, engines, errors\n"
        "assert engines.runtimes('onnx') == ['onnxruntime'] and not engines.version('openvino')\n"
        "try: Classifier(sys.argv[1], runtime='openvino')\n"
        "except errors.ExtraMissing as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", program, frozen], capture_output=True, text=True)
    said = "OpenVINO is not installed: pip install 'medimg-edge[openvino]'\n"
    assert (run.stdout, run.stderr) == (said, "")


def test_without_litert(frozen):
    """A device-only installation: the import fails, and the line that helps is said."""
    program = (
        "import sys; sys.modules['ai_edge_litert'] = None\n"
        "from medimg_edge import Classifier, engines, errors\n"
        "assert not engines.installed('tflite') and engines.installed('onnx')\n"
        "print(Classifier(sys.argv[1]).artifact)\n"
        "try: Classifier(sys.argv[1], artifact='model.tflite')\n"
        "except errors.ExtraMissing as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", program, frozen], capture_output=True, text=True)
    assert run.stdout.splitlines() == [
        "model.int8.onnx",
        "TFLite artifacts need LiteRT, which is not installed: pip install 'medimg-edge[litert]'",
    ]
    assert not issubclass(ExtraMissing, ModelError)
