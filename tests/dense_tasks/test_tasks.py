"""The tasks: losses against loops, what is undefined, and a task that is added by a file."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import dense_tasks.tasks as package
from dense_tasks.data.frames import Frames
from dense_tasks.data.root import open_root
from dense_tasks.datasets import DATASETS
from dense_tasks.drawing import Drawn, draw_predictions
from dense_tasks.tasks import choose_tasks, tasks
from mtan_core.errors import UserError
from tests.dense_tasks.roots import write_root

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


def documented_task() -> str:
    """The file that docs/dense-tasks.md shows."""
    page = (Path(__file__).parents[2] / "docs/dense-tasks.md").read_text(encoding="utf-8")
    return page.split("```python\n")[1].split("```")[0]


def write_edges(root: Path) -> None:
    """Labels of the documented task for every image of a root."""
    for image in root.glob("*/image/*.npy"):
        folder = image.parents[1] / "edges"
        folder.mkdir(exist_ok=True)
        np.save(folder / image.name, np.random.default_rng(0).integers(-1, 2, np.load(image).shape[:2]))


def test_a_task_is_added_by_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "edges.py").write_text(documented_task(), encoding="utf-8")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    assert list(tasks()) == ["semantic", "depth", "normal", "edges"]
    write_edges(write_root(tmp_path / "root"))
    root = open_root(tmp_path / "root", tasks=["edges", "depth"])
    assert list(root.tasks) == ["depth", "edges"]
    edges, batch = root.tasks["edges"], Frames(root, "train", torch.device("cpu")).batch(np.arange(3))
    labels = batch.labels["edges"]
    assert labels.shape == (3, 1, 32, 64)
    assert edges.loss(torch.full_like(labels, 0.5), torch.full_like(labels, -1)) is None
    loss = edges.loss(torch.full_like(labels, 0.5), labels)
    assert loss is not None
    assert float(loss) == pytest.approx(math.log(2))
    metrics = edges.metrics()
    metrics.add(edges.finish(20 * labels - 10), labels)
    assert metrics.result() == {"accuracy": 1.0}
    drawn = Drawn("0", np.zeros((32, 64, 3)), {"edges": labels[0].numpy()})
    draw_predictions(tmp_path / "edges.png", [drawn], root.tasks)
    (tmp_path / "root/train/edges/0.npy").unlink()
    with pytest.raises(UserError, match=r"no train/edges/0\.npy"):
        open_root(tmp_path / "root", tasks=["edges"])


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
