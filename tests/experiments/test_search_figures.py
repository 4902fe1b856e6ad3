"""Figures of a search, from tables made by a formula."""

import math
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments.search.config import Dimension, SchedulerConfig, SearchConfig
from experiments.search.figures import Importance, axes_of, best_of, draw_figures, ends, importance
from experiments.search.space import drawn

SPACE = {
    "optimizer.lr": Dimension(log_uniform=(1e-3, 1e-1)),
    "batch_size": Dimension(integer=(4, 8)),
    "weighting.kind": Dimension(choice=("equal", "dwa")),
    "weighting.temperature": Dimension(uniform=(1.0, 4.0), when={"weighting.kind": ("dwa",)}),
    "phases": Dimension(choice=([1], [2, 3])),
}
SEARCH = SearchConfig(space=SPACE, trials=12, seed=1)


def made(search: SearchConfig = SEARCH, epochs: int = 6) -> pd.DataFrame:
    """A metric that depends on the learning rate, and a little on the batch size; every third trial is stopped, one fails."""
    lines, random = [], Random(0)
    for trial, point in enumerate(drawn(search)):
        good = 0.8 - 0.15 * abs(math.log10(point["optimizer.lr"]) + 2) + 0.005 * point.get("batch_size", 0)
        status = "failed" if trial == 5 else "stopped" if trial % 3 == 1 else "finished"
        last = {"failed": 0, "stopped": 2, "finished": epochs}[status]
        config = {f"config.{key}": str(point[key]) if key == "phases" else point.get(key) for key in search.space}
        fixed = {"trial": trial, "status": status, "error": "no" if last == 0 else None, "seconds": 1.0, **config}
        rows = [{"epoch": e, "metric": good * (1 - 0.6**e) + 0.005 * random.random()} for e in range(1, last + 1)]
        lines += [{**fixed, **row} for row in rows or [{"epoch": None, "metric": None}]]
    return pd.DataFrame(lines)


def test_every_figure_is_drawn_as_png_and_svg(tmp_path: Path) -> None:
    population = SearchConfig(
        space={"optimizer.lr": SPACE["optimizer.lr"]}, trials=4, scheduler=SchedulerConfig(kind="pbt")
    )
    names = ["parallel", "curves"]
    for search, expected in ((SEARCH, [*names, "importance"]), (population, [*names, "schedules"])):
        table = made(search)
        paths = draw_figures(tmp_path / search.scheduler.kind, search, table)
        assert [path.name for path in paths] == [f"{name}.{suffix}" for name in expected for suffix in ("png", "svg")]
        for path in paths:
            if path.suffix == ".png":
                assert len(np.unique(np.asarray(Image.open(path).convert("L")))) > 10
            else:
                assert path.read_text().lstrip().startswith("<?xml") and "</svg>" in path.read_text()
        again = paths[1].read_bytes()
        assert draw_figures(tmp_path / search.scheduler.kind, search, table) and paths[1].read_bytes() == again


def test_importance_finds_what_the_metric_depends_on() -> None:
    search = SEARCH.model_copy(update={"trials": 30})
    found = importance(search, made(search))
    assert isinstance(found, Importance)
    assert max(found.shares, key=lambda key: found.shares[key]) == "optimizer.lr" and found.shares["optimizer.lr"] > 0.5
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.left_out == ("weighting.temperature",)
    assert (found.epoch, found.trials) == (6, 19)  # 10 of 30 were stopped, and one failed


def test_importance_says_why_there_is_none() -> None:
    few = SEARCH.model_copy(update={"trials": 7})
    assert importance(few, made(few)) == "too few trials for importance: expected 15, found 6"
    table = made(SEARCH.model_copy(update={"trials": 30}))
    table["metric"] = table["metric"].where(table["metric"].isna(), 0.5)
    assert "alike" in str(importance(SEARCH, table))


def test_axes_are_as_the_space_was_searched() -> None:
    table = made()
    lr, batch, kind, temperature, phases, metric = axes_of(SEARCH, table)
    points = drawn(SEARCH)
    trial = next(number for number, point in enumerate(points) if point["weighting.kind"] == "dwa" and number != 5)
    assert lr.places[trial] == pytest.approx((math.log10(points[trial]["optimizer.lr"]) + 3) / 2, abs=1e-6)
    assert batch.places[trial] == (points[trial]["batch_size"] - 4) / 4 and batch.ticks[1.0] == "8"
    assert kind.places[trial] == 1 and kind.ticks == {0.0: "equal", 1.0: "dwa"}
    assert temperature.places[trial] == pytest.approx((points[trial]["weighting.temperature"] - 1) / 3)
    assert phases.places[trial] == float(points[trial]["phases"] == [2, 3])
    other = next(number for number, point in enumerate(points) if point["weighting.kind"] == "equal" and number != 5)
    assert other not in temperature.places
    best = best_of(table, SEARCH)
    assert best is not None and metric.places[best] == 1 and 5 not in ends(table).index
    assert best_of(table, SEARCH.model_copy(update={"mode": "min", "metric": "val_loss.dtd"})) != best
