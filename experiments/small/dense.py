"""Dense prediction: methods and loss weightings on a small real NYUv2.

    python -m experiments.small.dense ROOT OUT [--seeds 0,1,2] [--rows "single,mtan dwa,..."] [--size 48x64] [--set key=value ...]

Every network trains the preset `small`, narrower, for fewer epochs, in one thread, on images made smaller, so that a run takes
about a minute of one core. Nothing is shared in `single`, so that weightings hardly matter there: it is trained with equal
weights. `constant` is no network: the most frequent class, the median depth and the mean normal of the training pixels.
"""

import fcntl
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import torch

from dense_tasks.config import load_config
from dense_tasks.data.arrays import IMAGE, image_array, label_array
from dense_tasks.data.frames import Frames
from dense_tasks.data.prepare import Source, SourceFrame, write_root
from dense_tasks.data.resizing import Size, parse_size, resize_image, resize_nearest
from dense_tasks.data.root import Root, open_root
from dense_tasks.metrics import SCHEMES, delta_mtl
from dense_tasks.reports import evaluate_run
from dense_tasks.training import train
from experiments.small.rows import Result, Rows, by_row, cpu_seconds, fill, parser, spread, table_lines
from mtan_core.files import write_json, write_text

SINGLE, CONSTANT = "single", "constant"
METHODS = ("split-standard", "dense", "cross-stitch", "mtan")
WEIGHTINGS = ("equal", "uncertainty", "dwa")
BUDGET = ("network.filters=[16, 32, 64, 64]", "phases.0.epochs=25", "threads=1")
RULES = {"last": "val_last", "mean of the last ten epochs": "val_mean_of_last_10", "best by val": "val_best"}
CHUNK = 10

Measures = Mapping[str, Mapping[str, float]]  # by task


@dataclass(frozen=True)
class Row:
    """A method and a loss weighting."""

    method: str
    weighting: str = "equal"


ROWS = {SINGLE: Row(SINGLE)} | {f"{method} {kind}": Row(method, kind) for method in METHODS for kind in WEIGHTINGS}


@dataclass(frozen=True)
class DenseTable(Rows[Row]):
    """Rows on the images under `root`, which lie smaller in `out`, too."""

    size: Size = (48, 64)

    def __post_init__(self) -> None:
        shrink(self.root, self.out, self.size)

    @property
    def shrunk(self) -> Path:
        return self.out / "root"

    def measure(self, name: str, seed: int) -> list[Result]:
        row, run = self.rows[name], self.folder(name, seed) / "run"
        chosen = [f"seed={seed}", f"method={row.method}", f"weighting.kind={row.weighting}"]
        config = load_config("small", None, [*BUDGET, *self.changes, *chosen])
        seconds = cpu_seconds(run, lambda: train(config, self.shrunk, run, resume=True))
        summary = json.loads((run / "summary.json").read_text())
        last = {scheme: evaluate_run(run, self.shrunk, metric=scheme)["tasks"] for scheme in SCHEMES}
        kept = (
            "method",
            "weighting",
            "parameters",
            "shared_parameters",
            "images",
            "size",
            "metric",
            "commit",
            "threads",
        )
        return [{
            "row": name, "seed": seed, **{key: summary[key] for key in kept}, "cpu_seconds": seconds,
            "rules": {rule: summary[key] for rule, key in RULES.items()}, "last_by_scheme": last,
        }]  # fmt: skip

    def write(self, seeds: Sequence[int], first: Sequence[Result] = ()) -> str:
        results = [*first, *(result for name in self.rows for result in self.measured(name, seeds))]
        write_json(self.out / "results.json", results, indent=1)
        text = f"{markdown(results)}\n\n{by_rule(results)}\n"
        write_text(self.out / "table.md", text)
        return text


def main(arguments: Sequence[str] | None = None) -> None:
    made = parser(__doc__, ROWS, "a root in the npy layout, with all three tasks' labels")
    made.add_argument("--size", default="48x64", help="height x width of the images (default: 48x64)")
    options = made.parse_args(arguments)
    size = parse_size(options.size, 16)
    table = DenseTable(ROWS, options.root, options.out, options.changes, size)
    fill(table, options.seeds, options.rows, [constant(open_root(table.shrunk, divisor=1))])


def shrink(root: Path, out: Path, size: Size) -> None:
    """Write `<out>/root`, unless it is there; of several processes the others wait."""
    found = open_root(root, divisor=1)
    folders = {IMAGE: None} | {task.folder: task for task in found.tasks.values()}

    def arrays(frame: SourceFrame) -> Mapping[str, np.ndarray]:
        files = {folder: found.file(frame.split, folder, frame.name["frame"]) for folder in folders}
        labels = {f: resize_nearest(label_array(files[f], task), size) for f, task in folders.items() if task}
        return {IMAGE: resize_image(image_array(files[IMAGE]), size), **labels}

    frames = [
        SourceFrame(split, place, {"frame": name})
        for split, names in found.frames.items()
        for place, name in enumerate(names)
    ]
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".preparing").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_root(Source(found.dataset, {"size": size}, tuple(folders), frames, arrays), out / "root")


def constant(root: Root) -> Result:
    """What one answer for all pixels reaches, chosen on train."""
    learnt, asked = (Frames(root, split, torch.device("cpu")) for split in ("train", "val"))
    labels = learnt.batch(np.arange(len(learnt))).labels
    semantic, depth, normal = labels["semantic"], labels["depth"], labels["normal"]
    answers = {
        "semantic": torch.nn.functional.one_hot(semantic[semantic >= 0].mode().values, len(root.dataset.classes)).float(),
        "depth": depth[depth > 0].median()[None],
        "normal": normal.sum((0, 2, 3)),
    }  # fmt: skip
    metrics = {name: task.metrics() for name, task in root.tasks.items()}
    for places in asked.chunks(CHUNK):
        batch = asked.batch(places)
        for name, answer in answers.items():
            outputs = answer[None, :, None, None].expand(len(places), -1, *root.size)
            metrics[name].add(outputs, batch.labels[name])
    found = {scheme: {name: metric.result(scheme) for name, metric in metrics.items()} for scheme in SCHEMES}
    rules = dict.fromkeys(RULES, found["whole-set"])
    return {"row": CONSTANT, "seed": 0, "rules": rules, "last_by_scheme": found}


# column: task, measure, factor, digits
COLUMNS: dict[str, tuple[str, str, float, int]] = {
    "mIoU %": ("semantic", "miou", 100, 1), "pixels %": ("semantic", "pixel_accuracy", 100, 1),
    "depth abs. m": ("depth", "absolute_error", 1, 3), "rel. %": ("depth", "relative_error", 100, 1),
    "normals mean °": ("normal", "angle_mean", 1, 1), "median °": ("normal", "angle_median", 1, 1),
    "< 11.25° %": ("normal", "within_11.25", 100, 1),
}  # fmt: skip


def markdown(results: Sequence[Result]) -> str:
    """Means and standard deviations over seeds of the last epoch's measures on val."""
    head = ("row", "seeds", *COLUMNS, "Delta-MTL %", "parameters", "CPU seconds")
    lines = []
    for row, own in by_row(results).items():
        cells = [
            spread([factor * result["rules"]["last"][task][name] for result in own], digits)
            for task, name, factor, digits in COLUMNS.values()
        ]
        seconds = [result["cpu_seconds"] for result in own if result.get("cpu_seconds")]
        told = [f"{own[0]['parameters']:,}" if "parameters" in own[0] else "", spread(seconds, 0)]
        lines.append([row, str(len(own)), *cells, spread(deltas(results, row, "last"), 1), *told])
    words = "Val, last epoch, segmentation by `whole-set`; Delta-MTL against the mean of `single` over its seeds."
    return "\n".join([words, "", *table_lines(head, lines)])


def by_rule(results: Sequence[Result]) -> str:
    """Whether the order depends on the rule by which the epoch is chosen, and on the scheme of segmentation."""
    schemes = [scheme for scheme in SCHEMES if scheme != "whole-set"]
    head = ("row", *(f"Delta-MTL %, {rule}" for rule in RULES), *(f"mIoU %, last, {scheme}" for scheme in schemes))
    lines = [
        [
            row,
            *(spread(deltas(results, row, rule), 1) for rule in RULES),
            *(spread([100 * result["last_by_scheme"][scheme]["semantic"]["miou"] for result in own], 1) for scheme in schemes),
        ]
        for row, own in by_row(results).items()
    ]  # fmt: skip
    words = (
        "The same by the rule that chooses the epoch, and segmentation by the other schemes. Best by val is optimistic; of the "
        "last ten epochs those count that were validated."
    )
    return "\n".join([words, "", *table_lines(head, lines)])


def deltas(results: Sequence[Result], row: str, rule: str) -> list[float]:
    """Delta-MTL in percent of each of a row's runs against the mean of the single-task runs; none without those."""
    rows = by_row(results)
    if SINGLE not in rows or row == SINGLE:
        return []
    single = [result["rules"][rule] for result in rows[SINGLE]]
    alone = {
        task: {name: mean(run[task][name] for run in single) for name in measures}
        for task, measures in single[0].items()
    }
    return [100 * delta(result["rules"][rule], alone) for result in rows[row]]


def delta(own: Measures, alone: Measures) -> float:
    from dense_tasks.tasks import tasks

    return delta_mtl(own, alone, {name: task.measures for name, task in tasks().items() if name in own})


if __name__ == "__main__":
    main()
