"""`bench dense`: a plain loop over tasks and our joint step of MTAN on SegNet on the same random images, in one run.

The sides take turns. A turn is a process of its own, so that no side lives with another's memory settings, and that the machine
need not hold the memory of all of them.
"""

import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.bench.plain_dense import Losses, PlainSegNetMtan, plain_loop
from experiments.bench.rounds import WARM_STEPS, Rates, check_options, in_process, lasting, take_turns
from mtan_core.errors import UserError
from mtan_core.memory import keep_memory

PLAIN, JOINT = "plain", {"fp32": "joint fp32", "bf16": "joint bf16"}
SIDES = (PLAIN, *JOINT.values())
TASKS = {"semantic": 13, "depth": 1, "normal": 3}
LEARNING_RATE = 1e-4  # the authors'


@dataclass(frozen=True)
class Work:
    """What all sides do."""

    batch: int = 2
    height: int = 288
    width: int = 384
    threads: int = 0  # 0: torch's default, all cores
    clock: str = "wall"  # see `rounds.Clock`

    def images(self) -> Tensor:
        """The same random images for every side."""
        return torch.rand(self.batch, 3, self.height, self.width, generator=torch.Generator().manual_seed(0))

    def losses(self) -> Losses:
        """Cross-entropy, absolute difference and cosine to random labels, of raw outputs in the order of `TASKS`."""
        generator = torch.Generator().manual_seed(1)
        shape = self.batch, self.height, self.width
        labels = torch.randint(TASKS["semantic"], shape, generator=generator)
        depth = torch.rand(self.batch, 1, *shape[1:], generator=generator)
        normals = F.normalize(torch.randn(self.batch, 3, *shape[1:], generator=generator), dim=1)
        return (
            lambda raw: F.cross_entropy(raw.float(), labels),
            lambda raw: (raw.float() - depth).abs().mean(),
            lambda raw: 1 - (F.normalize(raw.float(), dim=1) * normals).sum(1).mean(),
        )


def plain_side(work: Work) -> Callable[[], int]:
    """The plain loop over tasks: contiguous, fp32, torch's defaults."""
    network = PlainSegNetMtan(tuple(TASKS.values()))
    return plain_loop(network, work.images(), work.losses(), torch.optim.Adam(network.parameters(), LEARNING_RATE))


def joint_side(work: Work, precision: str) -> Callable[[], int]:
    """Our step, as a run makes it."""
    from dense_tasks.networks import build_network

    network = build_network("mtan", TASKS).train()
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE, fused=True)
    images = work.images().contiguous(memory_format=torch.channels_last)
    losses = dict(zip(TASKS, work.losses(), strict=True))

    def one_step() -> int:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            outputs = network(images)
        torch.stack([losses[task](output) for task, output in outputs.items()]).sum().backward()
        optimizer.step()
        return len(images)

    return one_step


def _side(side: str, work: Work) -> Callable[[float], tuple[int, float, int]]:
    """A side in its process: asked for seconds, it answers images, seconds taken and peak bytes."""
    if work.threads:
        torch.set_num_threads(work.threads)
    torch.manual_seed(0)
    if side != PLAIN:
        keep_memory()  # as a training run does; the plain loop has the C library's defaults
    step = lasting(
        plain_side(work) if side == PLAIN else joint_side(work, side.split()[-1]),
        "cpu" if work.clock == "cpu" else "wall",
    )
    return lambda seconds: (*step(seconds), peak_memory())


def peak_memory() -> int:
    """The most memory that this process ever held, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def turn(side: str, work: Work, peaks: dict[str, int], seconds: float) -> tuple[int, float]:
    """A side in a new process, after its first steps: images and seconds taken. Notes the side's peak memory."""
    with in_process(_side, side, work) as ask:
        for _ in range(WARM_STEPS):
            ask(0.0)
        images, taken, peaks[side] = ask(seconds)
    return images, taken


def step_flops(height: int, width: int) -> float:
    """Floating-point operations of one image's training step in the plain network (forward and backward), counted by torch."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network = PlainSegNetMtan(tuple(TASKS.values()))
        images = torch.rand(2, 3, height, width)
    with FlopCounterMode(display=False) as counter:
        sum((output.sum() for output in network(images)), torch.zeros((), device="meta")).backward()
    return counter.get_total_flops() / 2


def measure_dense(work: Work, rounds: int, seconds: float) -> dict[str, Any]:
    """Every side in turn; the document that `bench dense --json` prints.

    Rates are images per second (of `work.clock`) and GFLOP per second of the plain network's arithmetic, which all sides are
    credited with; `time_share` is a side's time for a step over the plain loop's.
    """
    check(work, rounds, seconds)
    flops, peaks = step_flops(work.height, work.width), dict[str, int]()
    sides = {side: partial(turn, side, work, peaks) for side in SIDES}
    rates = take_turns(sides, rounds, seconds, "MTAN on SegNet", warm=True)
    return {
        "method": "mtan", "batch": work.batch, "height": work.height, "width": work.width, "rounds": rounds,
        "threads": work.threads or torch.get_num_threads(), "clock": work.clock, "torch": torch.__version__,
        "gflop_per_image": flops / 1e9, "sides": _rows(rates, peaks, flops),
    }  # fmt: skip


def _rows(rates: Mapping[str, Rates], peaks: Mapping[str, int], flops: float) -> dict[str, dict[str, float]]:
    plain = rates[PLAIN].median
    return {
        name: {
            **side.to_dict(), "time_share": plain / side.median, "gflops": side.median * flops / 1e9,
            "peak_memory_gb": peaks[name] / 1e9,
        }
        for name, side in rates.items()
    }  # fmt: skip


def check(work: Work, rounds: int, seconds: float) -> None:
    """Raises UserError for values that cannot be."""
    least = (
        ("--batch", work.batch, 2),
        ("--rounds", rounds, 1),
        ("--seconds", seconds, 0),
        ("--threads", work.threads, 0),
    )
    check_options(work.clock, least)
    for name, value in (("--height", work.height), ("--width", work.width)):
        if value < 32 or value % 32:
            raise UserError(f"{name}: expected a multiple of 32, found {value}.")


def print_dense(document: Mapping[str, Any]) -> None:
    """The document of `measure_dense` for people."""
    print(
        f"MTAN on SegNet, {document['batch']} images of {document['height']}x{document['width']}, {document['threads']} threads, "
        f"{document['gflop_per_image']:.0f} GFLOP per image; median of {document['rounds']} rounds, {document['clock']} clock"
    )
    print(
        f"{'side':10}  {'images/s':>8}  {'lowest':>7}  {'highest':>7}  {'of plain time':>13}  {'GFLOP/s':>7}  peak memory"
    )
    for name, row in document["sides"].items():
        print(
            f"{name:10}  {row['images_per_second']:8.3f}  {row['lowest']:7.3f}  {row['highest']:7.3f}  "
            f"{row['time_share']:12.2f}x  {row['gflops']:7.0f}  {row['peak_memory_gb']:.1f} GB"
        )
