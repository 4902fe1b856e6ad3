"""Means, spreads and differences over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

TEST = "Welch's t-test (two-sided, variances not taken for equal)"


@dataclass(frozen=True)
class Sample:
    """One measure over the seeds of a group."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation (n - 1); None for a single seed."""
        if len(self.values) < 2:
            return None
        return math.sqrt(math.fsum((value - self.mean) ** 2 for value in self.values) / (len(self.values) - 1))


@dataclass(frozen=True)
class Difference:
    """A group's mean less the reference's. `p` and the 95 % interval need two seeds each and some spread; else None."""

    delta: float
    p: float | None = None
    interval: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"delta": self.delta, "p": self.p, "interval_95": list(self.interval) if self.interval else None}


def difference(own: Sample, reference: Sample) -> Difference:
    """The difference of two means, with Welch's t-test where seeds allow."""
    delta = own.mean - reference.mean
    if not (own.spread is not None and reference.spread is not None and own.spread + reference.spread > 0):
        return Difference(delta)
    from scipy.stats import ttest_ind

    found = ttest_ind(own.values, reference.values, equal_var=False)
    low, high = found.confidence_interval(0.95)
    return Difference(delta, float(found.pvalue), (float(low), float(high)))


def said(values: Sequence[float]) -> str:
    """Mean and spread in words: 0.491 ± 0.022, or the mean alone."""
    sample = Sample(tuple(values))
    return f"{sample.mean:.3f}" if sample.spread is None else f"{sample.mean:.3f} ± {sample.spread:.3f}"
