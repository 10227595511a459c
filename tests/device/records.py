"""Records of two findings, as a multilabel bundle would make them."""

from medimg_edge.record import Answer, Failure, Finding, Model
from medimg_edge.record_lines import Origin

ORIGIN = Origin("c" * 64, "model.onnx", None)


def answer(name: str, profile: str | None = None, risk: float | None = None) -> Answer:
    return Answer(
        input=name,
        findings=(Finding("a", 0.25, "negative"), Finding("b", 0.75, "positive")),
        label=None,
        probability=None,
        decision=None,
        artifact="model.onnx",
        runtime="onnxruntime 1",
        model=Model("m", "1", "c" * 64),
        profile=profile,
        risk=risk,
        elapsed_ms=1.0,
    )


def failed(name: str) -> Failure:
    return Failure(input=name, status="error", code="input-empty", message='Said "no",\nthen more.')
