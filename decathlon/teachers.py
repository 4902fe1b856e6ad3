"""The runs that a run learns from."""

from collections.abc import Sequence
from pathlib import Path

import torch

from decathlon.config import RunConfig
from decathlon.runs import RunFolder, refuse_unfinished, trained_network
from decathlon.specs import DomainSpec
from mtan_core.distillation import Distillation, Strengths
from mtan_core.errors import UserError
from mtan_core.network import AttentionNetwork


def distillation(
    config: RunConfig, student: AttentionNetwork, specs: Sequence[DomainSpec], device: torch.device
) -> Distillation | None:
    """What teachers add to the losses of these domains; None where the configuration names no teachers.

    Raises UserError for a run that is no finished one, for a domain that none of them knows, for one of other classes, and
    for a teacher that has learnt from images of another size or fit.
    """
    options = config.distillation
    if not options.teachers:
        return None
    known = {run: _specs(Path(run)) for run in options.teachers}
    taught: dict[str, list[str]] = {}
    for spec in specs:
        taught.setdefault(_teacher(spec, known), []).append(spec.name)
    for run, tasks in taught.items():
        _refuse_other_images(config, run, [spec for spec in specs if spec.name in tasks])
    networks = [(_network(RunFolder(Path(run)), known[run]).to(device), tasks) for run, tasks in taught.items()]
    strengths = Strengths(options.features, options.logits, options.temperature, options.weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return Distillation(student, networks, strengths).to(device)


def _specs(run: Path) -> dict[str, DomainSpec]:
    folder = RunFolder(run)
    specs = folder.specs() if folder.config() else {}
    refuse_unfinished(folder, "distillation.teachers")
    return specs


def _teacher(spec: DomainSpec, known: dict[str, dict[str, DomainSpec]]) -> str:
    """The first run that knows the domain."""
    for run, specs in known.items():
        if spec.name in specs:
            theirs = specs[spec.name]
            if (theirs.classes, theirs.mean, theirs.std) != (spec.classes, spec.mean, spec.std):
                raise UserError(
                    f"`distillation.teachers`: {run} has learnt another {spec.name}: expected its {spec.classes} classes, "
                    f"mean and std, found {theirs.classes} classes, mean {theirs.mean}, std {theirs.std}."
                )
            return run
    raise UserError(f"`distillation.teachers`: none of {', '.join(known)} knows the domain {spec.name}.")


def _refuse_other_images(config: RunConfig, run: str, specs: Sequence[DomainSpec]) -> None:
    """A teacher answers for images as it has learnt them: at another size it does far worse, and nobody would notice."""
    theirs = RunFolder(Path(run)).config()
    if theirs.image_size != config.image_size:
        raise UserError(
            f"`distillation.teachers`: expected a run with `image_size` = {config.image_size}, "
            f"found {theirs.image_size}: {run}."
        )
    for spec in specs:
        fits = [each.fit.get(spec.name, spec.fit) for each in (config, theirs)]
        if fits[0] != fits[1]:
            raise UserError(
                f"`distillation.teachers`: expected a run with `fit.{spec.name}` = {fits[0]}, found {fits[1]}: {run}."
            )


def _network(folder: RunFolder, specs: dict[str, DomainSpec]) -> AttentionNetwork:
    return trained_network(folder.config(), specs, folder.checkpoint())
