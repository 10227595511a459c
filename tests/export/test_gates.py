"""The gates as a table: what passes, what is refused, and by how much."""

import numpy as np
import pytest

from medimg_edge.manifest import OperatingPoint
from medimg_export.gates import (
    Limits,
    difference,
    float32_gate,
    int8_gates,
    matched_points,
    pixels_gate,
)

LIMITS = Limits()


def binary(positives: int, negatives: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and a reference that is right about all but the lowest tenth of the positives."""
    y = np.repeat([1, 0], [positives, negatives])
    p = np.concatenate([np.linspace(0.45, 0.95, positives), np.linspace(0.05, 0.5, negatives)])
    return y, p[:, None]


def point(threshold: float) -> dict[str, OperatingPoint]:
    return {"ill": OperatingPoint(threshold, "youden")}


def checked(y, p, reference, threshold=0.5, limits=LIMITS):
    """The gates of a binary int8 artifact by name."""
    found = int8_gates("a", "binary", ["ill"], y, p, reference, point(threshold), None, limits)
    return {gate.name: gate for gate in found}


# --- float32 and pixels ---


@pytest.mark.parametrize(("dp", "passed"), [(0, True), (9.9e-5, True), (1.1e-4, False)])
def test_float32_by_the_largest_difference(dp: float, passed: bool):
    reference = np.array([[0.2], [0.5], [0.7]])
    p = reference - np.array([[0], [dp], [0]])
    gate = float32_gate("model.onnx", "test", p, reference, LIMITS)
    assert gate.passed is passed
    assert (gate.name, gate.artifact, gate.split) == ("probability", "model.onnx", "test")
    assert gate.limit == 1e-4
    assert gate.measured == pytest.approx(dp)


def test_a_missing_answer_is_infinitely_far():
    assert difference(np.ones((2, 1)), np.ones((3, 1))) == np.inf
    assert not float32_gate("a", "val", np.ones((2, 1)), np.ones((3, 1)), LIMITS).passed


def test_one_other_pixel_is_too_many():
    assert pixels_gate("a", "val", 0).passed
    assert not pixels_gate("a", "val", 1).passed


# --- int8: AUC ---


def swapped(y, p, count: int) -> np.ndarray:
    """The ``count`` surest positives get the answers of the surest negatives."""
    q = p.copy()
    low, high = np.flatnonzero(y == 0)[:count], np.flatnonzero(y == 1)[-count:]
    q[low], q[high] = p[high], p[low]
    return q


@pytest.mark.parametrize(
    ("images", "swaps", "passed"),
    [(100, 0, True), (400, 1, True), (100, 2, False), (400, 20, False)],
)
def test_with_many_images_the_loss_itself_decides(images: int, swaps: int, passed: bool):
    y, reference = binary(images, images)
    p = swapped(y, reference, swaps) if swaps else reference
    gate = checked(y, p, reference)["auc"]
    assert gate.passed is passed
    assert gate.measured is not None
    assert (gate.measured <= LIMITS.int8_auc) is passed
    assert gate.detail == ""


@pytest.mark.parametrize(("swaps", "passed"), [(1, True), (12, False)])
def test_with_few_images_the_interval_of_the_loss_decides(swaps: int, passed: bool):
    y, reference = binary(30, 30)
    gate = checked(y, swapped(y, reference, swaps), reference)["auc"]
    assert gate.measured is not None
    assert gate.measured > LIMITS.int8_auc  # the value alone would refuse both
    assert gate.passed is passed
    assert "must contain 0" in gate.detail


def test_one_class_with_few_images_is_enough_for_the_interval():
    y, reference = binary(99, 300)
    assert checked(y, swapped(y, reference, 4), reference)["auc"].detail
    y, reference = binary(100, 300)
    assert not checked(y, swapped(y, reference, 4), reference)["auc"].detail


def test_a_better_auc_passes():
    y, reference = binary(150, 150)
    worse = swapped(y, reference, 10)
    gate = checked(y, reference, worse)["auc"]
    assert gate.passed
    assert gate.measured is not None
    assert gate.measured < 0


# --- int8: sensitivity and specificity ---


@pytest.mark.parametrize(
    ("images", "lost", "passed"),
    [
        (40, 2, True),  # two images, though 5 points
        (40, 3, False),
        (200, 2, True),  # 1 point, and two images
        (200, 3, False),
        (1000, 10, True),  # 1 point
        (1000, 11, False),
    ],
)
@pytest.mark.parametrize("name", ["sensitivity", "specificity"])
def test_rates_lose_at_most_one_point_or_two_images(name, images, lost, passed):
    """As many positive calls as the reference's: for each lost image one is gained elsewhere."""
    y = np.repeat([1, 0], images)
    reference = np.where(y == 1, 0.9, 0.1)[:, None] + np.linspace(0, 0.01, 2 * images)[:, None]
    p = reference.copy()
    p[np.flatnonzero(y == 1)[:lost]] -= 0.8
    p[np.flatnonzero(y == 0)[:lost]] += 0.8
    found = checked(y, p, reference, limits=Limits(int8_auc=1))
    gate = found[f"{name} of ill"]
    assert gate.measured == pytest.approx(lost / images)
    assert gate.limit == pytest.approx(max(0.01, 2 / images))
    assert gate.passed is passed
    assert gate.detail == f"{lost:+d} of {images} images"


def test_a_shift_of_every_probability_is_no_loss():
    """The threshold moves with the artifact: what is compared is the order."""
    y, reference = binary(120, 120)
    assert all(gate.passed for gate in checked(y, reference * 0.6, reference).values())


def test_limits_are_the_callers():
    y, reference = binary(40, 40)
    p = swapped(y, reference, 3)
    strict = checked(y, p, reference, limits=Limits(int8_images=0, int8_rate=0))
    loose = checked(y, p, reference, limits=Limits(int8_auc=1, int8_rate=0.5))
    assert not all(gate.passed for gate in strict.values())
    assert all(gate.passed for gate in loose.values())
    assert {gate.limit for name, gate in loose.items() if name != "auc"} == {0.5}


def test_matched_thresholds_make_as_many_calls():
    _, reference = binary(50, 70)
    p = reference**2 * 0.9
    found = matched_points(["ill"], p, reference, point(0.5))
    assert (p >= found["ill"]).sum() == (reference >= 0.5).sum()
    assert matched_points(["ill"], p, reference, {}) == {}


# --- other tasks ---


def test_multiclass_compares_the_answered_label():
    y = np.repeat([0, 1, 2], 50)
    reference = np.eye(3)[y] * 0.7 + 0.1
    p = reference.copy()
    p[:3] = [0.2, 0.7, 0.1]  # three of the first class are now called the second
    gates = int8_gates("a", "multiclass", ["x", "y", "z"], y, p, reference, {}, None, LIMITS)
    found = {gate.name: gate for gate in gates}
    assert len(found) == 1 + 2 * 3
    failed = {name for name, gate in found.items() if not gate.passed}
    assert "sensitivity of x" in failed
    assert found["sensitivity of x"].measured == pytest.approx(3 / 50)
    assert found["specificity of y"].measured == pytest.approx(3 / 100)
    assert failed <= {"auc", "sensitivity of x", "specificity of y"}


def test_multilabel_has_gates_for_each_label():
    random = np.random.default_rng(0)
    y = random.integers(0, 2, (300, 2))
    reference = np.clip(0.25 + 0.5 * y + random.normal(0, 0.05, y.shape), 0, 1)
    p = reference.copy()
    p[y[:, 1] == 1, 1] = random.uniform(0, 1, (y[:, 1] == 1).sum())  # one label is broken
    points = {label: OperatingPoint(0.5, "youden") for label in ("x", "y")}
    gates = int8_gates("a", "multilabel", ["x", "y"], y, p, reference, points, None, LIMITS)
    failed = {gate.name for gate in gates if not gate.passed}
    assert failed == {"auc", "sensitivity of y", "specificity of y"}
