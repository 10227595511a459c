"""A process that decodes JPEG frames by GDCM, which ends the process where a frame is damaged.

Run by ``isolated``, as a file: of medimg-edge it imports nothing, so that it starts quickly. For
each request on standard input, a JSON line (see ``isolated.Request``) and the frame, it answers on
standard output: two lengths of 8 bytes, little endian, the pixels, and what GDCM wrote to standard
error. Without pixels the frame cannot be decoded. It ends when standard input does.
"""

import json
import os
import struct
import sys
import tempfile

import gdcm


def main() -> None:
    """Answer until there are no more requests."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing but answers on the pipe
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        while line := requests.readline():
            request = json.loads(line)
            frame = requests.read(request["bytes"])
            os.ftruncate(2, 0)
            os.lseek(2, 0, os.SEEK_SET)
            pixels = decode(frame, request)
            os.lseek(2, 0, os.SEEK_SET)
            words = os.read(2, 10_000)
            answers.write(struct.pack("<QQ", len(pixels), len(words)) + pixels + words)
            answers.flush()


def decode(frame: bytes, request: dict) -> bytes:
    """The pixels as they lie in memory, little endian; nothing where GDCM does not decode them."""
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
    syntax = gdcm.TransferSyntax.GetTSType(request["syntax"])
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    stored = request["stored"]
    image.SetPixelFormat(
        gdcm.PixelFormat(
            request["samples"], request["allocated"], stored, stored - 1, request["signed"]
        )
    )
    text = image.GetBuffer()  # bytes, as text
    return b"" if text is None else text.encode("utf-8", "surrogateescape")


if __name__ == "__main__":
    main()
