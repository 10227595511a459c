"""The distances, against the formulas that they are named after, in float64."""

from __future__ import annotations

import numpy as np
import pytest

from medimg_edge.errors import ManifestInvalid
from medimg_edge.novelty import AXES, method, relative, scaled

D, K, C = 12, 4, 3
RNG = np.random.default_rng(3)


def arrays(name: str) -> dict[str, np.ndarray]:
    basis = np.linalg.qr(RNG.normal(size=(D, K)))[0].T
    every = {
        "means": scaled(RNG.normal(size=(2, D)).astype(np.float32)),
        "basis": basis,
        "variances": np.array([5, 2, 1, 0.5, 0.1]),
        "bank": scaled(RNG.normal(size=(40, D)).astype(np.float32)),
        "kernel": RNG.normal(size=(C, D)),
        "bias": RNG.normal(size=C),
        "origin": RNG.normal(size=D),
        "weight": np.array([0.7]),
    }
    return {array: np.asarray(every[array], np.float32) for array in AXES[name]}


def embeddings(count: int = 20) -> np.ndarray:
    return RNG.normal(size=(count, D)).astype(np.float32)


def test_mahalanobis_is_that_of_the_whole_covariance():
    found = arrays("mahalanobis")
    basis, variances = (found[name].astype(np.float64) for name in ("basis", "variances"))
    rest = np.eye(D) - basis.T @ basis
    inverse = basis.T @ np.diag(1 / variances[:-1]) @ basis + rest / variances[-1]
    distance = method("mahalanobis", found, "binary", D)
    for each in embeddings():
        away = scaled(each) - found["means"]
        expected = np.einsum("ij,jk,ik->i", away, inverse, away).min()
        assert distance(each) == pytest.approx(expected, rel=1e-4)
        assert distance(3 * each) == pytest.approx(distance(each), rel=1e-4)


def test_knn_is_the_tenth_nearest():
    found = arrays("knn")
    distance = method("knn", found, "binary", D)
    for each in embeddings():
        expected = np.sort(np.linalg.norm(found["bank"] - scaled(each), axis=1))[9]
        assert distance(each) == pytest.approx(expected, rel=1e-4)
    few = method("knn", {"bank": found["bank"][:3]}, "binary", D)
    assert few(found["bank"][0]) > 0


def test_energy_by_task():
    found = arrays("energy")
    each = embeddings(1)[0]
    logits = found["kernel"] @ each + found["bias"]
    assert method("energy", found, "multiclass", D)(each) == pytest.approx(
        -np.log(np.exp(logits).sum()), rel=1e-5
    )
    assert method("energy", found, "multilabel", D)(each) == pytest.approx(
        -np.log1p(np.exp(logits)).sum(), rel=1e-5
    )
    one = {"kernel": found["kernel"][:1], "bias": found["bias"][:1]}
    assert method("energy", one, "binary", D)(each) == pytest.approx(
        -np.log(np.exp(logits[0] / 2) + np.exp(-logits[0] / 2)), rel=1e-5
    )


def test_vim_is_the_rest_and_the_energy():
    found = arrays("vim")
    distance = method("vim", found, "multiclass", D)
    energy = method("energy", found, "multiclass", D)
    for each in embeddings():
        away = each - found["origin"]
        outside = np.linalg.norm(away - found["basis"].T @ (found["basis"] @ away))
        assert distance(each) == pytest.approx(0.7 * outside + energy(each), rel=1e-4)


@pytest.mark.parametrize("name", AXES)
def test_zeros_and_huge_values_give_a_number(name):
    distance = method(name, arrays(name), "multiclass", D)
    for each in (np.zeros(D, np.float32), np.full(D, 1e15, np.float32)):
        assert np.isfinite(distance(each))


@pytest.mark.parametrize("name", AXES)
def test_arrays_that_do_not_fit(name):
    whole = arrays(name)
    for array, values in whole.items():
        for wrong in (None, values[:0], values[None], values[..., :-1]):
            changed = {**whole, array: wrong} if wrong is not None else dict(whole)
            if wrong is None:
                del changed[array]
            if wrong is not None and wrong.size and wrong.ndim == values.ndim:
                alone = set(AXES[name][array]) - {"D", "1", "K", "V", "C"}
                if alone and AXES[name][array][-1] in alone:
                    continue  # a shorter bank is a bank
            with pytest.raises(ManifestInvalid, match="novelty"):
                method(name, changed, "multiclass", D)


def test_an_embedding_of_another_length():
    with pytest.raises(ManifestInvalid, match="does not fit"):
        method("knn", arrays("knn"), "binary", D + 1)


def test_the_limit_reads_one():
    assert relative(2.0, 4.0) == 0.5
    assert relative(4.0, 4.0) == 1
    assert relative(-3.0, -3.0) == 1
    assert relative(-2.0, -3.0) == 2


@pytest.mark.parametrize("value", [0.0, -0.1])
def test_variances_are_above_zero(value):
    found = arrays("mahalanobis")
    found["variances"][1] = value
    with pytest.raises(ManifestInvalid, match="variances"):
        method("mahalanobis", found, "binary", D)
