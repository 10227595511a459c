"""Bundles whose network is to do harm when it is loaded or run. Needs the package onnx."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np

from tests.device.golden_bundle import with_golden_set

SIDES, READINGS = [4] * 12, 150
"""Of the network that works: so many sums over most axes of a tensor of 64 MB."""

Rewrite = Callable[..., None]


def hostile(build: Callable[..., Path], rewrite: Rewrite, nodes: Callable[[Any], list]) -> Path:
    """A bundle that was fine when its golden set was made. nodes: from ``mean`` to ``harm``.

    helper: that of onnx. What harm is, float32 of any shape, is part of the probability.
    """
    import onnx
    from onnx import TensorProto, helper

    folder = with_golden_set(build([1.0, -1.0], [0.0, 0.0]))
    model = onnx.load(folder / "model.onnx")
    *kept, last = model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.node.extend(nodes(helper))
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["harm"], ["most"], keepdims=0),
            helper.make_node("Mul", ["most", "nothing"], ["none"]),
            helper.make_node("Add", ["logit", "none"], ["all"]),
            helper.make_node("Sigmoid", ["all"], list(last.output)),
        ]
    )
    nothing = helper.make_tensor("nothing", TensorProto.FLOAT, [], [0.0])
    model.graph.initializer.append(nothing)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    rewrite(folder)
    return folder


def _number(helper: Any) -> list:
    """``number``, which depends on the image: nothing of it can be computed before."""
    return [helper.make_node("ReduceMax", ["mean"], ["number"], keepdims=0)]


def _constant(helper: Any, name: str, values: list[int]) -> Any:
    tensor = helper.make_tensor(name, 7, [len(values)], values)
    return helper.make_node("Constant", [], [name], value=tensor)


def allocates(helper: Any) -> list:
    """8 GB."""
    return [
        *_number(helper),
        _constant(helper, "size", [2 * 10**9]),
        helper.make_node("Expand", ["number", "size"], ["harm"]),
    ]


def works(helper: Any) -> list:
    """For half a minute, by no more than the guard accepts: one large tensor is read often."""
    found = [
        *_number(helper),
        _constant(helper, "size", SIDES),
        helper.make_node("Expand", ["number", "size"], ["wide"]),
    ]
    made = []
    for at, axes in enumerate(islice(combinations(range(len(SIDES)), len(SIDES) - 3), READINGS)):
        names = f"sum{at}", f"most{at}"
        found.append(helper.make_node("ReduceLogSumExp", ["wide"], names[:1], axes=list(axes)))
        found.append(helper.make_node("ReduceMax", names[:1], names[1:], keepdims=0))
        made.append(names[1])
    return [*found, helper.make_node("Max", made, ["harm"])]


def loops(helper: Any) -> list:
    """For ever."""
    value, info = helper.make_tensor, helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["condition"], ["go_on"]),
            helper.make_node("Identity", ["before"], ["after"]),
        ],
        "body",
        [info("round", 7, []), info("condition", 9, []), info("before", 1, [])],
        [info("go_on", 9, []), info("after", 1, [])],
    )
    return [
        *_number(helper),
        helper.make_node("Constant", [], ["rounds"], value=value("m", 7, [], [np.iinfo("q").max])),
        helper.make_node("Constant", [], ["yes"], value=value("y", 9, [], [True])),
        helper.make_node("Loop", ["rounds", "yes", "number"], ["harm"], body=body),
    ]
