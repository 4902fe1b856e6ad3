"""What a network says of a whole split."""

from collections.abc import Mapping
from typing import Any

import torch

from dense_tasks.data.frames import Frames
from dense_tasks.metrics import Scheme
from dense_tasks.tasks import Task
from mtan_core.dense import DenseNetwork
from mtan_core.metrics import Tally
from mtan_core.progress import late_progress
from mtan_core.step import Precision, autocast

CHUNK = 4


@torch.inference_mode()
def evaluate(
    network: DenseNetwork,
    frames: Frames,
    tasks: Mapping[str, Task],
    precision: Precision = "fp32",
    scheme: Scheme = "whole-set",
    chunk: int = CHUNK,
) -> dict[str, Tally]:
    """Each task's key metric as the tally's accuracy, its mean loss over labelled pixels, and its measures under `scheme`.

    Nothing depends on `chunk`, the images per forward pass, but the last bits. A task without labels is left out.
    """
    network.eval()
    tallies = {name: Tally() for name in tasks}
    metrics = {name: task.metrics() for name, task in tasks.items()}
    with late_progress(f"evaluating {frames.split}", total=len(frames)) as advance:
        for places in frames.chunks(chunk):
            batch = frames.batch(places)
            with autocast(batch.images.device, precision):
                outputs = network(batch.images)
            for name, task in tasks.items():
                predicted, labels = task.finish(outputs[name]).float(), batch.labels[name]
                loss = task.loss(predicted, labels)
                if loss is not None:
                    right, seen = task.key_hits(predicted, labels)
                    tallies[name].add(int(right), int(seen), float(loss))
                    metrics[name].add(predicted, labels)
            advance(len(places))
    results = {name: metric.result(scheme) for name, metric in metrics.items()}
    for name, result in results.items():
        tallies[name].metrics = result or {}
    return {name: tally for name, tally in tallies.items() if tally.seen}


def measures(tallies: Mapping[str, Tally]) -> dict[str, dict[str, Any]]:
    """The JSON form: by task its measures, its loss, and the number of labelled pixels."""
    return {name: {**tally.metrics, "loss": tally.mean_loss, "pixels": tally.seen} for name, tally in tallies.items()}
