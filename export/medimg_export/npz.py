"""Images and labels in a MedMNIST-style ``.npz``, without holding its arrays in memory."""

from __future__ import annotations

import shutil
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from medimg_edge.errors import DataInvalid, WriteError
from medimg_export.cache_folder import cache_folder

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


_one_at_a_time = threading.Lock()
"""Threads that meet at an array's first row unpack it once."""


@dataclass(frozen=True, slots=True)
class ArrayRow:
    """One row of an image array in an ``.npz``: what a path is for a file."""

    path: Path
    array: str
    row: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) or (H, W, 3), from the header alone."""
        with _opened(self.path) as archive, archive.open(f"{self.array}.npy") as stream:
            return _header(stream)[0][1:]

    def pixels(self) -> NDArray[np.uint8]:
        """uint8, (H, W) or (H, W, 3). Raises DataInvalid if the array cannot be unpacked."""
        status = self.path.stat()
        with _one_at_a_time:
            array = _unpacked(self.path, self.array, (status.st_size, status.st_mtime_ns))
        return np.asarray(array[self.row])


def image_shapes(path: Path) -> dict[Split, tuple[int, ...]]:
    """The shape of each ``{train,val,test}_images`` that is there: (N, H, W) or (N, H, W, 3).

    Reads headers only. Raises DataInvalid (not an .npz, no images, not uint8, other shapes).
    """
    shapes: dict[Split, tuple[int, ...]] = {}
    with _opened(path) as archive:
        for split in SPLITS:
            if f"{split}_images.npy" not in archive.namelist():
                continue
            with archive.open(f"{split}_images.npy") as stream:
                shape, _, dtype = _header(stream)
            flat = len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)
            if dtype != np.uint8 or not flat:
                raise DataInvalid(
                    f"{path} has {split}_images of {dtype} {shape}; accepted is uint8 of shape "
                    "(N, H, W) or (N, H, W, 3). Volumes are not read."
                )
            shapes[split] = shape
        names = ", ".join(archive.namelist()[:10])
    if not shapes:
        raise DataInvalid(
            f"{path} holds {names or 'nothing'}; expected train_images, train_labels and the same "
            "for val and test, as MedMNIST names them."
        )
    return shapes


def label_array(path: Path, split: Split, count: int) -> NDArray[np.int64]:
    """``{split}_labels`` as int64 of shape (N, K), K being 1 unless there are several labels.

    Raises DataInvalid if it is missing, not whole numbers, or not ``count`` long.
    """
    name = f"{split}_labels"
    with _opened(path) as archive:
        if f"{name}.npy" not in archive.namelist():
            raise DataInvalid(f"{path} has {split}_images but no {name}: add the labels.")
        with archive.open(f"{name}.npy") as stream:
            labels = npy.read_array(stream, allow_pickle=False)
    if labels.ndim == 1:
        labels = labels[:, None]
    if labels.ndim != 2 or len(labels) != count or labels.dtype.kind not in "biu":
        raise DataInvalid(
            f"{path} has {name} of {labels.dtype} {labels.shape}; accepted are whole numbers of "
            f"shape ({count}, 1), or ({count}, K) of 0 and 1 for K labels that may occur together."
        )
    return labels.astype(np.int64)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive; whatever the zip and npy readers raise becomes DataInvalid."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise _not_whole(path, error) from error
    try:
        with archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, RuntimeError) as error:
        raise _not_whole(path, error) from error


def _not_whole(path: Path, error: Exception) -> DataInvalid:
    return DataInvalid(f"{path} is not a whole .npz file ({error}). Download or write it again.")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and dtype of the .npy that starts here."""
    read = (
        npy.read_array_header_1_0 if npy.read_magic(stream)[0] == 1 else npy.read_array_header_2_0
    )
    return read(stream)


@lru_cache(maxsize=6)
def _unpacked(path: Path, array: str, version: tuple[int, int]) -> NDArray[np.uint8]:
    """A read-only memory map of one array, shared by all of its rows.

    A member of a zip cannot be mapped, and MedMNIST's largest arrays do not fit into memory: it is
    unpacked into a file without a name, which is gone when the process is. ``version`` (size and
    time of the file) makes a changed file be unpacked anew.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _opened(path) as archive, archive.open(f"{array}.npy") as packed:
            plain = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115, the map keeps it open
            shutil.copyfileobj(packed, plain, 1 << 20)
            plain.seek(0)
            shape, fortran, dtype = _header(plain)
            return np.memmap(plain, dtype, "r", plain.tell(), shape, "F" if fortran else "C")
    except OSError as error:
        raise WriteError(
            f"{array} of {path} could not be unpacked into {folder} ({error}). Make room there, or "
            "set MEDIMG_EDGE_CACHE to a folder with room."
        ) from error
