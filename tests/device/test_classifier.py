"""Image in, record out; from many threads, and from another process."""

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from medimg_edge.batch import WINDOW
from medimg_edge.bundle import Bundle
from medimg_edge.classifier import Classifier, Prediction
from medimg_edge.errors import ArtifactUnknown, Blank, BundleMissing, FilesDiffer, InputMissing
from medimg_edge.golden import INT8_LIMIT
from medimg_edge.manifest import OperatingPoint, Output, Preprocessing, Windows, WindowSetting
from medimg_edge.reader import find_images, read_image
from medimg_edge.record import Failure


@pytest.fixture(scope="module")
def classifier(frozen) -> Classifier:
    return Classifier(frozen)


@pytest.fixture(scope="module")
def images(frozen) -> list[Path]:
    return find_images(frozen / "golden")


def test_the_default_artifact_answers(classifier, frozen):
    case = classifier.manifest.golden[0]
    path = frozen / case.input
    found = classifier.predict(path)
    assert classifier.artifact == "model.int8.onnx"
    assert found.probability == pytest.approx(
        case.probability["model.int8.onnx"][0], abs=INT8_LIMIT
    )
    record = found.record
    assert (record.input, record.status, record.label) == (str(path), "ok", "opacity")
    assert found.findings == record.findings
    assert (found.label, found.decision) == (record.findings[0].label, record.findings[0].decision)
    assert found.probability == record.findings[0].probability
    assert record.decision == ("positive" if found.probability >= 0.2522 else "negative")
    assert record.model.hash == Bundle.open(frozen).hash
    assert record.runtime.startswith("onnxruntime ")
    assert record.elapsed_ms > 0
    assert found.pixels.shape == (64, 64, 1)
    assert found.heatmap is not None
    assert found.heatmap.shape == (8, 8, 1)
    assert found.embedding is not None
    assert found.embedding.shape == (128,)


def test_path_bytes_and_array_are_one_image(classifier, images):
    path = images[0]
    by_path = classifier.predict(path)
    by_text = classifier.predict(str(path))
    by_bytes = classifier.predict(path.read_bytes())
    by_array = classifier.predict(read_image(path).frames[0])
    by_image = classifier.predict(read_image(path))
    answers = [by_path, by_text, by_bytes, by_array, by_image]
    assert len({each.probability for each in answers}) == 1
    names = [each.record.input for each in answers]
    assert names == [str(path), str(path), "<bytes>", "<array>", "<image>"]
    assert classifier.predict(path, name="bed 4").record.input == "bed 4"


def test_each_artifact_can_be_chosen(frozen, images):
    found = [
        Classifier(frozen, artifact=name).predict(images[0]).record
        for name in ("model.onnx", "model.int8.onnx")
    ]
    assert [each.artifact for each in found] == ["model.onnx", "model.int8.onnx"]
    assert found[0].probability != found[1].probability


def test_construction_is_refused(bundle, tmp_path):
    with pytest.raises(BundleMissing):
        Classifier(tmp_path / "none")
    with pytest.raises(ArtifactUnknown, match=r"no artifact 'model\.h5'"):
        Classifier(bundle, artifact="model.h5")
    data = bytearray((bundle / "model.int8.onnx").read_bytes())
    data[1000] ^= 1
    (bundle / "model.int8.onnx").write_bytes(data)
    with pytest.raises(FilesDiffer):
        Classifier(bundle)
    Classifier(bundle, artifact="model.onnx")


def test_many_in_order_and_bad_ones_between(classifier, images, tmp_path):
    blank = np.zeros((64, 64), np.uint8)
    sources = [images[0], tmp_path / "none.png", images[1], b"text", blank, images[0].read_bytes()]
    found = list(classifier.predict_many(iter(sources)))
    assert [type(each) for each in found] == [
        *(Prediction, Failure, Prediction, Failure, Failure, Prediction)
    ]
    assert [each.code for each in found if isinstance(each, Failure)] == [
        *("input-missing", "input-not-an-image", "blank")
    ]
    assert [each.status for each in found if isinstance(each, Failure)] == [
        *("error", "error", "rejected")
    ]
    assert found[1].input == str(tmp_path / "none.png")
    assert found[0].probability == found[-1].probability


def test_many_are_answered_as_they_come(classifier, images):
    """An archive does not fit into memory: few are read before they are asked for."""
    asked = []

    def sources():
        for path in images * 10:
            asked.append(path)
            yield path

    answers = classifier.predict_many(sources(), cores=2)
    first = next(answers)
    assert first.probability == classifier.predict(images[0]).probability
    assert len(asked) <= 2 * WINDOW + 1
    answers.close()


def test_cores_and_threads(frozen, monkeypatch):
    """Images at a time, each on as many cores as its network runs on."""
    monkeypatch.setattr("medimg_edge.cores.usable_cores", lambda: 4)
    assert Classifier(frozen).at_once() == 4
    assert Classifier(frozen, threads=2).at_once() == 2
    assert Classifier(frozen, threads=8).at_once() == 1
    assert Classifier(frozen).at_once(cores=3) == 3


def test_one_bad_image_raises(classifier, tmp_path):
    with pytest.raises(InputMissing):
        classifier.predict(tmp_path / "none.png")
    with pytest.raises(Blank):
        classifier.predict(np.zeros((64, 64), np.uint8))


@pytest.mark.parametrize("artifact", ["model.int8.onnx", "model.tflite"])
def test_eight_threads_share_one(frozen, images, artifact):
    if artifact.endswith("tflite"):
        pytest.importorskip("ai_edge_litert")
    shared = Classifier(frozen, artifact=artifact)
    work = images * 4
    expected = [shared.predict(path) for path in work]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(shared.predict, work))
    assert [each.probability for each in found] == [each.probability for each in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.heatmap is not None
        assert other.heatmap is not None
        assert np.array_equal(one.heatmap, other.heatmap)


def test_pickled_to_another_process(bundle, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sent = Classifier("bundle", artifact="model.onnx", threads=2)  # a path from here
    (tmp_path / "pickled").write_bytes(pickle.dumps(sent))
    program = (
        "import pickle, sys; there = pickle.load(open(sys.argv[1], 'rb'))\n"
        "print(there.artifact, there.threads, there.predict(sys.argv[2]).probability)"
    )
    arguments = [sys.executable, "-c", program, tmp_path / "pickled", images[0]]
    run = subprocess.run(arguments, cwd="/", capture_output=True, text=True)
    artifact, threads, probability = run.stdout.split()
    assert (artifact, threads) == ("model.onnx", "2")
    assert float(probability) == pytest.approx(sent.predict(images[0]).probability, abs=1e-6)


BAND = OperatingPoint(0.5, "stated", refer=(0.375, 0.75))


# Other tasks, through a network that is computed by hand: logit = weight * mean + bias


MEAN = np.repeat(np.array([[51, 153]], np.uint8), 16, axis=0).repeat(8, axis=1)  # mean 0.4


def sigmoid(x: float) -> float:
    return 1 / (1 + np.exp(-x))


def test_multilabel(mean_bundle):
    found = Classifier(mean_bundle([5, -5, 1], [0, 0, -9], labels=("a", "b", "c"))).predict(MEAN)
    assert [each.label for each in found.findings] == ["a", "b", "c"]
    assert [each.probability for each in found.findings] == pytest.approx(
        [sigmoid(2), sigmoid(-2), sigmoid(-8.6)], abs=1e-6
    )
    assert [each.decision for each in found.findings] == ["positive", "negative", "negative"]
    assert (found.label, found.probability, found.decision) == (None, None, None)
    assert found.heatmap is not None
    assert found.heatmap.mean(axis=(0, 1)) == pytest.approx([2, -2, 0.4], abs=1e-5)
    assert found.embedding is None


def test_multiclass(mean_bundle):
    labels = ("a", "b", "c")
    path = mean_bundle([1, 5, 2], [0, 0, 0], task="multiclass", labels=labels)
    found = Classifier(path).predict(MEAN)
    shares = np.exp([0.4, 2, 0.8]) / np.exp([0.4, 2, 0.8]).sum()
    assert [each.probability for each in found.findings] == pytest.approx(list(shares), abs=1e-6)
    assert {each.decision for each in found.findings} == {"b"}
    assert (found.label, found.decision) == ("b", "b")
    assert found.probability == pytest.approx(shares[1], abs=1e-6)


def test_binary_refers(mean_bundle):
    path = mean_bundle(
        [5],
        [-2],
        task="binary",
        labels=("no", "yes"),
        decision={"model.onnx": {"yes": BAND}},
    )
    found = Classifier(path).predict(MEAN)
    assert (found.label, found.decision) == ("yes", "refer")
    assert found.probability == pytest.approx(0.5, abs=1e-6)


def test_a_model_without_heatmap(mean_bundle):
    path = mean_bundle([5, 5], [0, 0], outputs={"probability": Output((None, 2), "probability")})
    assert Classifier(path).predict(MEAN).heatmap is None


def test_the_manifests_window_decides(mean_bundle):
    """Hounsfield units of an array, through the bundle's own window, into the network."""
    spec = Preprocessing(16, 16, intensity=Windows((WindowSetting(40, 400),)))
    path = mean_bundle([1, 0], [0, 0], preprocessing=spec)
    values = np.full((16, 16), -160, np.float32)
    values[:, 8:] = 240
    stored = ((values + 1024) / 2).astype(np.uint16)
    dicom = pytest.importorskip("pydicom")
    found = Classifier(path).predict(ct(dicom, stored, slope=2, intercept=-1024))
    assert set(found.pixels.ravel()) == {0, 255}
    assert found.findings[0].probability == pytest.approx(sigmoid(0.5), abs=1e-6)


def ct(pydicom, stored: np.ndarray, slope: float, intercept: float) -> bytes:
    from io import BytesIO

    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.Modality = "CT"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    dataset.PixelData = stored.tobytes()
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=False)
    return file.getvalue()
