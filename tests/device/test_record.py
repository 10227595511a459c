"""One input, one record, one line."""

import json
from pathlib import Path

import msgspec
import pytest

from medimg_edge import errors, record
from medimg_edge.classifier import Classifier, Prediction
from medimg_edge.record import Answer, Failure, Finding, Model, encode, failure

PUBLISHED = json.loads((Path(__file__).parent.parent / "data/schema-record.json").read_text())
SCHEMA = json.loads(json.dumps(record.schema()))
ANSWER = Answer(
    input="a.png",
    findings=(Finding("opacity", 0.75, "positive"),),
    label="opacity",
    probability=0.75,
    decision="positive",
    artifact="model.onnx",
    runtime="onnxruntime 1",
    model=Model("name", "1", "0" * 64),
    elapsed_ms=1.5,
)
TYPES = {"string": str, "integer": int, "number": (int, float), "array": list, "object": dict}


def assert_fits(value, schema: dict) -> None:
    """The part of JSON Schema that a record uses: types, enum, required, properties, items."""
    schema = SCHEMA["$defs"][schema["$ref"].rsplit("/")[-1]] if "$ref" in schema else schema
    if "anyOf" in schema:
        kinds = [each.get("type") for each in schema["anyOf"]]
        schema = schema["anyOf"][kinds.index("null") if value is None else 0]
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rsplit("/")[-1]]
    if "enum" in schema:
        assert value in schema["enum"]
    if schema.get("type") == "null":
        assert value is None
    elif "type" in schema:
        assert isinstance(value, TYPES[schema["type"]]), (value, schema)
    if isinstance(value, dict):
        assert set(schema.get("required", [])) <= set(value) <= set(schema["properties"])
        for key, each in value.items():
            assert_fits(each, schema["properties"][key])
    elif isinstance(value, list):
        for each in value:
            assert_fits(each, schema["items"])


@pytest.mark.parametrize("name", PUBLISHED["$defs"])
def test_what_version_1_published_is_there(name):
    """Scripts build on it: a record may say more than it did, and nothing else."""
    published, found = PUBLISHED["$defs"][name], SCHEMA["$defs"][name]
    assert found["required"] == published["required"]
    kept = {key: found["properties"][key] for key in published["properties"]}
    assert kept == published["properties"]
    added = set(found["properties"]) - set(kept)
    assert all("default" in found["properties"][key] for key in added)


def test_an_answer_is_one_line():
    line = encode(ANSWER)
    assert b"\n" not in line
    assert_fits(json.loads(line), {"$ref": "#/$defs/Answer"})
    assert msgspec.json.decode(line, type=Answer) == ANSWER
    assert json.loads(line)["schema"] == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.Truncated("half of it"), "error"),
        (errors.NotFinite("NaN"), "error"),
        (errors.Blank("nothing\nto see"), "rejected"),
        (errors.TooSmall("a thumbnail"), "rejected"),
    ],
)
def test_a_failure_says_why_and_has_no_probability(error, status):
    found = json.loads(encode(failure("a.png", error)))
    assert_fits(found, {"$ref": "#/$defs/Failure"})
    assert found == {
        "schema": 1,
        "input": "a.png",
        "frame": None,
        "frames": None,
        "status": status,
        "code": error.code,
        "message": error.message,
        "measured": None,
    }


def test_a_rejection_tells_what_was_measured():
    error = errors.NotLikeTraining("It is another thing.")
    error.measured = record.Measured(brightness=1.0, contrast=2.0, sharpness=3.0, novelty=4.0)
    found = json.loads(encode(failure("a.png", error)))
    assert found["measured"] == {
        "brightness": 1.0,
        "contrast": 2.0,
        "sharpness": 3.0,
        "novelty": 4.0,
    }
    assert_fits(found, {"$ref": "#/$defs/Failure"})


def test_a_path_that_is_not_utf_8():
    name = b"caf\xe9.png".decode(errors="surrogateescape")
    found = json.loads(encode(failure(name, errors.InputMissing(f"{name} cannot be read"))))
    assert found["input"] == "caf\\udce9.png"
    assert found["message"] == "caf\\udce9.png cannot be read"


def test_real_records_fit_the_schema(frozen):
    sources = [frozen / "golden" / "01-gray8.png", frozen / "MODEL_CARD.md"]
    answer, refused = Classifier(frozen).predict_many(sources)
    assert isinstance(answer, Prediction)
    assert_fits(json.loads(encode(answer.record)), {"$ref": "#/$defs/Answer"})
    assert isinstance(refused, Failure)
    assert_fits(json.loads(encode(refused)), {"$ref": "#/$defs/Failure"})
