"""What a bundle answers of radiographs that something went wrong with: the ladders of corruptions.

Run: python benchmarks/corruptions.py BUNDLE DATA [--split val] [--risk 0.05] [--unscreened]
     [--images N] [--csv FILE] [--markdown FILE] [--sheet FILE] [--looks docs/test-looks.csv]

DATA is a labelled set as for ``evaluate``, of 8-bit images; the split is taken as there. A look at
test images is said with --looks. Each image is decoded, changed by each corruption of
``corruption_ladder`` in each of its severities, written as a PNG file and given to the device's own
Classifier, without a site's profile. For each severity:

    balanced accuracy  of what was decided: answered, and not referred to a person
    ECE                of what was answered, referred or not
    rejected, referred shares of all images; the CSV says by which code
    wrong, unflagged   share of all images that were decided, and wrongly: what nobody is warned of

--markdown writes a table between two markers; of a file that has them it replaces what is between.
--sheet draws one image in all severities, a row for each corruption. Six hundred images take eight
minutes beside other work, and --images of them in proportion.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import table
from corruption_ladder import LADDER, SEVERITIES, corrupted
from numpy.typing import NDArray

from medimg_edge import Classifier, read_image
from medimg_edge.batch import in_order
from medimg_edge.bundle import Bundle
from medimg_edge.errors import MedimgEdgeError
from medimg_edge.record import Answer, Failure, failure
from medimg_edge.whole_file import write_whole
from medimg_export.calibration import ece
from medimg_export.dataset import Sample, open_dataset
from medimg_export.looks import Look, append, require_list
from medimg_export.metrics import auc
from medimg_export.prepared import encoded
from medimg_export.provenance import own_splits

BEGIN, END = "<!-- corruptions -->", "<!-- end of corruptions -->"
CLEAN = "as they are"
FEWEST = 10
"""Decided images of each class below which the table tells no accuracy; the CSV does."""

LEAST = 0.85
"""Of the balanced accuracy of images as they are: less is named below the table."""

Steps = list[tuple[str, int]]
"""Corruptions and severities; 0 for images as they are."""


@dataclass(frozen=True)
class Counts:
    """What became of the images of one severity; shares are of ``n``.

    codes: of those without an answer. decided: of each class, negative first; right: of these.
    p, y: of the answered ones.
    """

    n: int
    codes: Counter[str]
    referred: int
    decided: tuple[int, int]
    right: tuple[int, int]
    p: NDArray[np.float64]
    y: NDArray[np.int64]

    @property
    def wrong(self) -> int:
        """Decided, and wrongly."""
        return sum(self.decided) - sum(self.right)

    @property
    def balanced_accuracy(self) -> float | None:
        """Of the decided ones; None where a class has none."""
        if not all(self.decided):
            return None
        return float(np.mean([r / d for r, d in zip(self.right, self.decided, strict=True)]))

    def row(self) -> dict[str, Any]:
        """The figures, as the CSV holds them."""
        rejected = self.codes.total()
        balanced = self.balanced_accuracy
        return {
            "n": self.n,
            "rejected": f"{rejected / self.n:.4f}",
            "referred": f"{self.referred / self.n:.4f}",
            "wrong_unflagged": f"{self.wrong / self.n:.4f}",
            "decided_negative": self.decided[0],
            "decided_positive": self.decided[1],
            "balanced_accuracy": "" if balanced is None else f"{balanced:.4f}",
            "ece": f"{ece(self.p, self.y):.4f}" if len(self.p) else "",
            "codes": "; ".join(f"{code} {count}" for code, count in self.codes.most_common()),
        }


def counted(y: Sequence[int], records: Sequence[Answer | Failure]) -> Counts:
    """Add up what was answered. y: 1 where the image has the positive label."""
    answered = [
        (truth, each) for truth, each in zip(y, records, strict=True) if isinstance(each, Answer)
    ]
    decided = [(truth, each.decision == "positive") for truth, each in answered if _is_sure(each)]
    by_class = [[called == bool(truth) for truth, called in decided if truth == c] for c in (0, 1)]
    return Counts(
        n=len(y),
        codes=Counter(each.code for each in records if isinstance(each, Failure)),
        referred=len(answered) - len(decided),
        decided=(len(by_class[0]), len(by_class[1])),
        right=(sum(by_class[0]), sum(by_class[1])),
        p=np.array([each.probability for _, each in answered], np.float64),
        y=np.array([truth for truth, _ in answered], np.int64),
    )


def main() -> None:
    """Answer every severity of every corruption, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle")
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="all", choices=("train", "val", "test", "all"))
    parser.add_argument("--artifact", default="auto")
    parser.add_argument("--risk", type=float)
    parser.add_argument("--unscreened", action="store_true", help="turn nothing away by its looks")
    parser.add_argument("--images", type=int, help="so many, drawn by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(LADDER), default=list(LADDER))
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--looks", type=Path, help="a line for a look at test images")
    _run(parser.parse_args())


def _run(arguments: argparse.Namespace) -> None:
    if arguments.looks:
        require_list(arguments.looks)
    classifier = Classifier(
        Bundle.open(arguments.bundle),
        artifact=arguments.artifact,
        profile=None,
        risk=arguments.risk,
        screened=not arguments.unscreened,
    )
    if classifier.manifest.task != "binary":
        raise SystemExit("The ladders are measured of binary bundles.")
    samples = chosen(classifier, arguments)
    if arguments.sheet:
        write_sheet(arguments.sheet, samples[0], arguments.seed)
    steps = [(CLEAN, 0), *((name, severity) for name in arguments.only for severity in SEVERITIES)]
    found = list(_measured(classifier, samples, steps, arguments.seed))
    if arguments.looks:
        append(arguments.looks, _look(classifier, arguments, found[0]))
    rows = [
        {"corruption": name, "severity": severity} | counts.row()
        for (name, severity), counts in zip(steps, found, strict=True)
    ]
    if arguments.csv:
        write_csv(arguments.csv, rows)
    text = "\n".join([_caption(classifier, arguments, len(samples)), "", *markdown(rows)])
    if arguments.markdown:
        write_between(arguments.markdown, text)
    print(text)


def chosen(classifier: Classifier, arguments: argparse.Namespace) -> list[Sample]:
    """The samples of the split, or so many of them."""
    labels = classifier.manifest.labels
    dataset = open_dataset(arguments.data, positive=labels[1], task="binary").in_order(labels)
    samples = list(dataset.samples)
    if arguments.split != "all":
        own = own_splits(classifier.manifest, arguments.data, None)
        samples = [
            each
            for each in samples
            if (each.name in own[arguments.split] if own else each.split == arguments.split)
        ]
    if not samples:
        raise SystemExit(f"{arguments.data} has no images of the split {arguments.split}.")
    order = np.random.default_rng(arguments.seed).permutation(len(samples))
    return [samples[row] for row in sorted(order[: arguments.images or len(samples)])]


def _measured(
    classifier: Classifier, samples: list[Sample], steps: Steps, seed: int
) -> Iterator[Counts]:
    y = [int(sample.label) for sample in samples if isinstance(sample.label, int)]
    began = time.perf_counter()
    for at, (name, severity) in enumerate(steps, start=1):
        answer = partial(_answer, classifier, name, severity, seed)
        records = list(in_order(answer, samples, classifier.at_once()))
        yield counted(y, records)
        left = (time.perf_counter() - began) / at * (len(steps) - at)
        if sys.stderr.isatty():
            said = f"{name} {severity}, {left / 60:.1f} minutes left"
            print(f"\r{said:60}", end="", file=sys.stderr, flush=True)


def _answer(
    classifier: Classifier, name: str, severity: int, seed: int, sample: Sample
) -> Answer | Failure:
    pixels = pixels_of(sample)
    if severity:
        pixels = corrupted(pixels, name, severity, (seed, zlib.crc32(sample.name.encode())))
    try:
        return classifier.predict(as_png(pixels), name=sample.name).record
    except MedimgEdgeError as error:
        return failure(sample.name, error)


def pixels_of(sample: Sample) -> NDArray[np.uint8]:
    """The whole image, uint8 (H, W, C)."""
    pixels = read_image(encoded(sample)).frames[0]
    if pixels.dtype != np.uint8:
        raise SystemExit(f"{sample.name} has more than 8 bits; the ladders are of 8-bit images.")
    return pixels


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    """uint8 (H, W, C), grey or RGB -> the bytes of a file."""
    stored = np.ascontiguousarray(pixels[..., ::-1])
    return cv2.imencode(".png", stored, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def markdown(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each corruption, its severities one behind the other; then what to know of them.

    rows: as the CSV has them, those of images as they are first.
    """
    yield "| | balanced accuracy | ECE | rejected, % | referred, % | wrong and unflagged, % | as |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_name.setdefault(row["corruption"], []).append(row)
    for name, of in by_name.items():
        yield _line(name, of)
    (clean, *_), *ladders = by_name.values()
    yield ""
    yield from _summary(clean, ladders)


def _line(name: str, of: list[dict[str, Any]]) -> str:
    cells = [
        " ".join(_accuracy(each) for each in of),
        " ".join(_short(each["ece"]) for each in of),
        *(
            " ".join(_percent(each[what]) for each in of)
            for what in ("rejected", "referred", "wrong_unflagged")
        ),
        ", ".join(_codes(of)),
    ]
    return f"| {name} | {' | '.join(cells)} |"


def _codes(of: list[dict[str, Any]]) -> list[str]:
    """The codes of a ladder, the commonest first."""
    found: Counter[str] = Counter()
    for each in of:
        for part in filter(None, each["codes"].split("; ")):
            code, count = part.rsplit(" ", 1)
            found[code] += int(count)
    return [code for code, _ in found.most_common()]


def _summary(clean: dict[str, Any], ladders: list[list[dict[str, Any]]]) -> Iterator[str]:
    severities = list(zip(*ladders, strict=True))
    flagged = [100 * np.mean([_flagged(row) for row in of]) for of in severities]
    wrong = [100 * np.mean([float(row["wrong_unflagged"]) for row in of]) for of in severities]
    yield (
        f"Mean over the corruptions, by severity: rejected or referred {_list(flagged)} %, wrong "
        f"and unflagged {_list(wrong)} %; of images as they are {100 * _flagged(clean):.1f} and "
        f"{100 * float(clean['wrong_unflagged']):.1f} %."
    )
    more, less = (
        [of[0]["corruption"] for of in ladders if sign * (_flagged(of[-1]) - _flagged(of[0])) > 0]
        for sign in (1, -1)
    )
    yield (
        f"More is rejected or referred at the strongest severity than at the mildest of "
        f"{len(more)} of {len(ladders)} corruptions, less of {', '.join(less) or 'none'}."
    )
    yield from _falls(clean, [row for of in ladders for row in of if _is_told(row)])


def _falls(clean: dict[str, Any], told: list[dict[str, Any]]) -> Iterator[str]:
    """How far the accuracy of what is decided falls; of severities that leave enough to tell."""
    if not told or not _is_told(clean):
        return
    whole = float(clean["balanced_accuracy"])
    least = min(told, key=lambda row: float(row["balanced_accuracy"]))
    below = [row for row in told if float(row["balanced_accuracy"]) < LEAST * whole]
    named = ", ".join(f"{row['corruption']} {row['severity']}" for row in below) or "none"
    yield (
        f"Balanced accuracy of what is decided is least of {least['corruption']} "
        f"{least['severity']}, {float(least['balanced_accuracy']) / whole:.2f} of that of images "
        f"as they are; below {LEAST:g} of it: {named}."
    )
    shares = [(row, _right(row) / _right(clean)) for row in told]
    fallen = [(row, share) for row, share in shares if share < LEAST]
    listed = ", ".join(f"{row['corruption']} {row['severity']} ({s:.2f})" for row, s in fallen)
    yield (
        f"Accuracy of what is decided is {_right(clean):.3f} of images as they are; of {len(told)} "
        f"cells {len(fallen)} are below {LEAST:g} of it: {listed or 'none'}."
    )


def _right(row: dict[str, Any]) -> float:
    """Of what is decided."""
    return 1 - float(row["wrong_unflagged"]) / (1 - _flagged(row))


def _accuracy(row: dict[str, Any]) -> str:
    return _short(row["balanced_accuracy"]) if _is_told(row) else "–"


def _is_told(row: dict[str, Any]) -> bool:
    return min(int(row["decided_negative"]), int(row["decided_positive"])) >= FEWEST


def _flagged(row: dict[str, Any]) -> float:
    return float(row["rejected"]) + float(row["referred"])


def _is_sure(answer: Answer) -> bool:
    return answer.decision != "refer"


def _list(values: Sequence[Any]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def _short(value: Any) -> str:
    return f"{float(value):.3f}".removeprefix("0") if value != "" else "–"


def _percent(share: str) -> str:
    return f"{100 * float(share):.0f}"


def _caption(classifier: Classifier, arguments: argparse.Namespace, n: int) -> str:
    manifest = classifier.manifest
    risk = "no risk asked for" if arguments.risk is None else f"--risk {arguments.risk:g}"
    risk += ", unscreened" if arguments.unscreened else ""
    return (
        f"{manifest.name} {manifest.version} ({classifier.bundle.hash[:12]}), "
        f"{classifier.artifact}, {risk}; {n} images of {arguments.data.resolve().name}, split "
        f"{arguments.split}, seed {arguments.seed}, commit {table.commit()}. In each cell the "
        "severities 1 to 5."
    )


def _look(classifier: Classifier, arguments: argparse.Namespace, clean: Counts) -> Look:
    manifest = classifier.manifest
    return Look(
        bundle=manifest.name,
        version=manifest.version,
        manifest=classifier.bundle.hash,
        artifact=classifier.artifact,
        data=arguments.data.resolve().name,
        split=arguments.split,
        n=clean.n,
        auc=auc("binary", clean.y, clean.p) if len(set(clean.y.tolist())) == 2 else None,
    )


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """A line for each severity."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue().encode())


def write_between(path: Path, text: str) -> None:
    """Put ``text`` between the markers of a file; a file without them becomes the text alone."""
    before, after = "", "\n"
    if path.exists() and BEGIN in (old := path.read_text()) and END in old:
        before, after = old.split(BEGIN)[0], old.split(END, 1)[1]
    elif path.exists():
        raise SystemExit(f"{path} has no lines {BEGIN} and {END}, between which the table goes.")
    write_whole(path, f"{before}{BEGIN}\n{text}\n{END}{after}".encode())


def write_sheet(path: Path, sample: Sample, seed: int, side: int = 160) -> None:
    """One image as it is and in every severity, a row for each corruption: a PNG file."""
    pixels = pixels_of(sample)
    rows = []
    for name in LADDER:
        seeds = (seed, zlib.crc32(sample.name.encode()))
        ladder = [pixels, *(corrupted(pixels, name, each, seeds) for each in SEVERITIES)]
        row = np.hstack([_thumbnail(each, side) for each in ladder])
        strip = np.zeros((18, row.shape[1], 3), np.uint8)
        cv2.putText(strip, name, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1)
        rows += [strip, row]
    write_whole(path, as_png(np.vstack(rows)))


def _thumbnail(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    small = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
    return np.broadcast_to(small.reshape(side, side, -1), (side, side, 3)).astype(np.uint8)


if __name__ == "__main__":
    main()
