"""Universal representations: one network learns from teachers that know a task each (Li, Liu, Bilen, IJCV 2023).

A task's loss gets two more terms: how far the network's features, after a linear alignment of the task's own, are from
its teacher's, and how far the predictions are. Both fade to nothing over the training. Teachers and alignments are not part
of the network that remains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mtan_core.network import Answer, AttentionNetwork


@dataclass(frozen=True)
class Strengths:
    """How much the terms count beside the task's loss, before they fade; `tasks` multiplies both (others 1)."""

    features: float = 1.0
    logits: float = 1.0
    temperature: float = 8.0
    tasks: Mapping[str, float] | None = None


class Distillation(nn.Module):
    """What teachers add to the losses of a `student`'s tasks; its parameters are the alignments.

    `teachers` are pairs of a network and the tasks it teaches. They stand still, in evaluation mode.
    """

    def __init__(
        self,
        student: AttentionNetwork,
        teachers: Sequence[tuple[AttentionNetwork, Sequence[str]]],
        strengths: Strengths | None = None,
    ) -> None:
        super().__init__()
        self.strengths = strengths or Strengths()
        self.left = 1.0  # what the fading leaves of the terms
        self._teachers = [(network.eval().requires_grad_(False), tuple(tasks)) for network, tasks in teachers]
        self.align = nn.ModuleDict({
            task: _alignment(student.heads[task].in_features, network.heads[task].in_features)  # type: ignore[arg-type]
            for network, tasks in self._teachers
            for task in tasks
        })  # fmt: skip

    @torch.no_grad()
    def taught(self, images: Mapping[str, Float[Tensor, "_ 3 h w"]]) -> Answer:
        """The teachers' features and logits of their tasks' images."""
        answers = [
            network.answer({task: images[task] for task in tasks if task in images})
            for network, tasks in self._teachers
            if any(task in images for task in tasks)
        ]
        return Answer(
            {k: v for a in answers for k, v in a.features.items()}, {k: v for a in answers for k, v in a.logits.items()}
        )

    def loss(self, task: str, student: Answer, taught: Answer) -> Tensor:
        """What is added to a task's loss."""
        if not self.left:
            return student.logits[task].new_zeros(())
        exact = [_exact(part[task]) for part in (student.features, taught.features, student.logits, taught.logits)]
        features, wanted, logits, right = exact
        with torch.autocast(features.device.type, enabled=False):
            apart = 1 - kernel_cka(F.normalize(self.align[task](features)), F.normalize(wanted))
        term = self.strengths.features * apart + self.strengths.logits * soft_loss(
            logits, right, self.strengths.temperature
        )
        return self.left * (self.strengths.tasks or {}).get(task, 1.0) * term


def _alignment(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.xavier_normal_(layer.weight)
    return layer


def _exact(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def soft_loss(
    logits: Float[Tensor, "batch classes"], wanted: Float[Tensor, "batch classes"], temperature: float
) -> Tensor:
    """T^2 KL(softmax(wanted / T) || softmax(logits / T)), mean over the batch, in nats (Hinton, Vinyals, Dean 2015)."""
    ours, theirs = (F.log_softmax(x / temperature, 1) for x in (logits, wanted))
    return temperature**2 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def kernel_cka(x: Float[Tensor, "batch _"], y: Float[Tensor, "batch _"]) -> Tensor:
    """Centred kernel alignment of two descriptions of the same images, from 0 to 1 (Kornblith et al. 2019, equation 2).

    The kernels are Gaussian, each as wide as the median distance between two images (a constant in the gradient). 0 for a
    batch of one image, of which nothing can be told.
    """
    a, b = (_centred(_gaussian(v)) for v in (x, y))
    norms = (a * a).sum() * (b * b).sum()
    return (a * b).sum() / norms.clamp(min=torch.finfo(norms.dtype).tiny ** 0.5).sqrt()


def _gaussian(x: Tensor) -> Tensor:
    squares = (x * x).sum(1)
    distances = (squares[:, None] + squares[None] - 2 * x @ x.T).clamp(min=0)
    rows, columns = torch.triu_indices(len(x), len(x), 1, device=x.device)
    median = distances.detach()[rows, columns].median() if len(rows) else distances.new_ones(())
    return torch.exp(-distances / (2 * median.clamp(min=torch.finfo(x.dtype).eps)))


def _centred(kernel: Tensor) -> Tensor:
    return kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()
