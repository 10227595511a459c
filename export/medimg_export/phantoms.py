"""A data set of synthetic images on disk: class folders, masks, and copies in the other format.

    OUT/train/normal/phantom-00001.png        class folders with splits: what training reads
    OUT/train/opacity/phantom-00002.png
    OUT/val/...  OUT/test/...
    OUT/test-dicom/opacity/phantom-00007.dcm  the test split again, as DICOM
    OUT/masks/train/phantom-00002.png         one for every phantom, 255 inside the finding

So it is for radiographs (chest, bone) and MR. CT is DICOM in the class folders, because only that
holds Hounsfield units, and has ``test-png``. ``formats`` turns either round. ``masks`` and
``test-...`` are not called like splits: a scan for class folders leaves them out. Every phantom is
a person of its own; ``GROUP_PATTERN`` takes it from the file name.

PNG files show what the DICOM file's window shows. They have 8 bits, every fourth one 16, which over
its full range is the same picture. Of radiographs every second DICOM file is MONOCHROME1, and two
of four have 12 bits stored, the others 16; CT slices are stored with two rescales. None of this
depends on the label.
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
from medimg_export.phantom_kinds import KINDS, Kind, Picture

__all__ = ["FORMATS", "GROUP_PATTERN", "KINDS", "SPLITS", "Phantom", "chest", "write"]

FORMATS = ("png", "dicom")
GROUP_PATTERN = r"phantom-(\d+)"
SPLITS: Mapping[str, float] = {"train": 0.7, "val": 0.15, "test": 0.15}
SMALLEST = 32


@dataclass(frozen=True)
class _Case:
    number: int  # from 1
    seed: int
    label: str
    split: str

    @property
    def name(self) -> str:
        return f"phantom-{self.number:05}"


def write(
    out: Path,
    count: int = 400,
    *,
    kind: str = "chest",
    size: int = 512,
    seed: int = 0,
    prevalence: float = 0.5,
    splits: Mapping[str, float] = SPLITS,
    formats: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write ``count`` phantoms of a ``kind`` to ``out``, laid out as said above.

    Equal arguments write equal bytes. ``size`` is the height in pixels, and but for bones the
    width. ``prevalence`` is the share with a finding, the same in every split, and every finding
    has an equal part of it; ``splits`` gives each split's share of the phantoms. ``formats``: that
    of the class folders, then that of ``test-...``, which may be left out; by default the kind's
    own first. ``progress(done, count)`` is called after each phantom.

    All of it appears when it is complete, and nothing if that fails. Raises DataInvalid (``out`` is
    a file or a folder that is not empty; an argument out of its range) and WriteError (no space, no
    permission).
    """
    out = Path(out)
    _check(kind, count, size, seed, prevalence, splits, formats)
    shown = KINDS[kind]
    formats = formats or sorted(FORMATS, key=lambda each: each != shown.format)
    existed = _vacant(out)
    staged = out / ".partial"
    try:
        staged.mkdir(parents=True)
        encoded = 0
        for done, case in enumerate(_cases(shown, count, seed, prevalence, splits), 1):
            picture = shown.draw(case.seed, case.label, size)
            for path, content in _files(shown, case, picture, formats, encoded):
                target = staged / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
                encoded += path.suffix == ".dcm"
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
    kind: str,
    count: int,
    size: int,
    seed: int,
    prevalence: float,
    splits: Mapping[str, float],
    formats: Sequence[str] | None,
) -> None:
    shares = list(splits.values())
    shared = set(splits) <= set(SPLITS) and bool(shares)
    shared = shared and min(shares) >= 0 and abs(sum(shares) - 1) < 1e-6
    named = formats is None or (formats and set(formats) <= set(FORMATS))
    rules = [
        (kind in KINDS, f"kind is {kind!r}; {', '.join(KINDS)}"),
        (count >= 1, f"count is {count}; at least 1"),
        (size >= SMALLEST, f"size is {size} pixels; at least {SMALLEST}"),
        (seed >= 0, f"seed is {seed}; 0 or more"),
        (0 <= prevalence <= 1, f"prevalence is {prevalence}; 0 to 1"),
        (shared, f"splits are {dict(splits)}; shares of train, val and test that sum to 1"),
        (named, f"formats are {list(formats or ())}; one or both of png and dicom"),
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
    kind: Kind, count: int, seed: int, prevalence: float, splits: Mapping[str, float]
) -> Iterator[_Case]:
    """In the order of their numbers; classes are drawn, and each is spread over the splits."""
    rng = np.random.default_rng([seed, 0])
    # Far apart, so that two sets of different seeds share no phantom.
    seeds = np.random.SeedSequence([seed, 1]).generate_state(count, np.uint64)
    order = rng.permutation(count)
    negative, *findings = kind.classes
    positives = round(count * prevalence)
    members = [*np.array_split(order[:positives], len(findings)), order[positives:]]
    case_of: dict[int, tuple[str, str]] = {}
    for label, each in zip([*findings, negative], members, strict=True):
        ends = np.rint(np.cumsum(list(splits.values())) * len(each)).astype(int)
        for split, part in zip(splits, np.split(each, ends[:-1]), strict=True):
            case_of |= dict.fromkeys(part.tolist(), (label, split))
    for index in range(count):
        yield _Case(index + 1, int(seeds[index]), *case_of[index])


def _files(
    kind: Kind, case: _Case, picture: Picture, formats: Sequence[str], encoded: int
) -> Iterator[tuple[Path, bytes]]:
    """Relative paths and contents; ``encoded`` counts the DICOM files before these."""
    for position, each in enumerate(formats):
        if position and case.split != "test":
            continue
        folder = Path(f"test-{each}" if position else case.split, case.label)
        if each == "dicom":
            yield folder / f"{case.name}.dcm", kind.encode(picture, case.name, encoded)
        else:
            pixels = picture.pixels
            yield (
                folder / f"{case.name}.png",
                _png(pixels if case.number % 4 == 0 else _eight_bits(pixels)),
            )
    yield Path("masks", case.split, f"{case.name}.png"), _png(picture.mask)


def _eight_bits(pixels: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """0..65535 -> 0..255, rounded: 65535 = 255 * 257, and no value lies half way."""
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _png(pixels: NDArray[np.uint16] | NDArray[np.uint8]) -> bytes:
    """Lossless; the lightest compression, since noise does not compress."""
    return cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def _megabytes(count: int, size: int) -> int:
    return max(1, round(count * size * size * 1.5 / 1e6))
