"""Metrics as each field reports them, by scikit-learn, SciPy and seqeval.

Predictions and labels are arrays with one row an example. Where a row has several labels, those that are ``IGNORED``
do not count.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

LOWER_IS_BETTER = frozenset({"loss", "mse", "perplexity"})
IGNORED = -100  # a label that counts neither here nor in the loss


def classification_metrics(logits: NDArray[np.floating], labels: ArrayLike, names: Sequence[str]) -> dict[str, float]:
    """Of logits (examples x classes) and class indices. ``f1`` is the mean over the classes (macro).

    ``majority_accuracy`` is that of always guessing the labels' commonest class.
    """
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    predicted = logits.argmax(-1)
    each = f1_score(labels, predicted, average=None, labels=range(len(names)), zero_division=0)
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
        "matthews_correlation": float(matthews_corrcoef(labels, predicted)),
        **({f"f1_{name}": float(one) for name, one in zip(names, each, strict=True)} if len(names) == 2 else {}),
        "majority_accuracy": majority_share(labels),
    }


def choice_metrics(logits: NDArray[np.floating], labels: ArrayLike) -> dict[str, float]:
    """Of logits (examples x choices) and indices of the right choice."""
    right = logits.argmax(-1) == np.asarray(labels)
    return {"accuracy": float(right.mean()), "majority_accuracy": majority_share(labels)}


def regression_metrics(predicted: NDArray[np.floating], labels: ArrayLike) -> dict[str, float]:
    """Of numbers (examples, or examples x 1). A correlation with what is constant is 0."""
    from scipy.stats import pearsonr, spearmanr

    found, wanted = predicted.reshape(-1).astype(np.float64), np.asarray(labels, np.float64)
    varied = np.ptp(found) > 0 and np.ptp(wanted) > 0
    return {
        "spearman_correlation": float(spearmanr(found, wanted).statistic) if varied else 0.0,
        "pearson_correlation": float(pearsonr(found, wanted).statistic) if varied else 0.0,
        "mse": float(np.mean((found - wanted) ** 2)),
    }


def tagging_metrics(
    predicted: NDArray[np.integer], labels: NDArray[np.integer], names: Sequence[str]
) -> dict[str, float]:
    """Of tags (examples x tokens): accuracy by token, and for named entities precision, recall and F1 by entity."""
    counts = labels != IGNORED
    right = predicted[counts] == labels[counts]
    shares = {"accuracy": float(right.mean()), "majority_accuracy": majority_share(labels[counts])}
    if not are_entities(names):
        return shares
    from seqeval.metrics import f1_score, precision_score, recall_score

    tags = np.array(names, dtype=object)
    said, wanted = (
        [tags[row[on]].tolist() for row, on in zip(ids, counts, strict=True)] for ids in (predicted, labels)
    )
    scores = {"f1": f1_score, "precision": precision_score, "recall": recall_score}
    return {name: float(score(wanted, said, zero_division=0)) for name, score in scores.items()} | shares


def are_entities(tags: Sequence[str]) -> bool:
    """Whether the tags mark entities in a BIO scheme."""
    return set(tags) != {"O"} and all(re.fullmatch("O|[BIESLU]-.+", tag) for tag in tags)


def perplexity(losses: NDArray[np.floating], labels: NDArray[np.integer]) -> dict[str, float]:
    """Of each token's loss (blocks x tokens - 1), in nats, and the tokens (blocks x tokens)."""
    return {"perplexity": float(np.exp(losses[labels[:, 1:] != IGNORED].astype(np.float64).mean()))}


def majority_share(labels: ArrayLike) -> float:
    """Accuracy of always guessing the commonest class."""
    _, counts = np.unique(np.asarray(labels), return_counts=True)
    return float(counts.max() / counts.sum())
