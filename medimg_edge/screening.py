"""Which images a model turns away, although their header says nothing against it.

Before the network by the pixels: hardly any grey levels, a strip or a small part within a border,
black and white exchanged. Behind it by the embedding: nothing like the training images. What an
image looks like in numbers goes into its record, whether it is answered or not.
"""

from __future__ import annotations

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from medimg_edge.bundle import Bundle
from medimg_edge.errors import (
    Cropped,
    Inverted,
    LowContrast,
    NotLikeTraining,
    Rejected,
)
from medimg_edge.image import Image
from medimg_edge.manifest import Polarity
from medimg_edge.novelty import Detector, numbers
from medimg_edge.preprocess import Area, filled_area
from medimg_edge.record import Measured

MIN_LEVELS = 24
"""Of grey, between the 1st and the 99th percentile: less is noise, or nearly blank."""

MAX_ASPECT = 3.0
"""Long side to short side: a strip shows part of what a radiograph shows."""

FLAT = 4
"""A row whose grey levels differ by no more is part of a border."""

_SAMPLES = 32
FORCED = "Answered by force: "
"""So begins the warning of what would be turned away."""

_FORCE = "If it is the right image all the same, answer by force: --force."


class Screen:
    """What a bundle says of the images that it is for. May be shared between threads.

    force: nothing is turned away; a warning is said instead.

    Raises FilesDiffer, ManifestInvalid.
    """

    def __init__(self, bundle: Bundle, artifact: str, *, force: bool = False) -> None:
        manifest = bundle.manifest
        self._spec, self._force, self._name = manifest.preprocessing, force, manifest.name
        found = manifest.screening
        self._limits = None if found is msgspec.UNSET else found
        self._upright = self._detector = None
        if self._limits is None:
            return
        if (polarity := self._limits.polarity) is not None:
            self._upright = Upright.read(bundle, polarity)
        if (novelty := self._limits.novelty) is not None and artifact in novelty.limit:
            self._detector = Detector(bundle, novelty, artifact)

    def before(self, image: Image, pixels: NDArray[np.uint8]) -> tuple[Measured, tuple[str, ...]]:
        """What is kept of an image's looks, and what is to be said with the answer.

        pixels: as ``preprocess`` made them of it.
        Raises LowContrast, Cropped, Inverted, with ``measured``.
        """
        measured = looks(pixels)
        if self._limits is None:
            return measured, ()
        problem = self._problem(image, pixels, measured)
        return measured, () if problem is None else self._turned_away(problem, measured)

    def behind(
        self, embedding: NDArray[np.float32] | None, measured: Measured
    ) -> tuple[Measured, tuple[str, ...]]:
        """The same, with how novel the network finds it. Raises NotLikeTraining."""
        if self._detector is None or embedding is None:
            return measured, ()
        novelty = round(self._detector.novelty(embedding), 4)
        measured = msgspec.structs.replace(measured, novelty=novelty)
        if novelty <= 1:
            return measured, ()
        problem = NotLikeTraining(
            f"The image is not like those that {self._name} was trained on: {novelty:.2f}, and "
            "1 is the limit. Give it an image of the kind that it is for; `medimg-edge info` says "
            f"which. {_FORCE}"
        )
        return measured, self._turned_away(problem, measured)

    def _turned_away(self, problem: Rejected, measured: Measured) -> tuple[str, ...]:
        if not self._force:
            problem.measured = measured
            raise problem
        said = problem.message.removesuffix(_FORCE).strip()
        return (f"{FORCED}{said}",)

    def _problem(
        self, image: Image, pixels: NDArray[np.uint8], measured: Measured
    ) -> Rejected | None:
        assert self._limits is not None
        rows, columns = image.size
        if max(rows, columns) > MAX_ASPECT * min(rows, columns):
            return Cropped(
                f"The image is a strip of {columns} x {rows} pixels. Give the whole image. {_FORCE}"
            )
        levels = grey_levels(image)
        if levels < MIN_LEVELS or measured.contrast < self._limits.contrast:
            return LowContrast(
                f"The image has {levels:.0f} grey levels (at least {MIN_LEVELS} are needed) and a "
                f"contrast of {measured.contrast:.1f} (at least {self._limits.contrast:.1f}). "
                f"Check the exposure, or export it with all its bits. {_FORCE}"
            )
        share = content(pixels, filled_area(image.size, self._spec))
        if share < self._limits.content:
            return Cropped(
                f"The image fills {share:.0%} of its frame, the rest is flat; at least "
                f"{self._limits.content:.0%} are needed. Export it without the border. {_FORCE}"
            )
        if self._upright is not None and not self._upright(pixels):
            return Inverted(
                "Black and white are exchanged, as in a negative. Export the image as it is "
                f"displayed. {_FORCE}"
            )
        return None


class Upright:
    """Whether black is black: one weight for each cell of a coarse copy of the tensor.

    weights: float32 (side, side). limit: what is below is inverted.
    """

    def __init__(self, weights: NDArray[np.float32], limit: float) -> None:
        self._weights, self._limit = weights.ravel(), limit
        self._side = weights.shape[0]

    @classmethod
    def read(cls, bundle: Bundle, spec: Polarity) -> Upright:
        """Raises FilesDiffer, ManifestInvalid."""
        shape = spec.side, spec.side
        return cls(numbers(bundle, spec.weights, shape, "screening.polarity"), spec.limit)

    def score(self, pixels: NDArray[np.uint8]) -> float:
        """uint8 (H, W, C) -> positive as the training images are, negative for their negatives."""
        return float(self._weights @ cells(pixels, self._side))

    def __call__(self, pixels: NDArray[np.uint8]) -> bool:
        """Whether it is not a negative."""
        return self.score(pixels) >= self._limit


def cells(pixels: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """uint8 (H, W, C) -> float32 (side * side,): means of squares, less the mean of all."""
    grey = pixels[..., 0] if pixels.shape[2] == 1 else pixels.mean(axis=2, dtype=np.float32)
    coarse = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA).ravel()
    values = coarse.astype(np.float32)
    return values - values.mean()


def looks(pixels: NDArray[np.uint8]) -> Measured:
    """What is kept of a tensor, uint8 (H, W, C); see ``record.Measured``."""
    mean, deviation = cv2.meanStdDev(pixels)
    below = cv2.norm(pixels[1:], pixels[:-1], cv2.NORM_L1) / max(1, pixels[1:].size)
    return Measured(
        brightness=round(float(mean.mean()), 2),
        contrast=round(float(deviation.mean()), 2),
        sharpness=round(below, 3),
    )


def grey_levels(image: Image) -> float:
    """How many lie between the 1st and the 99th percentile of (F, H, W, C), of a sample.

    In the units of the file: grey levels, or Hounsfield units. Of floats in a unit that is larger
    than a level, such as 0 to 1, those that are there.
    """
    rows, columns = image.size
    down, across = max(1, rows // _SAMPLES), max(1, columns // _SAMPLES)
    values = image.frames[0, ::down, ::across].ravel()
    last = values.size - 1
    low, high = round(0.01 * last), round(0.99 * last)
    ordered = np.partition(values, (low, high))
    levels = float(ordered[high]) - float(ordered[low])
    if levels < MIN_LEVELS and values.dtype.kind == "f":
        return max(levels, float(len(np.unique(ordered[low : high + 1])) - 1))
    return levels


def content(pixels: NDArray[np.uint8], filled: Area) -> float:
    """The share of ``filled``, where the image lies in (H, W, C), that is within no flat border."""
    inside = pixels[
        filled.top : filled.top + filled.rows, filled.left : filled.left + filled.columns, 0
    ]
    rows, columns = (_extent(inside, axis) for axis in (1, 0))
    return rows * columns / max(1, inside.size)


def _extent(values: NDArray[np.uint8], axis: int) -> int:
    """From the first row (axis 1) or column (axis 0) that is not flat, to the last: how many."""
    busy = np.flatnonzero(values.max(axis=axis) - values.min(axis=axis) > FLAT)
    return int(busy[-1] - busy[0] + 1) if busy.size else 0
