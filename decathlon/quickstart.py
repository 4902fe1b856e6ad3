"""`mtan quickstart`: the main job on a generated miniature of the challenge, start to finish."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from decathlon.config import load_config
from decathlon.data.prepare import prepare
from decathlon.data.store import Store, open_store
from decathlon.figures import MaskRow, accuracy_bars, mask_grid
from decathlon.miniature import write_miniature
from decathlon.reports import evaluate_run, submit_run
from decathlon.runs import Run, load_run
from decathlon.submission import Scored, score_results, validate_results
from decathlon.training import train
from mtan_core.curves import training_curves
from mtan_core.errors import UserError
from mtan_core.files import write_json
from mtan_core.stopping import stoppable

TITLE = "Generated miniature, not the Decathlon"


def quickstart(out: Path, seed: int = 0, changes: Sequence[str] = ()) -> dict[str, Any]:
    """Generate, prepare, train, evaluate, predict, validate, score and draw; what is done already is not done again.

    Leaves `miniature`, `store`, `run`, `results.json` and `figures` in `out`; returns the table's rows and the total.
    `changes` are key=value changes of the preset. Raises UserError when `out` holds something else under these names.
    """
    config = load_config("quickstart", None, [f"seed={seed}", *changes])
    _make_data(out, seed)
    with stoppable("the same command") as stop:
        train(config, str(out / "store"), out / "run", resume=True, stop=stop)
    run, store = load_run(out / "run"), open_store(out / "store")
    evaluation = evaluate_run(run, store)
    submit_run(run, store, out / "results.json")
    validate_results(out / "results.json", out / "miniature" / "annotations", strict=True)
    scored = score_results(out / "results.json", out / "miniature" / "annotations_hidden")
    validation = {domain: answers.tally.accuracy for domain, answers in evaluation.answers.items()}
    rows = _rows(run, validation, scored)
    _draw(out, run, store, rows)
    return {"rows": rows, "score": scored.score, "mean_test_accuracy": _mean(rows, "test"), "notes": list(scored.notes)}


def _make_data(out: Path, seed: int) -> None:
    """The miniature and its store; `out/quickstart.json` marks a folder as the quickstart's.

    Raises UserError when `out` holds another miniature, or something else; nothing is ever deleted.
    """
    mark = out / "quickstart.json"
    made = json.loads(mark.read_text()) if mark.is_file() else None
    if made is None and not (out / "miniature").exists():
        write_json(mark, made := {"seed": seed})
    if made != {"seed": seed}:
        found = f"that of seed {made['seed']}" if made else "a miniature that is none of its own"
        raise UserError(f"--out: expected a new folder or the quickstart of seed {seed}, found {found} in {out}.")
    if not (out / "miniature").exists():
        write_miniature(out / "miniature", seed)
    outcome = prepare(out / "miniature", out / "store")
    if outcome.problems:
        raise RuntimeError(f"the miniature has problems: {outcome.problems[:3]}")


def _rows(run: Run, validation: Mapping[str, float], scored: Scored) -> list[dict[str, Any]]:
    return [
        {
            "domain": name, "classes": run.spec(name).classes, "chance": 1 / run.spec(name).classes,
            "val": validation[name], "test": 1 - domain.error, "points": domain.points,
        }
        for name, domain in scored.domains.items()
    ]  # fmt: skip


def _mean(rows: list[dict[str, Any]], key: str) -> float:
    return sum(row[key] for row in rows) / len(rows)


def _draw(out: Path, run: Run, store: Store, rows: list[dict[str, Any]]) -> None:
    figures = out / "figures"
    series = {key: {row["domain"]: row[key] for row in rows} for key in ("test", "val", "chance")}
    accuracy_bars(figures / "accuracy.png", [row["domain"] for row in rows], series, f"Accuracy ({TITLE})")
    training_curves(figures / "curves.png", pd.read_parquet(out / "run" / "metrics.parquet"), f"Training ({TITLE})")
    mask_grid(figures / "masks.png", mask_rows(run, store), f"Masks on the features of the first group ({TITLE})")


def mask_rows(run: Run, store: Store, stage: int = 1, images: int = 4) -> list[MaskRow]:
    """Validation images of some domains, each with the masks that every domain puts on one stage (means over its channels)."""
    rows: list[MaskRow] = []
    for name in list(run.specs)[:: max(1, len(run.specs) // images)][:images]:
        source = run.images(store.split(name, "val"))
        batch = source.evaluation(np.array([0]))
        with torch.inference_mode():
            masks = [(domain, _mean_mask(run, batch, domain, stage)) for domain in run.specs]
        rows.append((name, source.split.image(0), masks))
    return rows


def _mean_mask(run: Run, batch: torch.Tensor, domain: str, stage: int) -> np.ndarray:
    return run.network.masks(batch, domain)[stage][0].mean(0).float().cpu().numpy()
