"""Unconflicting projection of gradients."""

from functools import cached_property
from typing import Any

from mtan_core.aggregation import Aggregator


class UPGrad(Aggregator):
    """UPGrad (Quinton and Rey 2024): each gradient projected on the cone of directions that conflict with no gradient.

    Without conflict it is the sum of the gradients.
    """

    source = "Quinton, Rey, Jacobian descent for multi-objective optimization, arXiv 2406.16232, 2024"

    @cached_property
    def solver(self) -> Any:
        from torchjd.aggregation import UPGradWeighting

        return UPGradWeighting()


WEIGHTING = UPGrad
