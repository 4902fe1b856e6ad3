"""Which task learns at which step, and from which of its examples.

All of it is a pure function of the seed and of counts, so that a run can be continued from a few whole numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Literal
from zlib import crc32

import numpy as np

Sampling = Literal["joint", "proportional", "temperature", "round_robin", "sequential"]


def keyed_generator(seed: int, *key: int | str) -> np.random.Generator:
    """A random generator for one purpose: the same seed and key give the same numbers, whatever was drawn before."""
    return np.random.default_rng([seed, *(crc32(part.encode()) if isinstance(part, str) else part for part in key)])


@dataclass
class Sampler:
    """Draws tasks and examples.

    `sizes`: number of training examples by task, in declared order. `batch_size`: examples per task and step.

    `kind`: "joint": every step takes a batch from every task; one task per step otherwise: "proportional" (p ~ n),
    "temperature" (p ~ n^(1/temperature)), "round_robin" (an epoch goes on where the one before it stopped), "sequential" (one
    pass over each task after the other).
    """

    kind: Sampling
    sizes: Mapping[str, int]
    batch_size: int
    seed: int = 0
    temperature: float = 2.0
    steps_per_epoch: int | None = None
    _passes: dict[str, tuple[int, np.ndarray]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        empty = [task for task, size in self.sizes.items() if size < 1]
        if empty or not self.sizes:
            raise ValueError(f"Expected training examples of every task, found none of {', '.join(empty) or 'any'}.")

    def epoch_length(self, tasks: Sequence[str]) -> int:
        """Steps in an epoch: by default as many as see as many examples as all training splits hold together."""
        if self.kind == "sequential":
            return sum(self.batches_per_pass(task) for task in tasks)
        if self.steps_per_epoch:
            return self.steps_per_epoch
        total = sum(self.sizes[task] for task in tasks)
        if self.kind == "joint":
            return ceil(total / sum(self.batch(task) for task in tasks))
        return ceil(total / self.batch_size)

    def epoch(self, epoch: int, tasks: Sequence[str]) -> list[tuple[str, ...]]:
        """The tasks drawn at each step of an epoch."""
        steps = self.epoch_length(tasks)
        if self.kind == "joint":
            return [tuple(tasks)] * steps
        if self.kind == "sequential":
            return [(task,) for task in tasks for _ in range(self.batches_per_pass(task))]
        if self.kind == "round_robin":
            return [(tasks[(epoch * steps + step) % len(tasks)],) for step in range(steps)]
        exponent = 1.0 if self.kind == "proportional" else 1.0 / self.temperature
        sizes = np.array([self.sizes[task] for task in tasks], dtype=np.float64)
        shares = (sizes / sizes.max()) ** exponent  # at most 1, whatever the exponent
        places = keyed_generator(self.seed, "tasks", epoch).choice(len(tasks), size=steps, p=shares / shares.sum())
        return [(tasks[place],) for place in places]

    def batches_per_pass(self, task: str) -> int:
        """Whole batches in one pass over a task: what is left over at its end waits for another shuffle."""
        return max(1, self.sizes[task] // self.batch_size)

    def examples(self, task: str, drawn: int) -> np.ndarray:
        """The places of the examples in batch number `drawn` (from 0) of a task's endless, reshuffled stream.

        A batch never wraps: it comes from one shuffle, so no example is in it twice.
        """
        shuffle, place = divmod(drawn, self.batches_per_pass(task))
        if self._passes.get(task, (-1,))[0] != shuffle:
            order = keyed_generator(self.seed, "order", task, shuffle).permutation(self.sizes[task])
            self._passes[task] = (shuffle, order)
        batch = self.batch(task)
        return self._passes[task][1][place * batch : (place + 1) * batch]

    def batch(self, task: str) -> int:
        """Number of examples in a task's part of a step."""
        return min(self.batch_size, self.sizes[task])
