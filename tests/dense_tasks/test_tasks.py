"""The tasks: losses against loops, what is undefined, and a task that is added by a file."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import dense_tasks.tasks as package
from dense_tasks.datasets import DATASETS
from dense_tasks.tasks import choose_tasks, tasks
from mtan_core.errors import UserError

TASKS = tasks()
SEED = 3


def pair(name: str, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Final predictions and labels, the first pixel of each image undefined."""
    generator = torch.Generator().manual_seed(SEED)
    task = TASKS[name]
    outputs = task.finish(torch.randn(batch, task.channels, 3, 4, generator=generator, dtype=torch.float64))
    if name == "semantic":
        labels = torch.randint(0, 13, (batch, 3, 4), generator=generator)
        labels[:, 0, 0] = -1
    else:
        labels = torch.rand(batch, task.channels, 3, 4, generator=generator, dtype=torch.float64) + 0.1
        labels = task.finish(labels)
        labels[:, :, 0, 0] = 0
    return outputs, labels


def test_the_paper_s_tasks_in_its_order() -> None:
    assert list(TASKS) == ["semantic", "depth", "normal"]
    assert {name: task.channels for name, task in TASKS.items()} == {"semantic": 13, "depth": 1, "normal": 3}
    assert tasks(DATASETS["cityscapes19"])["semantic"].channels == 19
    for task in TASKS.values():
        assert task.measure(task.key_metric).higher_is_better


def loss_by_loops(name: str, outputs: np.ndarray, labels: np.ndarray) -> float:
    values = []
    for image in range(outputs.shape[0]):
        for y in range(3):
            for x in range(4):
                guess, truth = outputs[image, :, y, x], labels[image, ..., y, x]
                if (y, x) == (0, 0):
                    continue
                if name == "semantic":
                    values.append(math.log(sum(math.exp(v) for v in guess)) - guess[truth])
                elif name == "depth":
                    values.append(abs(guess[0] - truth[0]))
                else:
                    values.append(1 - sum(guess * truth))
    return sum(values) / len(values)


@pytest.mark.parametrize("name", TASKS)
def test_losses_are_means_over_defined_pixels(name: str) -> None:
    outputs, labels = pair(name)
    loss = TASKS[name].loss(outputs, labels)
    assert loss is not None
    assert float(loss) == pytest.approx(loss_by_loops(name, outputs.numpy(), labels.numpy()), rel=1e-12)


@pytest.mark.parametrize("name", TASKS)
def test_undefined_pixels_have_no_gradient(name: str) -> None:
    outputs, labels = pair(name)
    outputs = outputs.requires_grad_()
    loss = TASKS[name].loss(outputs, labels)
    assert loss is not None
    (gradient,) = torch.autograd.grad(loss, outputs)
    assert torch.isfinite(gradient).all()
    assert (gradient[:, :, 0, 0] == 0).all()
    assert (gradient[:, :, 1, 1] != 0).any()


@pytest.mark.parametrize("name", TASKS)
def test_a_batch_without_labels_has_no_loss(name: str) -> None:
    task = TASKS[name]
    outputs, labels = pair(name)
    assert task.loss(outputs, torch.full_like(labels, task.undefined)) is None
    half = labels.clone()
    half[0] = task.undefined
    loss, alone = task.loss(outputs, half), task.loss(outputs[1:], labels[1:])
    assert loss is not None and alone is not None
    torch.testing.assert_close(loss, alone)


@pytest.mark.parametrize("name", TASKS)
def test_key_hits_are_the_key_metric(name: str) -> None:
    task = TASKS[name]
    outputs, labels = pair(name)
    if name == "normal":
        outputs = task.finish(labels + 0.3 * outputs)
    elif name == "depth":
        outputs = labels * (1 + 0.3 * outputs)
    metrics = task.metrics()
    metrics.add(outputs, labels)
    right, seen = task.key_hits(outputs, labels)
    result = metrics.result()
    assert result is not None
    assert 0 < float(right / seen) < 1 or name == "semantic"
    assert float(right / seen) == pytest.approx(result[task.key_metric])


def test_a_normal_whose_components_cancel_is_defined() -> None:
    """The authors find undefined normals by the sum of their components, which is 0 for this one too."""
    labels = torch.tensor([1.0, -1.0, 0.0])[None, :, None, None] / math.sqrt(2)
    loss = TASKS["normal"].loss(-labels, labels)
    assert loss is not None
    assert float(loss) == pytest.approx(2)


def test_final_predictions() -> None:
    raw = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(TASKS["normal"].finish(raw).norm(dim=1), torch.ones(2, 4, 4))
    assert TASKS["normal"].finish(raw.bfloat16()).dtype == torch.float32
    assert TASKS["depth"].finish(raw[:, :1]) is not None
    assert torch.equal(TASKS["depth"].finish(raw[:, :1]), raw[:, :1])


@pytest.mark.parametrize("name", TASKS)
def test_losses_of_bf16_outputs_are_fp32(name: str) -> None:
    outputs, labels = pair(name)
    loss = TASKS[name].loss(outputs.bfloat16(), labels if name == "semantic" else labels.float())
    assert loss is not None
    assert loss.dtype == torch.float32


EDGES = """
import torch
from torch.nn import functional as F

from dense_tasks.metrics import DepthMetrics, Measure
from dense_tasks.tasks.task import Task, mean_where


def task(dataset):
    def loss(outputs, labels):
        return mean_where(F.binary_cross_entropy(outputs, labels, reduction="none"), labels >= 0)

    return Task(
        name="edges", channels=1, folder="edges", loss=loss, metrics=DepthMetrics,
        measures=(Measure("absolute_error", False),), key_metric="absolute_error",
        key_hits=lambda outputs, labels: (((outputs > 0.5) == (labels > 0.5)).sum(), (labels >= 0).sum()),
        draw=lambda axes, values: axes.imshow(values[0]), finish=torch.sigmoid, undefined=-1,
    )
"""


def test_a_task_is_added_by_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "edges.py").write_text(EDGES, encoding="utf-8")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    found = tasks()
    assert list(found) == ["semantic", "depth", "normal", "edges"]
    loss = found["edges"].loss(torch.full((1, 1, 2, 2), 0.5), torch.ones(1, 1, 2, 2))
    assert loss is not None
    assert float(loss) == pytest.approx(math.log(2))
    assert list(choose_tasks(["edges", "depth"], DATASETS["nyuv2"])) == ["depth", "edges"]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["semantik"], "did you mean 'semantic'"),
        (["depth", "depth"], "'depth' twice"),
        ([], "found none"),
    ],
)
def test_tasks_that_cannot_be_chosen(names: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        choose_tasks(names, DATASETS["nyuv2"])
