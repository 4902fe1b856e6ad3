"""Weight averaging: a slow copy of the network that often answers better than the one that learns."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mtan_core.checkpoint import misfits
from mtan_core.errors import UserError
from mtan_core.network import owner_of
from mtan_core.norm import SHARED


class WeightAverage:
    """An exponential moving average of a network's parameters and running statistics (Polyak; `decay` per step).

    What belongs to one task moves only on the steps that brought its data, as in the network itself. The average is
    corrected for its start: early on it forgets faster (decay at most (1 + n) / (10 + n) after n steps that moved it).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = network
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.names: dict[str, list[str]] = {SHARED: []}  # of the values, by the task that alone owns them, or "shared"
        for name, value in self.values.items():
            if value.is_floating_point():  # a backbone's tables of places do not move
                self.names.setdefault(owner_of(name), []).append(name)
        self.steps = dict.fromkeys(self.names, 0)

    @torch.no_grad()
    def update(self, tasks: Iterable[str]) -> None:
        """Follow the network after a step of these tasks."""
        now = self.network.state_dict()
        for owner in {SHARED, *tasks}:
            names = self.names[owner]
            if not names:
                continue  # separate networks share nothing
            self.steps[owner] += 1
            decay = min(self.decay, (1 + self.steps[owner]) / (10 + self.steps[owner]))
            torch._foreach_lerp_([self.values[n] for n in names], [now[n] for n in names], 1 - decay)

    def swap(self) -> None:
        """Exchange the network's values with the average's; call it again to exchange them back."""
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                held = value.clone()
                value.copy_(self.values[name])
                self.values[name].copy_(held)

    def load(self, values: dict[str, Tensor], steps: dict[str, int], where: str) -> None:
        """Go on from the values and `steps` of an earlier average. Raises UserError for those of another network."""
        problems = misfits({name: value.shape for name, value in self.values.items()}, values)
        if problems:
            raise UserError(f"{where}: expected another network's weights; {problems}.")
        self.steps = dict(steps)
        for name, value in values.items():
            self.values[name].copy_(value)
