"""`mtan decathlon train`: a configuration and a store become a run."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from decathlon.batches import DomainImages
from decathlon.building import build_network, own_parameters, parameter_counts
from decathlon.config import RunConfig
from decathlon.data.store import open_store
from decathlon.evaluation import evaluate_domain, reestimate_domain
from decathlon.observer import Observer
from decathlon.resuming import refuse_other_data, refuse_other_divisions
from decathlon.runs import RunFolder, load_weights, pool_weights, trained_network
from decathlon.specs import DomainSpec, official_domains
from decathlon.teachers import distillation
from decathlon.training_images import TrainingImages, stored_images, training_images
from mtan_core import training as core
from mtan_core.checkpoint import checkpoints, read_state, save_checkpoint
from mtan_core.distillation import Distillation
from mtan_core.environment import environment
from mtan_core.errors import UserError, nearest
from mtan_core.loop import Phase, Report, Show, Trainer, report_nothing
from mtan_core.methods import methods
from mtan_core.metrics import Tally, mean_accuracy
from mtan_core.network import AttentionNetwork
from mtan_core.norm import synchronise
from mtan_core.optimizers import make_optimizer
from mtan_core.parallel import ALONE, Group, refuse_few_images
from mtan_core.progress import progress
from mtan_core.runs import choose_device
from mtan_core.sampling import Sampler
from mtan_core.step import TrainingStep
from mtan_core.training import loop_options, train_run
from mtan_core.transfer import take_pool
from mtan_core.weightings import make_weighting
from mtan_core.workers import Workers, cpu_workers


def check_keys(config: RunConfig, domains: Sequence[str]) -> None:
    """Raises UserError for a domain named in the configuration that neither the data nor the challenge knows."""
    known = {*domains, *official_domains()}
    named = {
        "domains": config.domains, "fit": config.fit, "augment.centre": config.augment.centre,
        "weighting.weights": config.weighting.weights, "distillation.weights": config.distillation.weights,
        "optimizer.domain_weight_decay": config.optimizer.domain_weight_decay,
        **{f"phases.{i}.domains": phase.domains for i, phase in enumerate(config.phases)},
        **{f"changes.{i}.weights": change.weights for i, change in enumerate(config.changes)},
    }  # fmt: skip
    for key, names in named.items():
        for name in names:
            if name not in known:
                raise UserError(f"`{key}`: there is no domain '{name}'{nearest(name, known)}.")


def phases_of(config: RunConfig, domains: Sequence[str]) -> list[Phase]:
    """The phases with their domains (those of the run that a phase names; default all) and rates filled in."""
    phases, method = [], methods()[config.method]
    for number, phase in enumerate(config.phases):
        tasks = tuple(name for name in domains if not phase.domains or name in phase.domains)
        if not tasks:
            raise UserError(
                f"`phases.{number}.domains`: none of its domains is trained (in training: {', '.join(domains)})."
            )
        freeze, shared_only = phase.freeze, phase.shared_only
        if method.frozen:
            freeze, shared_only = ("pool", *freeze), method.own_norms
        lr = phase.lr or config.optimizer.lr
        phases.append(Phase(tasks, phase.epochs, lr, freeze, shared_only, own_lr=phase.lr is not None))
    return phases


@dataclass
class Training(core.Training):
    """A run in the making: all parts put together, before or between steps."""

    config: RunConfig
    folder: RunFolder
    specs: list[DomainSpec]
    network: AttentionNetwork
    train_images: dict[str, TrainingImages]
    val_images: dict[str, DomainImages]
    trainer: Trainer
    device: torch.device
    group: Group = ALONE
    reestimated: dict[str, Tally] = field(default_factory=dict)

    @property
    def step(self) -> TrainingStep:
        assert isinstance(self.trainer.training, TrainingStep)
        return self.trainer.training

    def load(self, checkpoint: Path) -> None:
        load_weights(self.network, checkpoint)

    def start(self) -> None:
        self.folder.start(self.config, self.specs, self.divisions())

    def refuse_other_data(self) -> None:
        refuse_other_data(self.folder.specs(), self.specs)
        refuse_other_divisions(self.folder.divisions(), self.divisions())

    def conclude(self) -> None:
        """With one set of statistics, those of each domain are re-estimated."""
        if self.config.norm == "shared":
            self._reestimate_best()
            self._reestimate(self.network)

    def measure(self) -> None:
        """With the statistics of each domain that were re-estimated; so is the best checkpoint, where it is the last."""
        if self.config.norm == "shared" and self.val_images:
            self.reestimated = self.validate()
            best = self.trainer.best
            if best and best["step"] == self.trainer.position.steps:
                best["accuracy"] = mean_accuracy(self.reestimated)

    def _reestimate(self, network: AttentionNetwork) -> None:
        for domain, source in self.train_images.items():
            reestimate_domain(network, domain, source.parts[0], self.config.precision)

    def _reestimate_best(self) -> None:
        """The best checkpoint is to answer without data as well, where it is another than the last."""
        best = self.trainer.best
        if best is None or best["step"] == self.trainer.position.steps:
            return
        path = self.folder.checkpoints / f"step-{best['step']}"
        network = trained_network(self.config, {spec.name: spec for spec in self.specs}, path).to(self.device)
        self._reestimate(network)
        if self.group.leads:
            save_checkpoint(self.folder.checkpoints, best["step"], {"weights": network.state_dict()}, read_state(path))

    def divisions(self) -> dict[str, dict[str, str]]:
        """Which images are in which split, as digests: a run must not meet another division of the same images."""
        divisions = {name: source.parts[0].split.digest() for name, source in self.train_images.items()}
        held = {name: images.split.digest() for name, images in self.val_images.items()}
        return {
            name: {"train": train, **({"val": held[name]} if name in held else {})} for name, train in divisions.items()
        }

    def warn_of_blind_domains(self) -> None:
        """Say which domains no validation will tell of."""
        blind = [name for name in self.train_images if name not in self.val_images]
        if blind and self.val_images:
            print(
                f"mtan: warning: no validation images of {', '.join(blind)}; mean accuracies leave them out.",
                file=sys.stderr,
            )

    def finish(self) -> dict[str, Any]:
        """Write the summary."""
        return self.folder.write_summary(self._summary(self.reestimated))

    def validate(self) -> dict[str, Tally]:
        return {
            domain: evaluate_domain(self.network, domain, images, self.config.precision, group=self.group).tally
            for domain, images in self.val_images.items()
        }

    def _summary(self, reestimated: Mapping[str, Tally]) -> dict[str, Any]:
        trainer = self.trainer
        last = {row["domain"]: row["val_accuracy"] for row in trainer.rows if row["epoch"] == trainer.position.epochs}
        validated = {d: a for d, a in last.items() if a is not None}
        if reestimated:
            validated = {domain: tally.accuracy for domain, tally in reestimated.items()}
        return {
            "protocol": self.config.protocol, "seed": self.config.seed,
            "domains": [spec.name for spec in self.specs], "source": sorted({spec.source for spec in self.specs}),
            **parameter_counts(self.network),
            "own_parameters": {spec.name: own_parameters(self.network, spec.name) for spec in self.specs},
            "steps": trainer.position.steps, "epochs": trainer.position.epochs, "images": trainer.images,
            "seconds": round(trainer.seconds, 1), "workers": self.group.size, "best": trainer.best,
            "val_accuracy": validated, "mean_val_accuracy": sum(validated.values()) / len(validated) if validated else None,
            **environment(self.device),
        }  # fmt: skip


def prepare_training(
    config: RunConfig,
    data: str,
    run: Path,
    stop: Callable[[], bool] = lambda: False,
    inherited: Sequence[DomainSpec] = (),
    start: Path | None = None,
    group: Group = ALONE,
) -> Training:
    """Put all parts of a run together; writes nothing. Raises UserError for what cannot be trained.

    `inherited` are domains that came with the run and are not trained, so that no data of theirs is needed; `start` is
    the checkpoint whose weights training begins with. `group` are the processes that train together.
    """
    refuse_undivided(config, group)
    store = open_store(data)
    domains = [name for name in store.domains if name in (config.domains or store.domains)]
    check_keys(config, [*store.domains, *(spec.name for spec in inherited)])
    absent = [name for name in config.domains if name not in store.domains]
    if absent:
        raise UserError(f"`domains`: the store {data} has no domain '{absent[0]}'{nearest(absent[0], store.domains)}.")
    if config.threads:
        torch.set_num_threads(config.threads)
    device = choose_device(config.device)
    train_images = {name: training_images(config, store, name, device) for name in domains}
    for name, images in train_images.items():
        refuse_few_images(name, len(images), group)
    val_images = {}
    if config.protocol == "train":
        held = {
            name: stored_images(config, store, name, "val", device) for name in domains if "val" in store.splits(name)
        }
        val_images = {name: images for name, images in held.items() if len(images.split)}
    specs = sorted([*inherited, *(store.specs[name] for name in domains)], key=lambda spec: spec.number)
    network = build_network(config, {spec.name: spec.classes for spec in specs})
    if start:
        load_weights(network, start)
    network.to(device)
    folder = RunFolder(run)
    if config.pool_from and not checkpoints(folder.checkpoints):
        take_pool(network, pool_weights(config.pool_from), f"`pool_from`: {config.pool_from}")
    synchronise(network, group)
    training = Training(config, folder, specs, network, train_images, val_images, None, device, group)  # type: ignore[arg-type]
    teachers = None if inherited else distillation(config, network, [store.specs[name] for name in domains], device)
    training.trainer = _trainer(config, training, phases_of(config, domains), stop, teachers)
    return training


def _trainer(
    config: RunConfig,
    parts: Training,
    phases: Sequence[Phase],
    stop: Callable[[], bool],
    teachers: Distillation | None,
) -> Trainer:
    options = config.optimizer
    domains = list(parts.train_images)
    chosen = config.weighting.model_dump(exclude={"kind"})
    weighting = make_weighting(config.weighting.kind, domains, seed=config.seed, **chosen).to(parts.device)
    sizes = {name: len(images) for name, images in parts.train_images.items()}
    sampler = Sampler(
        config.sampling, sizes, config.batch_size, config.seed, config.sampling_temperature, config.steps_per_epoch
    )

    def fresh_optimizer(lr: float, weight_decay: float | None = None) -> torch.optim.Optimizer:
        beside = teachers.parameters() if teachers else ()
        decayed = options.with_decay(weight_decay)
        return make_optimizer(decayed, parts.network, weighting, lr, beside, options.domain_weight_decay)

    step = TrainingStep(
        parts.network, weighting, fresh_optimizer(phases[0].lr), config.precision, accumulate=config.accumulate,
        label_smoothing=config.label_smoothing, clip=options.clip, workers=_workers(config, parts, len(domains)),
        compile=config.compile, distillation=teachers, group=parts.group,
    )  # fmt: skip
    return Trainer(
        training=step, sampler=sampler, phases=phases, make_optimizer=fresh_optimizer,
        batch=lambda task, drawn: parts.train_images[task].batch(sampler.examples(task, drawn), drawn, parts.group),
        folder=parts.folder.checkpoints, evaluate=parts.validate if parts.val_images else None,
        observe=Observer(parts), stop=stop, **loop_options(config, parts.network),
    )  # fmt: skip


def refuse_undivided(config: RunConfig, group: Group) -> None:
    """Raises UserError for what several processes cannot train together."""
    if group.size == 1:
        return
    refuse_few_images("`batch_size`", config.batch_size, group)
    if config.distillation.teachers:
        raise UserError(
            "`distillation.teachers`: teachers compare all images of a batch with each other, which cannot be divided "
            f"among {group.size} workers."
        )
    if config.compile:
        raise UserError(f"`compile`: a compiled network cannot be divided among {group.size} workers.")


def _workers(config: RunConfig, parts: Training, domains: int) -> Workers | None:
    """Threads for a step's domains on the CPU; not where domains move the same statistics, nor where processes must sum
    in one order, nor for the compiler's sake."""
    if parts.device.type != "cpu" or config.norm == "shared" or config.compile or parts.group.size > 1:
        return None
    return cpu_workers(domains)


def inherited_specs(folder: RunFolder, config: RunConfig) -> list[DomainSpec]:
    """The domains of a run that its configuration does not train: they came from the run that it extends."""
    return [spec for name, spec in folder.specs().items() if config.domains and name not in config.domains]


def train(
    config: RunConfig,
    data: str,
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
    folder = RunFolder(run)

    def prepare(last: Path | None) -> Training:
        inherited = inherited_specs(folder, config) if last else []
        training = prepare_training(config, data, run, stop, inherited, last if inherited else None, group)
        training.warn_of_blind_domains()
        training.trainer.report, training.trainer.show = report, show
        return training

    return train_run(folder, config, prepare, resume, group)
