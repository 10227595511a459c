"""What a DICOM report and picture of an answer cost: time and memory, the first and later ones.

Run: python benchmarks/dicom_results.py [IMAGE.dcm] [--bundle B] [--count 50] [--processes 5]

Each row is the median of so many processes of its own, which have answered the image twice, and
then make the files of that answer once, and ``--count`` times more. The first time loads pydicom's
writer and highdicom. The image is by default one that pydicom brings. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from pathlib import Path

from processes import ENVIRONMENT, python, resident

from medimg_edge.models import DEFAULT

ROWS = {"report (sr)": ["sr"], "picture (sc)": ["sc"], "both": ["sr", "sc"]}


def main() -> None:
    """Print the table; as a child of itself, one process's numbers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("image", type=Path, nargs="?")
    parser.add_argument("--bundle", default=DEFAULT)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    image = options.image or shipped()
    if options.kinds:
        print(json.dumps(measured(image, options.bundle, options.kinds, options.count)))
        return
    print("| | warm process | the first adds | the first takes | each later one | bytes |")
    print("| --- | --- | --- | --- | --- | --- |")
    words = [image, "--bundle", options.bundle, "--count", options.count]
    for name, kinds in ROWS.items():
        found = []
        for _ in range(options.processes):
            child = python(__file__, *words, "--kinds", *kinds)
            done = subprocess.run(child, env=ENVIRONMENT, capture_output=True, check=True)
            found.append(json.loads(done.stdout))
        warm, more, first, later, size = map(statistics.median, zip(*found, strict=True))
        print(
            f"| {name} | {warm / 1e6:.0f} MB | {more / 1e6:.1f} MB | {first * 1e3:.0f} ms | "
            f"{later * 1e3:.1f} ms | {size:,.0f} |"
        )


def shipped() -> Path:
    """A CT slice of 128 x 128 pixels."""
    from pydicom.data import get_testdata_file

    return Path(str(get_testdata_file("CT_small.dcm", download=False)))


def measured(image: Path, bundle: str, kinds: list[str], count: int) -> list[float]:
    """Bytes when warm, bytes that the first one adds, its seconds, a later one's, bytes made."""
    from medimg_edge import Classifier

    classifier = Classifier(bundle, force=True, profile=None)
    data = image.read_bytes()
    prediction = [classifier.predict(data) for _ in range(2)][-1]
    warm, more, seconds, size = resident(os.getpid()), 0, [], 0
    for at in range(count + 1):
        started = time.perf_counter()
        from medimg_edge.dicom.answer import results

        made = results.make(
            data,
            prediction,
            classifier.manifest,
            classifier.points,
            identifier="1.2.3",
            kinds=kinds,
        )
        seconds.append(time.perf_counter() - started)
        if at == 0:
            more, size = resident(os.getpid()) - warm, sum(map(len, made.values()))
    return [warm, more, seconds[0], statistics.median(seconds[1:]), size]


if __name__ == "__main__":
    main()
