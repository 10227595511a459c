"""Mutate one DICOM file for a few seconds: SEED FOLDER.

Prints how many were tried and how many were answered with an image. What is being tried lies in
FOLDER, for a decoder may end this process; one that hangs ends it, too.
"""

from __future__ import annotations

import faulthandler
import sys
import time
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from medimg_edge.dicom.read import DicomFile
from medimg_edge.errors import InputError, MachineFault

SECONDS, EXAMPLES, HANG = 3.2, 3000, 20
LENGTHS = (b"\0\0", b"\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\1\0\0\0")

Edit = tuple[str, int, int, bytes]


def edits(size: int, pixels: int) -> st.SearchStrategy[list[Edit]]:
    """Some changes; most of them where a header or a codestream begins, and at the end."""
    near = st.integers(0, 400)
    places = st.one_of(
        st.integers(128, size - 1),
        near.map(lambda step: min(pixels + step, size - 1)),
        near.map(lambda step: min(pixels + step, size - 1)),
        st.integers(128, max(pixels, 129)),
        near.map(lambda step: max(size - 1 - step // 8, 0)),
    )
    kinds = st.sampled_from(["flip", "replace", "replace", "length", "delete", "insert", "splice"])
    return st.lists(
        st.tuples(kinds, places, st.integers(0, size - 1), st.binary(min_size=1, max_size=8)),
        min_size=1,
        max_size=4,
    )


def mutated(data: bytes, changes: list[Edit]) -> bytes:
    """The file with the changes, one after the other."""
    changed = bytearray(data)
    for kind, place, number, content in changes:
        if kind == "flip" and place < len(changed):
            changed[place] ^= 1 << number % 8
        elif kind == "replace":
            changed[place : place + len(content)] = content
        elif kind == "length":
            length = LENGTHS[number % len(LENGTHS)]
            changed[place : place + len(length)] = length
        elif kind == "delete":
            del changed[place : place + 1 + number % 300]
        elif kind == "insert":
            changed[place:place] = content
        elif kind == "splice":
            part = data[number : number + 100]
            changed[place : place + len(part)] = part
    return bytes(changed)


def main(seed: str, folder: str) -> None:
    """Raises what escapes."""
    data = Path(seed).read_bytes()
    pixels = max(data.rfind(b"\xe0\x7f\x10\0"), data.rfind(b"\x7f\xe0\0\x10"), 200)
    tried = answered = 0
    end = time.monotonic() + SECONDS

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(edits(len(data), pixels))
    def attempt(changes: list[Edit]) -> None:
        nonlocal tried, answered
        if time.monotonic() > end:
            return
        changed = mutated(data, changes)
        Path(folder, "input.dcm").write_bytes(changed)
        tried += 1
        faulthandler.dump_traceback_later(HANG, exit=True, file=traceback)
        try:
            image = DicomFile(changed).image(1)
        except (InputError, MachineFault):
            return
        finally:
            faulthandler.cancel_dump_traceback_later()
        answered += 1
        assert image.frames.dtype in (np.uint8, np.uint16, np.float32)
        assert np.isfinite(image.voi.grey(image.frames)).all()

    with Path(folder, "traceback").open("w") as traceback:
        attempt()
    print(tried, answered)


if __name__ == "__main__":
    main(*sys.argv[1:])
