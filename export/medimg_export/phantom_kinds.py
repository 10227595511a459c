"""The kinds of phantoms: what each can show, how it is drawn, and how it becomes a DICOM file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from medimg_export import phantom_dicom
from medimg_export.phantom_bone import Leg, bone
from medimg_export.phantom_chest import Phantom, chest
from medimg_export.phantom_ct import Slice, ct
from medimg_export.phantom_mri import Finding, Head, mri

Format = Literal["png", "dicom"]


class Picture(Protocol):
    """pixels: uint16 (H, W), 0..65535, as a display shows it; mask: uint8 (H, W), the finding."""

    @property
    def pixels(self) -> NDArray[np.uint16]:
        """uint16 (H, W), the full range 0..65535."""
        ...

    @property
    def mask(self) -> NDArray[np.uint8]:
        """uint8 (H, W), 255 inside the finding."""
        ...


Drawn = TypeVar("Drawn", bound=Picture)


@dataclass(frozen=True)
class Kind(Generic[Drawn]):
    """One kind of phantom.

    classes: the first is without a finding.
    draw: (seed, class, size in pixels) -> the picture.
    encode: (picture, name, number) -> a DICOM file; what is stored how follows from the number.
    format: of the class folders, unless another is asked for: what such data usually come as.
    """

    classes: tuple[str, ...]
    draw: Callable[[int, str, int], Drawn]
    encode: Callable[[Drawn, str, int], bytes]
    format: Format = "png"


def _stored(number: int) -> tuple[int, bool]:
    """BitsStored and MONOCHROME1 of a radiograph: all four come up in turn."""
    return (12, 16)[number // 2 % 2], number % 2 == 1


def _chest(found: Phantom, name: str, number: int) -> bytes:
    bits, inverted = _stored(number)
    return phantom_dicom.encode(found.pixels, name, bits=bits, inverted=inverted)


def _leg(found: Leg, name: str, number: int) -> bytes:
    bits, inverted = _stored(number)
    return phantom_dicom.encode_leg(found, name, bits=bits, inverted=inverted)


def _slice(found: Slice, name: str, number: int) -> bytes:
    """Without the rescale half of them are wrong, without the sign the others."""
    return phantom_dicom.encode_ct(found, name, intercept=(-1024, 0)[number % 2])


def _head(found: Head, name: str, number: int) -> bytes:
    return phantom_dicom.encode_mr(found, name)


KINDS: Mapping[str, Kind] = {
    "chest": Kind(
        ("normal", "opacity"),
        lambda seed, label, size: chest(seed, label == "opacity", size),
        _chest,
    ),
    "ct": Kind(
        ("normal", "nodule"),
        lambda seed, label, size: ct(seed, label == "nodule", size),
        _slice,
        format="dicom",
    ),
    "mri": Kind(
        ("normal", "glioma", "meningioma"),
        lambda seed, label, size: mri(seed, cast(Finding, label), size),
        _head,
    ),
    "bone": Kind(
        ("normal", "fracture"),
        lambda seed, label, size: bone(seed, label == "fracture", size),
        _leg,
    ),
}
"""By the name that the command line knows."""
