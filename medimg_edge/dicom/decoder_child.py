"""A process that decodes frames by native libraries, which a damaged frame may end.

Run by ``isolated``, as a file: of medimg-edge it imports nothing, so that it starts quickly. It
says that it is there by one byte. For each request on standard input, a JSON line
(``isolated.Request``) and the frame, it answers on standard output: one byte, a length of 8 bytes,
little endian, and so many of the pixels. It ends when standard input does.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import tempfile
from collections.abc import Callable

READY, PIXELS, DAMAGED, MACHINE = b"R", b"P", b"D", b"M"
MEMORY = 3 * 2**30
"""Of address space, in bytes: more than the largest image needs."""

SECONDS = 60
"""For a frame. Whoever asked ends it then; this is for where that one was ended before."""


def main() -> None:
    """Answer until there are no more requests."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing but answers on the pipe
    limit()
    alarm = getattr(signal, "alarm", int)
    answers.write(READY)
    answers.flush()
    while line := requests.readline():
        request = json.loads(line)
        alarm(SECONDS)
        kind, pixels = decoded(requests.read(request["bytes"]), request)
        alarm(0)
        answers.write(kind + struct.pack("<Q", len(pixels)) + pixels)
        answers.flush()


def limit() -> None:
    """Take no more memory than a frame may need, and leave no core behind."""
    if os.name == "posix":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def decoded(frame: bytes, request: dict) -> tuple[bytes, bytes]:
    """What is said of a frame, and its pixels by sample, little endian."""
    try:
        pixels = DECODERS[request["family"]](frame, request)
    except (ImportError, MemoryError, OSError):
        return MACHINE, b""
    except Exception:  # whatever a library says of a frame that it does not decode
        return DAMAGED, b""
    return PIXELS, pixels


def jpeg(frame: bytes, request: dict) -> bytes:
    """By GDCM, which says on standard error alone that data are missing."""
    import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((request["columns"], request["rows"], 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(request["photometric"])
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    if request["samples"] > 1:
        image.SetPlanarConfiguration(request["planar"])
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(request["syntax"])))
    bits = request["bits"]
    image.SetPixelFormat(gdcm.PixelFormat(request["samples"], bits, bits, bits - 1, 0))
    with Said() as said:
        text = image.GetBuffer()  # bytes, as text
    if text is None or said.damaged:
        raise ValueError
    return text.encode("utf-8", "surrogateescape")


def jpeg_ls(frame: bytes, request: dict) -> bytes:
    """By CharLS."""
    import jpeg_ls

    pixels, header = jpeg_ls.decode_buffer(frame)
    if request["samples"] == 1 or header["interleave_mode"] != 0:
        return bytes(pixels)
    import numpy as np

    planes = np.frombuffer(pixels, f"u{request['bits'] // 8}")
    shape = request["samples"], request["rows"], request["columns"]
    return planes.reshape(shape).transpose(1, 2, 0).tobytes()


def jpeg_2000(frame: bytes, request: dict) -> bytes:
    """By OpenJPEG."""
    from io import BytesIO

    from openjpeg.utils import decode

    return decode(BytesIO(frame), j2k_format=0).tobytes()


def in_memory() -> int:
    """A file without a name; on Linux it needs no disk."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("said")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Said:
    """What a library writes to standard error meanwhile."""

    damaged = False

    def __enter__(self) -> Said:
        self._kept, self._file = os.dup(2), in_memory()
        os.dup2(self._file, 2)
        return self

    def __exit__(self, *_: object) -> None:
        os.dup2(self._kept, 2)
        os.close(self._kept)
        os.lseek(self._file, 0, os.SEEK_SET)
        lines = os.read(self._file, 10_000).decode(errors="replace").splitlines()
        os.close(self._file)
        self.damaged = any(
            "Corrupt JPEG data" in line and "extraneous bytes before marker 0xd9" not in line
            for line in lines
        )


DECODERS: dict[str, Callable[[bytes, dict], bytes]] = {
    "JPEG": jpeg,
    "JPEG-LS": jpeg_ls,
    "JPEG 2000": jpeg_2000,
}

if __name__ == "__main__":
    main()
