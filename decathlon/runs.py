"""Run folders: `config.toml`, `domains.json`, `metrics.parquet`, `summary.json`, `checkpoints/`, TensorBoard events."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from decathlon.batches import DomainImages
from decathlon.building import build_network
from decathlon.config import RunConfig, dump_config, parse_config
from decathlon.data.store import StoredSplit
from decathlon.prediction import Prediction, predict_file
from decathlon.specs import DomainSpec, Fit
from mtan_core.checkpoint import load_exactly, read_tensors, save_untrained
from mtan_core.choices import Choice
from mtan_core.errors import UserError, nearest
from mtan_core.files import write_json, write_text
from mtan_core.network import AttentionNetwork
from mtan_core.runs import FORMAT, Folder, check_format, choose_device, new_run


@dataclass(frozen=True)
class RunFolder(Folder[RunConfig]):
    """A Decathlon run's folder, which has `domains.json` as well."""

    def start(self, config: RunConfig, specs: Sequence[DomainSpec], divisions: Mapping[str, Mapping[str, str]]) -> None:
        """Write what a run is made of; `divisions` holds the digest of each domain's train and val splits."""
        write_text(self.path / "config.toml", dump_config(config))
        write_json(
            self.path / "domains.json",
            {"format": FORMAT, "domains": [spec.to_dict() for spec in specs], "divisions": divisions},
        )

    def config(self) -> RunConfig:
        """The resolved configuration. Raises UserError when the folder is no Decathlon run."""
        tree = self.config_tree()
        self.refuse_other_kinds("domains.json", "a Decathlon run")
        return parse_config(tree, str(self.path / "config.toml"))

    def specs(self) -> dict[str, DomainSpec]:
        """The run's domains, in order of their numbers."""
        path = self.path / "domains.json"
        try:
            document = json.loads(path.read_text())
        except (OSError, ValueError, RecursionError) as problem:
            raise UserError(f"Expected a run's domains, found: {path}: {problem}.") from None
        check_format(document, path)
        listed, divisions = document.get("domains"), document.get("divisions", {})
        if not isinstance(listed, list) or not listed:
            raise UserError(f"{path}: expected a list of domains, found {listed!r:.60}.")
        if not isinstance(divisions, dict) or not all(isinstance(own, dict) for own in divisions.values()):
            raise UserError(f"{path}: expected the domains' divisions, found {divisions!r:.60}.")
        specs = [DomainSpec.from_dict(fields, str(path)) for fields in listed]
        return {spec.name: spec for spec in specs}

    def divisions(self) -> dict[str, dict[str, str]]:
        """The digests of the splits that the run was made from, by domain; empty for an imported run."""
        divisions: dict[str, dict[str, str]] = json.loads((self.path / "domains.json").read_text()).get("divisions", {})
        return divisions


@dataclass(frozen=True)
class Run:
    """A trained run, ready to answer."""

    folder: RunFolder
    config: RunConfig
    network: AttentionNetwork
    specs: dict[str, DomainSpec]
    choice: Choice
    device: torch.device

    def spec(self, domain: str) -> DomainSpec:
        """The domain's spec. Raises UserError, suggesting the near one, for a domain that the run has not."""
        if domain not in self.specs:
            raise UserError(f"{self.folder.path} has no domain '{domain}'{nearest(domain, self.specs)}.")
        return self.specs[domain]

    def fit(self, domain: str) -> Fit:
        return self.config.fit.get(domain, self.spec(domain).fit)

    def predict(self, paths: Iterable[str | Path], domain: str, top: int = 5) -> list[Prediction]:
        """The likeliest classes of image files of any size, which are first made as large as official images are.

        Raises UserError for a file that is missing or no whole image.
        """
        spec, fit = self.spec(domain), self.fit(domain)
        return [predict_file(self.network, Path(path), spec, fit, self.config.image_size, top) for path in paths]

    def images(self, split: StoredSplit) -> DomainImages:
        """A stored split as this run's network wants it: size and fit are the run's, mean and std as in its training."""
        name = split.spec.name
        return DomainImages(split, self.fit(name), self.config.image_size, self.device, self.spec(name))


def load_run(path: str | Path, checkpoint: Choice = "last", device: str | None = None) -> Run:
    """Load a run in evaluation mode. Raises UserError when its files are missing, damaged or of another network."""
    folder = RunFolder(Path(path))
    config, specs = folder.config(), folder.specs()
    network = trained_network(config, specs, folder.checkpoint(checkpoint))
    if config.threads:
        torch.set_num_threads(config.threads)
    where = choose_device(device or config.device)
    return Run(folder, config, network.to(where).eval(), specs, checkpoint, where)


def trained_network(config: RunConfig, specs: Mapping[str, DomainSpec], checkpoint: Path) -> AttentionNetwork:
    """The network of a configuration and these domains, with the weights of a checkpoint. Raises UserError for another's."""
    network = build_network(config, {name: spec.classes for name, spec in specs.items()})
    load_weights(network, checkpoint)
    return network


def pool_weights(run: str) -> dict[str, Tensor]:
    """The weights of the run that `pool_from` names. Raises UserError for one that is none, or not yet trained to its end."""
    folder = RunFolder(Path(run))
    weights = read_tensors(folder.checkpoint(), "weights")
    refuse_unfinished(folder, "pool_from")
    return weights


def refuse_unfinished(folder: RunFolder, key: str) -> None:
    """Raises UserError where the run that a key of the configuration names is not trained to its end."""
    if folder.summary() is None:
        raise UserError(f"`{key}`: expected a finished run, found one still to be trained: {folder.path}.")


def load_weights(network: AttentionNetwork, checkpoint: Path) -> None:
    """Load a checkpoint's weights exactly; running statistics that tasks got by re-estimation come with them."""
    weights = read_tensors(checkpoint, "weights")
    reestimated = {
        name.split(".statistics.")[1].split(".")[0]
        for name in weights
        if ".statistics." in name and ".masks." not in name
    }
    for task in network.tasks:
        if task in reestimated and network.task_norms()[0].mode == "shared":
            network.own_statistics(task)
    load_exactly(network, weights, str(checkpoint))


def write_imported(
    path: Path, config: RunConfig, specs: Sequence[DomainSpec], network: AttentionNetwork, summary: Mapping[str, Any]
) -> None:
    """Write a finished run from a network that was trained elsewhere. Raises UserError when `path` exists."""
    with new_run(path) as temporary:
        folder = RunFolder(temporary)
        folder.start(config, specs, {})
        save_untrained(folder.checkpoints, network.state_dict())
        folder.write_summary(summary)
