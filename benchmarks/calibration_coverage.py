"""How often the intervals that `calibrate` prints hold what its profile does on new patients.

Run: python benchmarks/calibration_coverage.py [--sheets 500]

Sheets are simulated, so that the truth is known: the bundle's logit is normal with variance 1, and
its mean is `apart` higher for those with the finding (1.47: AUC .85; 0.5: AUC .64). For each case
many sheets are drawn, fitted, and measured by ``site_check.measure``, as the command does. A row
gives the share of sheets whose interval holds the true rate of their own profile: first Wilson's
interval around the cross-validated rate alone, then what is printed. Four minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from medimg_edge.errors import DataInvalid
from medimg_edge.manifest import OperatingPoint
from medimg_edge.site_calibration import Targets, fit_calibration
from medimg_edge.site_check import cross_validated, measure
from medimg_edge.site_profile import Calibration
from medimg_edge.site_rates import NAMES, Rates

PLAIN = OperatingPoint(threshold=0.5, rule="the bundle's; not used here")
WITHIN_PATIENT = 0.7
"""The share of the logit's variance that a patient's images have in common."""


@dataclass(frozen=True)
class Case:
    """A sheet: patients, the share of them with the finding, images of each, stated prevalence."""

    apart: float
    patients: int
    positive: float
    images: int = 1
    stated: float | None = None


CASES = (
    Case(1.47, 60, 0.5),
    Case(1.47, 100, 0.5),
    Case(1.47, 400, 0.5),
    Case(1.47, 200, 0.2),
    Case(0.5, 100, 0.5),
    Case(1.47, 100, 0.5, stated=0.1),
    Case(1.47, 400, 0.5, stated=0.1),
    Case(1.47, 100, 0.5, images=3),
)
ASKED = ((None, None), (0.95, None), (0.95, 0.95))


def main() -> None:
    """Print a row for each case and each target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sheets", type=int, default=500)
    count = parser.parse_args().sheets
    print(
        "AUC, patients, positive, images each, stated | targets | no rates | Wilson alone | printed"
    )
    for case in CASES:
        for sensitivity, specificity in ASKED:
            targets = Targets(sensitivity, specificity, case.stated)
            held = list(_held(case, targets, count))
            alone, printed = np.mean(held, axis=0)
            auc = NormalDist().cdf(case.apart / 2**0.5)
            print(
                f"{auc:.2f}, {case.patients}, {case.positive}, {case.images}, {case.stated} | "
                f"{sensitivity}, {specificity} | {count - len(held)} | {_row(alone)} | "
                f"{_row(printed)}",
                flush=True,
            )


def _row(shares: NDArray[np.float64]) -> str:
    return ", ".join(f"{name} {share:.3f}" for name, share in zip(NAMES, shares, strict=True))


def _held(case: Case, targets: Targets, count: int) -> Iterator[list[list[bool]]]:
    """For each sheet whose profile could be checked: which intervals hold the truth; (2, rates)."""
    generator = np.random.default_rng(7)
    for _ in range(count):
        p, y, groups = _sheet(case, generator)
        try:
            fit = fit_calibration(p, y, targets)
        except DataInvalid:
            continue
        alone = cross_validated(p, y, groups, targets)
        printed = measure(p, y, groups, PLAIN, fit, targets).profile
        if isinstance(alone, str) or printed is None:
            continue
        true = _truth(fit, targets.prevalence or float(y.mean()), case.apart)
        yield [_holds(alone, true), _holds(printed, true)]


def _sheet(
    case: Case, generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.bool_], list[str]]:
    ill = np.arange(case.patients) < round(case.patients * case.positive)
    y = np.repeat(ill, case.images)
    shared = WITHIN_PATIENT if case.images > 1 else 0.0
    own = generator.normal(0, (1 - shared) ** 0.5, len(y))
    patients = np.repeat(generator.normal(0, shared**0.5, case.patients), case.images)
    z = np.where(y, case.apart / 2, -case.apart / 2) + patients + own
    return 0.5 * (1 + np.tanh(z / 2)), y, [str(i // case.images) for i in range(len(y))]


def _truth(fit: Calibration, prevalence: float, apart: float) -> list[float]:
    """The four rates of a profile on all patients there could be, in the order of ``NAMES``."""
    low = fit.point.threshold
    high = fit.point.refer[1] if fit.point.refer else low
    cuts = [(np.log(each / (1 - each)) - fit.intercept) / fit.slope for each in (low, high)]
    ill, well = NormalDist(apart / 2), NormalDist(-apart / 2)
    negative = [each.cdf(cuts[0]) for each in (ill, well)]
    positive = [1 - each.cdf(cuts[1]) for each in (ill, well)]
    called = prevalence * positive[0] + (1 - prevalence) * positive[1]
    dismissed = prevalence * negative[0] + (1 - prevalence) * negative[1]
    return [1 - negative[0], negative[1], prevalence * positive[0] / called, 1 - called - dismissed]


def _holds(found: Rates, true: list[float]) -> list[bool]:
    rates = [getattr(found, name) for name in NAMES]
    return [
        rate.low - 1e-9 <= value <= rate.high + 1e-9
        for rate, value in zip(rates, true, strict=True)
    ]


if __name__ == "__main__":
    main()
