"""Metrics against loops over pixels, in any batch size."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dense_tasks import metrics as module
from dense_tasks.metrics import AngleMetrics, DepthMetrics, Metrics, SemanticMetrics, angles_between, delta_mtl
from dense_tasks.tasks import tasks
from tests.dense_tasks.scenes import angles

CLASSES = 5


def semantic_pair(rng: np.random.Generator, images: int) -> tuple[Tensor, Tensor]:
    """Logits and labels; the last class never occurs, class 3 only in some predictions."""
    logits = rng.normal(size=(images, CLASSES, 4, 6)) - 9 * (np.arange(CLASSES) == CLASSES - 1)[:, None, None]
    return torch.from_numpy(logits), torch.from_numpy(rng.integers(-1, 3, (images, 4, 6)))


def depth_pair(rng: np.random.Generator, images: int) -> tuple[Tensor, Tensor]:
    labels = rng.uniform(0.5, 9, (images, 1, 4, 6)) * (rng.random((images, 1, 4, 6)) < 0.8)
    return torch.from_numpy(labels * rng.uniform(-0.2, 2.2, labels.shape) + 0.1), torch.from_numpy(labels)


def normal_pair(rng: np.random.Generator, images: int) -> tuple[Tensor, Tensor]:
    labels = rng.normal(size=(images, 3, 4, 6))
    labels /= np.linalg.norm(labels, axis=1, keepdims=True)
    outputs = labels + rng.normal(size=labels.shape) * rng.uniform(0, 1)
    return torch.from_numpy(outputs), torch.from_numpy(labels * (rng.random((images, 1, 4, 6)) < 0.8))


def iou_by_loops(predicted: np.ndarray, labels: np.ndarray, undefined_counts: bool) -> float:
    """Mean over the classes that occur, pixel by pixel."""
    ratios = []
    for kind in range(CLASSES):
        both = either = 0
        for guess, truth in zip(predicted.ravel(), labels.ravel(), strict=True):
            if truth < 0 and not undefined_counts:
                continue
            both += int(guess == kind and truth == kind)
            either += int(guess == kind or truth == kind)
        if either:
            ratios.append(both / either)
    return sum(ratios) / len(ratios)


def accuracy_by_loops(predicted: np.ndarray, labels: np.ndarray) -> float:
    pairs = [(p, t) for p, t in zip(predicted.ravel(), labels.ravel(), strict=True) if t >= 0]
    return sum(p == t for p, t in pairs) / len(pairs)


def depth_by_loops(outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    pairs = [(p, t) for p, t in zip(outputs.ravel(), labels.ravel(), strict=True) if t > 0]
    ratios = [max(p / t, t / p) if p > 0 else math.inf for p, t in pairs]
    result = {
        "absolute_error": sum(abs(p - t) for p, t in pairs) / len(pairs),
        "relative_error": sum(abs(p - t) / t for p, t in pairs) / len(pairs),
        "rmse": math.sqrt(sum((p - t) ** 2 for p, t in pairs) / len(pairs)),
    }
    names = ("within_1.25", "within_1.25^2", "within_1.25^3")
    return result | {name: sum(r < 1.25**k for r in ratios) / len(ratios) for k, name in enumerate(names, start=1)}


def normals_by_arccos(outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    first, second = (np.moveaxis(values, 1, -1).reshape(-1, 3) for values in (outputs, labels))
    defined = np.abs(second).sum(-1) > 0
    off = angles(first[defined], second[defined])
    shares = {f"within_{limit:g}": float((off < limit).mean()) for limit in (11.25, 22.5, 30)}
    return {"angle_mean": float(off.mean()), "angle_median": float(np.median(off.astype(np.float32)))} | shares


def of(metrics: Metrics, outputs: Tensor, labels: Tensor, batch: int, scheme: Any = "whole-set") -> dict[str, float]:
    for start in range(0, len(outputs), batch):
        metrics.add(outputs[start : start + batch], labels[start : start + batch])
    found = metrics.result(scheme)
    assert found is not None
    return found


def test_semantic_metrics_over_the_whole_set() -> None:
    outputs, labels = semantic_pair(np.random.default_rng(0), 7)
    predicted = outputs.argmax(1).numpy()
    found = of(SemanticMetrics(CLASSES), outputs, labels, 3)
    assert found["miou"] == pytest.approx(iou_by_loops(predicted, labels.numpy(), False), rel=1e-12)
    assert found["pixel_accuracy"] == pytest.approx(accuracy_by_loops(predicted, labels.numpy()), rel=1e-12)


@pytest.mark.parametrize(("scheme", "undefined_counts"), [("legacy", True), ("legacy-defined", False)])
def test_the_old_metrics_are_means_over_images(scheme: str, undefined_counts: bool) -> None:
    outputs, labels = semantic_pair(np.random.default_rng(1), 7)
    predicted, truth = outputs.argmax(1).numpy(), labels.numpy()
    found = of(SemanticMetrics(CLASSES), outputs, labels, 3, scheme)
    each = [iou_by_loops(p, t, undefined_counts) for p, t in zip(predicted, truth, strict=True)]
    assert found["miou"] == pytest.approx(np.mean(each), rel=1e-12)
    right = [accuracy_by_loops(p, t) for p, t in zip(predicted, truth, strict=True)]
    assert found["pixel_accuracy"] == pytest.approx(np.mean(right), rel=1e-12)


def test_the_schemes_differ_and_classes_that_do_not_occur_are_left_out() -> None:
    labels = torch.tensor([[[0, 0, -1, 1]], [[0, 0, 0, 0]]])
    logits = torch.nn.functional.one_hot(torch.tensor([[[0, 1, 1, 1]], [[0, 0, 0, 0]]]), CLASSES).permute(0, 3, 1, 2)
    metrics = SemanticMetrics(CLASSES)
    metrics.add(logits.float(), labels)
    miou = {scheme: (metrics.result(scheme) or {})["miou"] for scheme in module.SCHEMES}
    assert miou["whole-set"] == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert miou["legacy-defined"] == pytest.approx(((1 / 2 + 1 / 2) / 2 + 1) / 2)
    assert miou["legacy"] == pytest.approx(((1 / 2 + 1 / 3) / 2 + 1) / 2)


def test_depth_metrics_over_all_pixels() -> None:
    outputs, labels = depth_pair(np.random.default_rng(2), 6)
    assert (outputs < 0).any()
    assert of(DepthMetrics(), outputs, labels, 4) == pytest.approx(
        depth_by_loops(outputs.numpy(), labels.numpy()), rel=1e-12
    )


def test_normal_metrics_over_all_pixels() -> None:
    outputs, labels = normal_pair(np.random.default_rng(3), 6)
    found = of(AngleMetrics(), outputs, labels, 4)
    assert found == pytest.approx(normals_by_arccos(outputs.numpy(), labels.numpy()), rel=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 999, 1000])
def test_the_median_is_exact_also_from_a_file(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IN_MEMORY", 64)
    monkeypatch.setattr(module, "_CHUNK", 100)
    turned = np.random.default_rng(count).choice([0.0, 0.001, 20.0, 20.0001, 179.0], count) + np.arange(count) * 1e-4
    outputs = np.stack([np.sin(np.radians(turned)), np.cos(np.radians(turned)), np.zeros(count)])[None, :, None]
    labels = np.zeros_like(outputs)
    labels[:, 1] = 1
    found = of(AngleMetrics(), torch.from_numpy(outputs), torch.from_numpy(labels), 1)
    off = np.degrees(np.arctan2(np.abs(outputs[0, 0, 0]), outputs[0, 1, 0]))
    assert found["angle_median"] == pytest.approx(np.median(off.astype(np.float32).astype(np.float64)), rel=1e-6)


def test_small_angles_keep_their_digits_and_no_prediction_is_a_right_angle() -> None:
    up = torch.tensor([0.0, 1.0, 0.0])[None, :, None, None]
    tilted = torch.tensor([1e-6, 1.0, 0.0])[None, :, None, None]
    assert float(angles_between(tilted, up)) == pytest.approx(math.degrees(1e-6), rel=1e-6)
    assert float(angles_between(torch.zeros_like(up), up)) == 90
    assert float(angles_between(-up, up)) == 180


KINDS: dict[str, tuple[Callable[..., tuple[Tensor, Tensor]], Callable[[], Metrics]]] = {
    "semantic": (semantic_pair, lambda: SemanticMetrics(CLASSES)),
    "depth": (depth_pair, DepthMetrics),
    "normal": (normal_pair, AngleMetrics),
}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), images=st.integers(1, 9), batch=st.integers(1, 9), blank=st.integers(0, 8))
def test_no_result_depends_on_the_batch_size(kind: str, seed: int, images: int, batch: int, blank: int) -> None:
    make, fresh = KINDS[kind]
    outputs, labels = make(np.random.default_rng(seed), images + 1)
    labels[blank % (images + 1)] = -1 if kind == "semantic" else 0  # an image without labels, wherever it falls
    for scheme in module.SCHEMES:
        whole = of(fresh(), outputs, labels, images + 1, scheme)
        assert of(fresh(), outputs, labels, batch, scheme) == pytest.approx(whole, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_seen_is_no_result(kind: str) -> None:
    make, fresh = KINDS[kind]
    outputs, labels = make(np.random.default_rng(0), 2)
    metrics = fresh()
    assert metrics.result() is None
    metrics.add(outputs, torch.full_like(labels, -1 if kind == "semantic" else 0))
    assert [metrics.result(scheme) for scheme in module.SCHEMES] == [None] * 3


def test_delta_mtl_by_hand() -> None:
    measures = {name: task.measures for name, task in tasks().items()}
    single = {
        "semantic": {"miou": 0.4, "pixel_accuracy": 0.5},
        "depth": {"absolute_error": 0.5, "relative_error": 0.2, "rmse": 1.0},
    }
    own = {
        "semantic": {"miou": 0.44, "pixel_accuracy": 0.5},
        "depth": {"absolute_error": 0.4, "relative_error": 0.25, "rmse": 9.0},
    }
    expected = ((0.1 + 0) / 2 + (0.2 - 0.25) / 2) / 2
    assert delta_mtl(own, single, measures) == pytest.approx(expected)
    assert delta_mtl(single, single, measures) == 0
    with pytest.raises(ValueError, match="relative_error"):
        delta_mtl(own, {**single, "depth": {"absolute_error": 0.5}}, measures)


def test_delta_mtl_of_a_published_row() -> None:
    """auto-lambda's table: 43.37, 52.24, 22.40 alone; 46.14, 41.91, 23.52 with CAGrad is +7.05 %."""
    chosen = {"semantic": "miou", "depth": "absolute_error", "normal": "angle_mean"}
    measures = {name: (tasks()[name].measure(measure),) for name, measure in chosen.items()}
    single, own = (
        {task: {measure: value} for (task, measure), value in zip(chosen.items(), row, strict=True)}
        for row in ((43.37, 52.24, 22.40), (46.14, 41.91, 23.52))
    )
    assert delta_mtl(own, single, measures) == pytest.approx(0.0705, abs=2e-4)
