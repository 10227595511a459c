"""Answers of made-up models to made-up images, and two of them compared."""

import numpy as np

from medimg_edge.manifest import Task
from medimg_export.answers import Answers, answers_of
from medimg_export.comparison import Comparison, Side, common, compare

LABELS: dict[Task, tuple[str, ...]] = {
    "binary": ("normal", "ill"),
    "multiclass": ("a", "b", "c"),
    "multilabel": ("a", "b", "c"),
}


def answers(
    task: Task = "binary", seed: int = 0, n: int = 90, groups: int | None = None
) -> Answers:
    """Answers to the same images whatever the seed, which makes the model."""
    labels = LABELS[task]
    y = np.arange(n) * 7 % 10 // 4
    if task == "binary":
        y = np.minimum(y, 1)
    if task == "multilabel":
        y = np.stack([y == 0, y > 1, np.arange(n) % 2], axis=1).astype(int)
    random = np.random.default_rng(seed)
    if task == "multiclass":
        p = 0.5 * random.dirichlet(np.ones(3), n) + 0.5 * random.random((n, 1)) * np.eye(3)[y]
        p = p / p.sum(axis=1, keepdims=True)
    else:
        p = 0.3 * y + 0.7 * random.random(y.shape)
    names = [f"{i}.png" for i in range(n)]
    of = None if groups is None else [str(i % groups) for i in range(n)]
    limits = dict.fromkeys(labels, 0.4 + 0.1 * seed)
    return answers_of(task, labels, names, of, y, p, None if task == "multiclass" else limits)


def compared(a: Answers, b: Answers, bootstrap: int = 200) -> Comparison:
    of_a, of_b = common(a, b)
    n = len(of_a.names)
    side_a, side_b = (Side(x, len(of.names), len(of.names) - n) for x, of in (("A", a), ("B", b)))
    return compare(side_a, side_b, of_a, of_b, bootstrap)
