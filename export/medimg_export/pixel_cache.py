"""Preprocessed pixels on disk: every image is decoded once, by the device's own code.

    ROOT/digests/<data set>.json   what content.contents remembers
    ROOT/pixels/<key>/pixels.raw   uint8, N x H x W x C, row by row
    ROOT/pixels/<key>/entry.json   an Entry; a folder with one is whole

The key is a hash of the release, the preprocessing and every content in order, so a changed file or
preprocessing never meets old pixels. Folders appear by one rename and are never changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from medimg_edge import __version__
from medimg_edge.errors import (
    DataInvalid,
    InputError,
    InputMissing,
    MedimgEdgeError,
    Rejected,
    TooFewImages,
    WriteError,
)
from medimg_edge.manifest import Preprocessing, Task
from medimg_edge.preprocess import preprocess
from medimg_export import content
from medimg_export.cache_folder import cache_folder
from medimg_export.content import Content, Progress
from medimg_export.dataset import Dataset, Problem, Sample
from medimg_export.listing import first_few

PIXELS = "pixels.raw"
ENTRY = "entry.json"
PARTIAL = ".partial-"

ABANDONED_SECONDS = 24 * 3600
"""A half-written folder this old belongs to a process that was killed."""


class Entry(msgspec.Struct, frozen=True):
    """What a cached folder says of its pixels.

    rows: how many images there are.
    refused: code and message by digest of the contents that have no row.
    smallest, largest: rows and columns of the images as they were decoded, by area.
    """

    rows: int
    refused: dict[str, tuple[str, str]]
    smallest: tuple[int, int]
    largest: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sample whose file is there."""

    sample: Sample
    content: Content


@dataclass(frozen=True, eq=False)
class CachedPixels:
    """The usable images of a data set, ready to be trained on.

    pixels: uint8 (N, H, W, C), a read-only memory map; row i belongs to ``samples[i]``, whose
        encoded content has the sha256 ``digests[i]``.
    problems: what has no row, and why.
    smallest, largest: rows and columns of the images as they were decoded, by area.
    """

    pixels: NDArray[np.uint8]
    samples: tuple[Sample, ...]
    digests: tuple[str, ...]
    problems: tuple[Problem, ...]
    labels: tuple[str, ...]
    task: Task
    smallest: tuple[int, int]
    largest: tuple[int, int]


class PixelCache:
    """A folder of preprocessed data sets, shared between runs and processes."""

    def __init__(self, root: Path | None = None):
        self.root = root or cache_folder()

    def build(
        self, dataset: Dataset, preprocessing: Preprocessing, progress: Progress | None = None
    ) -> CachedPixels:
        """Decode and preprocess every sample, or find that this was done before.

        An image that cannot be read, that shows nothing, or whose content occurs under different
        labels has no row; it is listed in ``problems``. Memory does not grow with the images.

        Raises TooFewImages (nothing usable), DataInvalid (an .npz that breaks off, a file that
        changes meanwhile), WriteError.
        """
        try:
            contents = content.contents(dataset.samples, self._memory(dataset), progress)
            known = list(zip(dataset.samples, contents, strict=True))
            problems = [_missing(sample) for sample, found in known if found is None]
            present = [Candidate(sample, found) for sample, found in known if found]
            problems += (contradictory := _contradictory(present))
            left_out = {problem.name for problem in contradictory}
            candidates = [each for each in present if each.sample.name not in left_out]
            folder = self.root / "pixels" / _key(preprocessing, candidates)
            entry = _whole(folder, preprocessing)
            if entry is None:
                entry = _write(folder, candidates, preprocessing, progress)
        except OSError as error:
            raise WriteError(
                f"The pixel cache {self.root} could not be written ({error}). Make room there, or "
                "set MEDIMG_EDGE_CACHE to a folder with room."
            ) from error
        refused = entry.refused
        usable = [each for each in candidates if each.content.digest not in refused]
        problems += [
            Problem(each.sample.name, *refused[each.content.digest])
            for each in candidates
            if each.content.digest in refused
        ]
        if not usable:
            raise TooFewImages(_nothing_usable(dataset, problems))
        return CachedPixels(
            pixels=np.memmap(
                folder / PIXELS, np.uint8, "r", shape=(len(usable), *preprocessing.shape)
            ),
            samples=tuple(each.sample for each in usable),
            digests=tuple(each.content.digest for each in usable),
            problems=tuple(problems),
            labels=dataset.labels,
            task=dataset.task,
            smallest=entry.smallest,
            largest=entry.largest,
        )

    def _memory(self, dataset: Dataset) -> Path:
        name = hashlib.sha256(os.fsencode(dataset.path.resolve())).hexdigest()
        return self.root / "digests" / f"{name[:32]}.json"


def _missing(sample: Sample) -> Problem:
    message = f"{sample.name} is missing or may not be read. Check the file and its rights."
    return Problem(sample.name, InputMissing.code, message)


def _contradictory(candidates: Sequence[Candidate]) -> list[Problem]:
    """Equal contents under different labels: nobody can say which label is right.

    A test split that the data set brings stays whole, because results on it are compared with
    published ones; the other copies are left out.
    """
    same = defaultdict(list)
    for each in candidates:
        if each.content.stamp.size:  # empty files are a problem of their own
            same[each.content.digest].append(each.sample)
    problems = []
    for samples in same.values():
        if len({sample.label for sample in samples}) > 1:
            names = first_few(sample.name for sample in samples)
            message = f"The same image has different labels: {names}. Keep the right one only."
            tested = [sample for sample in samples if sample.split == "test"]
            kept = tested if len({sample.label for sample in tested}) == 1 else []
            left_out = [sample for sample in samples if sample not in kept]
            problems += [Problem(each.name, "data-contradictory", message) for each in left_out]
    return problems


def _nothing_usable(dataset: Dataset, problems: Sequence[Problem]) -> str:
    first = f"{problems[0].name}: {problems[0].message}" if problems else "there are none"
    return f"None of the {len(dataset.samples)} images of {dataset.path} can be used; {first}"


def _key(preprocessing: Preprocessing, candidates: Sequence[Candidate]) -> str:
    sha = hashlib.sha256(__version__.encode())  # another release may read what this one refuses
    sha.update(msgspec.json.encode(preprocessing))
    for each in candidates:
        sha.update(bytes.fromhex(each.content.digest))
    return sha.hexdigest()


def _whole(folder: Path, preprocessing: Preprocessing) -> Entry | None:
    """The entry of a folder whose pixels are all there, else None."""
    try:
        entry = msgspec.json.decode((folder / ENTRY).read_bytes(), type=Entry)
        size = (folder / PIXELS).stat().st_size
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return entry if size == entry.rows * prod(preprocessing.shape) else None


def _write(
    folder: Path,
    candidates: Sequence[Candidate],
    preprocessing: Preprocessing,
    progress: Progress | None,
) -> Entry:
    """Fill a folder beside ``folder``, then rename it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder.parent)
    partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=folder.parent))
    try:
        entry = _decode(partial / PIXELS, candidates, preprocessing, progress)
        (partial / ENTRY).write_bytes(msgspec.json.encode(entry))
        return _placed(partial, folder, preprocessing) or entry
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _placed(partial: Path, folder: Path, preprocessing: Preprocessing) -> Entry | None:
    """Give the folder its name; the entry of one that is there, whose bytes are the same."""
    try:
        partial.rename(folder)
        return None
    except OSError:
        if (first := _whole(folder, preprocessing)) is not None:
            return first
    damaged = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=folder.parent))  # by hand or by the disk
    with contextlib.suppress(FileNotFoundError):
        folder.rename(damaged)
    shutil.rmtree(damaged, ignore_errors=True)
    partial.rename(folder)
    return None


def _remove_abandoned(parent: Path) -> None:
    for partial in parent.glob(f"{PARTIAL}*"):
        with contextlib.suppress(FileNotFoundError):  # another process removed it, or finished
            if time.time() - partial.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(partial, ignore_errors=True)


def _decode(
    path: Path,
    candidates: Sequence[Candidate],
    preprocessing: Preprocessing,
    progress: Progress | None,
) -> Entry:
    """Write one row after another. Plain writes, not a map: a full disk is an error, no signal."""
    refused: dict[str, tuple[str, str]] = {}
    sizes: set[tuple[int, int]] = set()
    decoded = content.in_order(lambda each: _pixels(each, preprocessing), candidates)
    with path.open("wb") as file:
        for done, (candidate, outcome) in enumerate(zip(candidates, decoded, strict=True), 1):
            if isinstance(outcome, MedimgEdgeError):
                refused[candidate.content.digest] = (outcome.code, outcome.message)
            else:
                sizes.add(outcome[0])
                file.write(outcome[1].data)
            if progress:
                progress("preprocessing", done, len(candidates))
        rows = file.tell() // prod(preprocessing.shape)
    return Entry(
        rows=rows,
        refused=refused,
        smallest=min(sizes, key=prod, default=(0, 0)),
        largest=max(sizes, key=prod, default=(0, 0)),
    )


def _pixels(
    candidate: Candidate, preprocessing: Preprocessing
) -> tuple[tuple[int, int], NDArray[np.uint8]] | InputError | Rejected:
    """Rows and columns of the original, and (H, W, C); or why there are none."""
    sample = candidate.sample
    try:
        image = sample.read(preprocessing)
        outcome = image.size, preprocess(image, preprocessing)
    except (InputError, Rejected) as error:
        outcome = error
    if content.stamp(sample.source) != candidate.content.stamp:
        raise DataInvalid(f"{sample.name} changed while it was read: start again.")
    return outcome
