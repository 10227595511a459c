"""A data set of synthetic chest radiographs on disk: class folders, masks, and DICOM.

    OUT/train/normal/phantom-00001.png        class folders with splits: what training reads
    OUT/train/opacity/phantom-00002.png
    OUT/val/...  OUT/test/...
    OUT/test-dicom/opacity/phantom-00007.dcm  the test split again, as DICOM
    OUT/masks/train/phantom-00002.png         one for every phantom, 255 inside an opacity

``masks`` and ``test-dicom`` are not called like splits: a scan for class folders leaves them out.
Every phantom is a person of its own; ``GROUP_PATTERN`` takes it from the file name.

PNG files have 8 bits, every fourth one 16, which over its full range shows the same picture. In
``test-dicom`` every second file is MONOCHROME1; two of four have 12 bits stored, the others 16.
None of this depends on the label.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from medimg_edge.errors import DataInvalid, WriteError
from medimg_export.phantom_chest import Phantom, chest
from medimg_export.phantom_dicom import encode

__all__ = ["CLASSES", "FORMATS", "GROUP_PATTERN", "SPLITS", "Phantom", "chest", "write"]

CLASSES = ("normal", "opacity")
FORMATS = ("png", "dicom")
GROUP_PATTERN = r"phantom-(\d+)"
SPLITS: Mapping[str, float] = {"train": 0.7, "val": 0.15, "test": 0.15}
SMALLEST = 32


@dataclass(frozen=True)
class _Case:
    number: int  # from 1
    seed: int
    positive: bool
    split: str

    @property
    def name(self) -> str:
        return f"phantom-{self.number:05}"


def write(
    out: Path,
    count: int = 400,
    *,
    size: int = 512,
    seed: int = 0,
    prevalence: float = 0.5,
    splits: Mapping[str, float] = SPLITS,
    formats: Sequence[str] = FORMATS,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write ``count`` phantoms of ``size`` x ``size`` pixels to ``out``, laid out as said above.

    Equal arguments write equal bytes. ``prevalence`` is the share of positives, the same in every
    split; ``splits`` gives each split's share of the phantoms. ``formats``: "png" writes the class
    folders, "dicom" writes ``test-dicom``. ``progress(done, count)`` is called after each phantom.

    All of it appears when it is complete, and nothing if that fails. Raises DataInvalid (``out`` is
    a file or a folder that is not empty; an argument out of its range) and WriteError (no space, no
    permission).
    """
    out = Path(out)
    _check(count, size, seed, prevalence, splits, formats)
    existed = _vacant(out)
    staged = out / ".partial"
    try:
        staged.mkdir(parents=True)
        test_number = 0
        for done, case in enumerate(_cases(count, seed, prevalence, splits), 1):
            phantom = chest(case.seed, case.positive, size)
            for path, content in _files(case, phantom, formats, test_number):
                target = staged / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            test_number += case.split == "test"
            if progress:
                progress(done, count)
        for tree in sorted(staged.iterdir()):
            tree.rename(out / tree.name)
        staged.rmdir()
    except BaseException as error:
        _clear(out, keep=existed)
        if isinstance(error, OSError):
            raise WriteError(
                f"{out} could not be written: {error.strerror or error}. Nothing was left there; "
                f"{count} phantoms of {size} px need about {_megabytes(count, size)} MB."
            ) from error
        raise


def _check(
    count: int,
    size: int,
    seed: int,
    prevalence: float,
    splits: Mapping[str, float],
    formats: Sequence[str],
) -> None:
    shares = list(splits.values())
    shared = set(splits) <= set(SPLITS) and bool(shares)
    shared = shared and min(shares) >= 0 and abs(sum(shares) - 1) < 1e-6
    rules = [
        (count >= 1, f"count is {count}; at least 1"),
        (size >= SMALLEST, f"size is {size} pixels; at least {SMALLEST}"),
        (seed >= 0, f"seed is {seed}; 0 or more"),
        (0 <= prevalence <= 1, f"prevalence is {prevalence}; 0 to 1"),
        (shared, f"splits are {dict(splits)}; shares of train, val and test that sum to 1"),
        (
            formats and set(formats) <= set(FORMATS),
            f"formats are {list(formats)}; one or both of png and dicom",
        ),
    ]
    for holds, found_and_accepted in rules:
        if not holds:
            raise DataInvalid(f"The {found_and_accepted} can be written. Change it and run again.")


def _vacant(out: Path) -> bool:
    """Whether ``out`` is there already, as an empty folder."""
    try:
        if any(out.iterdir()):
            raise DataInvalid(
                f"{out} is not empty, and phantoms are written to a new or an empty folder only. "
                "Name another folder, or empty this one first."
            )
    except FileNotFoundError:
        return False
    except NotADirectoryError as error:
        raise DataInvalid(f"{out} is a file. Name a new or an empty folder.") from error
    except OSError as error:
        raise WriteError(f"{out} cannot be looked into: {error.strerror}.") from error
    return True


def _clear(out: Path, *, keep: bool) -> None:
    if not keep:
        shutil.rmtree(out, ignore_errors=True)
        return
    for child in out.iterdir():
        shutil.rmtree(child, ignore_errors=True)


def _cases(
    count: int, seed: int, prevalence: float, splits: Mapping[str, float]
) -> Iterator[_Case]:
    """In the order of their numbers; classes are drawn, and each is spread over the splits."""
    rng = np.random.default_rng([seed, 0])
    # Far apart, so that two sets of different seeds share no phantom.
    seeds = np.random.SeedSequence([seed, 1]).generate_state(count, np.uint64)
    order = rng.permutation(count)
    positives = round(count * prevalence)
    split_of: dict[int, str] = {}
    for members in (order[:positives], order[positives:]):
        ends = np.rint(np.cumsum(list(splits.values())) * len(members)).astype(int)
        for name, part in zip(splits, np.split(members, ends[:-1]), strict=True):
            split_of |= dict.fromkeys(part.tolist(), name)
    positive = set(order[:positives].tolist())
    for index in range(count):
        yield _Case(index + 1, int(seeds[index]), index in positive, split_of[index])


def _files(
    case: _Case, phantom: Phantom, formats: Sequence[str], test_number: int
) -> Iterator[tuple[Path, bytes]]:
    """Relative paths and contents; ``test_number`` counts the test phantoms before this one."""
    label = CLASSES[case.positive]
    if "png" in formats:
        pixels = phantom.pixels if case.number % 4 == 0 else _eight_bits(phantom.pixels)
        yield Path(case.split, label, f"{case.name}.png"), _png(pixels)
    if "dicom" in formats and case.split == "test":
        bits, inverted = (12, 16)[test_number // 2 % 2], test_number % 2 == 1
        content = encode(phantom.pixels, case.name, bits=bits, inverted=inverted)
        yield Path("test-dicom", label, f"{case.name}.dcm"), content
    yield Path("masks", case.split, f"{case.name}.png"), _png(phantom.mask)


def _eight_bits(pixels: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """0..65535 -> 0..255, rounded: 65535 = 255 * 257, and no value lies half way."""
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _png(pixels: NDArray[np.uint16] | NDArray[np.uint8]) -> bytes:
    """Lossless; the lightest compression, since noise does not compress."""
    return cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def _megabytes(count: int, size: int) -> int:
    return max(1, round(count * size * size * 1.5 / 1e6))
