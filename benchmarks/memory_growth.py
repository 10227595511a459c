"""How much memory `infer FOLDER` takes, and whether it grows with the images that it has answered.

Run: python benchmarks/memory_growth.py IMAGES [--bundle B] [--count 10000] [--threads N]

IMAGES are linked to under as many names as are wanted, in one folder, and answered by one process;
its resident memory is read as its answers come. What counts is the growth from the 500th answer
to the last but 500: the pipe holds some, so that the process is a little ahead of what is read.
Linux only. Ten thousand images take two minutes with the shipped bundle on two cores.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from processes import resident

from medimg_edge.models import DEFAULT
from medimg_edge.reader import find_images

SETTLED = 500
"""Answers after which everything that is made once has been made."""


def main() -> None:
    """Print the memory on the way, and the growth."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--bundle", type=Path, default=Path(DEFAULT))
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.count < 3 * SETTLED:
        parser.error(f"--count has to be at least {3 * SETTLED}, for a growth to be seen")
    with tempfile.TemporaryDirectory() as folder:
        link(find_images(options.images), Path(folder), options.count)
        words = ["--quiet", "infer", folder, "--bundle", options.bundle, "--format", "jsonl"]
        if options.threads:
            words += ["--threads", options.threads]
        memory = follow(list(map(str, words)), options.count)
    for answers, megabytes in memory.items():
        print(f"{answers:>8} answers  {megabytes:7.1f} MB")
    first, *_, last = memory.values()
    print(f"growth from {SETTLED} to {options.count - SETTLED} answers: {last - first:.1f} MB")


def link(images: list[Path], folder: Path, count: int) -> None:
    """``count`` names for the images, by turns."""
    for at in range(count):
        image = images[at % len(images)].resolve()
        (folder / f"{at:06}{image.suffix}").symlink_to(image)


def follow(words: list[str], count: int) -> dict[int, float]:
    """Resident megabytes by the number of answers read: ten readings between both ends."""
    last = count - SETTLED
    wanted = {SETTLED + step * (last - SETTLED) // 10 for step in range(11)}
    run = subprocess.Popen(
        [sys.executable, "-m", "medimg_edge.cli", *words], stdout=subprocess.PIPE
    )
    assert run.stdout is not None
    found, at = {}, 0
    for at, _ in enumerate(run.stdout, start=1):
        if at in wanted:
            found[at] = resident(run.pid) / 2**20
    if run.wait() or at != count:
        raise SystemExit(f"{at} of {count} were answered; exit {run.returncode}")
    return found


if __name__ == "__main__":
    main()
