"""Projecting conflicting gradients."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mtan_core.aggregation import Aggregator
from mtan_core.sampling import keyed_generator


class PCGrad(Aggregator):
    """PCGrad (Yu et al. 2020, algorithm 1): each gradient loses what points against another one; their sum.

    The others are taken in random order, which is a function of the seed and the step's number.
    """

    source = "Yu, Kumar, Gupta, Levine, Hausman, Finn, Gradient surgery for multi-task learning, NeurIPS 2020"
    of_mean = False

    @cached_property
    def solver(self) -> Any:
        from torchjd.aggregation import PCGradWeighting

        return PCGradWeighting()

    def solve(self, gramian: Float[Tensor, "tasks tasks"], tasks: Sequence[str]) -> Float[Tensor, " tasks"]:
        with torch.random.fork_rng(devices=[]):  # torchjd draws from torch's own generator
            torch.manual_seed(int(keyed_generator(self.seed, "order of gradients", self.steps).integers(2**63)))
            return self.solver(gramian)


WEIGHTING = PCGrad
