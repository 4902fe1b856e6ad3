"""One optimiser step of dense tasks: all of them look at the same images."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from dense_tasks.data.frames import DenseBatch
from dense_tasks.tasks import Task
from mtan_core.dense import DenseNetwork
from mtan_core.step import Outcome, Step, autocast
from mtan_core.weighting import GradientWeighting, rows_of


@dataclass
class DenseStep(Step):
    """One forward gives all tasks' predictions; a task without any label in the batch is left out of the step:
    nothing that it owns learns, whatever momentum and weight decay say."""

    network: DenseNetwork
    tasks: Mapping[str, Task] = field(kw_only=True)

    def learn(self, batches: Mapping[str, DenseBatch]) -> dict[str, Outcome]:
        (batch,) = batches.values()
        losses, outcomes = self.losses(batch)
        if losses:
            parameters = self.parameters()
            if isinstance(self.weighting, GradientWeighting):
                self.weighting.gather(self.group.rows(rows_of(losses, parameters)), parameters)
            else:
                self.weighting.combine(losses, self._metrics(outcomes)).backward()
            for task, own in parameters.own.items():
                if task not in losses:  # what ran together with labelled tasks has gradients of zero
                    for parameter in own:
                        parameter.grad = None
        return outcomes

    @cached_property
    def _last(self) -> nn.Parameter | None:
        conv = self.network.last_shared()
        return next(conv.parameters()) if conv else None

    def losses(self, batch: DenseBatch) -> tuple[dict[str, Tensor], dict[str, Outcome]]:
        """Each labelled task's loss, to be differentiated, and what was seen of it."""
        with autocast(batch.images.device, self.precision):
            outputs = self.network(batch.images)
        losses, outcomes = {}, {}
        for name, task in self.tasks.items():
            predicted = task.finish(outputs[name])
            loss = task.loss(predicted, batch.labels[name])
            if loss is None:
                if self.group.size == 1:
                    continue
                loss = predicted.sum() * 0  # other processes may have labels, and all go the same way backwards
            with torch.no_grad():
                right, seen = task.key_hits(predicted.float(), batch.labels[name])
            losses[name] = loss
            outcomes[name] = Outcome(loss.detach(), right, seen, loss.detach())
        return self._labelled(*self._agreed(losses, outcomes))

    def _labelled(
        self, losses: dict[str, Tensor], outcomes: dict[str, Outcome]
    ) -> tuple[dict[str, Tensor], dict[str, Outcome]]:
        """Without the tasks that no process has labels of."""
        if self.group.size == 1:
            return losses, outcomes
        seen = [task for task, outcome in outcomes.items() if outcome.seen > 0]
        return {task: losses[task] for task in seen}, {task: outcomes[task] for task in seen}
