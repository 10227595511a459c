"""Pixel data -> stored values, and colours -> RGB. PS3.5 section 8.1, PS3.3 C.7.6.3."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medimg_edge.dicom.elements import integer, text
from medimg_edge.errors import DicomInvalid, TooLarge, Truncated, Unsupported
from medimg_edge.limits import MAX_FRAMES, check_pixels

if TYPE_CHECKING:
    from pydicom import Dataset, FileDataset

_SAMPLES = {
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
    "PALETTE COLOR": 1,
    "RGB": 3,
    "YBR_FULL": 3,
    "YBR_FULL_422": 3,
    "YBR_ICT": 3,
    "YBR_RCT": 3,
}
GREY = ("MONOCHROME1", "MONOCHROME2")


class Layout(NamedTuple):
    """The Image Pixel module, checked: PS3.3 C.7.6.3."""

    rows: int
    columns: int
    samples: int
    photometric: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    planar: bool
    frames: int

    @property
    def row_bytes(self) -> int:
        """Of all samples of one row of a frame, as they lie in the file."""
        return self.columns * self._samples_stored * self.bits_allocated // 8

    @property
    def frame_bytes(self) -> int:
        """Of one frame."""
        return self.rows * self.row_bytes

    @property
    def _samples_stored(self) -> int:
        """Two pixels of YBR_FULL_422 share their colour: PS3.3 C.7.6.3.1.2."""
        return 2 if self.photometric == "YBR_FULL_422" else self.samples


def describe(dataset: Dataset) -> Layout:
    """The Image Pixel module; refuses what is not read and what contradicts itself."""
    photometric = text(dataset, "PhotometricInterpretation") or "absent"
    samples = integer(dataset, "SamplesPerPixel", 1)
    bits_allocated = integer(dataset, "BitsAllocated")
    bits_stored = integer(dataset, "BitsStored", bits_allocated)
    layout = Layout(
        rows=integer(dataset, "Rows"),
        columns=integer(dataset, "Columns"),
        samples=samples,
        photometric=photometric,
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        high_bit=integer(dataset, "HighBit", bits_stored - 1),
        signed=integer(dataset, "PixelRepresentation", 0) == 1,
        planar=samples > 1 and integer(dataset, "PlanarConfiguration", 0) == 1,
        frames=integer(dataset, "NumberOfFrames", 1),
    )
    _check(layout)
    check_pixels(layout.rows, layout.columns)
    if layout.frames > MAX_FRAMES:
        raise TooLarge(
            f"The DICOM file declares {layout.frames:,} frames; at most {MAX_FRAMES:,} are read."
        )
    return layout


def _check(layout: Layout) -> None:
    if layout.photometric not in _SAMPLES:
        raise Unsupported(
            f"PhotometricInterpretation (0028,0004) is none of {', '.join(_SAMPLES)}. Export the "
            "image as grey or RGB."
        )
    if layout.bits_allocated not in (8, 16):
        raise Unsupported(
            f"BitsAllocated (0028,0100) is {layout.bits_allocated}; 8 and 16 are read."
        )
    rules = (
        (
            layout.rows > 0 and layout.columns > 0,
            f"declares {layout.columns} x {layout.rows} pixels",
        ),
        (
            layout.samples == _SAMPLES[layout.photometric],
            f"has {layout.samples} samples for each pixel of {layout.photometric}",
        ),
        (
            0 < layout.bits_stored <= layout.high_bit + 1 <= layout.bits_allocated,
            f"stores {layout.bits_stored} bits up to bit {layout.high_bit} of "
            f"{layout.bits_allocated}",
        ),
        (
            layout.photometric in GREY or not layout.signed,
            f"has signed {layout.photometric} values",
        ),
        (layout.frames > 0, f"has {layout.frames} frames"),
    )
    for holds, found in rules:
        if not holds:
            raise DicomInvalid(f"The DICOM header contradicts itself: it {found}.")


def native_frame(dataset: FileDataset, layout: Layout, number: int) -> NDArray:
    """Frame ``number``, from 0, of plain PixelData: uint8, uint16, int8 or int16, (H, W, samples).

    PS3.5 section 8.1.1. Raises Truncated, DicomInvalid.
    """
    data = _checked_bytes(dataset, layout)
    first, size = number * layout.frame_bytes, layout.frame_bytes
    little = dataset.original_encoding[1] is not False
    if layout.bits_allocated == 16:
        cells = np.frombuffer(data, "<u2" if little else ">u2", size // 2, first)
    elif little or dataset["PixelData"].VR == "OB":
        cells = np.frombuffer(data, np.uint8, size, first)
    else:  # bytes in words, and the words were turned around: PS3.5 section 8.1.2 and annex D
        words = np.frombuffer(data + b"\0" * (len(data) % 2), "<u2").byteswap()
        cells = words.view(np.uint8)[first : first + size]
    return used_bits(_arranged(cells, layout), layout)


def _arranged(cells: NDArray, layout: Layout) -> NDArray:
    """(H, W, samples), in this machine's byte order. PS3.3 C.7.6.3.1.2 and C.7.6.3.1.3."""
    shape = (layout.rows, layout.columns)
    if layout.photometric == "YBR_FULL_422":  # Y Y Cb Cr
        pairs = cells.reshape(layout.rows, -1, 4)
        luma = pairs[..., :2].reshape(*shape, 1)
        values = np.concatenate([luma, pairs[..., 2:].repeat(2, axis=1)], axis=2)
    elif layout.planar:
        values = cells.reshape(layout.samples, *shape).transpose(1, 2, 0)
    else:
        values = cells.reshape(*shape, layout.samples)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _checked_bytes(dataset: Dataset, layout: Layout) -> bytes:
    element = dataset["PixelData"]
    data = element.value
    if element.is_undefined_length or not isinstance(data, bytes):
        raise DicomInvalid(
            "The transfer syntax says that the pixels are plain, but they are encapsulated."
        )
    if layout.photometric in ("YBR_ICT", "YBR_RCT") or (
        layout.photometric == "YBR_FULL_422" and layout.columns % 2
    ):
        raise DicomInvalid(f"Plain pixels cannot be {layout.photometric} of such a size.")
    expected = layout.frames * layout.frame_bytes
    frames = f"{layout.frames} x " if layout.frames > 1 else ""
    needs = f"{frames}{layout.columns} x {layout.rows} pixels need {expected:,}"
    if len(data) < expected:
        raise Truncated(
            f"PixelData (7FE0,0010) has {len(data):,} bytes; {needs}: part of the image is "
            "missing. Copy it again."
        )
    # Less than a row behind the pixels, or zeros, is padding.
    if len(data) >= expected + max(layout.row_bytes, 2) and data[expected:].strip(b"\0"):
        raise DicomInvalid(
            f"PixelData (7FE0,0010) has {len(data):,} bytes; {needs}: rows and columns do not fit "
            "the pixels."
        )
    return data


def used_bits(values: NDArray, layout: Layout) -> NDArray:
    """Without what else lies in a cell (old overlays), the sign extended. PS3.5 section 8.1.1.

    Unsigned or signed cells of the allocated size, any shape -> signed as the layout says.
    """
    unused = layout.bits_allocated - layout.bits_stored
    above = layout.bits_allocated - 1 - layout.high_bit
    if not layout.signed:
        below = layout.high_bit + 1 - layout.bits_stored
        shifted = values >> below if below else values
        return shifted & 2**layout.bits_stored - 1 if unused else shifted
    values = values.view(np.int8 if values.itemsize == 1 else np.int16)
    return (values << above) >> unused if unused else values


def color_values(stored: NDArray, photometric: str, dataset: Dataset, bits: int) -> NDArray:
    """Stored values of any colour -> RGB, uint8 or uint16 (H, W, 3). PS3.3 C.7.6.3.1.2.

    photometric: what the values are, which a decoder may have changed. bits: those stored.
    """
    from pydicom.pixels.processing import apply_color_lut, convert_color_space

    if photometric == "PALETTE COLOR":  # C.7.6.3.1.5, C.7.9.2
        colored = apply_color_lut(stored[..., 0], _palette(dataset))[..., :3]
        return colored if colored.dtype == np.uint8 else colored.astype(np.uint16)
    if photometric.startswith("YBR_FULL"):
        if bits != 8:
            raise Unsupported(f"{photometric} with {bits} bits; 8 are read.")
        return convert_color_space(stored, "YBR_FULL", "RGB")
    return stored


def _palette(dataset: Dataset) -> Dataset:
    """The palette in little endian words, which is how pydicom takes those of any file."""
    from pydicom import Dataset

    if "SegmentedRedPaletteColorLookupTableData" in dataset:
        raise Unsupported("The palette is segmented (0028,1221); plain ones are read.")
    palette = Dataset()
    for element in dataset.group_dataset(0x0028):
        palette[element.tag] = element
        if element.VR == "OW" and dataset.original_encoding[1] is False:
            swapped = np.frombuffer(element.value, "<u2").byteswap().tobytes()
            palette.add_new(element.tag, "OW", swapped)
    return palette
