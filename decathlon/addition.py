"""A domain that is to be added to a run, and what is told when it was."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from decathlon.building import parameter_counts
from decathlon.data.custom import Choices
from decathlon.data.store import Store, open_store
from decathlon.own_store import NAME as OWN_STORE
from decathlon.own_store import with_added
from decathlon.reports import checked_split, common_domains, evaluate_run
from decathlon.runs import Run, RunFolder, load_run
from decathlon.scoring import domain_points
from decathlon.specs import DomainSpec
from mtan_core.checkpoint import read_tensors
from mtan_core.choices import Choice
from mtan_core.errors import UserError
from mtan_core.network import AttentionNetwork


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


def finished_run(path: Path, checkpoint: Choice = "last") -> Run:
    """A run that is to be extended or cut. Raises UserError where there is none, and for one that is still in training."""
    if RunFolder(path).config() and RunFolder(path).summary() is None:
        raise UserError(
            f"Expected a finished run, found one that is still to be trained: {path} (go on with it by --resume)."
        )
    return load_run(path, checkpoint, "cpu")


def old_data(addition: Addition, data: str | None) -> Store | None:
    """The store in which the old domains lie, with those that were added to the old run.

    Raises UserError where it has none of them, or another division of one.
    """
    if data is None:
        return None
    run, store = finished_run(addition.source), with_added(open_store(data), addition.source)
    common_domains(run, store, None)
    for name in _validated(run, store):
        checked_split(run, store, name, "val")
    return store


def _validated(run: Run, store: Store) -> list[str]:
    """The run's domains that the store has val images of."""
    return [name for name in run.specs if name in store.domains and "val" in store.splits(name)]


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
    wanted = ",".join(_validated(finished_run(addition.source), data))
    if not wanted:
        return {}
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
