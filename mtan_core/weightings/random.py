"""Random loss weighting."""

import torch

from mtan_core.sampling import keyed_generator
from mtan_core.weighting import StepWeighting


class RandomWeighting(StepWeighting):
    """Random Loss Weighting (Lin et al. 2022, algorithm 1): K softmax of standard normal draws, anew in every step.

    A draw is a function of seed, task and the step's number: it is the same whatever other tasks there are, and after
    resuming. (The paper's weights sum to 1; here to the number of tasks K, so that learning rates carry over.)
    """

    source = "Lin, Ye, Zhang, Tsang, Reasonable effectiveness of random weighting, TMLR 2022"

    def weights(self) -> dict[str, float]:
        draws = [keyed_generator(self.seed, "weights", task, self.steps).standard_normal() for task in self.tasks]
        weights = len(self.tasks) * torch.tensor(draws, dtype=torch.float64).softmax(0)
        return dict(zip(self.tasks, weights.tolist(), strict=True))


WEIGHTING = RandomWeighting
