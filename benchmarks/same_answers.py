"""Whether machines give the same pixels, probabilities and decisions. aarch64.sh runs it.

Run, on each machine:  python benchmarks/same_answers.py pixels BUNDLE IMAGES OUT.npz
                       medimg-edge infer IMAGES -b BUNDLE --artifact FILE --out FILE.jsonl
and on one:            python benchmarks/same_answers.py compare MACHINE OTHER...

MACHINE is a folder with a folder for each bundle: pixels.npz, and FILE.jsonl for each artifact.
Exit 1 where a tensor or a decision is another, a float32 probability differs by more than 1e-5, or
an image was answered on one machine only.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOAT32_LIMIT = 1e-5
VERSIONS = ("medimg-edge", "onnxruntime", "numpy", "opencv-python-headless", "simplejpeg")

Pixels = Mapping[str, NDArray[np.uint8]]


def write_pixels(bundle: str, images: str, out: str) -> None:
    """The tensors that this machine makes of the images, by path; none of what is refused."""
    from medimg_edge import Classifier, Prediction
    from medimg_edge.reader import find_images

    paths = find_images(images)
    answers = Classifier(bundle, profile=None).predict_many(paths)
    found = {
        str(path): answer.pixels
        for path, answer in zip(paths, answers, strict=True)
        if isinstance(answer, Prediction)
    }
    np.savez_compressed(out, allow_pickle=False, **found)


def compare(one: Path, other: Path) -> bool:
    """Print a line for each bundle's tensors and each artifact; whether all are the same."""
    same = True
    for bundle in sorted(each.name for each in one.iterdir()):
        with np.load(one / bundle / "pixels.npz") as a, np.load(other / bundle / "pixels.npz") as b:
            differ = other_pixels(a, b)
            total = len(a.keys() | b.keys())
        print(f"{other.name}, {bundle}: {total - len(differ)} of {total} tensors equal", end="")
        worst = max(differ.values(), default=(0, 0))
        print(f"; others: up to {worst[0]} values, by {worst[1]}" if differ else "")
        same &= not differ
        for path in sorted((one / bundle).glob("*.jsonl")):
            same &= compare_answers(path, other / bundle / path.name, differ.keys())
    return same


def other_pixels(one: Pixels, other: Pixels) -> dict[str, tuple[int, int]]:
    """By path where the tensors differ: how many values, and by how much at most."""
    differ = {}
    for path in one.keys() | other.keys():
        if path not in one or path not in other:
            differ[path] = (-1, -1)
            continue
        apart = np.abs(one[path].astype(int) - other[path])
        if apart.any():
            differ[path] = (int(np.count_nonzero(apart)), int(apart.max()))
    return differ


def compare_answers(one: Path, other: Path, differ: Any) -> bool:
    """Print how far two files of records are apart; whether that is within what is allowed."""
    a, b = records(one), records(other)
    answered = [
        name for name in a.keys() & b.keys() if "decision" in a[name] and "decision" in b[name]
    ]
    apart = {name: abs(a[name]["probability"] - b[name]["probability"]) for name in answered}
    decisions = [name for name in answered if a[name]["decision"] != b[name]["decision"]]
    only = [name for name in a.keys() | b.keys() if kind(a.get(name)) != kind(b.get(name))]
    equal = [apart[name] for name in answered if name not in differ]
    worst = max(apart.values(), default=0.0)
    float32 = ".int8." not in one.name
    print(
        f"  {one.stem}: {len(answered)} answers, max |dp| {worst:.2g}"
        f" ({max(equal, default=0.0):.2g} where the tensors are equal),"
        f" {len(decisions)} decisions differ"
    )
    for name in decisions:
        print(f"    {name}: p {a[name]['probability']:.4f}, {b[name]['probability']:.4f}")
    for name in only:
        print(f"    {name}: {kind(a.get(name))}, {kind(b.get(name))}")
    return bool(answered) and not decisions and not only and not (float32 and worst > FLOAT32_LIMIT)


def records(path: Path) -> dict[str, dict[str, Any]]:
    """The records of a file that `infer` wrote, by input."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {each["input"]: each for each in map(json.loads, lines)}


def kind(record: dict[str, Any] | None) -> str:
    """Ok, or the code of why there is no answer."""
    return "none" if record is None else record.get("code") or record["status"]


def main() -> None:
    """Do what the first argument says."""
    match sys.argv[1:]:
        case ["pixels", bundle, images, out]:
            write_pixels(bundle, images, out)
        case ["versions"]:
            print(f"{platform.machine()}, Python {platform.python_version()}")
            print(", ".join(f"{name} {version(name)}" for name in VERSIONS))
        case ["compare", one, *others] if others:
            same = [compare(Path(one), Path(other)) for other in others]
            sys.exit(not all(same))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
