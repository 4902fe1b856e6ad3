"""What the workers of a data-parallel step tell each other: counted on a real step, computed for any number of GPUs.

    python -m experiments.train.communication

prints the tables of docs/data-parallel.md.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, log2

import torch
from torch import Tensor, nn

from decathlon.building import build_network
from decathlon.config import load_config
from decathlon.specs import official_domains
from mtan_core.norm import synchronise
from mtan_core.parallel import Group
from mtan_core.step import Batch, TrainingStep
from mtan_core.weighting import Row
from mtan_core.weightings.equal import Equal

GPUS = (8, 16, 32, 64, 128, 256, 512)
BANDWIDTH = 25e9  # bytes a second of each GPU to the others: 200 Gbit/s networks
LATENCY = 10e-6  # seconds of one hop


class Counting(Group):
    """The first of two processes, of which the other says nothing: it counts what would be summed."""

    size = 2

    def __init__(self) -> None:
        self.messages: list[int] = []  # bytes of each

    def total(self, values: Tensor) -> Tensor:
        self.messages.append(values.numel() * values.element_size())
        return values.detach().clone()

    def add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        self.messages.append(4 * len(parameters))  # who has which gradient
        self.messages.append(sum(p.grad.numel() * p.grad.element_size() for p in parameters if p.grad is not None))

    def average(self, tensors: Sequence[Tensor]) -> None:
        self.messages.append(sum(tensor.numel() * tensor.element_size() for tensor in tensors))

    def rows(self, rows: Iterable[Row]) -> Iterator[Row]:
        raise NotImplementedError  # of gradient methods, which are not counted here


@dataclass(frozen=True)
class Traffic:
    """Of one step: bytes of the gradients, and the small messages beside them."""

    gradients: int
    small: int
    small_bytes: int

    def sent(self, workers: int) -> float:
        """Bytes that each worker sends for the gradients, all-reduced in a ring."""
        return 2 * (workers - 1) / workers * self.gradients

    def seconds(self, workers: int) -> tuple[float, float]:
        """For gradients by bandwidth, and for small messages by latency (a tree up and down), at the assumed figures."""
        hops = 2 * ceil(log2(workers))
        return self.sent(workers) / BANDWIDTH, self.small * (hops * LATENCY + self.small_bytes / self.small / BANDWIDTH)


def counted(preset: str, synchronised: bool) -> Traffic:
    """The traffic of a joint step of the ten official domains; it does not depend on the size of images or batches."""
    config = load_config(preset, None)
    classes = {spec.name: spec.classes for spec in official_domains().values()}
    network, group = build_network(config, classes), Counting()
    group.synchronised = synchronised
    synchronise(network, group)
    step = TrainingStep(network, Equal(list(classes)), torch.optim.SGD(network.parameters(), lr=0.0), group=group)
    images = torch.randn(2, 3, 32, 32)
    step({domain: Batch(images, torch.zeros(2, dtype=torch.int64)) for domain in classes})
    largest = max(group.messages)
    small = [size for size in group.messages if size != largest]
    return Traffic(largest, len(small), sum(small))


def table(traffic: Traffic) -> list[str]:
    """Rows of a Markdown table, one for each number of GPUs."""
    lines = ["| GPUs | sent per GPU, MB | gradients, ms | small messages, ms |", "| ---: | ---: | ---: | ---: |"]
    for workers in GPUS:
        by_bandwidth, by_latency = traffic.seconds(workers)
        lines.append(
            f"| {workers} | {traffic.sent(workers) / 1e6:.1f} | {1e3 * by_bandwidth:.2f} | {1e3 * by_latency:.2f} |"
        )
    return lines


def page(preset: str = "wrn28-4") -> str:
    """Both tables, with and without synchronised norms."""
    lines = []
    for synchronised in (True, False):
        traffic = counted(preset, synchronised)
        with_norms = "Synchronised norms" if synchronised else "Norms of each worker's own"
        lines += [
            f"{with_norms}: gradients of {traffic.gradients / 1e6:.1f} MB in one message and {traffic.small} small messages of "
            f"{traffic.small_bytes / 1e3:.0f} kB together.", "", *table(traffic), "",
        ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    print(page())
