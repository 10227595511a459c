"""What a site's images are compared with by ``drift``: how validation looked to the device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from medimg_edge.manifest import Histogram, Manifest, Reference
from medimg_edge.record import Answer, Failure

BINS = 10
"""Of equal counts; the outer ones are open."""


def reference(manifest: Manifest, records: Iterable[Answer | Failure]) -> Reference:
    """Of one artifact's records."""
    told = list(records)
    numbers: dict[str, list[float]] = {}
    decisions: dict[str, Counter[str]] = {label: Counter() for label in manifest.findings}
    for each in told:
        if each.measured is not None:
            for name in ("brightness", "contrast", "sharpness", "novelty"):
                if (value := getattr(each.measured, name)) is not None:
                    numbers.setdefault(name, []).append(value)
        if isinstance(each, Answer):
            for finding in each.findings:
                decisions[finding.label][finding.decision] += 1
                numbers.setdefault(f"probability of {finding.label}", []).append(
                    finding.probability
                )
    return Reference(
        images=len(told),
        numbers={name: histogram(values) for name, values in numbers.items()},
        decisions={label: dict(counts) for label, counts in decisions.items()},
        codes=dict(Counter(each.code for each in told if isinstance(each, Failure))),
    )


def histogram(values: list[float]) -> Histogram:
    """Bins of about as many values each; where many are equal there are fewer bins."""
    inner = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
    counts = np.bincount(np.searchsorted(inner, values, "right"), minlength=len(inner) + 1)
    low, high = min(values), max(values)
    edges = [min(low, float(inner[0])), *inner.tolist(), max(high, float(inner[-1]))]
    return Histogram(tuple(float(each) for each in edges), tuple(counts.tolist()))
