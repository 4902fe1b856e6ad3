"""`mtan decathlon drop-domain`: a run without one of its domains; everything else stays bit-identical."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decathlon.addition import finished_run
from decathlon.building import own_parameters, parameter_counts
from decathlon.config import RunConfig
from decathlon.own_store import carry_over
from decathlon.runs import RunFolder, trained_network
from mtan_core.checkpoint import read_state, read_tensors, save_checkpoint
from mtan_core.errors import UserError
from mtan_core.files import write_json
from mtan_core.network import owner_of
from mtan_core.runs import new_run


def drop_domain(source: Path, name: str, run: Path) -> dict[str, Any]:
    """Write `run`, which is the finished run `source` without a domain; returns its summary.

    Raises UserError for a domain that the run has not, for its only one, and where `run` exists.
    """
    whole = finished_run(source)
    whole.spec(name)
    if len(whole.specs) == 1:
        raise UserError(f"Expected a run of several domains, found that {name} is the only one of {source}.")
    specs = [spec for spec in whole.specs.values() if spec.name != name]
    config = without_domain(whole.config, name, [spec.name for spec in specs])
    divisions = {domain: splits for domain, splits in whole.folder.divisions().items() if domain != name}
    with new_run(run) as temporary:
        temporary.mkdir()
        folder = RunFolder(temporary)
        folder.start(config, specs, divisions)
        for checkpoint in _checkpoints(whole.folder):
            _copy_checkpoint(checkpoint, folder, name)
        _copy_metrics(whole.folder, folder, name)
        carry_over(source, temporary, name)
        network = trained_network(config, {spec.name: spec for spec in specs}, folder.checkpoint())
        own = {spec.name: own_parameters(network, spec.name) for spec in specs}
        summary = {**_summary(whole.folder.summary() or {}, name), **parameter_counts(network), "own_parameters": own}
        write_json(temporary / "summary.json", summary, indent=2)
    return summary


def _checkpoints(folder: RunFolder) -> list[Path]:
    """The last checkpoint, and the best where there is one."""
    last = folder.checkpoint()
    best = read_state(last)["best"]
    return [last] if best is None else sorted({last, folder.checkpoint("best")})


def _copy_checkpoint(checkpoint: Path, folder: RunFolder, name: str) -> None:
    """The weights of all other domains, and the state without the domain; what only training needs stays behind."""
    weights = {key: value for key, value in read_tensors(checkpoint, "weights").items() if owner_of(key) != name}
    state = read_state(checkpoint)
    state["tallies"] = _without(state["tallies"], name)
    state["rows"] = [row for row in state["rows"] if row["domain"] != name]
    if "drawn" in state["position"]:
        state["position"]["drawn"] = _without(state["position"]["drawn"], name)
    save_checkpoint(folder.checkpoints, int(checkpoint.name.removeprefix("step-")), {"weights": weights}, state)


def _copy_metrics(before: RunFolder, after: RunFolder, name: str) -> None:
    import pandas as pd

    path = before.path / "metrics.parquet"
    if path.is_file():
        rows = pd.read_parquet(path)
        rows[rows["domain"] != name].to_parquet(after.path / "metrics.parquet", index=False)


def _summary(summary: dict[str, Any], name: str) -> dict[str, Any]:
    accuracies = _without(summary.get("val_accuracy", {}), name)
    return {
        **summary,
        "domains": [domain for domain in summary["domains"] if domain != name],
        "val_accuracy": accuracies,
        "mean_val_accuracy": sum(accuracies.values()) / len(accuracies) if accuracies else None,
        "dropped": [*summary.get("dropped", []), name],
    }


def without_domain(config: RunConfig, name: str, rest: list[str]) -> RunConfig:
    """The configuration with the domain named nowhere; where it was the only one to train, the rest is named."""
    phases = [
        phase.model_copy(update={"domains": tuple(domain for domain in phase.domains if domain != name)})
        for phase in config.phases
        if phase.domains != (name,)
    ]
    kept = tuple(phases) or (config.phases[-1].model_copy(update={"domains": ()}),)
    changes = [
        change.model_copy(update={"weights": _without(change.weights, name)})
        for change in config.changes
        if change.after < sum(phase.epochs for phase in kept)
    ]
    learning = tuple(domain for domain in config.domains if domain != name)
    augment, weighting, optimizer = config.augment, config.weighting, config.optimizer
    return config.model_copy(update={
        "domains": learning if learning or not config.domains else tuple(rest),
        "phases": kept,
        "changes": tuple(changes),
        "fit": _without(config.fit, name),
        "augment": augment.model_copy(update={"centre": tuple(d for d in augment.centre if d != name)}),
        "weighting": weighting.model_copy(update={"weights": _without(weighting.weights, name)}),
        "distillation": config.distillation.model_copy(update={"weights": _without(config.distillation.weights, name)}),
        "optimizer": optimizer.model_copy(update={
            "domain_weight_decay": _without(optimizer.domain_weight_decay, name)
        }),
    })  # fmt: skip


def _without(by_domain: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {domain: value for domain, value in by_domain.items() if domain != name}
