"""What is no checkpoint of the authors' dense networks is refused in a sentence."""

from pathlib import Path

import pytest
import torch

from dense_tasks.import_weights import _Names, import_network, imported
from mtan_core.errors import UserError
from tests.dense_tasks.oracle import authors_state

SMALL = (2, 3, 4, 5, 5)


def test_names_that_do_not_fit_are_told_in_the_files_own() -> None:
    state = authors_state("mtan", SMALL, (4, 1, 3))
    state["encoder_att.3.0.0.weight"] = state.pop("encoder_att.2.0.0.weight")
    state["conv_block_enc.4.1.1.running_var"] = torch.ones(7)
    with pytest.raises(UserError) as refusal:
        imported(state, "file.pth")
    assert str(refusal.value) == (
        "file.pth: expected the weights of the authors' SegNet (mtan); missing (1): encoder_att.2.0.0.weight; "
        "extra (1): encoder_att.3.0.0.weight; mis-shaped (1): conv_block_enc.4.1.1.running_var (7,) instead of (5,)."
    )


@pytest.mark.parametrize("method", ["single", "stan", "split-standard", "split-deep", "dense", "cross-stitch", "mtan"])
def test_every_tensor_can_be_told_in_the_files_own_names(method: str) -> None:
    state = authors_state(method, SMALL, (4,) if method in ("single", "stan") else (4, 1, 3))
    needed = {name for name in state if name not in ("logsigma", "cs_unit_encoder", "cs_unit_decoder")}
    names = _Names(
        ["semantic", "depth", "normal"],
        5,
        alone=method in ("single", "stan"),
        deep=method == "split-deep",
        streams=method in ("dense", "cross-stitch"),
    )
    theirs = {names.ours(name): name for name in names.theirs()}
    assert {theirs[names.ours(name)] for name in needed} == needed


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ("encoder_block.0.0.weight", "no encoder of theirs"),
        ("pred_task2.1.weight", "found no pred_task2.1.weight"),
        ("logsigma", "3 log-variances .*found none"),
    ],
)
def test_what_is_missing_is_named(lost: str, told: str) -> None:
    state = authors_state("split-standard", SMALL, (4, 1, 3))
    del state[lost]
    with pytest.raises(UserError, match=told):
        imported(state, "file.pth")


def test_log_variances_go_to_the_weighting() -> None:
    state = authors_state("split-standard", SMALL, (4, 1, 3))
    state["logsigma"] = torch.tensor([1.0, 2.0, 3.0])
    assert imported(state, "file.pth").log_variances == {"semantic": 1.0, "depth": 2.0, "normal": 3.0}


def test_the_task_of_a_network_of_one_may_be_named() -> None:
    state = authors_state("single", SMALL, (2,))
    assert imported(state, "file.pth").tasks == {"semantic": 2}
    assert imported(state, "file.pth", "edges").tasks == {"edges": 2}
    with pytest.raises(UserError, match="--task: expected a network of one task"):
        imported(authors_state("split-standard", SMALL, (4, 1, 3)), "file.pth", "edges")


def test_another_file(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(torch.nn.Linear(2, 2), file)
    with pytest.raises(UserError, match="state dict of plain tensors"):
        import_network(file)
    torch.save({"weight": torch.zeros(2)}, file)
    with pytest.raises(UserError, match="authors' SegNets"):
        import_network(file)
