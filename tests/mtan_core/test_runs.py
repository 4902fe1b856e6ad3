"""A run's folder, and the optimiser that a resumed run goes on with."""

from pathlib import Path

import pytest
import torch

from mtan_core.errors import UserError
from mtan_core.loop import _optimizer_tensors, _restore_optimizer
from mtan_core.runs import new_run
from mtan_core.step import TrainingStep
from mtan_core.weightings.equal import Equal
from tests.mtan_core.tiny import CLASSES, tiny_batches, tiny_network


def test_a_new_run_that_somebody_else_wrote_in_the_meantime_is_refused(tmp_path: Path) -> None:
    theirs = tmp_path / "run"
    with pytest.raises(UserError, match="--run: expected a new folder"), new_run(theirs) as temporary:
        temporary.mkdir()
        (temporary / "config.toml").write_text("ours")
        theirs.mkdir()
        (theirs / "config.toml").write_text("theirs")
    assert (theirs / "config.toml").read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [theirs]


@pytest.mark.parametrize(("fused", "counts"), [(True, "meta"), (False, "cpu")])
def test_a_restored_optimiser_counts_its_steps_where_torch_looks_for_them(fused: bool, counts: str) -> None:
    """Fused kernels want the count on the parameters' device, which "meta" stands for here; others keep it on the CPU."""

    def adamw(device: str) -> TrainingStep:
        network = tiny_network(dtype=torch.float32).to(device)
        return TrainingStep(network, Equal(list(CLASSES)), torch.optim.AdamW(network.parameters()))

    step = adamw("cpu")
    step(tiny_batches(dtype=torch.float32))
    elsewhere = adamw("meta")
    elsewhere.optimizer.param_groups[0]["fused"] = fused
    _restore_optimizer(elsewhere, {name: value.detach() for name, value in _optimizer_tensors(step).items()}, "here")
    assert len(elsewhere.optimizer.state) == len(step.optimizer.state) > 0
    for held in elsewhere.optimizer.state.values():
        found = {key: str(value.device) for key, value in held.items()}
        assert found == {"step": counts, "exp_avg": "meta", "exp_avg_sq": "meta"}
