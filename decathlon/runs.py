"""Run folders: `config.toml`, `domains.json`, `metrics.parquet`, `summary.json`, `checkpoints/`, TensorBoard events."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from decathlon.batches import DomainImages
from decathlon.building import build_network
from decathlon.config import RunConfig, dump_config, parse_config
from decathlon.data.store import StoredSplit
from decathlon.prediction import Prediction, predict_file
from decathlon.specs import DomainSpec, Fit
from mtan_core.checkpoint import checkpoints, load_exactly, read_state, read_tensors, save_checkpoint
from mtan_core.errors import UserError, nearest
from mtan_core.files import replacing, write_json, write_text
from mtan_core.network import AttentionNetwork

FORMAT = 1
Choice = Literal["last", "best"]


@dataclass(frozen=True)
class RunFolder:
    """Where the parts of a run lie, and how they are written and read."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def start(self, config: RunConfig, specs: Sequence[DomainSpec], divisions: Mapping[str, Mapping[str, str]]) -> None:
        """Write what a run is made of; `divisions` holds the digest of each domain's train and val splits."""
        write_text(self.path / "config.toml", dump_config(config))
        write_json(
            self.path / "domains.json",
            {"format": FORMAT, "domains": [spec.to_dict() for spec in specs], "divisions": divisions},
        )

    def config(self) -> RunConfig:
        """The resolved configuration. Raises UserError when the folder is no run."""
        import tomllib

        path = self.path / "config.toml"
        if not path.is_file():
            raise UserError(f"Expected a run's folder (with config.toml), found {self.path}.")
        try:
            tree = tomllib.loads(path.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
            raise UserError(f"Expected a run's configuration, found a damaged file: {path}: {problem}.") from None
        return parse_config(tree, str(path))

    def specs(self) -> dict[str, DomainSpec]:
        """The run's domains, in order of their numbers."""
        path = self.path / "domains.json"
        try:
            document = json.loads(path.read_text())
        except (OSError, ValueError, RecursionError) as problem:
            raise UserError(f"Expected a run's domains, found: {path}: {problem}.") from None
        _check_format(document, path)
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

    def summary(self) -> dict[str, Any] | None:
        """The summary of a finished run, None for one that is not."""
        path = self.path / "summary.json"
        if not path.is_file():
            return None
        try:
            summary = json.loads(path.read_text())
        except (ValueError, RecursionError) as problem:
            raise UserError(f"Expected a run's summary, found a damaged file: {path}: {problem}.") from None
        _check_format(summary, path)
        return dict(summary)

    def checkpoint(self, choice: Choice = "last") -> Path:
        """The last checkpoint, or the best by validation. Raises UserError when there is none."""
        found = checkpoints(self.checkpoints)
        if not found:
            raise UserError(f"Expected a checkpoint, found none in {self.checkpoints}: train the run first.")
        best = read_state(found[-1])["best"]
        if choice == "last":
            return found[-1]
        if best is None:
            raise UserError(
                f"--checkpoint best: {self.path} has no validation to choose by (protocol train+val, or imported)."
            )
        return self.checkpoints / f"step-{best['step']}"


def _check_format(document: Any, path: Path) -> None:
    """Raises UserError for a JSON document that is no object, or of another format version."""
    version = document.get("format") if isinstance(document, dict) else None
    if version != FORMAT:
        raise UserError(f"{path}: expected run format {FORMAT}, found {version}: use the version that wrote it.")


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
    network = build_network(config, {name: spec.classes for name, spec in specs.items()})
    load_weights(network, folder.checkpoint(checkpoint))
    if config.threads:
        torch.set_num_threads(config.threads)
    where = choose_device(device or config.device)
    return Run(folder, config, network.to(where).eval(), specs, checkpoint, where)


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
    refuse_existing(path, "choose another")
    if path.exists():
        path.rmdir()  # an empty one
    with replacing(path) as temporary:
        folder = RunFolder(temporary)
        folder.start(config, specs, {})
        state: dict[str, Any] = {"position": {}, "tallies": {}, "rows": [], "best": None, "images": 0, "seconds": 0.0}
        save_checkpoint(folder.checkpoints, 0, {"weights": network.state_dict()}, state)
        write_json(temporary / "summary.json", {"format": FORMAT, "finished": True, **summary}, indent=2)


def refuse_existing(path: Path, advice: str = "go on with it by --resume, or choose another") -> None:
    """Raises UserError when something is there that a new run would overwrite."""
    if path.exists() and not (path.is_dir() and all(child.name.startswith(".tmp-") for child in path.iterdir())):
        raise UserError(f"--run: expected a new folder, found {path} ({advice}).")


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is CUDA where there is one. Raises UserError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present[device.type] or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise UserError(f"`device`: expected a device of this machine, found '{name}', which is not there.")
    return device
