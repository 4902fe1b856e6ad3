"""`bench step`: the plain loop and our joint step on the same random images, in one run.

The sides take turns. A turn is a process of its own, so that no side lives with another's memory settings, and that the machine
need not hold the memory of all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from decathlon.specs import official_domains
from experiments.bench.limits import measure_limits, step_flops
from experiments.bench.plain import PlainMtan, plain_loop
from experiments.bench.rounds import WARM_STEPS, Clock, Rates, check_options, in_process, lasting, take_turns
from mtan_core.memory import keep_memory
from mtan_core.progress import progress

PLAIN, JOINT = "plain", {"fp32": "joint fp32", "bf16": "joint bf16"}
SIDES = (PLAIN, *JOINT.values())
DOMAIN_COUNTS = (1, 2, 5, 10)
PASS_IMAGES = 256  # a joint step of more is accumulated over passes of whole domains, as where memory is short
LIMIT_SECONDS = 0.1  # for each convolution alone, at most
LEARNING_RATE = 0.01  # small enough for losses on noise to stay finite; speed does not depend on it


@dataclass(frozen=True)
class Task:
    """What all sides do: the domains (official names), images of each per round, and their side in pixels."""

    domains: tuple[str, ...]
    batch: int
    size: int = 72
    depth: int = 28
    width: int = 4
    threads: int = 0  # 0: torch's default, all cores
    clock: str = "wall"  # see `rounds.Clock`

    @property
    def in_a_pass(self) -> int:
        """The domains that the joint step takes through the network together."""
        return max(1, PASS_IMAGES // self.batch)

    def batches(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The same random images and labels for every side."""
        generator = torch.Generator().manual_seed(0)
        made = {}
        for name in self.domains:
            images = torch.randn(self.batch, 3, self.size, self.size, generator=generator)
            made[name] = images, torch.randint(official_domains()[name].classes, (self.batch,), generator=generator)
        return made


def plain_side(task: Task) -> Callable[[int], Callable[[], int]]:
    """The plain loop with all official heads; the result makes a step over the first `count` domains."""
    domains = sorted(official_domains().values(), key=lambda domain: domain.authors_place)
    network = PlainMtan([domain.classes for domain in domains], task.depth, task.width)
    places = [official_domains()[name].authors_place for name in task.domains]
    made = dict(zip(places, task.batches().values(), strict=True))
    optimizer = _optimizer(network)
    return lambda count: plain_loop(network, dict(list(made.items())[:count]), optimizer)


def joint_side(task: Task, precision: str) -> Callable[[int], Callable[[], int]]:
    """Our joint step with all official heads, as `mtan decathlon train` makes it."""
    from decathlon.building import build_network
    from decathlon.config import parse_config
    from mtan_core.step import Batch, Precision, TrainingStep
    from mtan_core.weightings.equal import Equal
    from mtan_core.workers import cpu_workers

    shape = {"depth": task.depth, "width": task.width}
    config = parse_config({"network": shape, "image_size": task.size}, "bench")
    classes = {name: domain.classes for name, domain in official_domains().items()}
    network = build_network(config, classes).train()
    step = TrainingStep(
        network, Equal(list(classes)), _optimizer(network), cast(Precision, precision),
        workers=cpu_workers(len(task.domains)),
    )  # fmt: skip
    channels_last = {
        name: Batch(images.contiguous(memory_format=torch.channels_last), labels)
        for name, (images, labels) in task.batches().items()
    }

    def over(count: int) -> Callable[[], int]:
        some = dict(list(channels_last.items())[:count])

        def one_step() -> int:
            step.accumulate = -(-count // task.in_a_pass)
            step(some)
            return count * task.batch

        return one_step

    return over


def _optimizer(network: nn.Module) -> torch.optim.Optimizer:
    """The authors' kind, the same for all sides."""
    return torch.optim.SGD(network.parameters(), LEARNING_RATE, momentum=0.9, weight_decay=5e-5, nesterov=True)


def _side(side: str, task: Task) -> Callable[[tuple[int, float]], tuple[int, float]]:
    """A side in its process: asked for (domains, seconds), it answers images and seconds taken."""
    if task.threads:
        torch.set_num_threads(task.threads)
    if side != PLAIN:
        keep_memory()  # as a training run does; the plain loop has the C library's defaults
    make = plain_side(task) if side == PLAIN else joint_side(task, side.split()[-1])
    return lambda asked: lasting(make(asked[0]), _clock(task))(asked[1])


def turn(side: str, task: Task, count: int, seconds: float) -> tuple[int, float]:
    """A side in a new process over `count` domains: images and seconds taken.

    Its first steps are over those that it takes through the network at once: no others need more memory.
    """
    at_once = 1 if side == PLAIN else min(count, task.in_a_pass)
    with in_process(_side, side, task) as ask:
        for _ in range(WARM_STEPS):
            ask((at_once, 0.0))
        images, taken = ask((count, seconds))
    return images, taken


def measure_step(task: Task, rounds: int, seconds: float, counts: Sequence[int] | None = None) -> dict[str, Any]:
    """Limits, then every side for every number of domains; the document that `bench step --json` prints.

    Rates are images per second (of `task.clock`) and GFLOP per second of the network's own arithmetic; `limit_share` is
    relative to the rate of the network's convolutions alone.
    """
    check_options(task.clock, (("--batch", task.batch, 2), ("--rounds", rounds, 1), ("--seconds", seconds, 0)))
    chosen = sorted({min(count, len(task.domains)) for count in counts or (*DOMAIN_COUNTS, len(task.domains))})
    torch.set_num_threads(task.threads or torch.get_num_threads())
    images = min(80, task.batch * len(task.domains))
    with progress("limits") as advance:
        limits = measure_limits(images, task.size, min(seconds, LIMIT_SECONDS), _clock(task), advance)
    flops = step_flops(task.size, task.depth, task.width)
    results = {}
    for count in chosen:
        sides = {side: partial(turn, side, task, count) for side in SIDES}
        rates = take_turns(sides, rounds, seconds, f"{count} domain{'s' if count > 1 else ''}", warm=True)
        results[str(count)] = _compare(rates, flops, limits)
    return {
        "domains": list(task.domains), "batch": task.batch, "image_size": task.size, "rounds": rounds,
        "threads": torch.get_num_threads(), "clock": task.clock, "torch": torch.__version__, "gflop_per_image": flops / 1e9,
        "limits_gflops": limits, "by_domains": results,
    }  # fmt: skip


def _clock(task: Task) -> Clock:
    return "cpu" if task.clock == "cpu" else "wall"


def _compare(rates: Mapping[str, Rates], flops: float, limits: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    plain = rates[PLAIN].median
    rows = {}
    for name, side in rates.items():
        gflops = side.median * flops / 1e9
        limit = limits["fp32" if name == PLAIN else name.split()[-1]]["convolution"]
        rows[name] = {**side.to_dict(), "ratio": side.median / plain, "gflops": gflops, "limit_share": gflops / limit}
    return rows


def print_step(document: Mapping[str, Any]) -> None:
    """The document of `measure_step` for people."""
    print(
        f"WRN-28-4, {document['batch']} images of {document['image_size']} px per domain, {document['threads']} threads, "
        f"{document['gflop_per_image']:.2f} GFLOP per image; median (lowest to highest) of {document['rounds']} rounds, "
        f"{document['clock']} clock"
    )
    for precision, limit in document["limits_gflops"].items():
        print(
            f"limit {precision}: its convolutions alone {limit['convolution']:.0f} GFLOP/s "
            f"(the fastest {limit['best_convolution']:.0f}; matrix product {limit['matmul']:.0f})"
        )
    print(f"{'domains':>7}  {'side':10}  {'images/s':>8}  {'':17}  {'to plain':>8}  {'GFLOP/s':>7}  of limit")
    for count, rows in document["by_domains"].items():
        for name, row in rows.items():
            spread = f"({row['lowest']:.1f} to {row['highest']:.1f})"
            print(
                f"{count:>7}  {name:10}  {row['images_per_second']:8.1f}  {spread:17}  {row['ratio']:7.2f}x  "
                f"{row['gflops']:7.0f}  {row['limit_share']:7.0%}"
            )
