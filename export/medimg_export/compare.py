"""Two runs or evaluations -> ``comparison.json`` and ``report.html``."""

from __future__ import annotations

from pathlib import Path

import msgspec

from medimg_edge.errors import WriteError
from medimg_edge.record import printable
from medimg_edge.whole_file import write_whole
from medimg_export.answers import FILE, Answers, read_answers
from medimg_export.comparison import Comparison, Side, common
from medimg_export.comparison import compare as compared
from medimg_export.comparison_report import write_comparison_report


def compare(a: Path, b: Path, out: Path, *, bootstrap: int = 1000) -> Comparison:
    """Compare the answers in two folders on the images that both have; write both files to ``out``.

    Raises RunError (a folder without answers), DataInvalid (other labels or truths), TooFewImages
    (no common image), WriteError (``out`` holds a run or an evaluation, or cannot be written).
    """
    answers_a, answers_b = read_answers(a), read_answers(b)
    if (out / FILE).exists():
        raise WriteError(f"{out} holds a run or an evaluation. Name another output.")
    of_a, of_b = common(answers_a, answers_b)
    name_a, name_b = _names(a, b)
    found = compared(
        _side(name_a, answers_a, of_a), _side(name_b, answers_b, of_b), of_a, of_b, bootstrap
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{out} cannot be written: {error.strerror}.") from error
    write_whole(out / "comparison.json", msgspec.json.format(msgspec.json.encode(found)))
    write_comparison_report(out / "report.html", found, of_a, of_b)
    return found


def _names(a: Path, b: Path) -> tuple[str, str]:
    """The folders' names; their paths where the names are equal."""
    a, b = a.resolve(), b.resolve()
    if a.name == b.name:
        return printable(str(a)), printable(str(b))
    return printable(a.name), printable(b.name)


def _side(name: str, every: Answers, used: Answers) -> Side:
    return Side(name, len(every.names), len(every.names) - len(used.names))
