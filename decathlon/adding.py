"""`mtan decathlon add-domain`: a trained run gets one more domain as an attention head; the others stay as they are."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from decathlon.addition import Addition, finished_run, old_data, report
from decathlon.building import build_network
from decathlon.config import RunConfig, load_config, parse_config
from decathlon.data.custom import write_store
from decathlon.data.store import open_store
from decathlon.own_store import NAME as OWN_STORE
from decathlon.own_store import carry_over
from decathlon.runs import Run, RunFolder, pool_weights
from decathlon.specs import DomainSpec, check_name
from decathlon.training import prepare_training, train
from mtan_core.checkpoint import save_untrained
from mtan_core.errors import UserError
from mtan_core.methods import methods
from mtan_core.network import AttentionNetwork
from mtan_core.norm import SHARED
from mtan_core.runs import RESUMABLE, new_run, refuse_differences, refuse_existing
from mtan_core.sampling import Sampler
from mtan_core.transfer import take_pool

SHARED_PARTS = ("pool", "ladder")
RESERVED = (SHARED, "own", "masks", "affine", "statistics")  # by which names of weights tell what they are for
# what the whole run has in common: changed, it would change what the other domains answer
FIXED = (
    "network",
    "pool",
    "pool_from",
    "norm",
    "method",
    "distillation",
    "image_size",
    "precision",
    "channels_last",
    "protocol",
)


def begin(addition: Addition, resume: bool = False, data: str | None = None) -> RunConfig:
    """Write the new run, ready to be trained, with the store of the new domain in it; returns its configuration.

    It appears whole or not at all. With `resume`, a run that is there is checked and taken as it is. Raises UserError for
    a bad name, bad images, bad keys, or `data` without any of the old domains, before anything is written.
    """
    old_data(addition, data)
    run = finished_run(addition.source, addition.checkpoint)
    if resume and (addition.run / "config.toml").is_file():
        return _begun(addition, run)
    refuse_existing(addition.run)
    _check_new_name(run, addition.name)
    new_config(addition, run.config, {}, 1)  # mistakes in keys are told before images are read
    with new_run(addition.run, RESUMABLE) as temporary:
        temporary.mkdir()
        numbers = {spec.number for spec in run.specs.values()}
        write_store(addition.images, addition.name, temporary / OWN_STORE, numbers, addition.choices)
        carry_over(addition.source, temporary, addition.name)
        store = open_store(temporary / OWN_STORE)
        config = new_config(addition, run.config, run.folder.summary() or {}, len(store.split(addition.name, "train")))
        _write_start(temporary, run, config, store.specs[addition.name])
    return config


def _check_new_name(run: Run, name: str) -> None:
    check_name(name)
    alike = next((known for known in run.specs if known.lower() == name.lower()), None)
    if alike:
        raise UserError(f"Expected a new domain's name, found '{name}': {run.folder.path} has '{alike}' already.")
    if name in RESERVED or hasattr(nn.ModuleDict(), name):
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
        f"domains={json.dumps([name])}", "weighting={}", "accumulate=1", "changes=[]", f"phases=[{{epochs = {first.epochs}{rate}}}]"
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
    save_untrained(RunFolder(folder).checkpoints, network.state_dict())


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
        take_pool(network, pool_weights(config.pool_from), f"`pool_from`: {config.pool_from}")
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
    return report(addition, old_data(addition, data))
