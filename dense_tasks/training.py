"""`mtan dense train`: a configuration and a root become a run."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from dense_tasks.config import RunConfig
from dense_tasks.data.augmentation import Augmentation
from dense_tasks.data.frames import DenseBatch, Frames
from dense_tasks.data.root import Root, open_root
from dense_tasks.evaluation import evaluate
from dense_tasks.fitting import compared_bytes, fitting_network, weighting_of
from dense_tasks.networks import parameter_counts
from dense_tasks.runs import DenseFolder, Facts
from dense_tasks.step import DenseStep
from mtan_core import training as core
from mtan_core.dense import IMAGES, DenseNetwork
from mtan_core.environment import environment
from mtan_core.errors import UserError
from mtan_core.loop import Columns, Phase, Report, Row, Show, Trainer, report_nothing
from mtan_core.metrics import Tally
from mtan_core.norm import synchronise
from mtan_core.optimizers import make_optimizer
from mtan_core.parallel import ALONE, Group, refuse_few_images
from mtan_core.progress import progress
from mtan_core.recording import Recorder
from mtan_core.runs import choose_device
from mtan_core.sampling import Sampler
from mtan_core.training import loop_options, train_run

COLUMNS = Columns("task", "pixels", "key_metric")
LAST = 10  # epochs whose mean the paper reports

Measures = dict[str, dict[str, float]]  # by task


@dataclass
class Training(core.Training):
    """A run in the making: all parts put together, before or between steps."""

    config: RunConfig
    folder: DenseFolder
    root: Root
    network: DenseNetwork
    trainer: Trainer
    device: torch.device

    def start(self) -> None:
        self.folder.start(self.config, Facts.of(self.root))

    def refuse_other_data(self) -> None:
        before, now = self.folder.facts().to_dict(), Facts.of(self.root).to_dict()
        for key, value in before.items():
            if value != now[key]:
                raise UserError(f"--data: expected the {key} that the run began with, found another root.")

    def finish(self) -> dict[str, Any]:
        return self.folder.write_summary(self.summary())

    def summary(self) -> dict[str, Any]:
        """Results by the rule that chose them: of the last epoch, the mean of the last ten, and of the best epoch."""
        trainer, config = self.trainer, self.config
        return {
            "kind": "dense", "method": config.method, "pool": config.pool, "weighting": config.weighting.kind, "seed": config.seed,
            "dataset": self.root.dataset.name, "tasks": list(self.root.tasks), "size": list(self.root.size),
            "metric": config.metric, **parameter_counts(self.network),
            "steps": trainer.position.steps, "epochs": trainer.position.epochs, "images": trainer.images,
            "seconds": round(trainer.seconds, 1), "workers": trainer.group.size, "best": trainer.best,
            "val_last": self._of_last(1), f"val_mean_of_last_{LAST}": self._of_last(LAST), "val_best": self._of_best(),
            **environment(self.device),
        }  # fmt: skip

    def _of_last(self, epochs: int) -> Measures:
        first = self.trainer.position.epochs - epochs + 1
        return self._mean([row for row in self.trainer.rows if row["epoch"] >= first])

    def _of_best(self) -> Measures:
        best = self.trainer.best
        return self._mean([row for row in self.trainer.rows if best and row["step"] == best["step"]])

    def _mean(self, rows: Sequence[Row]) -> Measures:
        """Each task's validation measures, mean over those of these epochs that were validated."""
        validated = [row for row in rows if row["val_loss"] is not None]
        return {
            name: {
                measure.name: mean(row[f"val_{measure.name}"] for row in validated if row["task"] == name)
                for measure in task.measures
            }
            for name, task in self.root.tasks.items()
            if any(row["task"] == name for row in validated)
        }


def training_root(config: RunConfig, data: Path) -> Root:
    """The root that a configuration trains on, all of whose files are looked at. Raises UserError as `open_root` does.

    What its images must divide by depends on the network, and is asked later.
    """
    return open_root(
        data, config.tasks or None, config.dataset or None, missing_labels=config.missing_labels, divisor=1
    )


def prepare_training(
    config: RunConfig, data: Path, run: Path, stop: Callable[[], bool] = lambda: False, group: Group = ALONE
) -> Training:
    """Put all parts of a run together; writes nothing. Raises UserError for what cannot be trained."""
    refuse_few_images("`batch_size`", config.batch_size, group)
    root = training_root(config, data)
    for warning in root.warnings:
        print(f"mtan: warning: {warning}", file=sys.stderr)
    if config.threads:
        torch.set_num_threads(config.threads)
    device = choose_device(config.device)
    _refuse_other_tasks(config, root)
    network = fitting_network(config, root, device).to(device)
    if rows := compared_bytes(config, network):
        kind = config.weighting.kind
        print(
            f"mtan: {kind} compares the gradients of the tasks, for which it keeps {rows / 2**20:,.1f} MiB.",
            file=sys.stderr,
        )
    synchronise(network, group)
    trainer = _trainer(config, root, network, run, stop, device, group)
    return Training(config, DenseFolder(run), root, network, trainer, device)


def _refuse_other_tasks(config: RunConfig, root: Root) -> None:
    """Raises UserError for weights of tasks that are not there, and too few images."""
    named = {"weighting.weights": config.weighting.weights} | {
        f"changes.{place}.weights": change.weights for place, change in enumerate(config.changes)
    }
    for key, weights in named.items():
        if unknown := [name for name in weights if name not in root.tasks]:
            raise UserError(f"`{key}`: there is no task '{unknown[0]}' in training ({', '.join(root.tasks)}).")
    if len(root.frames["train"]) < config.batch_size:
        raise UserError(
            f"`batch_size`: expected at most the {len(root.frames['train'])} training images, found {config.batch_size}."
        )


def _trainer(
    config: RunConfig,
    root: Root,
    network: DenseNetwork,
    run: Path,
    stop: Callable[[], bool],
    device: torch.device,
    group: Group,
) -> Trainer:
    options = config.optimizer
    weighting = weighting_of(config, list(root.tasks)).to(device)
    phases = [
        Phase((IMAGES,), phase.epochs, phase.lr or options.lr, own_lr=phase.lr is not None) for phase in config.phases
    ]
    frames, held_out = (Frames(root, split, device) for split in ("train", "val"))
    sampler = Sampler(
        "joint", {IMAGES: len(frames)}, config.batch_size, config.seed, steps_per_epoch=config.steps_per_epoch
    )
    augmentation = Augmentation(config.augment.scales, config.augment.mirror)

    def fresh_optimizer(lr: float, weight_decay: float | None = None) -> torch.optim.Optimizer:
        return make_optimizer(options.with_decay(weight_decay), network, weighting, lr)

    def batch(stream: str, drawn: int) -> DenseBatch:
        return frames.training(sampler.examples(stream, drawn), drawn, augmentation, config.seed, group)

    def validate() -> dict[str, Tally]:
        """By the leader alone: medians are not made of counts, and the others wait for less than they would tell."""
        own = evaluate(network, held_out, root.tasks, config.precision, config.metric) if group.leads else {}
        return group.told(own)

    record = Recorder(run, COLUMNS)
    step = DenseStep(
        network, weighting, fresh_optimizer(phases[0].lr), config.precision,
        clip=options.clip, tasks=root.tasks, group=group,
    )  # fmt: skip
    trainer = Trainer(
        training=step, sampler=sampler, phases=phases, make_optimizer=fresh_optimizer,
        batch=batch, folder=run / "checkpoints", evaluate=validate,
        observe=lambda rows: record(trainer.rows, rows), stop=stop, columns=COLUMNS, **loop_options(config, network),
    )  # fmt: skip
    return trainer


def train(
    config: RunConfig,
    data: Path,
    run: Path,
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
    report: Report = report_nothing,
    group: Group = ALONE,
    show: Show = progress,
) -> dict[str, Any]:
    """Train a run from the beginning, or go on with it; returns its summary. Raises as `mtan_core.training.train_run`.

    `report` is told each epoch's rows of metrics and its checkpoint. `group` are the processes that train together, all of
    which call this; `show` makes the progress bar.
    """

    def prepare(last: Path | None) -> Training:
        training = prepare_training(config, data, run, stop, group)
        training.trainer.report, training.trainer.show = report, show
        return training

    return train_run(DenseFolder(run), config, prepare, resume, group)
