"""Dense run folders: `config.toml`, `tasks.json`, `metrics.parquet`, `summary.json`, `checkpoints/`, TensorBoard events."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dense_tasks.config import RunConfig, dump_config, parse_config
from dense_tasks.data.root import Root
from dense_tasks.datasets import DATASETS, Dataset
from dense_tasks.networks import build_network
from dense_tasks.tasks import Task, choose_tasks
from mtan_core.checkpoint import load_exactly, read_tensors, save_untrained
from mtan_core.choices import Choice
from mtan_core.dense import DenseNetwork
from mtan_core.errors import UserError
from mtan_core.files import write_json, write_text
from mtan_core.runs import FORMAT, Folder, check_format, choose_device, new_run


@dataclass(frozen=True)
class Facts:
    """What a run was made for. `size` (height, width) and `frames` (digests by split) are None in an imported run."""

    dataset: Dataset
    tasks: Mapping[str, Task]
    size: tuple[int, int] | None = None
    frames: Mapping[str, str] | None = None

    @classmethod
    def of(cls, root: Root) -> "Facts":
        digests = {split: hashlib.sha256("\n".join(names).encode()).hexdigest() for split, names in root.frames.items()}
        return cls(root.dataset, root.tasks, root.size, digests)

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT, "dataset": self.dataset.name, "tasks": list(self.tasks),
            "size": list(self.size) if self.size else None, "frames": self.frames,
        }  # fmt: skip


@dataclass(frozen=True)
class DenseFolder(Folder[RunConfig]):
    """A dense run's folder, which has `tasks.json` as well."""

    def start(self, config: RunConfig, facts: Facts) -> None:
        """Write what a run is made of."""
        write_text(self.path / "config.toml", dump_config(config))
        write_json(self.path / "tasks.json", facts.to_dict())

    def config(self) -> RunConfig:
        """The resolved configuration. Raises UserError when the folder is no dense run."""
        tree = self.config_tree()
        self.refuse_other_kinds("tasks.json", "a dense run")
        return parse_config(tree, str(self.path / "config.toml"))

    def facts(self) -> Facts:
        """Raises UserError when `tasks.json` is damaged or of another format."""
        path = self.path / "tasks.json"
        try:
            document = json.loads(path.read_text())
        except (OSError, ValueError, RecursionError) as problem:
            raise UserError(f"Expected a dense run's tasks, found: {path}: {problem}.") from None
        check_format(document, path)
        try:
            dataset = DATASETS[document["dataset"]]
            size = tuple(map(int, document["size"])) if document["size"] else None
            return Facts(dataset, choose_tasks(document["tasks"], dataset), size, document["frames"])  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{path}: expected a data set, tasks and a size, found a damaged file.") from None


class Finished(nn.Module):
    """A network whose outputs are final predictions: logits, metres, unit vectors."""

    def __init__(self, network: DenseNetwork, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        self.raw, self.tasks = network, tasks

    def forward(self, images: Float[Tensor, "batch 3 h w"]) -> dict[str, Float[Tensor, "batch _ h w"]]:
        """Final predictions by task, of images in [0, 1] whose sides the network's strides divide."""
        return {name: self.tasks[name].finish(output) for name, output in self.raw(images).items()}


@dataclass(frozen=True)
class DenseRun:
    """A trained run, ready to answer."""

    folder: DenseFolder
    config: RunConfig
    facts: Facts
    network: Finished
    choice: Choice
    device: torch.device


def make_network(config: RunConfig, tasks: Mapping[str, Task], size: tuple[int, int] | None = None) -> DenseNetwork:
    """The network of a configuration for images of that size (height, width), with fresh weights, which the seed determines."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_network(
            config.method, {name: task.channels for name, task in tasks.items()}, paper=config.network.paper,
            channels_last=config.channels_last, norm=config.norm, pool=config.pool, nodes=config.network.nodes, size=size,
            **config.network.options(),
        )  # fmt: skip


def load_run(path: str | Path, checkpoint: Choice = "last", device: str | None = None) -> DenseRun:
    """Load a run in evaluation mode. Raises UserError when its files are missing, damaged or of another network."""
    folder = DenseFolder(Path(path))
    config, facts = folder.config(), folder.facts()
    network = make_network(config, facts.tasks, facts.size)
    where = folder.checkpoint(checkpoint)
    load_exactly(network, read_tensors(where, "weights"), str(where))
    if config.threads:
        torch.set_num_threads(config.threads)
    chosen = choose_device(device or config.device)
    return DenseRun(folder, config, facts, Finished(network, facts.tasks).to(chosen).eval(), checkpoint, chosen)


def write_imported(
    path: Path, config: RunConfig, facts: Facts, network: DenseNetwork, summary: Mapping[str, Any]
) -> None:
    """Write a finished run from a network that was trained elsewhere. Raises UserError when `path` exists."""
    with new_run(path) as temporary:
        folder = DenseFolder(temporary)
        folder.start(config, facts)
        save_untrained(folder.checkpoints, network.state_dict())
        folder.write_summary(summary)
