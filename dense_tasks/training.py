"""`mtan dense train`: a configuration and a root become a run."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from dense_tasks.config import RunConfig
from dense_tasks.data.augmentation import Augmentation
from dense_tasks.data.frames import Frames
from dense_tasks.data.root import Root, open_root
from dense_tasks.evaluation import evaluate
from dense_tasks.networks import parameter_counts
from dense_tasks.runs import DenseFolder, Facts, make_network
from dense_tasks.step import DenseStep
from mtan_core.averaging import WeightAverage
from mtan_core.checkpoint import checkpoints, read_state, recover
from mtan_core.dense import IMAGES, DenseNetwork
from mtan_core.environment import environment
from mtan_core.errors import UserError
from mtan_core.files import held
from mtan_core.loop import Columns, Phase, Trainer
from mtan_core.memory import keep_memory
from mtan_core.optimizers import make_optimizer
from mtan_core.recording import Recorder
from mtan_core.runs import choose_device, refuse_differences, refuse_existing
from mtan_core.sampling import Sampler
from mtan_core.schedule import Schedule
from mtan_core.step import NotFiniteError
from mtan_core.weightings import make_weighting

COLUMNS = Columns("task", "pixels", "key_metric")
LAST = 10  # epochs whose mean the paper reports


@dataclass
class Training:
    """A run in the making: all parts put together, before or between steps."""

    config: RunConfig
    folder: DenseFolder
    root: Root
    network: DenseNetwork
    trainer: Trainer
    device: torch.device

    def run(self, last: Path | None) -> None:
        """Train to the end, from the checkpoint `last` on (None: from the beginning), and write the finished checkpoint."""
        if last and read_state(last).get("finished"):  # only the summary is lacking
            self.trainer.recall(read_state(last))
            return
        if last:
            self.trainer.restore(last)
        self.trainer.run()
        if self.trainer.average:
            self.trainer.average.swap()
        self.trainer.save_finished()

    def summary(self) -> dict[str, Any]:
        """Results with the rule by which they were chosen: of the last epoch, and the mean of the last ten."""
        trainer, config = self.trainer, self.config
        return {
            "kind": "dense", "method": config.method, "weighting": config.weighting.kind, "seed": config.seed,
            "dataset": self.root.dataset.name, "tasks": list(self.root.tasks), "size": list(self.root.size),
            "metric": config.metric, **parameter_counts(self.network),
            "steps": trainer.position.steps, "epochs": trainer.position.epochs, "images": trainer.images,
            "seconds": round(trainer.seconds, 1), "best": trainer.best,
            "val_last": self._mean_of(1), f"val_mean_of_last_{LAST}": self._mean_of(LAST), **environment(self.device),
        }  # fmt: skip

    def _mean_of(self, epochs: int) -> dict[str, dict[str, float]]:
        """Each task's validation measures, mean over those of the last epochs that were validated."""
        first = self.trainer.position.epochs - epochs + 1
        rows = [row for row in self.trainer.rows if row["epoch"] >= first and row["val_loss"] is not None]
        names = {task: [measure.name for measure in self.root.tasks[task].measures] for task in self.root.tasks}
        return {
            task: {name: mean(row[f"val_{name}"] for row in rows if row["task"] == task) for name in own}
            for task, own in names.items()
            if any(row["task"] == task for row in rows)
        }


def prepare_training(config: RunConfig, data: Path, run: Path, stop: Callable[[], bool] = lambda: False) -> Training:
    """Put all parts of a run together; writes nothing. Raises UserError for what cannot be trained."""
    root = open_root(data, config.tasks or None, config.dataset or None, missing_labels=config.missing_labels)
    for warning in root.warnings:
        print(f"mtan: warning: {warning}", file=sys.stderr)
    if config.threads:
        torch.set_num_threads(config.threads)
    device = choose_device(config.device)
    unknown = [name for name in config.weighting.weights if name not in root.tasks]
    if unknown:
        raise UserError(f"`weighting.weights`: there is no task '{unknown[0]}' in training ({', '.join(root.tasks)}).")
    if len(root.frames["train"]) < config.batch_size:
        raise UserError(
            f"`batch_size`: expected at most the {len(root.frames['train'])} training images, found {config.batch_size}."
        )
    network = make_network(config, root.tasks).to(device)
    return Training(config, DenseFolder(run), root, network, _trainer(config, root, network, run, stop, device), device)


def _trainer(
    config: RunConfig, root: Root, network: DenseNetwork, run: Path, stop: Callable[[], bool], device: torch.device
) -> Trainer:
    options = config.optimizer
    chosen = config.weighting.model_dump(exclude={"kind"})
    weighting = make_weighting(config.weighting.kind, list(root.tasks), seed=config.seed, **chosen).to(device)
    phases = [Phase((IMAGES,), phase.epochs, phase.lr or options.lr) for phase in config.phases]
    frames, held_out = (Frames(root, split, device) for split in ("train", "val"))
    sampler = Sampler(
        "joint", {IMAGES: len(frames)}, config.batch_size, config.seed, steps_per_epoch=config.steps_per_epoch
    )
    augmentation = Augmentation(config.augment.scales, config.augment.mirror)

    def fresh_optimizer(lr: float) -> torch.optim.Optimizer:
        return make_optimizer(options, network, weighting, lr)

    record = Recorder(run, COLUMNS)
    trainer = Trainer(
        training=DenseStep(network, weighting, fresh_optimizer(phases[0].lr), config.precision, clip=options.clip, tasks=root.tasks),
        sampler=sampler, phases=phases,
        schedule=Schedule(options.schedule, options.warmup, options.step_epochs, options.step_factor),
        make_optimizer=fresh_optimizer,
        batch=lambda stream, drawn: frames.training(sampler.examples(stream, drawn), drawn, augmentation, config.seed),
        folder=run / "checkpoints",
        evaluate=lambda: evaluate(network, held_out, root.tasks, config.precision, config.metric),
        evaluate_every=config.evaluate_every, observe=lambda rows: record(trainer.rows, rows), stop=stop,
        average=WeightAverage(network, config.ema) if config.ema else None,
        keep=config.checkpoint.keep, every_steps=config.checkpoint.every_steps, every_epochs=config.checkpoint.every_epochs,
        columns=COLUMNS,
    )  # fmt: skip
    return trainer


def train(
    config: RunConfig, data: Path, run: Path, resume: bool = False, stop: Callable[[], bool] = lambda: False
) -> dict[str, Any]:
    """Train a run from the beginning, or go on with it; returns its summary.

    Raises UserError for bad input before anything is written, and when a loss is not finite; Interrupted (after a
    checkpoint) when `stop` says so.
    """
    if resume and (run / "config.toml").exists():
        with held(run, "a run"):
            return _resumed(config, data, run, stop)
    refuse_existing(run)
    training = prepare_training(config, data, run, stop)
    run.mkdir(parents=True, exist_ok=True)
    with held(run, "a run"):
        refuse_existing(run)  # somebody may have been quicker
        training.folder.start(config, Facts.of(training.root))
        return _to_the_end(training, None)


def _resumed(config: RunConfig, data: Path, run: Path, stop: Callable[[], bool]) -> dict[str, Any]:
    folder = DenseFolder(run)
    refuse_differences(folder.config(), config)
    recover(folder.checkpoints)
    if (summary := folder.summary()) is not None:
        folder.checkpoint()
        return summary
    training = prepare_training(config, data, run, stop)
    _refuse_other_data(folder.facts().to_dict(), Facts.of(training.root).to_dict())
    found = checkpoints(folder.checkpoints)
    return _to_the_end(training, found[-1] if found else None)


def _refuse_other_data(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for key, value in before.items():
        if value != now[key]:
            raise UserError(f"--data: expected the {key} that the run began with, found another root.")


def _to_the_end(training: Training, last: Path | None) -> dict[str, Any]:
    keep_memory()
    try:
        training.run(last)
    except NotFiniteError as problem:
        raise UserError(
            f"{problem.args[0]}: expected a finite loss, found {problem.args[1]} at step {training.trainer.position.steps}; "
            f"lower optimizer.lr or set optimizer.clip, and begin a new run."
        ) from None
    return training.folder.write_summary(training.summary())
