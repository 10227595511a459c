"""Decisions about one label -> what they reach, each share with its 95 % interval.

Runs on the device: numpy, no training framework, no network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
Share = TypeVar("Share", float, NDArray[np.float64])

NAMES = ("sensitivity", "specificity", "ppv", "referred")
Z = 1.959964
"""The 97.5th percentile of the normal distribution."""
LIMITS = 0.025, 0.975
DRAWS = 4000


@dataclass(frozen=True)
class Rate:
    """A share of ``n`` images of ``patients`` with its 95 % interval; None where n is 0."""

    value: float | None
    low: float
    high: float
    n: int
    patients: int

    def widened(self, other: Rate) -> Rate:
        """With an interval that holds the other's, too."""
        return replace(self, low=min(self.low, other.low), high=max(self.high, other.high))


@dataclass(frozen=True)
class Rates:
    """How decisions about one label turn out.

    sensitivity: of the images with the finding, those not called negative.
    specificity: of those without, those called negative.
    ppv: of the images called positive, those with the finding.
    referred: of all images, those left to a person.
    """

    sensitivity: Rate
    specificity: Rate
    ppv: Rate
    referred: Rate

    def widened(self, other: Rates) -> Rates:
        """Each with an interval that holds the other's, too."""
        return Rates(*(getattr(self, name).widened(getattr(other, name)) for name in NAMES))


def rates(
    y: Flags, decisions: list[str], groups: list[str], prevalence: float | None = None
) -> Rates:
    """The rates of decisions about images of which ``y`` have the finding.

    groups: the patient of each; intervals count patients, not images.
    prevalence: where so many have the finding, for ppv and referred; None: as among ``y``.
    """
    called, names = np.array(decisions), np.array(groups)
    positive, negative = called == "positive", called == "negative"
    refer = ~positive & ~negative

    def rate(hit: Flags, among: Flags) -> Rate:
        n = int(among.sum())
        return wilson(int((hit & among).sum()), n, len(set(names[among].tolist())))

    ppv, referred = rate(y, positive), rate(refer, np.ones_like(y))
    if prevalence is not None:
        ppv = _stated(ppv, bayes, (rate(positive, y), rate(positive, ~y)), prevalence)
        referred = _stated(referred, mixed, (rate(refer, y), rate(refer, ~y)), prevalence)
    return Rates(rate(~negative, y), rate(negative, ~y), ppv, referred)


def bayes(ill: Share, well: Share, prevalence: float) -> Share:
    """Of those called positive, the share that is ill; from the share of each that is called so."""
    return ill * prevalence / (ill * prevalence + well * (1 - prevalence))


def mixed(ill: Share, well: Share, prevalence: float) -> Share:
    """A share of all, from its share of the ill and of the well."""
    return ill * prevalence + well * (1 - prevalence)


def wilson(count: int, n: int, effective: int) -> Rate:
    """``count`` of ``n`` with Wilson's interval (1927) for ``effective`` independent draws."""
    if n == 0:
        return Rate(None, 0.0, 1.0, 0, 0)
    rate, m = count / n, effective
    centre = (rate + Z**2 / (2 * m)) / (1 + Z**2 / m)
    half = Z * sqrt(rate * (1 - rate) / m + Z**2 / (4 * m**2)) / (1 + Z**2 / m)
    return Rate(rate, max(0.0, centre - half), min(1.0, centre + half), n, m)


def _stated(
    counted: Rate,
    share: Callable[..., Any],
    classes: tuple[Rate, Rate],
    prevalence: float,
) -> Rate:
    """A share at another prevalence, from that of the ill and of the well.

    Its interval: both may be what Jeffreys' posterior holds (Brown, Cai, DasGupta 2001), drawn.
    """
    if counted.n == 0:
        return counted
    rng = np.random.default_rng(0)
    values = [each.value or 0.0 for each in classes]
    drawn = [
        rng.beta(value * each.patients + 0.5, (1 - value) * each.patients + 0.5, DRAWS)
        for value, each in zip(values, classes, strict=True)
    ]
    value = share(*values, prevalence)
    low, high = np.quantile(share(*drawn, prevalence), LIMITS).tolist()
    return Rate(value, min(low, value), max(high, value), counted.n, counted.patients)
