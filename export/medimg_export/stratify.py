"""Divide images by label in given shares, without dividing what belongs together."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medimg_export.dataset import Sample, Split

Rows = NDArray[np.intp]


def units_of(samples: Sequence[Sample], digests: Sequence[str]) -> Rows:
    """(N,): rows with the same number share a group or a content, or are connected by others."""
    parent = list(range(len(samples)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first: dict[tuple[str, str], int] = {}
    for row, (sample, digest) in enumerate(zip(samples, digests, strict=True)):
        keys = [("content", digest)]
        if sample.group is not None:
            keys.append(("group", sample.group))
        for key in keys:
            parent[root(row)] = root(first.setdefault(key, row))
    return np.array([root(row) for row in range(len(samples))], np.intp)


def assign(
    rows: Rows,
    units: Rows,
    marks: NDArray[np.int64],
    digests: Sequence[str],
    shares: Mapping[Split, float],
    seed: int,
) -> NDArray[np.str_]:
    """The split of each row: whole units, the largest first, each to where it is needed most.

    Need is measured by the squared distance to the wanted number of images, over classes, in
    units of that number. Units of equal size come in an order drawn from the seed and their
    contents, so the order of the files and their names do not matter.

    units: (N,), equal for rows that stay together. marks: (N, K) of 0 and 1. shares: of each split
    but train, which gets the rest.
    """
    names = np.array(["train", *shares])
    unlabelled = 1 - marks.max(axis=1, keepdims=True)  # multilabel: none of them is a class too
    classes = np.hstack([marks, unlabelled])
    share = np.array([1 - sum(shares.values()), *shares.values()])
    wanted = np.outer(share, classes[rows].sum(axis=0))
    weight = 1 / np.maximum(wanted, 1e-9)
    have = np.zeros_like(wanted)
    members: dict[int, list[int]] = defaultdict(list)
    contents: dict[int, list[str]] = defaultdict(list)
    for position, (row, unit) in enumerate(zip(rows.tolist(), units[rows].tolist(), strict=True)):
        members[unit].append(position)
        contents[unit].append(digests[int(row)])

    def draw(unit: int) -> tuple[int, bytes]:
        drawn = hashlib.sha256(f"{seed} {min(contents[unit])}".encode()).digest()
        return -len(members[unit]), drawn

    side = np.zeros(len(rows), np.intp)
    for unit in sorted(members, key=draw):
        positions = members[unit]
        added = classes[rows[positions]].sum(axis=0)
        cost = (added * (2 * (have - wanted) + added) * weight).sum(axis=1)
        chosen = int(cost.argmin())
        side[positions] = chosen
        have[chosen] += added
    return names[side]
