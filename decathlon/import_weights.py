"""`mtan decathlon import-weights`: a checkpoint of the MTAN authors' code becomes a normal run."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from decathlon.building import build_network, parameter_counts
from decathlon.config import RunConfig, load_config
from decathlon.runs import write_imported
from decathlon.specs import DomainSpec, official_domains
from mtan_core.checkpoint import misfits
from mtan_core.errors import UserError
from mtan_core.network import AttentionNetwork
from mtan_core.runs import refuse_existing
from mtan_core.state_dicts import read_state_dict

# the authors' names -> ours; {k} is the place of a domain in their order, kept as a group for its name
RENAMED: Sequence[tuple[str, str]] = (
    (r"^conv1\.", "pool.stem."),
    (r"^layer(\d)\.(\d+)\.bn(\d)\.", r"pool.groups.{\1}.\2.norm\3."),
    (r"^layer(\d)\.(\d+)\.conv(\d)\.", r"pool.groups.{\1}.\2.conv\3."),
    (r"^layer(\d)\.(\d+)\.shortcut\.0\.", r"pool.groups.{\1}.\2.shortcut."),
    (r"^bn1\.", "pool.last_norm."),
    (r"^encoder_att\.(\d+)\.(\d)\.0\.", r"ladder.stages.\2.masks.<\1>.conv1."),
    (r"^encoder_att\.(\d+)\.(\d)\.1\.", r"ladder.stages.\2.masks.<\1>.norm1."),
    (r"^encoder_att\.(\d+)\.(\d)\.3\.", r"ladder.stages.\2.masks.<\1>.conv2."),
    (r"^encoder_att\.(\d+)\.(\d)\.4\.", r"ladder.stages.\2.masks.<\1>.norm2."),
    (r"^encoder_block_att\.(\d)\.0\.", r"ladder.stages.\1.conv."),
    (r"^encoder_block_att\.(\d)\.1\.", r"ladder.stages.\1.norm."),
    (r"^linear\.(\d+)\.0\.", r"heads.<\1>."),
)
STATISTICS = {"running_mean": "mean", "running_var": "var"}


def authors_order() -> list[str]:
    """The domains in the order of the authors' checkpoints."""
    return [d.name for d in sorted(official_domains().values(), key=lambda domain: domain.authors_place)]


def import_weights(file: Path, run: Path) -> dict[str, Any]:
    """Write a run of the `paper` preset from the authors' state dict; returns its summary.

    Depth, width and class counts are read off the shapes. Raises UserError for a file that is no state dict, and, with
    the names that are missing, extra and mis-shaped, for one that is not this network's.
    """
    refuse_existing(run)
    network, config, specs = imported_network(read_state_dict(file), str(file))
    counts = parameter_counts(network)
    summary = {
        "protocol": config.protocol, "imported": file.name, "domains": [s.name for s in specs], "mean_val_accuracy": None, **counts
    }  # fmt: skip
    write_imported(run, config, specs, network, summary)
    return {"depth": config.network.depth, "width": config.network.width, **summary}


def imported_network(state: Mapping[str, Tensor], where: str) -> tuple[AttentionNetwork, RunConfig, list[DomainSpec]]:
    """The network of these weights. Raises UserError for weights that are not an MTAN Wide ResNet's."""
    config = _infer_config(state, where)
    specs = _infer_specs(state, where)
    network = build_network(config, {spec.name: spec.classes for spec in specs})
    order = [name for name in authors_order() if name in network.tasks]
    renamed = {rename(name, order): value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    theirs = authors_names(config.network.depth, order)
    problems = misfits(
        {theirs.get(name, name): value.shape for name, value in network.state_dict().items()},
        {theirs.get(name, name): value for name, value in renamed.items()},
    )
    if problems:
        raise UserError(f"{where}: expected the weights of MTAN's Wide ResNet; {problems}.")
    network.load_state_dict(renamed)
    return network, config, specs


def rename(name: str, order: Sequence[str]) -> str:
    """Our name for one of the authors' (a name that is none of theirs stays as it is)."""
    for pattern, replacement in RENAMED:
        ours, count = re.subn(pattern, replacement, name)
        if count:
            ours = re.sub(r"\{(\d)\}", lambda found: str(int(found[1]) - 1), ours)
            ours = re.sub(
                r"<(\d+)>", lambda found: order[int(found[1])] if int(found[1]) < len(order) else found[1], ours
            )
            return _in_norm(ours)
    return name


def authors_names(depth: int, order: Sequence[str]) -> dict[str, str]:
    """The authors' name for each of ours, found by renaming all names that such a network can have."""
    blocks = [f"layer{group}.{block}" for group in (1, 2, 3) for block in range((depth - 4) // 6)]
    modules = [
        "conv1",
        "bn1",
        *(f"{block}.{part}" for block in blocks for part in ("bn1", "conv1", "bn2", "conv2", "shortcut.0")),
    ]
    modules += [
        f"encoder_att.{k}.{stage}.{part}" for k in range(len(order)) for stage in range(4) for part in (0, 1, 3, 4)
    ]
    modules += [f"encoder_block_att.{stage}.{part}" for stage in range(4) for part in (0, 1)]
    modules += [f"linear.{k}.0" for k in range(len(order))]
    return {
        rename(f"{module}.{leaf}", order): f"{module}.{leaf}"
        for module in modules
        for leaf in ("weight", "bias", *STATISTICS)
    }


def _in_norm(name: str) -> str:
    module, leaf = name.rsplit(".", 1)
    if not module.rsplit(".", 1)[1].removeprefix("last_").startswith("norm"):
        return name
    shared = "" if ".masks." in module else ".shared"
    return (
        f"{module}.statistics{shared}.{STATISTICS[leaf]}" if leaf in STATISTICS else f"{module}.affine{shared}.{leaf}"
    )


def _infer_config(state: Mapping[str, Tensor], where: str) -> RunConfig:
    blocks = {int(found[1]) for name in state if (found := re.match(r"layer1\.(\d+)\.", name))}
    first = state.get("layer1.0.conv1.weight")
    if not blocks or first is None or first.ndim != 4 or first.shape[0] % 16:
        raise UserError(
            f"{where}: expected the weights of MTAN's Wide ResNet, found none of its layers (layer1.0.conv1.weight, ...)."
        )
    changes = [f"network.depth={6 * len(blocks) + 4}", f"network.width={first.shape[0] // 16}"]
    return load_config("paper", None, changes)


def _infer_specs(state: Mapping[str, Tensor], where: str) -> list[DomainSpec]:
    heads = {
        int(found[1]): value for name, value in state.items() if (found := re.match(r"linear\.(\d+)\.0\.bias$", name))
    }
    order = authors_order()
    if set(heads) != set(range(len(order))):
        raise UserError(
            f"{where}: expected {len(order)} heads (linear.0.0 to linear.{len(order) - 1}.0), found {len(heads)}."
        )
    domains = official_domains()
    specs = [domains[order[place]].spec([str(c) for c in range(bias.numel())]) for place, bias in heads.items()]
    return sorted(specs, key=lambda spec: spec.number)
