"""From scores to probabilities that mean something."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from medimg_edge.errors import NotFinite
from medimg_edge.manifest import Task
from medimg_edge.operating_point import between, cuts
from medimg_edge.site_profile import logit

Floats = NDArray[np.float64]

BINS = 15  # as in Guo et al. 2017
TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True)
class Bins:
    """A reliability diagram: one entry per bin of equal width over [0, 1]."""

    count: NDArray[np.int64]
    mean: Floats  # mean probability; NaN in an empty bin
    rate: Floats  # observed share of positives; NaN in an empty bin


def fit_temperature(task: Task, logits: ArrayLike, y: ArrayLike) -> float:
    """The T in [0.05, 20] for which sigmoid(logits / T), or softmax, fits ``y`` best.

    ``logits`` is float, shape (N, C), C = 1 for binary; ``y`` as in ``metrics.evaluate``.
    Temperature scaling is from Guo et al. 2017 (On Calibration of Modern Neural Networks): one
    number, so ranks and AUC stay as they are.

    The minimised value is the summed negative log likelihood plus (log T)² / 2, a weak prior
    around T = 1. On ordinary validation data it weighs less than one image. Where the data are
    perfectly separable the likelihood alone would send T to 0 (or, perfectly wrong, to
    infinity); the prior ends that as soon as there is next to nothing to gain. A label that
    every image has, or none, says nothing of how sure to be and is left out; when none remains,
    T is 1.

    Raises NotFinite for logits that are NaN or infinite.
    """
    z = np.asarray(logits, dtype=np.float64)
    truth = np.asarray(y)
    if not np.isfinite(z).all():
        raise NotFinite("A logit on validation is NaN or infinite: the training has diverged.")
    if task == "multiclass":
        return _fit(lambda t: _softmax_loss(z / t, truth)) if len(np.unique(truth)) > 1 else 1.0
    z, truth = z.reshape(len(z), -1), truth.reshape(len(truth), -1).astype(bool)
    informative = truth.any(axis=0) & ~truth.all(axis=0)
    if not informative.any():
        return 1.0
    margin = np.where(truth, z, -z)[:, informative]
    return _fit(lambda t: float(np.logaddexp(0, -margin / t).sum()))


def untempered(task: Task, p: Floats, temperature: float) -> Floats:
    """The probabilities at temperature 1, from ``p`` (N, C) of logits divided by ``temperature``.

    Temperature scaling (Guo et al. 2017) undone: a logit is the temperature times that of p, the
    logarithm of p for softmax, which forgets what all logits share.
    """
    if task == "multiclass":
        return softmax(temperature * np.log(np.maximum(p, np.finfo(np.float32).tiny)), axis=1)
    return 0.5 * (1 + np.tanh(logit(p) * temperature / 2))


def _fit(loss: Callable[[float], float]) -> float:
    low, high = (math.log(bound) for bound in TEMPERATURES)
    found = minimize_scalar(
        lambda log_t: loss(math.exp(log_t)) + log_t**2 / 2,
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(math.exp(found.x))


def _softmax_loss(z: Floats, y: NDArray) -> float:
    shifted = z - z.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(shifted).sum(axis=1))
    return float((log_total - shifted[np.arange(len(y)), y]).sum())


def bin_index(p: ArrayLike, bins: int = BINS) -> NDArray[np.int64]:
    """The bin of each probability: bin m of M is ((m - 1) / M, m / M], and 0 is in the first."""
    index = np.ceil(np.asarray(p, dtype=np.float64) * bins).astype(np.int64) - 1
    return np.clip(index, 0, bins - 1)


def reliability(p: ArrayLike, y: ArrayLike, bins: int = BINS) -> Bins:
    """Mean probability and observed rate per bin; ``p`` in [0, 1] and ``y`` 0/1, both (N,)."""
    index = bin_index(p, bins)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(index, weights=np.asarray(p, np.float64), minlength=bins) / count
        rate = np.bincount(index, weights=np.asarray(y, np.float64), minlength=bins) / count
    return Bins(count, mean, rate)


def ece(p: ArrayLike, y: ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error, in [0, 1]; ``p`` and ``y`` (0/1) have shape (N,), N > 0.

    The sum over bins of equal width of count / N times |mean p - observed rate| (Naeini et al.
    2015). For a binary task p is the probability of the positive label. Given the probability
    of the answered label and whether it was right, it is the confidence ECE of Guo et al. 2017.
    With few images it is biased upwards: noise within a bin counts as an error.
    """
    found = reliability(p, y, bins)
    filled = found.count > 0
    gap = np.abs(found.mean - found.rate)[filled]
    return float((gap * found.count[filled]).sum() / found.count.sum())


def matching_threshold(p_ref: ArrayLike, threshold_ref: float, p_new: ArrayLike) -> float:
    """The threshold on ``p_new`` that makes as many positive calls as ``threshold_ref`` on p_ref.

    Both of N values in [0, 1], N > 0, for the same images. It is ``threshold_ref`` itself where
    that does it, for it may have been chosen on more than these images; otherwise it lies midway
    between neighbouring scores. Where a tie in ``p_new`` prevents the exact number, the nearest
    possible one is taken, and of two equally near the larger: a miss is worse than a second look.
    """
    wanted = int(np.count_nonzero(np.ravel(p_ref) >= threshold_ref))
    score = np.ravel(p_new).astype(np.float64)
    above, below = cuts(score)
    if score.max() < 1:  # a threshold above every score exists
        above, below = np.append(above, 1.0), np.append(below, score.max())
    calls = len(score) - np.searchsorted(np.sort(score), above)
    best = np.lexsort((calls, -np.abs(calls - wanted)))[-1]
    low, high = float(below[best]), float(above[best])
    return threshold_ref if low < threshold_ref <= high else between(low, high)
