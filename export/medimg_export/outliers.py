"""Pictures that no medical model should answer, drawn by kind: what a detector is chosen by.

Half of the kinds choose it, the other half, which it has not seen, say how good it is. Phantoms of
another modality than the model's are among them, so that nothing that it is for is an outlier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from medimg_edge.errors import Rejected
from medimg_edge.image import Image
from medimg_edge.manifest import Preprocessing, Windows
from medimg_edge.preprocess import preprocess
from medimg_edge.reader import read_image
from medimg_export.phantom_kinds import KINDS

Picture = NDArray[np.uint8]
"""Grey, (H, W)."""
Pixels = NDArray[np.uint8]
"""Tensors, (N, H, W, C)."""

EACH = 24
"""Pictures of a kind."""

SIDE = 256
_MODALITIES: Mapping[str, frozenset[str]] = {
    "ct": frozenset({"CT"}),
    "mri": frozenset({"MR"}),
    "bone": frozenset({"CR", "DX"}),
}
"""What phantoms of a kind show."""


class Outliers(NamedTuple):
    """Tensors by kind; ``chosen_by`` names those that choose, the others are unseen."""

    pixels: dict[str, Pixels]
    chosen_by: frozenset[str]


def outliers(spec: Preprocessing, modality: tuple[str, ...], seed: int = 0) -> Outliers:
    """Pictures as the model of ``spec`` would see them; those that it rejects anyway are left out.

    modality: the model's. Where it is not stated, no phantoms are among them.
    """
    found: dict[str, Pixels] = {}
    for number, (kind, draw) in enumerate(_kinds(modality).items()):
        generator = np.random.default_rng((seed, number))
        tensors = [*_seen((draw(generator, at) for at in range(EACH)), spec)]
        if tensors:
            found[kind] = np.stack(tensors)
    return Outliers(found, frozenset(list(found)[::2]))


Draw = Callable[[np.random.Generator, int], Picture]


def _kinds(modality: tuple[str, ...]) -> dict[str, Draw]:
    """Alternately to choose by, and unseen."""
    drawn: dict[str, Draw] = {"noise": _noise, "shapes": _shapes, "text": _text, "clouds": _clouds}
    others = [kind for kind, shown in _MODALITIES.items() if modality and not shown & set(modality)]
    return drawn | {f"phantoms of {kind}": _phantom(kind) for kind in others}


def _seen(pictures: Iterator[Picture], spec: Preprocessing) -> Iterator[NDArray[np.uint8]]:
    for each in pictures:
        try:
            yield preprocess(_image(each, spec), spec)
        except Rejected:
            continue


def _image(picture: Picture, spec: Preprocessing) -> Image:
    """Of Hounsfield units, where a model reads them: black is air, white is bone."""
    if not isinstance(spec.intensity, Windows):
        return read_image(picture, needed=spec.needed)
    values = picture.astype(np.float32) * 8 - 1024
    return read_image(values, value_range=(-1024.0, 1016.0))


def _noise(generator: np.random.Generator, number: int) -> Picture:
    """White, dark as of an unexposed detector, or of single grains."""
    if number % 3 == 0:
        return generator.integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
    if number % 3 == 1:
        return np.clip(generator.poisson(generator.uniform(1, 6), (SIDE, SIDE)), 0, 255).astype(
            np.uint8
        )
    return ((generator.random((SIDE, SIDE)) < generator.uniform(0.02, 0.2)) * 255).astype(np.uint8)


def _clouds(generator: np.random.Generator, number: int) -> Picture:
    """Smooth fields, from the size of the picture to that of a grain."""
    found = np.zeros((SIDE, SIDE), np.float32)
    for cells in (2, 4, 8, 16, 32, 64)[: 2 + number % 5]:
        field = generator.random((cells, cells)).astype(np.float32)
        found += cv2.resize(field, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) / cells
    return cv2.normalize(found, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)  # pyright: ignore[reportArgumentType, reportCallIssue]


def _text(generator: np.random.Generator, number: int) -> Picture:
    """A page, black on white or white on black."""
    page = np.full((SIDE, SIDE), 255, np.uint8)
    size = generator.uniform(0.3, 0.8)
    for line in range(int(20 * size) + 8, SIDE, int(36 * size) + 4):
        letters = "".join(map(chr, generator.integers(65, 123, 30)))
        cv2.putText(page, letters, (6, line), cv2.FONT_HERSHEY_SIMPLEX, size, (0,), 1, cv2.LINE_AA)
    return page if number % 2 else 255 - page


def _shapes(generator: np.random.Generator, number: int) -> Picture:
    """Rectangles, discs and lines."""
    found = np.full((SIDE, SIDE), int(generator.integers(0, 256)), np.uint8)
    for _ in range(3 + number % 6):
        (a, b), (c, d) = generator.integers(0, SIDE, (2, 2)).tolist()
        grey = (int(generator.integers(0, 256)),)
        match int(generator.integers(0, 3)):
            case 0:
                cv2.rectangle(found, (a, b), (c, d), grey, -1)
            case 1:
                cv2.circle(found, (a, b), 5 + c // 3, grey, -1)
            case _:
                cv2.line(found, (a, b), (c, d), grey, 1 + d // 40)
    return found


def _phantom(kind: str) -> Draw:
    def draw(generator: np.random.Generator, number: int) -> Picture:
        of = KINDS[kind]
        drawn = of.draw(number, of.classes[number % len(of.classes)], SIDE)
        return (drawn.pixels >> 8).astype(np.uint8)

    return draw
