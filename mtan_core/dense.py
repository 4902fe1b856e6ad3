"""Networks that predict several things for every pixel of the same images."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mtan_core.errors import UserError
from mtan_core.network import TaskNetwork
from mtan_core.norm import SHARED, TaskNorm
from mtan_core.segments import Segments

Initialisation = Literal["xavier_normal", "xavier_uniform"]
IMAGES = "images"  # the one stretch of a pool's batch, which all tasks look at


class DenseHead(nn.Module):
    """A 3x3 and a 1x1 convolution with nothing between; in training they are run as the one 3x3 convolution that they amount to."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, outputs, 1)

    def forward(self, features: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch outputs h w"]:
        if not self.training or self.conv2.out_channels > self.conv1.out_channels:
            return self.conv2(self.conv1(features))
        assert self.conv1.bias is not None and self.conv2.bias is not None
        with torch.autocast(features.device.type, enabled=False):
            mixed = self.conv2.weight.flatten(1)  # (outputs, channels)
            weight = (mixed @ self.conv1.weight.flatten(1)).view(-1, *self.conv1.weight.shape[1:])
            bias = mixed @ self.conv1.bias + self.conv2.bias
        return F.conv2d(features, weight, bias, padding=1)


class DenseNetwork(TaskNetwork, ABC):
    """A network of one image batch and several named tasks; `forward` gives each task's raw output (batch, channels, h, w).

    What a single task owns lies under `heads.<task>`, `own.<task>`, `masks.<task>`, `affine.<task>` or
    `statistics.<task>`; all else is shared. `tasks` are `{name: output channels}`, in an order that changes no result but
    that in which shared running statistics move.
    """

    divisor = 1  # what the sides of images must be multiples of

    def __init__(self, tasks: Mapping[str, int]) -> None:
        super().__init__()
        if not tasks:
            raise UserError("Expected at least one task, found none.")
        for task, outputs in tasks.items():
            if not task or task == SHARED or "." in task or hasattr(nn.ModuleDict, task):
                raise UserError(f"Expected a task's name, found '{task}', which is reserved.")
            if outputs < 1:
                raise UserError(f"Expected at least one output channel for the task '{task}', found {outputs}.")
        self._outputs = dict(tasks)

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self._outputs)

    def forward(self, images: Float[Tensor, "batch 3 h w"]) -> dict[str, Float[Tensor, "batch _ h w"]]:
        """Raw outputs of all tasks, in their order: neither softmax nor unit length. Raises UserError for sides that do not fit."""
        height, width = images.shape[-2:]
        if height % self.divisor or width % self.divisor:
            raise UserError(
                f"Expected images whose height and width are multiples of {self.divisor}, found {height}x{width}."
            )
        return self.outputs(images)

    @abstractmethod
    def outputs(self, images: Float[Tensor, "batch 3 h w"]) -> dict[str, Float[Tensor, "batch _ h w"]]:
        """What `forward` gives, of images that fit."""

    def masks(self, images: Float[Tensor, "batch 3 h w"]) -> dict[str, list[Float[Tensor, "batch _ _ _"]]]:
        """Each task's attention masks, in the order of the stages. Raises UserError where there are none."""
        raise UserError("Expected a network with attention masks, found one of a method without.")

    def last_shared(self) -> nn.Conv2d | nn.Linear | None:
        """The pool's last convolution (or matrix), which all tasks' gradients pass (GradNorm); None where they share no such."""
        return None

    def task_norms(self) -> list[TaskNorm]:
        """The batch norms that see each task's features apart."""
        return [module for module in self._per_task().modules() if isinstance(module, TaskNorm)]

    def _per_task(self) -> nn.Module:
        return nn.Module()


class HeadedNetwork(DenseNetwork):
    """A network whose tasks' features each pass one head."""

    def __init__(self, tasks: Mapping[str, int], channels: int) -> None:
        super().__init__(tasks)
        self.heads = nn.ModuleDict({task: DenseHead(channels, outputs) for task, outputs in tasks.items()})

    @abstractmethod
    def features(self, images: Float[Tensor, "batch 3 h w"]) -> dict[str, Float[Tensor, "batch channels h w"]]:
        """What each task's head reads."""

    def outputs(self, images: Float[Tensor, "batch 3 h w"]) -> dict[str, Float[Tensor, "batch _ h w"]]:
        features = self.features(images)
        return {task: head(features[task]) for task, head in self.heads.items()}


class Apart(DenseNetwork):
    """A network for each task, side by side; nothing is shared but the images."""

    def __init__(self, tasks: Mapping[str, int], make: Callable[[Mapping[str, int]], DenseNetwork]) -> None:
        super().__init__(tasks)
        self.own = nn.ModuleDict({task: make({task: outputs}) for task, outputs in tasks.items()})
        self.divisor = max(network.divisor for network in self.own.values())  # type: ignore[type-var,assignment]

    def outputs(self, images: Float[Tensor, "batch 3 h w"]) -> dict[str, Float[Tensor, "batch _ h w"]]:
        return {task: network(images)[task] for task, network in self.own.items()}

    def masks(self, images: Float[Tensor, "batch 3 h w"]) -> dict[str, list[Float[Tensor, "batch _ _ _"]]]:
        return {task: network.masks(images)[task] for task, network in self.own.items()}  # type: ignore[operator]

    def _per_task(self) -> nn.Module:
        return self.own


def whole(images: Tensor) -> Segments:
    """The images as the one stretch that a pool sees."""
    return Segments((IMAGES,), (len(images),))


def initialise(module: nn.Module, how: Initialisation) -> None:
    """Xavier's weights and no bias for convolutions, as the authors begin."""
    draw = nn.init.xavier_normal_ if how == "xavier_normal" else nn.init.xavier_uniform_
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            draw(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def apart(rows: Float[Tensor, "all _ h w"], tasks: Sequence[str]) -> dict[str, Float[Tensor, "batch _ h w"]]:
    """A joint batch of tasks that look at the same images, as each task's part."""
    return dict(zip(tasks, rows.chunk(len(tasks)), strict=True))
