"""Impartial multi-task learning of gradients."""

from functools import cached_property
from typing import Any

from mtan_core.aggregation import Aggregator


class IMTLG(Aggregator):
    """IMTL-G (Liu et al. 2021): a combination whose projections on all gradients are equally long; weights sum to the number of tasks.

    Weights may be negative, and grow without bound as gradients become linearly dependent with conflicting lengths.
    """

    source = "Liu, Li, Kuang, Xue, Chen, Yang, Liao, Zhang, Towards impartial multi-task learning, ICLR 2021"

    @cached_property
    def solver(self) -> Any:
        from torchjd.aggregation import IMTLGWeighting

        return IMTLGWeighting()


WEIGHTING = IMTLG
