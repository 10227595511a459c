"""A CSV that a benchmark adds to, what its rows are made by, and tables of it for the documents."""

from __future__ import annotations

import csv
import fcntl
import io
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]


def stored(table: Path) -> list[dict[str, str]]:
    """The rows so far; none where there is no table yet."""
    if not table.exists():
        return []
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def append(table: Path, rows: list[dict[str, Any]]) -> None:
    """Add all rows at once, under the columns that the table has; of two processes, one by one."""
    with table.open("a", newline="") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = stored(table)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(before[0] if before else rows[0]), lineterminator="\n")
        if not os.fstat(file.fileno()).st_size:
            writer.writeheader()
        writer.writerows(rows)
        file.write(text.getvalue())


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as the documents have them."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def short(value: Any, digits: int = 3) -> str:
    """A share as the documents have it: .987."""
    return f"{float(value):.{digits}f}".removeprefix("0" if digits > 1 else "")


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean and standard deviation; the mean alone of a single value."""
    mean = short(np.mean(values), digits)
    return f"{mean} ± {short(np.std(values, ddof=1), digits)}" if len(values) > 1 else mean


def call(*words: object) -> None:
    """A command of medimg-edge, as a user types it. Raises CalledProcessError."""
    print("medimg-edge", *words, flush=True)
    subprocess.run([sys.executable, "-m", "medimg_edge.cli", *map(str, words)], check=True)


def commit() -> str:
    """Of the code beside this file; marked where it is not what was committed."""
    words = ["git", "rev-parse", "--short", "HEAD"]
    known = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    code = ["git", "diff", "--quiet", "HEAD", "--", "medimg_edge", "export"]
    dirty = subprocess.run(code, cwd=ROOT, check=False).returncode != 0
    return known.stdout.strip() + ("-dirty" if dirty else "")
