"""Whether a site's images, scores and decisions are still like those of the model's validation.

By day or week each number is compared with the reference that the bundle carries. Two conditions
make drift of a difference. It is large: the population stability index (PSI), less what chance
alone gives, is at least ``MODERATE``. And it is no chance: where nothing has changed, all numbers
of a period together raise a false alarm in at most ``ALARMS`` of the periods.

PSI = sum over bins of (a - b) ln(a / b), with a and b the shares of the period and the reference.
Without a change, n images and m of the reference, n m / (n + m) PSI follows chi-squared with
bins - 1 degrees of freedom, so that chance alone gives (bins - 1)(1/n + 1/m): Yurdakul and Naranjo,
"Statistical properties of the population stability index", 2020. .1 and .25 are the convention of
credit scoring: Siddiqi, "Credit Risk Scorecards", 2006.

Standard library only: the kiosk's service holds no numpy.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Literal

import msgspec

from medimg_edge import errors
from medimg_edge.bundle import Bundle
from medimg_edge.drift_records import Seen, moment
from medimg_edge.errors import ReferenceMissing
from medimg_edge.manifest import Histogram, Reference

FEWEST = 50
"""Images of a period, below which nothing is said: five for each of ``BINS``."""

BINS = 10
"""At most: those of the reference are joined to so many of about the same share."""

MODERATE, LARGE = 0.1, 0.25
"""Of PSI."""

ALARMS = 0.01
"""By chance, in so many of the periods, by all numbers together, at most."""

RISE = 0.05
"""Of the share that is turned away by one code: less is not told."""

SHIFT = 0.1
"""How far from one half the chance lies that a value is above one of the reference's, to be told
as higher or lower."""

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)

LOOKS = ("brightness", "contrast", "sharpness")
NOVELTY = "novelty"
PROBABILITY, DECISION, CODE = "probability of ", "decision on ", "turned away: "
ERROR = "error"
"""Stands for all codes of what is no whole image."""

_SMOOTHING = 0.5
"""Is added to each count, so that an empty bin has a logarithm."""

_LEAST = 5
"""That a bin should have of an image of each sort, for chi-squared to hold."""

By = Literal["day", "week"]
Kind = Literal["looks", "novelty", "probability", "decision", "code"]
Shift = Literal["higher", "lower", "otherwise"]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One number of a period beside the reference.

    psi: less what chance alone gives, at least 0; None for codes, and where there are too few
    images or too few bins. p: how often chance alone gives as much. shares, expected: of each
    decision, or of a code, in the period and the reference. quantiles: 10, 25, 50, 75 and 90 %.
    """

    name: str
    kind: Kind
    images: int
    is_drift: bool = False
    psi: float | None = None
    p: float | None = None
    shift: Shift = "otherwise"
    quantiles: tuple[float, ...] = ()
    shares: dict[str, float] = {}
    expected: dict[str, float] = {}

    @property
    def is_large(self) -> bool:
        """Whether it is drift that convention calls large."""
        return self.is_drift and (self.psi is None or self.psi >= LARGE)


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """A day, a week or a file.

    adapted: answered under a site profile, whose probabilities and decisions are not compared.
    at_risk: answered under --risk, whose decisions are not compared.
    """

    name: str
    images: int
    answered: int
    adapted: int
    at_risk: int
    status: Literal["too few", "no drift", "drift"]
    sentence: str
    comparisons: tuple[Comparison, ...]


class Band(msgspec.Struct, frozen=True):
    """A number of the reference: how many images, and their 10, 25, 50, 75 and 90 %."""

    images: int
    quantiles: tuple[float, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All periods. left_out: how many images, by why. alarms: as ``ALARMS``."""

    bundle: str
    version: str
    hash: str
    artifact: str
    alarms: float
    fewest: int
    reference: dict[str, Band]
    left_out: dict[str, int]
    periods: tuple[Period, ...]

    @property
    def is_drift(self) -> bool:
        """In any period."""
        return any(each.status == "drift" for each in self.periods)


def report(
    images: Mapping[str, Sequence[Seen]],
    bundle: Bundle,
    *,
    by: By = "week",
    alarms: float = ALARMS,
) -> Report:
    """Compare what was seen with the reference that a bundle carries.

    images: by file; those that have no time are one period for each file. Of several artifacts the
    one that answered most is looked at. Raises ReferenceMissing.
    """
    kept, left_out = _of_bundle(images, bundle)
    artifact = _artifact(kept, bundle)
    reference = reference_of(bundle, artifact)
    periods: dict[tuple[str, str], list[Seen]] = {}
    others = Counter[str]()
    for source, each in kept:
        if each.artifact not in (None, artifact):
            others[f"answered by {each.artifact}, not by {artifact}"] += 1
        else:
            periods.setdefault(_period(each, source, by), []).append(each)
    return Report(
        bundle=bundle.manifest.name,
        version=bundle.manifest.version,
        hash=bundle.hash,
        artifact=artifact,
        alarms=alarms,
        fewest=FEWEST,
        reference={
            name: Band(sum(each.counts), _quantiles_of(each))
            for name, each in reference.numbers.items()
        },
        left_out=left_out | others,
        periods=tuple(
            _compared(name, seen, reference, alarms)
            for (_, name), seen in sorted(periods.items(), key=lambda each: each[0][0])
        ),
    )


def reference_of(bundle: Bundle, artifact: str) -> Reference:
    """What an artifact's answers are compared with. Raises ReferenceMissing."""
    found = bundle.manifest.reference
    if found is msgspec.UNSET or artifact not in found:
        raise ReferenceMissing(
            f"The bundle {bundle.manifest.name} does not say how the images of its validation "
            f"looked to {artifact}: it was exported by a release that did not keep that. Export it "
            "again, or install a newer version of it."
        )
    return found[artifact]


def compare(
    images: Sequence[Seen], reference: Reference, alarms: float = ALARMS
) -> tuple[Comparison, ...]:
    """All numbers of the images of one period; those that are drift first, as they are told."""
    codes = rejections()
    level = alarms / (len(reference.numbers) + len(reference.decisions) + len(codes) + 1)
    found = [
        *(_number(name, each, images, level) for name, each in reference.numbers.items()),
        *(_decision(label, each, images, level) for label, each in reference.decisions.items()),
        *(_code(code, reference, images, level) for code in (*codes, ERROR)),
    ]
    return tuple(sorted(found, key=_rank))


def psi(counts: Sequence[float], reference: Sequence[float]) -> tuple[float, float]:
    """PSI less what chance alone gives, and how often chance alone gives as much.

    counts: of at least two bins, each of a sum above 0.
    """
    n, m, bins = sum(counts), sum(reference), len(counts)
    found = 0.0
    for count, other in zip(counts, reference, strict=True):
        a = (count + _SMOOTHING) / (n + _SMOOTHING * bins)
        b = (other + _SMOOTHING) / (m + _SMOOTHING * bins)
        found += (a - b) * math.log(a / b)
    chance = 1 / n + 1 / m
    return max(0.0, found - (bins - 1) * chance), chi_squared_above(found / chance, bins - 1)


def chi_squared_above(value: float, freedom: int) -> float:
    """The probability of a larger value; freedom: at least 1."""
    half = value / 2
    if half <= 0:
        return 1.0
    odd = freedom % 2
    found = math.erfc(math.sqrt(half)) if odd else math.exp(-half)
    order = 0.5 if odd else 1.0
    while order < freedom / 2:
        found += math.exp(order * math.log(half) - half - math.lgamma(order + 1))
        order += 1
    return min(1.0, found)


def rise(count: int, n: int, other: int, m: int) -> float:
    """Fisher's exact test: how often chance alone gives as many, or more, among n of n + m.

    count of n images of the period, other of m of the reference. By a binomial test the reference's
    own few images would count as if they were all that there are.
    """
    total = count + other
    whole = _log_choose(n + m, total)
    return min(
        1.0,
        sum(
            math.exp(_log_choose(n, k) + _log_choose(m, total - k) - whole)
            for k in range(max(count, total - m), min(n, total) + 1)
        ),
    )


@cache
def rejections() -> tuple[str, ...]:
    """Every code by which an image can be turned away, whether one was or not."""
    return tuple(sorted(each.code for each in _leaves(errors.Rejected)))


def sentence(name: str, comparisons: Sequence[Comparison]) -> str:
    """What is found, for a person, in one sentence; "" where there is no drift."""
    found = [each for each in comparisons if each.is_drift]
    if not found:
        return ""
    first, *rest = found
    what, advice = _words(first)
    also = f"; also {', '.join(each.name for each in rest)}" if rest else ""
    return f"{name}: {what} ({_figures(first)}{also}): {advice}."


def _of_bundle(
    images: Mapping[str, Sequence[Seen]], bundle: Bundle
) -> tuple[list[tuple[str, Seen]], dict[str, int]]:
    kept, left_out = [], Counter[str]()
    for source, every in images.items():
        for each in every:
            if each.model is None or each.model.hash == bundle.hash:
                kept.append((source, each))
            else:
                model = each.model
                left_out[
                    f"answered by another bundle, {model.name} {model.version} ({model.hash[:16]})"
                ] += 1
    return kept, dict(left_out)


def _artifact(kept: Iterable[tuple[str, Seen]], bundle: Bundle) -> str:
    found = Counter(each.artifact for _, each in kept if each.artifact is not None)
    return found.most_common(1)[0][0] if found else bundle.manifest.default_artifact


def _period(image: Seen, source: str, by: By) -> tuple[str, str]:
    """By what periods are ordered, and what they are called. Times are in UTC, as they are kept."""
    if image.time is None:
        return "", source
    time = moment(image.time)
    if by == "day":
        return (day := time.date().isoformat()), day
    year, week, _ = time.isocalendar()
    return f"{year:04}-{week:02}", f"Week {week} of {year}"


def _compared(name: str, images: Sequence[Seen], reference: Reference, alarms: float) -> Period:
    comparisons = compare(images, reference, alarms)
    answered = sum(each.status == "ok" for each in images)
    if told := sentence(name, comparisons):
        status = "drift"
    elif len(images) < FEWEST:
        status = "too few"
        told = f"{name}: too few images to say anything ({len(images)}, and {FEWEST} are needed)."
    else:
        status = "no drift"
        compared = [each.name for each in comparisons if each.psi is not None]
        listed = ", ".join([*compared, "or in what is turned away"])
        told = f"{name}: {len(images)} images, no drift found in {listed}."
    return Period(
        name=name,
        images=len(images),
        answered=answered,
        adapted=sum(each.adapted for each in images),
        at_risk=sum(each.at_risk for each in images),
        status=status,
        sentence=told,
        comparisons=comparisons,
    )


def _number(name: str, reference: Histogram, images: Sequence[Seen], level: float) -> Comparison:
    values = [each for each in map(_value_of(name), images) if each is not None]
    kind = _kind(name)
    found = Comparison(
        name=name, kind=kind, images=len(values), quantiles=_quantiles(sorted(values))
    )
    if len(values) < FEWEST:
        return found
    counts, others = _joined(_binned(values, reference.edges), reference.counts)
    if len(counts) < 2:
        return found
    index, p = psi(counts, others)
    return msgspec.structs.replace(
        found,
        psi=round(index, 4),
        p=p,
        shift=_shift(counts, others),
        is_drift=index >= MODERATE and p < level,
    )


def _decision(
    label: str, reference: Mapping[str, int], images: Sequence[Seen], level: float
) -> Comparison:
    counts = Counter(
        finding.decision
        for each in images
        if not (each.adapted or each.at_risk)
        for finding in each.findings
        if finding.label == label
    )
    n, m = counts.total(), sum(reference.values())
    every = sorted(counts.keys() | reference.keys())
    found = Comparison(
        name=f"{DECISION}{label}",
        kind="decision",
        images=n,
        shares={each: _share(counts[each], n) for each in every},
        expected={each: _share(reference.get(each, 0), m) for each in every},
    )
    if n < FEWEST or not m:
        return found
    pairs = _with_enough([(counts[each], reference.get(each, 0)) for each in every], n, m)
    if len(pairs) < 2:
        return found
    index, p = psi([each for each, _ in pairs], [each for _, each in pairs])
    return msgspec.structs.replace(
        found, psi=round(index, 4), p=p, is_drift=index >= MODERATE and p < level
    )


def _code(code: str, reference: Reference, images: Sequence[Seen], level: float) -> Comparison:
    n, m = len(images), reference.images
    is_error = code == ERROR
    count = sum(
        each.status == "error" if is_error else (each.status == "rejected" and each.code == code)
        for each in images
    )
    errors_there = sum(reference.codes.values()) - sum(
        reference.codes.get(each, 0) for each in rejections()
    )
    other = errors_there if is_error else reference.codes.get(code, 0)
    share, expected = _share(count, n), _share(other, m)
    p = rise(count, n, other, m) if n >= FEWEST else None
    return Comparison(
        name=f"{CODE}{code}",
        kind="code",
        images=n,
        p=p,
        shift="higher" if share > expected else "lower" if share < expected else "otherwise",
        shares={code: share},
        expected={code: expected},
        is_drift=p is not None and share - expected >= RISE and p < level,
    )


def _leaves(kind: type[errors.MedimgEdgeError]) -> list[type[errors.MedimgEdgeError]]:
    found = kind.__subclasses__()
    return [kind] if not found else [leaf for each in found for leaf in _leaves(each)]


def _kind(name: str) -> Kind:
    if name.startswith(PROBABILITY):
        return "probability"
    return "novelty" if name == NOVELTY else "looks"


def _value_of(name: str) -> Callable[[Seen], float | None]:
    if not name.startswith(PROBABILITY):
        return lambda image: image.measured.get(name)
    label = name.removeprefix(PROBABILITY)

    def probability(image: Seen) -> float | None:
        if image.adapted:
            return None
        return next((each.probability for each in image.findings if each.label == label), None)

    return probability


def _binned(values: Iterable[float], edges: Sequence[float]) -> list[int]:
    """What lies beyond the edges counts to the outer bins."""
    counts = [0] * (len(edges) - 1)
    for value in values:
        counts[min(max(bisect_right(edges, value) - 1, 0), len(counts) - 1)] += 1
    return counts


def _joined(counts: Sequence[int], reference: Sequence[int]) -> tuple[list[int], list[int]]:
    """Neighbouring bins joined until each has about its part of the reference.

    By the reference alone, so that nothing is chosen by what is to be judged.
    """
    total = sum(reference)
    share = max(total / min(BINS, max(1, total // _LEAST)), 1)
    joined: list[tuple[int, int]] = []
    mine = other = passed = 0
    for count, expected in zip(counts, reference, strict=True):
        mine, other, passed = mine + count, other + expected, passed + expected
        if passed >= share * (len(joined) + 1) - 0.5 and other >= share / 2:
            joined.append((mine, other))
            mine = other = 0
    if mine or other:
        last = joined.pop() if joined else (0, 0)
        joined.append((last[0] + mine, last[1] + other))
    return [each for each, _ in joined], [each for _, each in joined]


def _with_enough(pairs: list[tuple[int, int]], n: int, m: int) -> list[tuple[int, int]]:
    """Rare categories joined, until chi-squared holds; by what both have together."""
    pairs = sorted(pairs, key=sum)
    least = _LEAST * (n + m) / min(n, m)
    while len(pairs) > 1 and sum(pairs[0]) < least:
        (a, b), (c, d), *rest = pairs
        pairs = sorted([(a + c, b + d), *rest], key=sum)
    return pairs


def _shift(counts: Sequence[int], reference: Sequence[int]) -> Shift:
    """Whether a value of the period is rather above or below one of the reference."""
    below, above = 0, 0.0
    for count, other in zip(counts, reference, strict=True):
        above += count * (below + other / 2)
        below += other
    chance = above / (sum(counts) * below)
    if abs(chance - 0.5) < SHIFT:
        return "otherwise"
    return "higher" if chance > 0.5 else "lower"


def _quantiles(values: Sequence[float]) -> tuple[float, ...]:
    """Of sorted values."""
    if not values:
        return ()
    return tuple(values[round(share * (len(values) - 1))] for share in QUANTILES)


def _quantiles_of(histogram: Histogram) -> tuple[float, ...]:
    total = sum(histogram.counts)
    return tuple(_quantile(histogram, share * total) for share in QUANTILES) if total else ()


def _quantile(histogram: Histogram, wanted: float) -> float:
    passed = 0
    for low, high, count in zip(
        histogram.edges, histogram.edges[1:], histogram.counts, strict=False
    ):
        if count and passed + count >= wanted:
            return low + (high - low) * (wanted - passed) / count
        passed += count
    return histogram.edges[-1]


def _share(count: int, n: int) -> float:
    return count / n if n else 0.0


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


_ORDER: tuple[Kind, ...] = ("looks", "code", "novelty", "probability", "decision")
"""What the image is explains what the network says of it."""


def _rank(each: Comparison) -> tuple[bool, int, float]:
    return not each.is_drift, _ORDER.index(each.kind), -(each.psi or sum(each.shares.values()))


_EXPOSURE = "have the machine's exposure checked before relying on answers"
_EXPORT = "have the machine's image processing and export checked before relying on answers"
_SAMPLE = "have a clinician read some of these images and compare before relying on answers"
_THOSE = "those that the model was validated on"
_THERE = "on the images that it was validated on"
_SAID: dict[tuple[str, Shift], tuple[str, str]] = {
    ("brightness", "lower"): (f"images are darker than {_THOSE}", _EXPOSURE),
    ("brightness", "higher"): (f"images are brighter than {_THOSE}", _EXPOSURE),
    ("contrast", "lower"): (f"images have less contrast than {_THOSE}", _EXPOSURE),
    ("contrast", "higher"): (f"images have more contrast than {_THOSE}", _EXPORT),
    ("sharpness", "lower"): (f"images are more blurred than {_THOSE}", _EXPORT),
    ("sharpness", "higher"): (f"images are sharper or noisier than {_THOSE}", _EXPOSURE),
    ("novelty", "higher"): (
        f"images are less like the training images than {_THOSE}",
        "look whether they are of the kind and the patients that the model is for",
    ),
}


def _words(found: Comparison) -> tuple[str, str]:
    """What is found, and what to do."""
    name = found.name
    if found.kind == "code":
        code = name.removeprefix(CODE)
        what = (
            "more images cannot be read as whole images"
            if code == ERROR
            else f"more images are turned away as {code}"
        )
        return f"{what} than of {_THOSE}", "look at what is sent, and at how it was taken"
    if found.kind == "decision":
        label, most = name.removeprefix(DECISION), _most_changed(found)
        often = "more" if found.shares[most] > found.expected[most] else "less"
        return f"the model decides {most} for {label} {often} often than {_THERE}", _SAMPLE
    if found.kind == "probability" and found.shift != "otherwise":
        return f"the model gives a {found.shift} {name} than {_THERE}", (
            f"other patients may come, or the machine has changed; {_SAMPLE}"
        )
    other = f"{name} is spread otherwise than {_THERE}", _SAMPLE
    return _SAID.get((name, found.shift), other)


def _most_changed(found: Comparison) -> str:
    return max(found.shares, key=lambda each: abs(found.shares[each] - found.expected[each]))


def _figures(found: Comparison) -> str:
    if found.kind == "code":
        ((code, share),) = found.shares.items()
        return f"{share:.0%} of {found.images} images, and {found.expected[code]:.0%} there"
    what = f"{found.name}, " if (found.name, found.shift) in _SAID else ""
    if found.kind == "decision":
        most = _most_changed(found)
        what = f"{found.shares[most]:.0%}, and {found.expected[most]:.0%} there, "
    return f"{what}PSI {found.psi:.2f} of {found.images} images"
