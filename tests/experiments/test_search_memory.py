"""A trial's process that Ray ends because the machine runs low on memory."""

from collections.abc import Iterator

import pytest
import ray
from ray.air.execution import FixedResourceManager
from ray.air.execution._internal.tracked_actor import TrackedActor
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import tune_controller

from experiments.search.actors import Actors, outlive_memory
from experiments.search.results import NO_MEMORY, error_told

RAYS_WORDS = (
    "1 worker(s) were killed due to the node running low on memory.\nTo adjust the kill threshold, set a variable."
)


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Ray's manager starts Ray by itself, which nobody after this test expects."""
    yield
    ray.shutdown()


@pytest.mark.usefixtures("nothing_left")
def test_it_is_a_trial_that_failed_and_not_the_end_of_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    problems: list[Exception] = []
    actors = Actors(FixedResourceManager({"CPU": 1}))
    monkeypatch.setattr(actors, "_cleanup_actor", lambda tracked_actor: None)  # there is none
    tracked = TrackedActor(0, on_error=lambda actor, problem: problems.append(problem))
    actors._actor_task_failed(TrackedActorTask(tracked), OutOfMemoryError(RAYS_WORDS))
    assert [type(problem) for problem in problems] == [RayActorError]
    assert error_told(problems[0]) == NO_MEMORY


def test_searches_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_controller, "RayActorManager", tune_controller.RayActorManager)  # set back at the end
    outlive_memory()
    assert tune_controller.RayActorManager is Actors


@pytest.mark.parametrize("problem", [OutOfMemoryError(RAYS_WORDS), RayActorError(error_msg=RAYS_WORDS)])
def test_it_is_told_without_ray_s_advice(problem: Exception) -> None:
    assert error_told(problem) == NO_MEMORY
