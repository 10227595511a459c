"""Draws a report of drift: a panel for each number, the periods from left to right.

The band of the model's validation lies behind; a period whose box leaves it has changed. What is
drift has a colour and a mark. As SVG, which is text, or as PNG, by OpenCV.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from medimg_edge.drift import Comparison, Period, Report

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WIDTH = 1080
PERIODS = 60
"""The newest, that are drawn."""

INK, SOFT, LINE, PAPER = "#1b2733", "#5a6b7b", "#d5dde5", "#ffffff"
WIDE_BAND, BAND, MIDDLE = "#e8eef4", "#d0dce8", "#7990a6"
PLAIN, DRIFT, LARGE, FEW = "#2f6690", "#d97706", "#b91c1c", "#a3afba"
SHADES = ("#b9cbdb", "#6f93b3", "#274a6b", "#8a9a5b", "#c0b283", "#9b8aa6")

_DECISIONS = {"negative": 0, "refer": 1, "positive": 2}
"""From below in a bar."""

_MARGIN, _GAP, _TITLE, _PANEL, _AXIS, _LABELS = 32, 28, 30, 150, 48, 24
_HEAD = 0.22
"""Of a panel's height, above its values: for marks."""

_PIXELS = 2
"""Of a PNG, for each unit."""

Anchor = Literal["start", "middle", "end"]


class Box(NamedTuple):
    """Filled. title: is said where a pointer rests, in an SVG."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    title: str = ""


class Stroke(NamedTuple):
    """A straight line."""

    x: float
    y: float
    to_x: float
    to_y: float
    color: str
    width: float = 1
    is_dashed: bool = False


class Mark(NamedTuple):
    """A triangle that points up; ``y`` is its lower edge."""

    x: float
    y: float
    color: str


class Words(NamedTuple):
    """One line; ``y`` is its base line."""

    x: float
    y: float
    text: str
    size: float = 12
    color: str = SOFT
    anchor: Anchor = "start"
    is_bold: bool = False


Shape = Box | Stroke | Mark | Words


class Drawing(NamedTuple):
    """What is drawn, the lowest first."""

    height: float
    shapes: list[Shape]


class Frame(NamedTuple):
    """Where a panel's values lie: x, y is the upper left corner."""

    x: float
    y: float
    width: float
    height: float


def draw(report: Report, ending: str) -> bytes:
    """The file. ending: ``.svg`` or ``.png``."""
    drawing = arranged(report)
    return svg(drawing).encode() if ending == ".svg" else png(drawing)


def arranged(report: Report) -> Drawing:
    """All panels, two beside each other, below the sentences."""
    shapes: list[Shape] = []
    y = _heading(shapes, report)
    periods = report.periods[-PERIODS:]
    width = (WIDTH - 2 * _MARGIN - _GAP) / 2
    step = _TITLE + _PANEL + _LABELS + _GAP / 2
    panels = _panels(report, periods)
    for number, (name, paint) in enumerate(panels):
        x = _MARGIN + (number % 2) * (width + _GAP)
        top = y + (number // 2) * step
        shapes.append(Words(x, top + 14, _title(name), 14, INK, is_bold=True))
        shapes += paint(Frame(x + _AXIS, top + _TITLE, width - _AXIS, _PANEL))
    rows = math.ceil(len(panels) / 2)
    return Drawing(y + rows * step + _MARGIN / 2, shapes)


def svg(drawing: Drawing) -> str:
    """Text of an SVG without anything from elsewhere."""
    height = math.ceil(drawing.height)
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}" role="img" '
            "font-family=\"system-ui, 'Noto Sans', 'Liberation Sans', sans-serif\">",
            f"<title>{_escaped(_spoken(drawing))}</title>",
            f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>',
            *map(_svg, drawing.shapes),
            "</svg>\n",
        )
    )


def png(drawing: Drawing) -> bytes:
    """Bytes of a PNG, of two pixels for each unit."""
    import cv2
    import numpy as np

    size = (math.ceil(drawing.height) * _PIXELS, WIDTH * _PIXELS, 3)
    canvas = np.full(size, 255, np.uint8)
    for each in drawing.shapes:
        _paint(canvas, each)
    return cv2.imencode(".png", canvas)[1].tobytes()


def _heading(shapes: list[Shape], report: Report) -> float:
    """Title, sentences and legend; where the panels begin."""
    title = f"{report.bundle} {report.version}: images here beside those of its validation"
    shapes.append(Words(_MARGIN, 44, title, 20, INK, is_bold=True))
    y = 70
    for color, text in _told(report):
        for line in _wrapped(text, 150):
            shapes.append(Words(_MARGIN, y, line, 13, color))
            y += 19
    y += 12
    _legend(shapes, y)
    return y + 30


def _told(report: Report) -> Iterator[tuple[str, str]]:
    """The newest sentences; what has drifted, if anything has."""
    found = [each for each in report.periods if each.status == "drift"]
    for each in found[-3:]:
        yield _color(each.comparisons[0], report.fewest), each.sentence
    if len(found) > 3:
        yield SOFT, f"Drift in {len(found)} of {len(report.periods)} periods; the newest are told."
    if not found:
        yield INK, report.periods[-1].sentence if report.periods else "No image of this bundle."
    if len(report.periods) > PERIODS:
        yield SOFT, f"The newest {PERIODS} of {len(report.periods)} periods are drawn."


def _legend(shapes: list[Shape], y: float) -> None:
    x = float(_MARGIN)
    shapes += [
        Box(x, y - 11, 30, 14, WIDE_BAND),
        Box(x, y - 8, 30, 8, BAND),
        Stroke(x, y - 4, x + 30, y - 4, MIDDLE, 1.5, is_dashed=True),
        Words(x + 38, y, "validation: 10 to 90 %, 25 to 75 %, middle"),
    ]
    x += 310
    for color, text, width in (
        (PLAIN, "no drift", 90),
        (DRIFT, "drift", 80),
        (LARGE, "large drift", 110),
        (FEW, "too few images", 120),
    ):
        shapes.append(Box(x, y - 10, 12, 12, color))
        if color in (DRIFT, LARGE):
            shapes.append(Mark(x + 22, y + 1, color))
            x += 14
        shapes.append(Words(x + 20, y, text))
        x += width


def _panels(
    report: Report, periods: Sequence[Period]
) -> list[tuple[str, Callable[[Frame], list[Shape]]]]:
    """What each is of, and what paints it."""
    names = [name for name, band in report.reference.items() if band.quantiles]
    by_name = [{each.name: each for each in period.comparisons} for period in periods]
    decisions = sorted(
        {each.name for found in by_name for each in found.values() if each.kind == "decision"}
    )
    found: list[tuple[str, Callable[[Frame], list[Shape]]]] = []
    for name in sorted(names, key=_rank):
        of_number = [each.get(name) for each in by_name]
        found.append(
            (name, lambda at, name=name, of=of_number: _values(at, report, periods, name, of))
        )
    for name in decisions:
        of_decision = [each.get(name) for each in by_name]
        found.append((name, lambda at, of=of_decision: _decisions(at, report, periods, of)))
    found.append(("turned away", lambda at: _codes(at, report, periods)))
    return found


def _rank(name: str) -> tuple[int, str]:
    known = ("brightness", "contrast", "sharpness", "novelty")
    return known.index(name) if name in known else len(known), name


def _title(name: str) -> str:
    explained = {
        "brightness": "Brightness, mean grey level",
        "contrast": "Contrast, standard deviation of grey levels",
        "sharpness": "Sharpness, mean difference of neighbours",
        "novelty": "Novelty, 1 is turned away",
        "turned away": "Turned away or unreadable, share of images",
    }
    return explained.get(name, name[:1].upper() + name[1:])


def _values(
    at: Frame,
    report: Report,
    periods: Sequence[Period],
    name: str,
    found: Sequence[Comparison | None],
) -> list[Shape]:
    band = report.reference[name].quantiles
    every = [*band, *(value for each in found if each for value in each.quantiles)]
    low, high = min(every), max(every)
    room = (high - low or abs(high) or 1) * 0.06
    scale = _Scale(at, low - room, high + room)
    shapes = [
        Box(at.x, scale.y(band[4]), at.width, scale.y(band[0]) - scale.y(band[4]), WIDE_BAND),
        Box(at.x, scale.y(band[3]), at.width, scale.y(band[1]) - scale.y(band[3]), BAND),
        Stroke(at.x, scale.y(band[2]), at.x + at.width, scale.y(band[2]), MIDDLE, 1.5, True),
        *scale.axis(_plain),
    ]
    slots = _Slots(at.x, at.width, len(periods))
    for number, (period, each) in enumerate(zip(periods, found, strict=True)):
        if each is not None and each.quantiles:
            shapes += _whiskers(slots, number, scale, each, period, report.fewest)
    return shapes + _labels(slots, at, periods)


def _whiskers(
    slots: _Slots, number: int, scale: _Scale, each: Comparison, period: Period, fewest: int
) -> Iterator[Shape]:
    x, width = slots.middle(number), slots.box
    p10, p25, p50, p75, p90 = (scale.y(value) for value in each.quantiles)
    color = _color(each, fewest)
    title = f"{period.name}: {each.name} {each.quantiles[2]:.3g} of {each.images} images"
    title += f", PSI {each.psi:.2f}" if each.psi is not None else ""
    yield Stroke(x, p90, x, p10, color, 2)
    yield Box(x - width / 2, p75, width, max(2.0, p25 - p75), color, title=title)
    yield Stroke(x - width / 2, p50, x + width / 2, p50, PAPER, 2)
    if each.is_drift:
        yield from _flag(slots, x, p90, f"{each.psi:.2f}", color)


def _decisions(
    at: Frame, report: Report, periods: Sequence[Period], found: Sequence[Comparison | None]
) -> list[Shape]:
    """Stacked, the validation first."""
    scale = _Scale(at, 0, 1)
    first = next(each for each in found if each)
    every = {name for each in found if each for name in (*each.expected, *each.shares)}
    ordered = sorted(every, key=lambda name: (_DECISIONS.get(name, 0), name))
    shades: dict[str, str] = dict(zip(ordered, SHADES * len(ordered), strict=False))
    slots = _Slots(at.x, at.width, len(periods) + 1)
    shapes = [*scale.axis(_percent), *_stack(slots, 0, scale, first.expected, shades, "validation")]
    for number, (period, each) in enumerate(zip(periods, found, strict=True), 1):
        if each is None or not each.images:
            continue
        shapes += _stack(slots, number, scale, each.shares, shades, period.name)
        if each.is_drift:
            color = _color(each, report.fewest)
            shapes += _flag(slots, slots.middle(number), scale.y(1), f"{each.psi:.2f}", color)
    x = at.x + at.width
    for name, shade in reversed(shades.items()):
        shapes.append(Words(x, at.y - 16, name, 11, anchor="end"))
        x -= _wide(name, 11) + 16
        shapes.append(Box(x, at.y - 25, 10, 10, shade))
        x -= 10
    return shapes + _labels(slots, at, periods, "validation")


def _stack(
    slots: _Slots,
    number: int,
    scale: _Scale,
    shares: dict[str, float],
    shades: dict[str, str],
    name: str,
) -> Iterator[Shape]:
    passed = 0.0
    for label in shades:
        if share := shares.get(label, 0):
            top, bottom = scale.y(passed + share), scale.y(passed)
            x = slots.middle(number) - slots.box / 2
            title = f"{name}: {label} {share:.1%}"
            yield Box(x, top, slots.box, bottom - top, shades[label], title=title)
            passed += share


def _codes(at: Frame, report: Report, periods: Sequence[Period]) -> list[Shape]:
    """A bar of all codes; which of them has risen is written above it."""
    every = [[each for each in period.comparisons if each.kind == "code"] for period in periods]
    totals = [sum(sum(each.shares.values()) for each in found) for found in every]
    expected = sum(sum(each.expected.values()) for each in every[0]) if every else 0.0
    scale = _Scale(at, 0, max(0.1, expected, *totals))
    slots = _Slots(at.x, at.width, len(periods))
    line = scale.y(expected)
    shapes: list[Shape] = [*scale.axis(_percent)]
    for number, (period, found, total) in enumerate(zip(periods, every, totals, strict=True)):
        risen = [each for each in found if each.is_drift]
        few = period.images < report.fewest
        color = LARGE if risen else FEW if few else PLAIN
        x, top = slots.middle(number), scale.y(total)
        told = [
            f"{code} {share:.1%}" for each in found for code, share in each.shares.items() if share
        ]
        title = f"{period.name}: {', '.join(told) or 'none'} of {period.images} images"
        shapes.append(Box(x - slots.box / 2, top, slots.box, scale.y(0) - top, color, title=title))
        if risen:
            code = max(risen, key=lambda each: sum(each.shares.values())).shares
            shapes += _flag(slots, x, top, next(iter(code)), color)
    shapes.append(Stroke(at.x, line, at.x + at.width, line, MIDDLE, 1.5, True))
    return shapes + _labels(slots, at, periods)


def _flag(slots: _Slots, x: float, y: float, text: str, color: str) -> Iterator[Shape]:
    """A mark, and the figure where there is room."""
    yield Mark(x, y - 4, color)
    if _wide(text, 11) <= slots.step * 1.1:
        yield Words(x, y - 17, text, 11, color, "middle", is_bold=True)


def _labels(slots: _Slots, at: Frame, periods: Sequence[Period], first: str = "") -> list[Shape]:
    """Of the periods: so many as have room."""
    names = [first] * bool(first) + [_short(each.name) for each in periods]
    widest = max((_wide(each, 11) for each in names), default=0) + 10
    each_of = max(1, math.ceil(widest / slots.step))
    shown = list(range(len(names) - 1, -1, -each_of))
    if first:
        shown = [each for each in shown if each >= each_of] + [0]
    y = at.y + at.height + 17
    return [Words(slots.middle(each), y, names[each], 11, anchor="middle") for each in shown]


def _short(name: str) -> str:
    words = name.split()
    if words[:1] == ["Week"] and len(words) == 4:
        return f"W{words[1]}"
    if name[:4].isdigit() and len(name) == 10:
        return name[5:]
    last = name.replace("\\", "/").rpartition("/")[2]
    return last if len(last) <= 22 else f"{last[:10]}...{last[-9:]}"


class _Scale:
    """From values to the height of a frame."""

    def __init__(self, at: Frame, low: float, high: float) -> None:
        self._at, self._low = at, low
        self._high = high + (high - low) * _HEAD / (1 - _HEAD)
        self._shown = high

    def y(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return self._at.y + self._at.height * (1 - share)

    def axis(self, told: Callable[[float, float], str]) -> Iterator[Shape]:
        """A base line, and a few round values."""
        step = _round_step((self._shown - self._low) / 4)
        value = math.ceil(self._low / step - 1e-9) * step
        right = self._at.x + self._at.width
        while value <= self._shown + 1e-9:
            y = self.y(value)
            yield Stroke(self._at.x - 4, y, self._at.x, y, SOFT)
            yield Words(self._at.x - 8, y + 4, told(value, step), 11, anchor="end")
            value += step
        bottom = self._at.y + self._at.height
        yield Stroke(self._at.x, self._at.y, self._at.x, bottom, LINE)
        yield Stroke(self._at.x, bottom, right, bottom, SOFT)


class _Slots:
    """Places for periods, from left to right."""

    def __init__(self, x: float, width: float, count: int) -> None:
        self._x, self.step = x, width / max(1, count)
        self.box = min(30.0, self.step * 0.62)

    def middle(self, number: int) -> float:
        return self._x + (number + 0.5) * self.step


def _color(each: Comparison, fewest: int) -> str:
    if each.is_drift:
        return LARGE if each.is_large else DRIFT
    return FEW if each.images < fewest else PLAIN


def _round_step(wanted: float) -> float:
    """1, 2 or 5 of a power of ten, the next above."""
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(each * power for each in (1, 2, 5, 10) if each * power >= wanted * 0.999)


def _plain(value: float, step: float) -> str:
    return f"{value:.{max(0, -math.floor(math.log10(step)))}f}"


def _percent(value: float, step: float) -> str:
    return f"{100 * value:.{max(0, -math.floor(math.log10(100 * step)))}f} %"


def _wide(text: str, size: float) -> float:
    """About how wide it is drawn."""
    return sum(1.0 if ord(each) > 0x2E80 else 0.56 for each in text) * size


def _wrapped(text: str, characters: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= characters:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _spoken(drawing: Drawing) -> str:
    return " ".join(each.text for each in drawing.shapes[:4] if isinstance(each, Words))


def _escaped(text: str) -> str:
    return escape("".join(each for each in text if each.isprintable()))


def _svg(shape: Shape) -> str:
    match shape:
        case Box(x, y, width, height, fill, title):
            start = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
            inside = f"><title>{_escaped(title)}</title></rect>" if title else "/>"
            return f'{start} fill="{fill}"{inside}'
        case Stroke(x, y, to_x, to_y, color, width, is_dashed):
            dashes = ' stroke-dasharray="6 4"' if is_dashed else ""
            return (
                f'<path d="M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}" stroke="{color}" '
                f'stroke-width="{width}"{dashes}/>'
            )
        case Mark(x, y, color):
            return f'<path d="M{x - 5:.1f} {y:.1f}h10l-5 -9z" fill="{color}"/>'
        case Words(x, y, text, size, color, anchor, is_bold):
            weight = ' font-weight="600"' if is_bold else ""
            return (
                f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{color}" '
                f'text-anchor="{anchor}"{weight}>{_escaped(text)}</text>'
            )


def _paint(canvas: NDArray[np.uint8], shape: Shape) -> None:
    import cv2
    import numpy as np

    match shape:
        case Box(x, y, width, height, fill):
            ends = _at(x, y), _at(x + width, y + height)
            cv2.rectangle(canvas, *ends, _bgr(fill), cv2.FILLED)
        case Stroke(x, y, to_x, to_y, color, width, is_dashed):
            for start, end in _dashes(x, to_x) if is_dashed else [(x, to_x)]:
                ends = _at(start, y), _at(end, to_y)
                cv2.line(canvas, *ends, _bgr(color), round(width * _PIXELS))
        case Mark(x, y, color):
            corners = np.array([_at(x - 5, y), _at(x + 5, y), _at(x, y - 9)], np.int32)
            cv2.fillPoly(canvas, [corners], _bgr(color), cv2.LINE_AA)
        case Words():
            _write(canvas, shape)


def _write(canvas: NDArray[np.uint8], words: Words) -> None:
    """With OpenCV 5 by its own typeface, which knows many scripts; before, by strokes in ASCII."""
    import cv2

    typeface: Any = getattr(cv2, "FontFace", None)
    text = "".join(each for each in words.text if each.isprintable())
    size, color = round(words.size * _PIXELS), _bgr(words.color)
    if typeface is not None:
        face, weight = typeface("sans"), 600 if words.is_bold else 400
        wide = cv2.getTextSize((0, 0), text, (0, 0), face, size, weight)[2]
        cv2.putText(canvas, text, _start(words, wide), color, face, size, weight)
        return
    plain = text.encode("ascii", "replace").decode()
    stroked = cv2.FONT_HERSHEY_SIMPLEX, size / 30
    wide = cv2.getTextSize(plain, *stroked, 2)[0][0]
    cv2.putText(canvas, plain, _start(words, wide), *stroked, color, 2, cv2.LINE_AA)


def _start(words: Words, wide: int) -> tuple[int, int]:
    """Where the first letter is written; wide: in pixels."""
    x, y = _at(words.x, words.y)
    return x - {"start": 0, "middle": wide // 2, "end": wide}[words.anchor], y


def _dashes(start: float, end: float) -> Iterator[tuple[float, float]]:
    while start < end:
        yield start, min(start + 6, end)
        start += 10


def _at(x: float, y: float) -> tuple[int, int]:
    return round(x * _PIXELS), round(y * _PIXELS)


def _bgr(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color[1:])
    return blue, green, red
