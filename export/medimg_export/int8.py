"""Which part of a network becomes int8: the trunk, never the head, in whatever file format.

An int8 probability has 256 steps, so the head (pool, dense, sigmoid or softmax, heatmap) stays
float32. Where the trunk ends is read from the graph: names of layers and tensors are the author's
and the converter's business.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from medimg_edge.errors import ConversionError


@dataclass(frozen=True)
class Int8Variant:
    """One way to quantize the trunk.

    Attributes:
        name: as printed in the export's table and stored in the manifest.
        per_channel: one weight scale per output channel, or one per tensor.
        float_first_convs: how many convolutions, counted from the input, stay float32 together
            with all that lies before and between them.
    """

    name: str
    per_channel: bool
    float_first_convs: int = 0


# 6 convolutions: EfficientNet-Lite0's stem and first two blocks. Their depthwise kernels differ
# most in range from channel to channel, and all later layers inherit their error.
VARIANTS: tuple[Int8Variant, ...] = (
    Int8Variant("per-channel", per_channel=True),
    Int8Variant("per-tensor", per_channel=False),
    Int8Variant("per-channel, first blocks float", per_channel=True, float_first_convs=6),
    Int8Variant("per-tensor, first blocks float", per_channel=False, float_first_convs=6),
)


@dataclass(frozen=True)
class Node:
    """One operation of a converted graph, ONNX or TFLite.

    Attributes:
        name: unique in its graph.
        inputs: tensors that it reads, constants included.
        outputs: tensors that it writes.
        is_conv: a convolution of any kind, depthwise included.
        is_spatial: writes a tensor of rank 4 that is not the result of pooling the whole plane.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    is_conv: bool
    is_spatial: bool


def trunk(
    nodes: Sequence[Node], source: str, outputs: Iterable[str], float_first_convs: int
) -> list[Node]:
    """The nodes that may become int8, in topological order.

    The features are the last spatial tensor that every path from the input to every output runs
    through. The trunk is what the features depend on, beginning with the first convolution that
    is not to stay float. A heatmap's convolution is no part of it: the probability does not run
    through it.

    Args:
        nodes: the whole graph in topological order.
        source: the input tensor.
        outputs: the output tensors.
        float_first_convs: how many convolutions at the start stay float.

    Raises:
        ConversionError: if no convolution is left to quantize.
    """
    features = _features(nodes, source, set(outputs))
    body = [] if features is None else _ancestors(nodes, features)
    starts = [index for index, node in enumerate(body) if node.is_conv]
    if len(starts) <= float_first_convs:
        raise ConversionError(
            f"Nothing to quantize: there are {len(starts)} convolutions between the input and the "
            f"features, and the first {float_first_convs} would stay float. Choose an int8 "
            "variant that leaves fewer of them float, or the float32 artifact."
        )
    return body[starts[float_first_convs] :]


def _features(nodes: Sequence[Node], source: str, outputs: set[str]) -> Node | None:
    for node in reversed(nodes):
        if node.is_spatial and outputs.isdisjoint(_reached(nodes, source, without=node)):
            return node
    return None


def _reached(nodes: Sequence[Node], source: str, without: Node) -> set[str]:
    tensors = {source}
    for node in nodes:
        if node is not without and not tensors.isdisjoint(node.inputs):
            tensors.update(node.outputs)
    return tensors


def _ancestors(nodes: Sequence[Node], last: Node) -> list[Node]:
    needed = set(last.outputs)
    found = []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.outputs):
            needed.update(node.inputs)
            found.append(node)
    return found[::-1]
