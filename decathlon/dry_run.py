"""`train --dry-run`: what a configuration would cost, from a small piece of it done for real."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from decathlon.building import build_network, parameter_counts
from decathlon.config import RunConfig
from decathlon.data.store import open_store
from decathlon.training import Training, prepare_training
from mtan_core.memory import available_memory, refuse_beyond
from mtan_core.progress import Advance, progress
from mtan_core.runs import choose_device
from mtan_core.step import Batch, TrainingStep
from mtan_core.weighting import GradientWeighting, byte_count, row_bytes

TEMPORARIES = 1.25  # what a step holds at its peak for each byte that is kept for the backward pass (docs/results.md)
PROBE = 16  # images of the probing step, at least two per domain: with fewer, convolutions would be made another way


def estimate(config: RunConfig, data: str) -> dict[str, Any]:
    """Parameters, FLOPs, memory (bytes) and time (seconds) that a run would take; nothing is written.

    FLOPs and memory are those of a real step with few images, scaled by the batch (FLOPs that are made: on a CPU wide
    convolutions take fewer, see `mtan_core/winograd.py`); time is that of a real step of the whole batch. Raises
    UserError when the memory expected exceeds the machine's, before it is asked for.
    """
    with progress("estimating", total=4) as advance:
        return _estimate(config, data, advance)


def _estimate(config: RunConfig, data: str, advance: Advance) -> dict[str, Any]:
    free = available_memory(choose_device(config.device))
    advance(note="counting parameters")
    state = _state_bytes(config, data)
    refuse_beyond(free, state, "the network and its optimiser need", "lower network.width or network.depth")
    advance(note="reading the store")
    training = prepare_training(config, data, Path("unused"))
    trainer = training.trainer
    widest = max((phase.streams for phase in trainer.phases), key=len)
    if config.sampling != "joint":
        widest = widest[:1]
    advance(note="measuring a small step")
    flops, saved = _probe(training, widest)
    images = sum(min(config.batch_size, len(training.train_images[task])) for task in widest)
    step = training.step
    rows = row_bytes(step.weighting, step.parameters(), widest, step.workers is not None)
    memory = int(state + rows + TEMPORARIES * saved * images * _at_once(config, step, len(widest)))
    advice = "lower batch_size or raise accumulate"
    refuse_beyond(free, memory, "a step needs", 'lower batch_size or take weighting.kind = "equal"' if rows else advice)
    steps = sum(trainer.sampler.epoch_length(phase.streams) * phase.epochs for phase in trainer.phases)
    advance(note="timing a whole step")
    seconds = _step_seconds(training, widest)
    return {
        **parameter_counts(training.network), "domains": list(training.train_images), "steps": steps,
        "images_per_step": images, "flops_per_step": int(flops * images), "memory_bytes": memory, "row_bytes": rows,
        "available_bytes": free, "seconds_per_step": seconds, "seconds": seconds * steps, "device": str(training.device),
    }  # fmt: skip


def _state_bytes(config: RunConfig, data: str) -> int:
    """Bytes of parameters, gradients, optimiser and average, counted on a network without memory."""
    store = open_store(data)
    names = [name for name in store.domains if name in (config.domains or store.domains)]
    with torch.device("meta"):
        network = build_network(config, {name: store.specs[name].classes for name in names})
    return byte_count(network.parameters()) * ((3 if config.optimizer.kind == "sgd" else 4) + bool(config.ema))


def _probe(training: Training, tasks: tuple[str, ...]) -> tuple[float, float]:
    """FLOPs and bytes kept for the backward pass, per image."""
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    step = training.step
    each = max(2, -(-PROBE // len(tasks)))
    batches = {task: _first(training, task, each) for task in tasks}
    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        FlopCounterMode(display=False) as counter,
    ):
        losses, _ = step.losses(batches)
        torch.stack(list(losses.values())).sum().backward()
    held = {p.untyped_storage().data_ptr() for p in training.network.parameters()}
    images = sum(len(batch.labels) for batch in batches.values())
    return counter.get_total_flops() / images, sum(size for place, size in kept.items() if place not in held) / images


def _at_once(config: RunConfig, step: TrainingStep, tasks: int) -> float:
    """The part of a step's images whose features are kept at the same time."""
    if isinstance(step.weighting, GradientWeighting):  # every domain by itself
        return min(1.0, (step.workers.count if step.workers else 1) / tasks)
    return 1 / config.accumulate


def _first(training: Training, task: str, images: int) -> Batch:
    """The first images of a domain's first batch; the rest of it is not even made."""
    return training.train_images[task].batch(training.trainer.sampler.examples(task, 0)[:images], 0)


def _step_seconds(training: Training, tasks: tuple[str, ...]) -> float:
    """The faster of two real steps (the first one warms up)."""
    step = replace(training.step)
    times = []
    for number in range(2):
        began = time.perf_counter()
        step({task: training.trainer.batch(task, number) for task in tasks})
        times.append(time.perf_counter() - began)
    return min(times)


def print_estimate(cost: dict[str, Any], as_json: bool) -> None:
    """Print it for people, or as JSON."""
    if as_json:
        print(json.dumps(cost))
        return
    pool, further = cost["pool_parameters"], cost["norm_parameters"]
    print(f"parameters   {cost['parameters']:,}, of them {pool:,} in the pool; further batch norms {further:,}")
    gflop = cost["flops_per_step"] / 1e9
    print(f"steps        {cost['steps']:,} of {cost['images_per_step']} images, {gflop:,.0f} GFLOP each")
    memory, free = cost["memory_bytes"] / 2**30, cost["available_bytes"] / 2**30
    rows = f", of it {cost['row_bytes'] / 2**30:.2f} for the gradient of each domain" if cost["row_bytes"] else ""
    print(f"memory       about {memory:.2f} GiB{rows} (free: {free:.1f} GiB)")
    print(f"time         about {cost['seconds'] / 60:.1f} min on {cost['device']}, without validation")
