"""Weight averaging: a slow copy of the network that often answers better than the one that learns."""

from collections.abc import Iterable

import torch
from torch import Tensor

from mtan_core.network import AttentionNetwork, owner_of
from mtan_core.norm import SHARED


class WeightAverage:
    """An exponential moving average of a network's parameters and running statistics (Polyak; `decay` per step).

    What belongs to one task moves only on the steps that brought its data, as in the network itself. The average is
    corrected for its start: early on it forgets faster (decay at most (1 + n) / (10 + n) after n steps).
    """

    def __init__(self, network: AttentionNetwork, decay: float) -> None:
        self.network = network
        self.decay = decay
        self.steps = 0
        self.values = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.owners = {name: owner_of(name) for name in self.values}

    @torch.no_grad()
    def update(self, tasks: Iterable[str]) -> None:
        """Follow the network after a step of these tasks."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        drawn = {SHARED, *tasks}
        moving = [name for name, owner in self.owners.items() if owner in drawn]
        now = self.network.state_dict()
        torch._foreach_lerp_([self.values[n] for n in moving], [now[n] for n in moving], 1 - decay)

    def swap(self) -> None:
        """Exchange the network's values with the average's; call it again to exchange them back."""
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                held = value.clone()
                value.copy_(self.values[name])
                self.values[name].copy_(held)

    def state(self) -> dict[str, Tensor]:
        return self.values

    def load(self, values: dict[str, Tensor], steps: int) -> None:
        """Go on from `state` and `steps` of an earlier average."""
        self.steps = steps
        for name, value in values.items():
            self.values[name].copy_(value)
