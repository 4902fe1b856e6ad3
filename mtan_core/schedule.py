"""Learning rates over a phase."""

import math
from dataclasses import dataclass
from typing import Literal

ScheduleKind = Literal["constant", "step", "cosine"]


@dataclass(frozen=True)
class Schedule:
    """The factor on the learning rate at each step: a linear warm-up, then constant, halving-like steps or a cosine to 0.

    `warmup` and `step_epochs` are in epochs (fractions allowed); `step_factor` multiplies every `step_epochs`.
    """

    kind: ScheduleKind = "cosine"
    warmup: float = 0.0
    step_epochs: float = 50.0
    step_factor: float = 0.5

    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """The factor at a step of the phase, counted from 0."""
        warmup = self.warmup * steps_per_epoch
        rise = min(1.0, (step + 1) / (warmup + 1))
        if self.kind == "step":
            return rise * self.step_factor ** int(step / (self.step_epochs * steps_per_epoch))
        if self.kind == "cosine":
            total = max(1.0, steps_per_epoch * epochs - warmup)
            return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, step - warmup) / total)))
        return rise
