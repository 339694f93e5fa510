"""The spectrum of features: over how many directions they spread."""

from __future__ import annotations

import dataclasses

import numpy as np

from simsiam_tf.methods import metrics


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """eigenvalues: of the covariance of z/‖z‖, largest first, [F]. rank: `metrics.effective_rank`."""

    eigenvalues: np.ndarray
    rank: float

    @property
    def shares(self) -> np.ndarray:
        """Each direction's share of the variance, [F], adding up to 1; zeros where there is none."""
        total = self.eigenvalues.sum()
        return self.eigenvalues / total if total > 0 else self.eigenvalues

    def directions(self, share: float) -> int:
        """How few directions hold so much of the variance. share: in (0, 1]."""
        return int(np.searchsorted(np.cumsum(self.shares), share - 1e-12) + 1)


def spectrum(features: np.ndarray) -> Spectrum:
    """Of features [N, F], N ≥ 2, normalised to length 1 as for kNN."""
    z = np.asarray(features, np.float64)
    z = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    eigenvalues = np.linalg.eigvalsh(np.cov(z, rowvar=False))[::-1]
    return Spectrum(np.clip(eigenvalues, 0.0, None), metrics.effective_rank(features))
