"""Trials whose process Ray ends because a machine runs low on memory: they failed, like those whose process was killed.

Ray Tune 2.60 knows errors of a process and errors in it. This is neither to it, so it takes it for a fault of its own, and the
whole search would end in a traceback.
"""

from typing import Any

from ray.air.execution._internal import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import tune_controller

from experiments.search.results import NO_MEMORY


class Actors(RayActorManager):
    """Ray's own manager of trials' processes, which takes one that was ended for memory for one that died."""

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        died = RayActorError(error_msg=NO_MEMORY) if isinstance(exception, OutOfMemoryError) else exception
        super()._actor_task_failed(tracked_actor_task, died)


def outlive_memory() -> None:
    """Let the searches of this process use it."""
    tune_controller.RayActorManager = Actors  # type: ignore[attr-defined]
