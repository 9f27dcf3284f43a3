"""Metrics of classification, as scikit-learn computes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def classification_metrics(logits: NDArray[np.floating], labels: Sequence[int]) -> dict[str, float]:
    """``accuracy``, macro-averaged ``f1`` and ``matthews_correlation`` of logits (examples x classes)."""
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    predicted = logits.argmax(-1)
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
        "matthews_correlation": float(matthews_corrcoef(labels, predicted)),
    }


def majority_share(labels: Sequence[int]) -> float:
    """Accuracy of always guessing the commonest class."""
    return Counter(labels).most_common(1)[0][1] / len(labels)
