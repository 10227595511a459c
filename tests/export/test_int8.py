"""The trunk of a network, on graphs small enough to draw."""

import pytest

from medimg_edge.errors import ConversionError
from medimg_export.int8 import VARIANTS, Node, trunk


def _graph(text: str) -> list[Node]:
    """One node a line, "output = kind inputs"; Conv and Act are spatial, Pool and Dense are not."""
    nodes = []
    for line in text.strip().splitlines():
        output, kind, *inputs = line.replace("=", " ").split()
        spatial = kind in {"Conv", "Act"}
        nodes.append(Node(output, tuple(inputs), (output,), kind == "Conv", spatial))
    return nodes


PLAIN = """
    scaled = Act pixels two
    a = Conv scaled ka
    b = Conv a kb
    f = Act b
    embedding = Pool f
    probability = Dense embedding
"""
HEATMAP_FIRST = """
    a = Conv pixels ka
    f = Act a
    heatmap = Conv f kh
    embedding = Pool f
    probability = Dense embedding
"""
RESIDUAL = """
    a = Conv pixels ka
    b = Conv a kb
    sum = Act a b
    c = Conv sum kc
    probability = Pool c
"""
PROJECTED_SHORTCUT = """
    a = Conv pixels ka
    b = Conv a kb
    s = Conv a ks
    sum = Act b s
    probability = Pool sum
"""
LAYOUT_AFTER = """
    a = Conv pixels ka
    t = Act a
    flat = Pool t
    probability = Dense flat
"""


@pytest.mark.parametrize(
    ("graph", "outputs", "first", "expected"),
    [
        (PLAIN, ["probability", "embedding"], 0, ["a", "b", "f"]),
        (PLAIN, ["probability", "embedding"], 1, ["b", "f"]),
        (PLAIN, ["probability"], 0, ["a", "b", "f"]),
        (HEATMAP_FIRST, ["heatmap", "probability", "embedding"], 0, ["a", "f"]),
        (RESIDUAL, ["probability"], 0, ["a", "b", "sum", "c"]),
        (RESIDUAL, ["probability"], 1, ["b", "sum", "c"]),
        (PROJECTED_SHORTCUT, ["probability"], 0, ["a", "b", "s", "sum"]),
        (LAYOUT_AFTER, ["probability"], 0, ["a", "t"]),
    ],
)
def test_trunk_ends_at_the_features(
    graph: str, outputs: list[str], first: int, expected: list[str]
) -> None:
    assert [node.name for node in trunk(_graph(graph), "pixels", outputs, first)] == expected


@pytest.mark.parametrize(
    ("graph", "first"),
    [(PLAIN, 2), (HEATMAP_FIRST, 1), ("probability = Dense pixels", 0)],
)
def test_a_trunk_without_convolutions_is_refused(graph: str, first: int) -> None:
    with pytest.raises(ConversionError, match="Nothing to quantize"):
        trunk(_graph(graph), "pixels", ["probability"], first)


def test_variants_go_from_all_int8_to_first_blocks_float() -> None:
    assert [(v.per_channel, v.float_first_convs > 0) for v in VARIANTS] == [
        (True, False),
        (False, False),
        (True, True),
        (False, True),
    ]
    assert len({v.name for v in VARIANTS}) == len(VARIANTS)
