"""What trust costs on a device: the checks of an answer, and a bundle's before its golden set.

Run: python benchmarks/trust.py [BUNDLE] [--images DIR]

The answer: one image after the other by two classifiers of one bundle in turn, one of which turns
nothing away and measures no distance, so that noise meets both alike. The bundle: in processes of
their own, once medimg-edge is imported: open it, load cryptography, check the signature, hash every
file; of a copy of at least five megabytes, signed by a key that is made for it. One minute.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
from table import markdown

from medimg_edge import keys
from medimg_edge.bundle import MANIFEST, Bundle
from medimg_edge.classifier import Classifier
from medimg_edge.manifest import encode
from medimg_edge.models import DEFAULT
from medimg_edge.reader import find_images

ROUNDS = 1500
STARTS = 15
MEGABYTES = 5.0

CHECK = """
import sys, time
from pathlib import Path
from medimg_edge.bundle import Bundle
from medimg_edge.trust import Trust, require
started = time.perf_counter()
opened = Bundle.open(sys.argv[1])
require(opened, Trust.load(Path(sys.argv[2])))
opened.check_contents()
print(time.perf_counter() - started)
"""


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", nargs="?", default=DEFAULT)
    parser.add_argument("--images", type=Path, help="by default the bundle's golden inputs")
    asked = parser.parse_args()
    bundle = Bundle.open(asked.bundle)
    files = (
        [*find_images(asked.images)]
        if asked.images
        else [bundle.path / each.input for each in bundle.manifest.golden]
    )
    share = answer(bundle, [path.read_bytes() for path in files[:50]])
    checks, size = verify(bundle)
    rows = [
        ("all checks of an answer, share of a warm answer", f"{share:.1%}", "8 %"),
        (f"checks of a signed bundle of {size:.1f} MB", f"{1000 * checks:.0f} ms", "60 ms"),
    ]
    print(markdown(("what", "measured", "at most"), rows))


def answer(bundle: Bundle, images: list[bytes]) -> float:
    """What turning away costs, as a share of an answer without it; medians."""
    manifest = msgspec.structs.replace(bundle.manifest, screening=msgspec.UNSET)
    plain = Classifier(Bundle(bundle.path, manifest, bundle.hash), profile=None)
    checked = Classifier(bundle, profile=None, screened=False)  # it checks, and answers
    seconds: dict[Classifier, list[float]] = {plain: [], checked: []}
    for turn in range(ROUNDS):
        image = images[turn % len(images)]
        order = (plain, checked) if turn % 2 else (checked, plain)
        for each in order:
            started = time.perf_counter()
            each.predict(image)
            seconds[each].append(time.perf_counter() - started)
    without, with_checks = (median(each[50:]) for each in seconds.values())
    return with_checks / without - 1


def verify(bundle: Bundle) -> tuple[float, float]:
    """Seconds of the checks, the median; and the bundle's megabytes."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        private, _ = keys.new("benchmark", here)
        trusted = here / "trusted"
        keys.trust_key(here / "benchmark.pub", None, trusted)
        copy = of_size(bundle, here / "bundle")
        keys.sign_bundle(copy, private)
        found = [run(copy, trusted) for _ in range(STARTS)]
        size = sum(path.stat().st_size for path in copy.rglob("*") if path.is_file()) / 1e6
    return median(found), size


def of_size(bundle: Bundle, folder: Path) -> Path:
    """A copy with the default artifact alone, and as much else as makes the size."""
    name = bundle.manifest.default_artifact
    kept = {name: bundle.manifest.artifacts[name]}
    size = bundle.manifest.artifacts[name].bytes
    for path in sorted(bundle.manifest.files):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(bundle.read(path))
        size += bundle.manifest.files[path].bytes
    (folder / name).write_bytes(bundle.read(name))
    manifest = msgspec.structs.replace(
        bundle.manifest,
        artifacts=kept,
        decision={name: bundle.manifest.decision[name]},
    )
    filler = max(0, int(MEGABYTES * 1e6) - size)
    if filler:
        from medimg_edge.bundle import describe_files

        (folder / "filler").write_bytes(np.random.default_rng(0).bytes(filler))
        entry = {"filler": describe_files(folder)["filler"]}
        manifest = msgspec.structs.replace(manifest, files={**manifest.files, **entry})
    (folder / MANIFEST).write_bytes(encode(manifest))
    return folder


def run(bundle: Path, trusted: Path) -> float:
    """One process."""
    words = [sys.executable, "-c", CHECK, str(bundle), str(trusted)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return float(done.stdout)


if __name__ == "__main__":
    main()
