"""`mtan decathlon add-domain`: a trained run gets one more domain as an attention head; the others stay as they are."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from decathlon.building import build_network, parameter_counts
from decathlon.config import RunConfig, load_config, parse_config
from decathlon.data.custom import Choices, write_store
from decathlon.data.store import Store, open_store
from decathlon.own_store import NAME as OWN_STORE
from decathlon.own_store import carry_over
from decathlon.reports import common_domains, evaluate_run
from decathlon.resuming import refuse_differences
from decathlon.runs import Choice, Run, RunFolder, load_run
from decathlon.scoring import domain_points
from decathlon.specs import DomainSpec, check_name
from decathlon.training import prepare_training, train
from mtan_core.checkpoint import read_tensors, save_checkpoint
from mtan_core.errors import UserError
from mtan_core.files import replacing
from mtan_core.methods import methods
from mtan_core.network import AttentionNetwork
from mtan_core.norm import SHARED
from mtan_core.sampling import Sampler
from mtan_core.transfer import take_pool

SHARED_PARTS = ("pool", "ladder")
# what the whole run has in common: changed, it would change what the other domains answer
FIXED = ("network", "pool", "pool_from", "norm", "method", "image_size", "precision", "channels_last", "protocol")


@dataclass(frozen=True)
class Addition:
    """What is to be added to which run."""

    source: Path
    name: str
    images: Path
    run: Path  # the new one
    choices: Choices = field(default_factory=Choices)
    changes: Sequence[str] = ()  # KEY=VALUE
    unfreeze: Sequence[str] = ()
    checkpoint: Choice = "last"

    @property
    def store(self) -> Path:
        return self.run / OWN_STORE


def begin(addition: Addition, resume: bool = False, data: str | None = None) -> RunConfig:
    """Write the new run, ready to be trained, with the store of the new domain in it; returns its configuration.

    It appears whole or not at all. With `resume`, a run that is there is checked and taken as it is. Raises UserError for
    a bad name, bad images, bad keys, or `data` without any of the old domains, before anything is written.
    """
    _old_data(addition, data)
    run = finished_run(addition.source, addition.checkpoint)
    if resume and (addition.run / "config.toml").is_file():
        return _begun(addition, run)
    _refuse_folder(addition.run)
    _check_new_name(run, addition.name)
    new_config(addition, run.config, {}, 1)  # mistakes in keys are told before images are read
    with replacing(addition.run) as temporary:
        temporary.mkdir()
        numbers = {spec.number for spec in run.specs.values()}
        write_store(addition.images, addition.name, temporary / OWN_STORE, numbers, addition.choices)
        carry_over(addition.source, temporary, addition.name)
        store = open_store(temporary / OWN_STORE)
        config = new_config(addition, run.config, run.folder.summary() or {}, len(store.split(addition.name, "train")))
        _write_start(temporary, run, config, store.specs[addition.name])
    return config


def finished_run(path: Path, checkpoint: Choice = "last") -> Run:
    """A run that is to be extended or cut. Raises UserError where there is none, and for one that is still in training."""
    if RunFolder(path).config() and RunFolder(path).summary() is None:
        raise UserError(
            f"Expected a finished run, found one that is still to be trained: {path} (go on with it by --resume)."
        )
    return load_run(path, checkpoint, "cpu")


def _refuse_folder(path: Path) -> None:
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"--run: expected a new folder, found {path} (go on with it by --resume, or choose another).")


def _check_new_name(run: Run, name: str) -> None:
    check_name(name)
    if name in run.specs:
        raise UserError(f"Expected a new domain's name, found '{name}', which {run.folder.path} has already.")
    if name == SHARED or hasattr(nn.ModuleDict(), name):
        raise UserError(f"Expected a domain's name, found '{name}', which is reserved: choose another.")


def _begun(addition: Addition, run: Run) -> RunConfig:
    """The configuration of a run that was begun before. Raises UserError where this command would have begun another."""
    folder = RunFolder(addition.run)
    config = folder.config()
    if addition.name not in config.domains or addition.name not in folder.specs():
        raise UserError(f"--resume: expected a run that adds {addition.name}, found another one: {addition.run}.")
    images = len(open_store(addition.store).split(addition.name, "train"))
    refuse_differences(config, new_config(addition, run.config, run.folder.summary() or {}, images))
    return config


def new_config(addition: Addition, old: RunConfig, summary: dict[str, Any], images: int) -> RunConfig:
    """The old run's recipe for the new domain alone, with the user's changes.

    An epoch is as long as in the old run's joint training, so that the new domain is seen as often as the old ones were,
    and at least one pass over its `images`. Raises UserError for changes that would touch the other domains.
    """
    name, first = addition.name, old.phases[0]
    if "pool" in addition.unfreeze and methods()[old.method].frozen:
        raise UserError(f"--unfreeze: the method {old.method} keeps its pool frozen.")
    frozen = [part for part in SHARED_PARTS if part not in addition.unfreeze]
    rate = "" if first.lr is None else f", lr = {first.lr}"
    changes = [
        f"domains={json.dumps([name])}", "weighting={}", "accumulate=1", f"phases=[{{epochs = {first.epochs}{rate}}}]"
    ]  # fmt: skip
    if old.sampling == "joint":
        as_before = round(summary["steps"] / summary["epochs"]) if summary.get("epochs") else 1
        passes = Sampler("joint", {name: images}, old.batch_size).epoch_length([name])
        changes.append(f"steps_per_epoch={max(as_before, passes)}")
    if addition.choices.fit:
        changes.append(f"fit.{name}={addition.choices.fit}")
    config = load_config(None, addition.source / "config.toml", [*changes, *addition.changes])
    _refuse_touching(old, config, name)
    return _standing_still(config, name, frozen)


def _standing_still(config: RunConfig, name: str, frozen: Sequence[str]) -> RunConfig:
    """With the shared parts frozen and the domain alone in every phase, also in those that the user wrote."""
    tree = config.model_dump(mode="json", exclude_none=True)
    for phase in tree["phases"]:
        also = [part for part in phase["freeze"] if part not in SHARED_PARTS]
        phase |= {"domains": [name], "freeze": [*frozen, *also], "shared_only": True}
    return parse_config(tree, "--set")


def _refuse_touching(old: RunConfig, new: RunConfig, name: str) -> None:
    """Raises UserError for a change that would reach beyond the new domain."""
    for key in FIXED:
        if getattr(old, key) != getattr(new, key):
            raise UserError(f"--set: `{key}` belongs to the whole run, and cannot change when a domain is added.")
    if {d: f for d, f in old.fit.items() if d != name} != {d: f for d, f in new.fit.items() if d != name}:
        raise UserError("--set: `fit` of other domains cannot change when a domain is added.")
    if new.domains != (name,) or any(phase.domains not in ((), (name,)) for phase in new.phases):
        raise UserError(f"--set: expected {name} as the only domain to train.")


def _write_start(folder: Path, run: Run, config: RunConfig, spec: DomainSpec) -> None:
    """Configuration, domains and the weights to start from."""
    old = list(run.specs.values())
    unread = config.model_copy(update={"pool_from": ""})  # whose pool the old run has already
    training = prepare_training(unread, str(folder / OWN_STORE), folder, inherited=old)
    RunFolder(folder).start(config, training.specs, {**run.folder.divisions(), **training.divisions()})
    network = extended(run, config, spec)
    state: dict[str, Any] = {"position": {}, "tallies": {}, "rows": [], "best": None, "images": 0, "seconds": 0.0}
    save_checkpoint(RunFolder(folder).checkpoints, 0, {"weights": network.state_dict()}, state)


def extended(run: Run, config: RunConfig, spec: DomainSpec) -> AttentionNetwork:
    """The run's network with one more domain: all old values as they are, the new domain's fresh.

    Its batch norms begin at the mean of the old domains'; with `norm = "shared"` it gets statistics of its own at once, so
    that the shared ones never move. Copies of a trained pool, where the method has such, are made of that pool again.
    """
    specs = sorted([*run.specs.values(), spec], key=lambda one: one.number)
    network = build_network(config, {one.name: one.classes for one in specs})
    old = run.network
    method = methods()[config.method]
    if method.pretrained and method.conv == "own":
        weights = read_tensors(RunFolder(Path(config.pool_from)).checkpoint("last"), "weights")
        take_pool(network, weights, f"`pool_from`: {config.pool_from}")
    if config.norm == "shared":
        for task in old.tasks:
            if all(task in norm.statistics for norm in old.task_norms()):
                network.own_statistics(task)
    values = old.state_dict()
    network.load_state_dict({**network.state_dict(), **values})
    network.start_from(spec.name, old.tasks)
    if config.norm == "shared":
        network.own_statistics(spec.name)
    return network


def add_domain(
    addition: Addition, data: str | None = None, resume: bool = False, stop: Callable[[], bool] = lambda: False
) -> dict[str, Any]:
    """Begin the run, unless it was begun before, train it to its end, and report on it (see `report`)."""
    config = begin(addition, resume, data)
    train(config, str(addition.store), addition.run, resume=True, stop=stop)
    return report(addition, _old_data(addition, data))


def _old_data(addition: Addition, data: str | None) -> Store | None:
    """The store in which the old domains lie. Raises UserError where it has none of them."""
    if data is None:
        return None
    store = open_store(data)
    common_domains(finished_run(addition.source), store, None)
    return store


def report(addition: Addition, data: Store | None) -> dict[str, Any]:
    """What the new domain is, what it costs, how well it does on val, and what the others lost (with their `data`)."""
    run, store = load_run(addition.run, "last"), open_store(addition.store)
    spec, made = run.spec(addition.name), store.metadata(addition.name, "train")
    accuracy = (run.folder.summary() or {})["val_accuracy"].get(spec.name)
    points = (
        None if accuracy is None or spec.baseline_error is None else domain_points(1 - accuracy, spec.baseline_error)
    )
    images = {split: len(store.split(spec.name, split)) for split in store.splits(spec.name)}
    others = None if data is None else _before_and_after(addition, data)
    unchanged = _unchanged(addition)
    if not (unchanged or addition.unfreeze):
        raise RuntimeError(f"{addition.run}: values of other domains have moved")
    return {
        "run": str(addition.run), "extends": str(addition.source), "domain": spec.name, "number": spec.number,
        "classes": spec.classes, "images": images, "skipped": made["skipped"], "store": str(addition.store),
        "mean": spec.mean, "std": spec.std, "fit": run.fit(spec.name), "mirror": spec.mirror,
        "unfrozen": list(addition.unfreeze), "others_unchanged": unchanged, **cost(run.network, spec.name),
        "val_accuracy": accuracy, "val_points": points, "others": others,
        "notes": [*made["notes"], *_notes(spec, images, unchanged, others)],
    }  # fmt: skip


def _unchanged(addition: Addition) -> bool:
    """Whether every value of the old run is in the new one, to the last bit."""
    before, after = (
        read_tensors(RunFolder(path).checkpoint(choice), "weights")
        for path, choice in ((addition.source, addition.checkpoint), (addition.run, "last"))
    )
    return all(torch.equal(value, after[name]) for name, value in before.items())


def cost(network: AttentionNetwork, domain: str) -> dict[str, Any]:
    """A domain's own parameters, by what they are for and as a share of the pool's."""
    own = {name: p.numel() for name, p in network.parameter_groups()[domain].items()}
    head = sum(count for name, count in own.items() if name.startswith("heads."))
    masks = sum(count for name, count in own.items() if ".masks." in name)
    norms = sum(count for name, count in own.items() if ".affine." in name and ".masks." not in name)
    pool, total = parameter_counts(network)["pool_parameters"], sum(own.values())
    kinds = {"masks": masks, "head": head, "norms": norms, "adapters": total - masks - head - norms, "total": total}
    return {
        "parameters": kinds,
        "pool_parameters": pool,
        "share_of_pool": total / pool,
    }


def _before_and_after(addition: Addition, data: Store) -> dict[str, dict[str, float]]:
    """Each old domain's accuracy on val in the old run and in the new one."""
    held = [name for name in finished_run(addition.source).specs if name in data.domains]
    wanted = ",".join(name for name in held if "val" in data.splits(name))
    before, after = (
        evaluate_run(load_run(path, choice), data, "val", wanted).answers
        for path, choice in ((addition.source, addition.checkpoint), (addition.run, "last"))
    )
    return {name: {"before": before[name].tally.accuracy, "after": after[name].tally.accuracy} for name in before}


def _notes(
    spec: DomainSpec, images: dict[str, int], unchanged: bool, others: dict[str, dict[str, float]] | None
) -> list[str]:
    told = []
    if spec.baseline_error is None:
        told.append(f"{spec.name} has no baseline error, so it shows accuracy and no points")
    if "test" not in images:
        told.append(f"{spec.name} has no test split, so `submit` leaves it out")
    if unchanged:
        told.append("all other domains answer as before, bit for bit")
    elif others is None:
        told.append("what the unfrozen parts cost the other domains was not measured: give their store by --data")
    return told
