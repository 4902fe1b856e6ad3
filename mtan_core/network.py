"""The Multi-Task Attention Network for classification: one pool, and for each task a ladder and a head."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mtan_core.convs import OwnConv, SharedConv
from mtan_core.errors import UserError
from mtan_core.ladder import Ladder
from mtan_core.norm import SHARED, TaskNorm
from mtan_core.segments import Segments

HeadPool = Literal["global", "8x8"]


class Answer(NamedTuple):
    """What a network makes of several tasks' images."""

    features: dict[str, Float[Tensor, "_ channels"]]  # before the head
    logits: dict[str, Float[Tensor, "_ classes"]]


class TaskNetwork(nn.Module):
    """A network of several named tasks. What a single task owns is told by its name, see `owner_of`; all else is shared."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, in the order in which they update what they share."""
        raise NotImplementedError

    def parameter_groups(self) -> dict[str, dict[str, nn.Parameter]]:
        """Every parameter by name, under the task that alone owns it, or under "shared" (pool and ladder convolutions)."""
        groups: dict[str, dict[str, nn.Parameter]] = {SHARED: {}, **{task: {} for task in self.tasks}}
        for name, parameter in self.named_parameters():
            groups[owner_of(name)][name] = parameter
        return groups

    def task_norms(self) -> list[TaskNorm]:
        """The batch norms after shared convolutions that see tasks' features apart."""
        return [module for module in self.modules() if isinstance(module, TaskNorm)]

    def freeze(self, parts: Iterable[str], shared_only: bool = False) -> None:
        """Freeze parts ("pool", "ladder": its shared convolutions, "masks", "heads"): weights and running statistics.

        With `shared_only` what single tasks own of pool and ladder (batch norms, adapters) learns all the same, as all
        else does. Call it after `train()`, which thaws the running statistics.
        """
        self.requires_grad_(True)
        for part in parts:
            for module in self._part(part):
                module.requires_grad_(False).eval()
                if shared_only and part in ("pool", "ladder"):
                    _thaw_own(module)

    def _part(self, part: str) -> list[nn.Module]:
        """The modules of a part that can be frozen."""
        raise NotImplementedError


class AttentionNetwork(TaskNetwork):
    """MTAN (Liu, Johns, Davison, CVPR 2019) over any pool, which obeys `mtan_core.pools.Pool`.

    Without a `ladder` the heads stand on the pool's last features: the other methods (`mtan_core.methods`), which differ
    in the pool's convolutions. `classes` gives each task's number of classes, in the order in which tasks update what they share.
    `head_pool` "8x8" averages only the upper left 8x8 window of the last map, as the authors do; "global" all of it.
    """

    def __init__(
        self, pool: nn.Module, ladder: Ladder | None, classes: Mapping[str, int], head_pool: HeadPool = "global"
    ) -> None:
        super().__init__()
        self.pool = pool
        self.ladder = ladder
        self.heads = nn.ModuleDict()
        self.head_pool = head_pool
        for task, count in classes.items():
            self.add_task(task, count)

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.heads)

    def add_task(self, task: str, classes: int) -> None:
        """Give a new task its masks, its head and what else it does not share.

        Raises UserError for a name that is taken or cannot be a module's.
        """
        if task in self.heads or task == SHARED or "." in task or hasattr(self.heads, task):
            raise UserError(f"Expected a new task's name, found '{task}', which is taken or reserved.")
        if self.ladder is not None:
            self.ladder.add_task(task)
        for module in self.modules():
            if isinstance(module, TaskNorm | SharedConv | OwnConv):
                module.add_task(task)
        channels = self.pool.stages[-1].features if self.ladder is None else self.ladder.out_channels  # type: ignore[index,union-attr]
        self.heads[task] = nn.Linear(channels, classes)

    def own_statistics(self, task: str) -> None:
        """Give a task running statistics of its own in every shared batch norm (`norm="shared"`)."""
        for norm in self.task_norms():
            norm.own_statistics(task)

    def drop_own_statistics(self) -> None:
        """Undo `own_statistics` for all tasks, to train on."""
        for norm in self.task_norms():
            norm.drop_own_statistics()

    def forward(self, images: Float[Tensor, "batch 3 h w"], task: str) -> Float[Tensor, "batch classes"]:
        """Logits of one task for its (normalised) images."""
        return self.joint({task: images})[task]

    def joint(self, images: Mapping[str, Float[Tensor, "_ 3 h w"]]) -> dict[str, Float[Tensor, "_ _"]]:
        """Logits of several tasks, each for its own images, in one pass of the pool and of all ladders."""
        return self.answer(images).logits

    def answer(self, images: Mapping[str, Float[Tensor, "_ 3 h w"]]) -> Answer:
        """Pooled features and logits of several tasks, likewise."""
        tasks = [task for task in self.heads if task in images]
        if len(tasks) != len(images):
            unknown = next(task for task in images if task not in self.heads)
            raise KeyError(f"no task '{unknown}' among {', '.join(self.heads)}")
        segments = Segments(tuple(tasks), tuple(len(images[task]) for task in tasks))
        batch = images[tasks[0]] if len(tasks) == 1 else torch.cat([images[task] for task in tasks])
        taps = self.pool(batch, segments)
        features = taps[-1].features if self.ladder is None else self.ladder(taps, segments)
        pooled = dict(zip(tasks, segments.split(self._pooled(features)), strict=True))
        return Answer(pooled, {task: self.heads[task](part) for task, part in pooled.items()})

    def masks(self, images: Float[Tensor, "batch 3 h w"], task: str) -> list[Float[Tensor, "batch _ _ _"]]:
        """The masks that a task puts on each stage of the pool for these images. Raises UserError where there are none."""
        if self.ladder is None:
            raise UserError("Expected a network with attention masks, found one of a method without.")
        segments = Segments((task,), (len(images),))
        return self.ladder.masks(self.pool(images, segments), segments)

    def _pooled(self, features: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels"]:
        if self.head_pool == "8x8":
            features = features[:, :, :8, :8]
        return features.mean((2, 3))

    def start_from(self, task: str, others: Sequence[str]) -> None:
        """Let a new task's own batch norms after shared convolutions begin at the mean of those that other tasks have learnt."""
        for norm in self.task_norms():
            norm.start_from(task, others)

    def _part(self, part: str) -> list[nn.Module]:
        stages = [] if self.ladder is None else list(self.ladder.stages)
        modules: dict[str, list[nn.Module]] = {
            "pool": [self.pool],
            "ladder": [module for stage in stages for module in (stage.conv, stage.norm)],  # type: ignore[misc]
            "masks": [stage.masks for stage in stages],  # type: ignore[misc]
            "heads": [self.heads],
        }
        return modules[part]


def _thaw_own(module: nn.Module) -> None:
    """Let what single tasks own in a frozen part learn again: it is told by its place in the part."""
    for inner in module.modules():
        if isinstance(inner, TaskNorm):
            inner.thaw_own()
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(owner_of(name) != SHARED)


def owner_of(name: str) -> str:
    """The task that alone owns a parameter or buffer of that name, or "shared"."""
    owned = re.search(r"(?:^heads|(?:^|\.)(?:own|masks|affine|statistics))\.([^.]+)\.", name)
    return owned[1] if owned else SHARED
