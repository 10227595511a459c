"""A path, bytes or an array -> Image; a folder -> the images in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from medimg_edge.dicom import is_dicom
from medimg_edge.errors import InputError, InputMissing, NoImages, TooLarge, Unsupported
from medimg_edge.image import Image, Range
from medimg_edge.limits import MAX_BYTES, check_pixels
from medimg_edge.raster import read_raster
from medimg_edge.suffixes import SUFFIXES

Source = str | PathLike[str] | bytes | NDArray
Photometric = Literal["MONOCHROME2", "MONOCHROME1", "RGB"]

_FULL_RANGE = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0)}
_DTYPES = ("uint8", "uint16", "int16", "float32")
_DICOM_HEAD = 132
_OPEN = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)  # a pipe may wait


class Frames(Protocol):
    """A source of which the frames are decoded when they are asked for, by numbers from 1."""

    @property
    def frames(self) -> int:
        """How many there are."""
        ...

    def image(self, number: int | None = None) -> Image:
        """The image; of several frames, the one with that number.

        Raises InputError, MachineFault.
        """
        ...


class _Single(NamedTuple):
    whole: Image
    frames: int = 1

    def image(self, number: int | None = None) -> Image:
        if number not in (None, 1):
            raise Unsupported(f"There is no frame {number}: the source is one image.")
        return self.whole


def read_image(
    source: Source,
    *,
    photometric: Photometric | None = None,
    value_range: tuple[float, float] | None = None,
    needed: tuple[int, int, int] | None = None,
    frame: int | None = None,
) -> Image:
    """Read one image; what it is, its bytes say, never its name.

    source: a path, the bytes of a file, or an array, uint8, uint16, int16 or float32, shape
        (H, W), (H, W, 1) or (H, W, 3) in RGB order. int16 becomes float32.
    photometric: of an array: MONOCHROME2 (the default for one channel), MONOCHROME1 (the smallest
        value is white) or RGB (the default for three).
    value_range: of an array: the values shown black and white. By default the whole range of
        uint8 and uint16; int16 and float32 must say it.
    needed: ``Preprocessing.needed``: what a JPEG may be reduced to while it is decoded; see
        ``raster.jpeg``.
    frame: of a DICOM file that has several, from 1.

    Raises the subclasses of InputError, and of a compressed DICOM frame that this machine cannot
    decode now MachineFault.
    """
    if isinstance(source, np.ndarray):
        return _Single(_from_array(source, photometric, value_range)).image(frame)
    if photometric is not None or value_range is not None:
        raise Unsupported(
            "photometric and value_range describe an array; a file says both itself. Leave them "
            "out, or decode the file and give the array."
        )
    return read_frames(source, needed=needed).image(frame)


def read_frames(source: Source, *, needed: tuple[int, int, int] | None = None) -> Frames:
    """The same of a source that may have several frames: a path, the bytes of a file, an array.

    Of DICOM the header is read, anything else whole. Raises InputError.
    """
    if isinstance(source, np.ndarray):
        return _Single(_from_array(source, None, None))
    data = bytes(source) if isinstance(source, bytes | bytearray) else _read_file(source)
    if is_dicom(data):
        from medimg_edge.dicom.read import DicomFile

        return DicomFile(data)
    return _Single(read_raster(data, needed))


def find_images(folder: str | PathLike[str]) -> list[Path]:
    """The images below a folder, as ``search`` finds them.

    Raises InputMissing (also where a folder in it cannot be searched), NoImages.
    """
    found = []
    for path, error in search(folder):
        if error is not None:
            raise error
        found.append(path)
    return found


def search(folder: str | PathLike[str]) -> Iterator[tuple[Path, InputError | None]]:
    """Yield the images below a folder, sorted by path; hidden files and folders are passed over.

    Found by suffix (.png .jpg .jpeg .tif .tiff .dcm .dicom), and other files by the DICOM prefix in
    their content: archives name them by UID. Links to folders are not followed. A folder that
    cannot be searched comes with InputMissing, and one in which nothing was found with NoImages.
    """
    nothing = True
    for path, error in files(folder):
        if error is not None or is_image(path):
            yield path, error
            nothing = False
    if nothing:
        yield (
            Path(folder),
            NoImages(
                f"{os.fspath(folder)} holds no images. Searched for {', '.join(sorted(SUFFIXES))}, "
                "and DICOM files of any name."
            ),
        )


def files(folder: str | PathLike[str]) -> Iterator[tuple[Path, InputError | None]]:
    """Every file below a folder, gone through as in ``search``; a level at a time is in memory."""
    levels = [(Path(folder), iter(["./"]))]
    while levels:
        parent, names = levels[-1]
        if (name := next(names, None)) is None:
            levels.pop()
            continue
        path = parent / name
        if not name.endswith("/"):
            yield path, None
            continue
        try:
            levels.append((path, iter(_listed(path))))
        except OSError as error:
            yield (
                path,
                InputMissing(
                    f"{path} cannot be searched: {error.strerror}. Check the path and its rights."
                ),
            )


def _listed(folder: Path) -> list[str]:
    """Names in their order; those of folders end in a slash."""
    with os.scandir(folder) as entries:
        seen = [each for each in entries if not each.name.startswith(".")]
    return sorted(
        (each.name + "/" * each.is_dir(follow_symlinks=False) for each in seen if not _leads(each)),
        key=lambda name: name.removesuffix("/"),
    )


def _leads(entry: os.DirEntry[str]) -> bool:
    """Whether it is a link to a folder."""
    return entry.is_symlink() and os.path.isdir(entry.path)


def is_image(path: Path) -> bool:
    """Whether a file is one by its suffix, or by the DICOM prefix in its content."""
    if path.suffix.lower() in SUFFIXES:
        return True
    if path.name == "DICOMDIR":  # an index of the others
        return False
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return is_dicom(file.read(_DICOM_HEAD))
    except OSError:  # not known to be an image, so not known to be missing
        return False


def _read_file(path: str | PathLike[str]) -> bytes:
    try:
        descriptor = os.open(path, _OPEN)
        try:
            return _content(descriptor, os.fspath(path))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputMissing(
            f"{os.fspath(path)} cannot be read: {error.strerror}. Check the path and its rights."
        ) from error
    except ValueError as error:  # a NUL in the path
        raise InputMissing(f"{os.fspath(path)!r} is not a path: {error}.") from error


def _content(descriptor: int, name: str) -> bytes:
    information = os.fstat(descriptor)
    if not stat.S_ISREG(information.st_mode):
        raise InputMissing(f"{name} is a folder or a device, not a file.")
    if information.st_size > MAX_BYTES:
        raise TooLarge(
            f"{name} has {information.st_size:,} bytes; files of at most {MAX_BYTES:,} are read."
        )
    return os.read(descriptor, information.st_size)


def _from_array(
    array: NDArray, photometric: Photometric | None, value_range: tuple[float, float] | None
) -> Image:
    values = _one_frame(array)
    expected = ("RGB",) if values.shape[2] == 3 else ("MONOCHROME2", "MONOCHROME1")
    if photometric is not None and photometric not in expected:
        raise Unsupported(
            f"An array of shape {array.shape} cannot be {photometric}; accepted: "
            f"{' or '.join(expected)}."
        )
    low, high = value_range or _FULL_RANGE.get(values.dtype.name, (0.0, 0.0))
    if not (isfinite(low) and isfinite(high) and low < high):
        raise Unsupported(
            f"An array of {values.dtype.name} with value_range {value_range}; two finite numbers, "
            "the values shown black and white, are needed: value_range=(low, high), low < high."
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise Unsupported("The array holds NaN or infinite values. Replace them first.")
    if values.dtype == np.int16:
        values = values.astype(np.float32)
    frames = np.ascontiguousarray(values)[np.newaxis]
    return Image(frames, Range(low, high), "array", inverted=photometric == "MONOCHROME1")


def _one_frame(array: NDArray) -> NDArray:
    """Shape (H, W, C), the dtype's byte order that of this machine."""
    if array.dtype.name not in _DTYPES:
        raise Unsupported(f"The array is of {array.dtype}; accepted: {', '.join(_DTYPES)}.")
    values = array[..., np.newaxis] if array.ndim == 2 else array
    if values.ndim != 3 or values.shape[2] not in (1, 3) or values.size == 0:
        raise Unsupported(
            f"The array has the shape {array.shape}; accepted: (H, W), (H, W, 1) or (H, W, 3)."
        )
    check_pixels(*values.shape[:2])
    return values.astype(values.dtype.newbyteorder("="), copy=False)
