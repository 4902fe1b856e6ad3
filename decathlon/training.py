"""`mtan decathlon train`: a configuration and a store become a run."""

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from decathlon.batches import DomainImages
from decathlon.building import build_network, own_parameters, parameter_counts
from decathlon.config import RunConfig, load_config
from decathlon.data.store import Store, open_store
from decathlon.evaluation import evaluate_domain, reestimate_domain
from decathlon.events import ScalarEvents
from decathlon.runs import FORMAT, RunFolder, choose_device, load_weights, refuse_existing
from decathlon.specs import DomainSpec, official_domains
from decathlon.views import Augmentation
from mtan_core.averaging import WeightAverage
from mtan_core.checkpoint import checkpoints, read_state, recover, save_checkpoint
from mtan_core.errors import UserError, nearest
from mtan_core.files import replacing, write_json
from mtan_core.loop import Phase, Row, Trainer
from mtan_core.memory import keep_memory
from mtan_core.metrics import Tally
from mtan_core.network import AttentionNetwork
from mtan_core.norm import SHARED
from mtan_core.sampling import Sampler, keyed_generator
from mtan_core.schedule import Schedule
from mtan_core.step import Batch, NotFiniteError, TrainingStep
from mtan_core.weighting import Weighting, make_weighting


@dataclass(frozen=True)
class TrainingImages:
    """What a domain learns from: its training split, under train+val its validation split too."""

    parts: tuple[DomainImages, ...]
    augmentation: Augmentation
    seed: int
    mixup: float

    def __len__(self) -> int:
        return sum(len(part.split) for part in self.parts)

    def batch(self, places: np.ndarray, drawn: int) -> Batch:
        """The images at these places; the number of the batch in its stream determines all randomness."""
        name = self.parts[0].spec.name
        rng = keyed_generator(self.seed, "augment", name, drawn)
        images, labels, start = [], [], 0
        for part in self.parts:
            own = places[(places >= start) & (places < start + len(part.split))] - start
            if len(own):
                images.append(part.training(own, self.augmentation, rng))
                labels.append(part.split.labels[own])  # type: ignore[index]
            start += len(part.split)
        return self._mix(torch.cat(images), torch.from_numpy(np.concatenate(labels)).to(images[0].device), rng)

    def _mix(self, images: torch.Tensor, labels: torch.Tensor, rng: np.random.Generator) -> Batch:
        if not self.mixup:
            return Batch(images, labels)
        share = float(rng.beta(self.mixup, self.mixup))
        share = max(share, 1 - share)  # so that `labels` are those of the greater part
        order = torch.from_numpy(rng.permutation(len(labels))).to(labels.device)
        return Batch(images.lerp(images[order], 1 - share), labels, labels[order], share)


def check_keys(config: RunConfig, domains: Sequence[str]) -> None:
    """Raises UserError for a domain named in the configuration that neither the data nor the challenge knows."""
    known = {*domains, *official_domains()}
    named = {
        "domains": config.domains, "fit": config.fit, "augment.centre": config.augment.centre,
        "weighting.weights": config.weighting.weights, "optimizer.domain_weight_decay": config.optimizer.domain_weight_decay,
        **{f"phases.{i}.domains": phase.domains for i, phase in enumerate(config.phases)},
    }  # fmt: skip
    for key, names in named.items():
        for name in names:
            if name not in known:
                raise UserError(f"`{key}`: there is no domain '{name}'{nearest(name, known)}.")


def phases_of(config: RunConfig, domains: Sequence[str]) -> list[Phase]:
    """The phases with their domains (those of the run that a phase names; default all) and rates filled in."""
    phases = []
    for number, phase in enumerate(config.phases):
        tasks = tuple(name for name in domains if not phase.domains or name in phase.domains)
        if not tasks:
            raise UserError(
                f"`phases.{number}.domains`: none of its domains is trained (in training: {', '.join(domains)})."
            )
        phases.append(Phase(tasks, phase.epochs, phase.lr or config.optimizer.lr, phase.freeze))
    return phases


def training_images(config: RunConfig, store: Store, domain: str, device: torch.device) -> TrainingImages:
    """A domain's images with the run's augmentation. Raises UserError for an empty split."""
    splits = ["train", "val"] if config.protocol == "train+val" else ["train"]
    parts = tuple(_images(config, store, domain, split, device) for split in splits)
    if not sum(len(part.split) for part in parts):
        raise UserError(f"{domain}: expected training images, found none in the store.")
    options = config.augment
    augmentation = Augmentation(
        mirror=options.mirror, zoom=options.zoom, zoom_out=options.zoom_out, shift=options.shift,
        contrast=options.contrast, brightness=options.brightness,
    )  # fmt: skip
    if domain in options.centre:
        augmentation = replace(augmentation, crop=False)
    return TrainingImages(parts, augmentation, config.seed, config.mixup)


def _images(config: RunConfig, store: Store, domain: str, split: str, device: torch.device) -> DomainImages:
    spec = store.specs[domain]
    return DomainImages(store.split(domain, split), config.fit.get(domain, spec.fit), config.image_size, device, spec)


def make_optimizer(
    config: RunConfig, network: AttentionNetwork, weighting: Weighting, lr: float
) -> torch.optim.Optimizer:
    """SGD or AdamW over what learns: one group per decay; learnt task weights are never decayed."""
    options = config.optimizer
    decayed: dict[float, list[nn.Parameter]] = {}
    for owner, named in network.parameter_groups().items():
        decay = (
            options.weight_decay if owner == SHARED else options.domain_weight_decay.get(owner, options.weight_decay)
        )
        for parameter in named.values():
            own = decay if options.decay_norms or parameter.ndim > 1 else 0.0
            decayed.setdefault(own, []).append(parameter)
    groups: list[dict[str, Any]] = [{"params": params, "weight_decay": decay} for decay, params in decayed.items()]
    if learnt := list(weighting.parameters()):
        groups.append({"params": learnt, "weight_decay": 0.0})
    if options.kind == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(options.momentum, 0.999))
    nesterov = options.nesterov and options.momentum > 0
    return torch.optim.SGD(groups, lr=lr, momentum=options.momentum, nesterov=nesterov)


@dataclass
class Training:
    """A run in the making: all parts put together, before or between steps."""

    config: RunConfig
    folder: RunFolder
    specs: list[DomainSpec]
    network: AttentionNetwork
    train_images: dict[str, TrainingImages]
    val_images: dict[str, DomainImages]
    trainer: Trainer
    device: torch.device

    def run(self, last: Path | None) -> None:
        """Train to the end, from the checkpoint `last` on (None: from the beginning), and write the finished checkpoint."""
        state = read_state(last) if last else {}
        if last and state.get("finished"):  # only the summary is lacking
            load_weights(self.network, last)
            self.trainer.recall(state)
            return
        if last:
            self.trainer.restore(last)
        self.trainer.run()
        if self.trainer.average:
            self.trainer.average.swap()
        if self.config.norm == "shared":
            self._reestimate_best()
            self._reestimate(self.network)
        self.trainer.save_finished()

    def _reestimate(self, network: AttentionNetwork) -> None:
        for domain, source in self.train_images.items():
            reestimate_domain(network, domain, source.parts[0], self.config.precision)

    def _reestimate_best(self) -> None:
        """The best checkpoint is to answer without data as well, where it is another than the last."""
        best = self.trainer.best
        if best is None or best["step"] == self.trainer.position.steps:
            return
        path = self.folder.checkpoints / f"step-{best['step']}"
        network = build_network(self.config, {spec.name: spec.classes for spec in self.specs}).to(self.device)
        load_weights(network, path)
        self._reestimate(network)
        save_checkpoint(self.folder.checkpoints, best["step"], {"weights": network.state_dict()}, read_state(path))

    def finish(self) -> dict[str, Any]:
        """Write the summary."""
        validation = self.validate() if self.config.norm == "shared" and self.val_images else {}
        summary = self._summary(validation)
        write_json(self.folder.path / "summary.json", summary, indent=2)
        return summary

    def validate(self) -> dict[str, Tally]:
        return {
            domain: evaluate_domain(self.network, domain, images, self.config.precision).tally
            for domain, images in self.val_images.items()
        }

    def _summary(self, reestimated: Mapping[str, Tally]) -> dict[str, Any]:
        trainer = self.trainer
        last = {row["domain"]: row["val_accuracy"] for row in trainer.rows if row["epoch"] == trainer.position.epochs}
        validated = {d: a for d, a in last.items() if a is not None}
        if reestimated:
            validated = {domain: tally.accuracy for domain, tally in reestimated.items()}
        return {
            "format": FORMAT, "finished": True, "protocol": self.config.protocol, "seed": self.config.seed,
            "domains": [spec.name for spec in self.specs], "source": sorted({spec.source for spec in self.specs}),
            **parameter_counts(self.network),
            "own_parameters": {spec.name: own_parameters(self.network, spec.name) for spec in self.specs},
            "steps": trainer.position.steps, "epochs": trainer.position.epochs, "images": trainer.images,
            "seconds": round(trainer.seconds, 1), "best": trainer.best,
            "val_accuracy": validated, "mean_val_accuracy": sum(validated.values()) / len(validated) if validated else None,
            **environment(self.device),
        }  # fmt: skip


def environment(device: torch.device) -> dict[str, Any]:
    """What a number was made with: commit, versions, machine."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    return {
        "commit": commit, "python": platform.python_version(), "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
    }  # fmt: skip


def prepare_training(config: RunConfig, data: str, run: Path, stop: Callable[[], bool] = lambda: False) -> Training:
    """Put all parts of a new run together; writes nothing. Raises UserError for what cannot be trained."""
    store = open_store(data)
    domains = [name for name in store.domains if name in (config.domains or store.domains)]
    check_keys(config, store.domains)
    absent = [name for name in config.domains if name not in store.domains]
    if absent:
        raise UserError(f"`domains`: the store {data} has no domain '{absent[0]}'{nearest(absent[0], store.domains)}.")
    if config.threads:
        torch.set_num_threads(config.threads)
    device = choose_device(config.device)
    train_images = {name: training_images(config, store, name, device) for name in domains}
    val_images = {}
    if config.protocol == "train":
        held = {name: _images(config, store, name, "val", device) for name in domains if "val" in store.splits(name)}
        val_images = {name: images for name, images in held.items() if len(images.split)}
    specs = [store.specs[name] for name in domains]
    network = build_network(config, {spec.name: spec.classes for spec in specs}).to(device)
    if config.compile:
        network.pool.compile()
        network.ladder.compile()
    folder = RunFolder(run)
    training = Training(config, folder, specs, network, train_images, val_images, None, device)  # type: ignore[arg-type]
    training.trainer = _trainer(config, training, phases_of(config, domains), stop)
    return training


def _trainer(config: RunConfig, parts: Training, phases: Sequence[Phase], stop: Callable[[], bool]) -> Trainer:
    options = config.optimizer
    domains = list(parts.train_images)
    weighting = make_weighting(
        config.weighting.kind, domains, config.weighting.temperature, config.weighting.weights, config.weighting.kendall
    ).to(parts.device)
    sizes = {name: len(images) for name, images in parts.train_images.items()}
    sampler = Sampler(
        config.sampling, sizes, config.batch_size, config.seed, config.sampling_temperature, config.steps_per_epoch
    )

    def fresh_optimizer(lr: float) -> torch.optim.Optimizer:
        return make_optimizer(config, parts.network, weighting, lr)

    step = TrainingStep(
        parts.network, weighting, fresh_optimizer(phases[0].lr), config.precision,
        config.accumulate, config.label_smoothing, options.clip,
    )  # fmt: skip
    return Trainer(
        training=step, sampler=sampler, phases=phases,
        schedule=Schedule(options.schedule, options.warmup, options.step_epochs, options.step_factor),
        make_optimizer=fresh_optimizer,
        batch=lambda task, drawn: parts.train_images[task].batch(sampler.examples(task, drawn), drawn),
        folder=parts.folder.checkpoints, evaluate=parts.validate if parts.val_images else None,
        evaluate_every=config.evaluate_every, observe=Observer(parts), stop=stop,
        average=WeightAverage(parts.network, config.ema) if config.ema else None,
        keep=config.checkpoint.keep, every_steps=config.checkpoint.every_steps, every_epochs=config.checkpoint.every_epochs,
    )  # fmt: skip


class Observer:
    """Told each epoch's rows: writes `metrics.parquet` and TensorBoard events, and warns about domains stuck at chance."""

    def __init__(self, parts: Training) -> None:
        self.parts = parts
        self.warned: set[str] = set()
        self.events = ScalarEvents(parts.folder.path / "tensorboard")

    def __call__(self, rows: Sequence[Row]) -> None:
        import pandas as pd

        all_rows = self.parts.trainer.rows
        with replacing(self.parts.folder.path / "metrics.parquet") as temporary:
            pd.DataFrame(all_rows).to_parquet(temporary, index=False)
        for row in rows:
            keys = ("loss", "accuracy", "val_loss", "val_accuracy", "weight")
            values = {f"{key}/{row['domain']}": row[key] for key in keys if row[key] is not None}
            self.events.write(row["step"], values)
        for spec in self.parts.specs:
            self._warn_if_stuck(spec, [row for row in all_rows if row["domain"] == spec.name])

    def _warn_if_stuck(self, spec: DomainSpec, rows: Sequence[Row]) -> None:
        images = self.parts.val_images.get(spec.name)
        patience = self.parts.config.stuck_epochs
        accuracies = [row["val_accuracy"] for row in rows if row["val_accuracy"] is not None][-patience:]
        if images is None or len(accuracies) < patience or spec.name in self.warned or images.split.labels is None:
            return
        majority = np.bincount(images.split.labels).max() / len(images.split)
        if max(accuracies) <= majority + 1 / len(images.split):
            self.warned.add(spec.name)
            print(
                f"mtan: warning: {spec.name} has been at chance ({max(accuracies):.1%}) for {patience} validations; "
                f'consider a lower optimizer.lr or norm = "domain".',
                file=sys.stderr,
            )


def train(
    config: RunConfig, data: str, run: Path, resume: bool = False, stop: Callable[[], bool] = lambda: False
) -> dict[str, Any]:
    """Train a run from the beginning, or go on with it; returns its summary.

    Raises UserError for bad input before anything is written, and when a loss is not finite; Interrupted (after a
    checkpoint) when `stop` says so.
    """
    folder = RunFolder(run)
    if not (resume and (run / "config.toml").exists()):
        refuse_existing(run)
    else:
        refuse_differences(folder.config(), config)
        if (summary := folder.summary()) is not None:
            return summary
        recover(folder.checkpoints)
    keep_memory()
    training = prepare_training(config, data, run, stop)
    found = checkpoints(folder.checkpoints)
    if found:
        refuse_other_data(folder.specs(), training.specs)
    else:
        folder.start(config, training.specs)
    try:
        training.run(found[-1] if found else None)
    except NotFiniteError as problem:
        raise UserError(
            f"{problem.args[0]}: expected a finite loss, found {problem.args[1]} at step {training.trainer.position.steps}; "
            f"lower optimizer.lr or set optimizer.clip (the last checkpoint is kept in {folder.checkpoints})."
        ) from None
    return training.finish()


def refuse_differences(old: RunConfig, new: RunConfig) -> None:
    """Raises UserError that names the first key in which a resumed run would differ."""
    before, after = _flat(old.model_dump()), _flat(new.model_dump())
    for key in sorted({*before, *after}):
        if before.get(key) != after.get(key):
            raise UserError(
                f"--resume: expected the run's own `{key}` = {before.get(key)!r}, found {after.get(key)!r}."
            )


def refuse_other_data(before: Mapping[str, DomainSpec], now: Sequence[DomainSpec]) -> None:
    """Raises UserError when a resumed run would meet other domains, or a domain with another spec."""
    if list(before) != [spec.name for spec in now]:
        found = ", ".join(spec.name for spec in now)
        raise UserError(f"--data: expected the domains that the run began with ({', '.join(before)}), found {found}.")
    for spec in now:
        if spec != before[spec.name]:
            raise UserError(
                f"--data: expected {spec.name} as the run began with it, found other classes or statistics."
            )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def resolve(
    preset: str | None,
    file: Path | None,
    changes: Sequence[str],
    short: Mapping[str, str | None],
    run: Path,
    resume: bool,
) -> RunConfig:
    """The configuration that the command line means: preset or file, then `--set`, then the short options.

    With `resume` and neither preset nor file it is the run's own, where there is one.
    """
    listed = {"domains"}
    wanted = [
        f"{key}={_listed(value) if key in listed else value}" for key, value in short.items() if value is not None
    ]
    own = run / "config.toml"
    if resume and preset is None and file is None and own.exists():
        file = own
    return load_config(preset, file, [*changes, *wanted])


def _listed(names: str) -> str:
    return json.dumps([name.strip() for name in names.split(",") if name.strip()])
