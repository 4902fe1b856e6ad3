"""Several processes that train one network together, each with its part of every batch.

The batch of a step is the same whatever the number of processes; each of them computes its part, and what must be known of
the whole is summed: gradients, losses and counts and, where norms are synchronised, the batch's statistics.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

from mtan_core.errors import UserError
from mtan_core.weighting import Row


class Group:
    """Who trains together; this one is a process alone, for which nothing is to be summed.

    All processes call the same methods in the same order. `rank` counts from 0, the leader, who alone writes files.
    `synchronised`: whether batch norms see the images of all processes.
    """

    rank = 0
    size = 1
    synchronised = True

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def part(self, count: int) -> slice:
        """This process's part of `count` examples; parts differ by at most one."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def total(self, values: Tensor) -> Tensor:
        """The sum over processes."""
        return values

    def told(self, value: Any) -> Any:
        """The leader's value."""
        return value

    def follow(self, tensors: Iterable[Tensor]) -> None:
        """Take the leader's values."""

    def add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum gradients; one that no process has stays None."""

    def rows(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Sum the gradients of single tasks."""
        yield from rows

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over processes."""

    def meet(self) -> None:
        """Wait until all processes are here."""


ALONE = Group()


class ProcessGroup(Group):
    """The processes of torch.distributed's default group, on the CPU (gloo) or on GPUs (NCCL)."""

    def __init__(self, synchronised: bool = True) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self.synchronised = synchronised

    def total(self, values: Tensor) -> Tensor:
        summed = values.detach().clone()
        distributed.all_reduce(summed)
        return summed

    def told(self, value: Any) -> Any:
        held = [value]
        distributed.broadcast_object_list(held)
        return held[0]

    def follow(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            whole = tensor.detach().contiguous()
            distributed.broadcast(whole, 0)
            tensor.detach().copy_(whole)

    def add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        for parameter, gradient in zip(parameters, self._summed([p.grad for p in parameters], parameters), strict=True):
            parameter.grad = gradient

    def rows(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            parts = [*row.shared, *row.own]
            summed = self._summed(parts, None)
            yield Row(row.task, row.loss, summed[: len(row.shared)], summed[len(row.shared) :])

    def average(self, tensors: Sequence[Tensor]) -> None:
        for tensor, summed in zip(tensors, self._in_one_go(tensors), strict=True):
            tensor.copy_(summed.div_(self.size))

    def meet(self) -> None:
        distributed.barrier()

    def _summed(self, gradients: Sequence[Tensor | None], like: Sequence[Tensor] | None) -> list[Tensor | None]:
        """The sums of gradients, some of which this process may lack while others have them.

        Without `like` all processes lack the same ones.
        """
        if like is not None:
            device = next((tensor.device for tensor in like), None)
            held = torch.tensor([g is not None for g in gradients], dtype=torch.int32, device=device)
            anywhere = self.total(held).tolist()
            gradients = [
                torch.zeros_like(tensor) if gradient is None and count else gradient
                for gradient, tensor, count in zip(gradients, like, anywhere, strict=True)
            ]
        summed = iter(self._in_one_go([gradient for gradient in gradients if gradient is not None]))
        return [None if gradient is None else next(summed) for gradient in gradients]

    def _in_one_go(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Sums over processes, by one message for each kind of number."""
        summed: dict[int, Tensor] = {}
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            places = [place for place, tensor in enumerate(tensors) if tensor.dtype == dtype]
            flat = torch.cat([tensors[place].detach().reshape(-1) for place in places])
            distributed.all_reduce(flat)
            parts = flat.split([tensors[place].numel() for place in places])
            for place, part in zip(places, parts, strict=True):
                summed[place] = torch.empty_like(tensors[place]).copy_(part.view(tensors[place].shape))
        return [summed[place] for place in range(len(tensors))]


class _Total(torch.autograd.Function):
    """The sum over processes of a tensor, of which each process's own loss knows a part of the derivative."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return group.total(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.group.total(gradients[0].contiguous()), None


def differentiable_total(values: Tensor, group: Group) -> Tensor:
    """The sum over processes, through which gradients flow: each process's derivative is the sum of all processes'."""
    return values if group.size == 1 else _Total.apply(values, group)


def shared_losses(losses: Mapping[str, Tensor], counts: Mapping[str, Tensor], group: Group) -> dict[str, Tensor]:
    """Means over the whole batch from means over this process's part, of `counts` examples.

    Their values are the whole batch's, so that weightings see the same on every process; their derivative is that of this
    process's share, so that gradients are to be summed.
    """
    mine = torch.stack([losses[task] * counts[task] for task in losses])
    everywhere = group.total(torch.stack([mine.detach(), torch.stack([counts[task] for task in losses]).to(mine)]))
    seen = everywhere[1].clamp(min=1)
    values = mine / seen
    return dict(zip(losses, values + (everywhere[0] / seen - values).detach(), strict=True))


def refuse_few_images(what: str, images: int, group: Group) -> None:
    """Raises UserError for a batch of so many images that it does not give every process one."""
    if images < group.size:
        raise UserError(f"{what}: expected at least an image for each of {group.size} workers, found {images}.")
