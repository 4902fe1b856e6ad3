"""Means, spreads and differences over seeds."""

import statistics
import warnings
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
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation (n - 1); None for a single seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


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

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # said of one sample without spread, which Welch's test allows
        found = ttest_ind(own.values, reference.values, equal_var=False)
        low, high = found.confidence_interval(0.95)
    return Difference(delta, float(found.pvalue), (float(low), float(high)))


def said(values: Sequence[float], digits: int = 3) -> str:
    """Mean and spread in words: 0.491 ± 0.022, or the mean alone."""
    sample = Sample(tuple(values))
    mean = f"{sample.mean:.{digits}f}"
    return mean if sample.spread is None else f"{mean} ± {sample.spread:.{digits}f}"
