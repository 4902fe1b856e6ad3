"""Every loss weighting in a run: trained, resumed bit for bit, logged, counted by the dry run, refused where it cannot work."""

import math
from pathlib import Path

import pandas as pd
import pytest
import torch

from decathlon.config import load_config
from decathlon.runs import RunFolder
from mtan_core.checkpoint import read_tensors
from mtan_core.errors import Interrupted, UserError
from mtan_core.weightings import weightings
from tests.conftest import Mtan, document
from tests.decathlon.conftest import DOMAINS, Tiny, tiny, train_tiny

COMPARING = ("aligned-mtl", "cagrad", "gradnorm", "imtl-g", "mgda", "nash-mtl", "pcgrad", "upgrad")
SHORT = ("phases=[{epochs = 3}]", "steps_per_epoch=2", "evaluate_every=3")


@pytest.mark.parametrize("kind", weightings())
def test_a_run_stopped_and_resumed_ends_as_the_unbroken_one(challenge: Tiny, kind: str, tmp_path: Path) -> None:
    """Stopped within its second epoch; the weights that are logged are those of an unbroken run as well."""
    words = (f"weighting.kind={kind}", "weighting.update_every=2", *SHORT)
    train_tiny(challenge.store, tmp_path / "whole", *words)
    asked = iter([False, False, True])
    with pytest.raises(Interrupted):
        train_tiny(challenge.store, tmp_path / "broken", *words, stop=lambda: next(asked))
    train_tiny(challenge.store, tmp_path / "broken", *words, resume=True)
    whole, broken = (
        read_tensors(RunFolder(tmp_path / run).checkpoint("last"), "weights") for run in ("whole", "broken")
    )
    assert all(torch.equal(value, broken[key]) for key, value in whole.items())
    logged, other = (pd.read_parquet(tmp_path / run / "metrics.parquet") for run in ("whole", "broken"))
    pd.testing.assert_frame_equal(logged, other)
    assert len(logged) == 3 * len(DOMAINS) and logged["weight"].map(math.isfinite).all()
    if kind in ("equal", "dwa", "random", "gradnorm"):
        assert logged.groupby("epoch")["weight"].sum().tolist() == pytest.approx([len(DOMAINS)] * 3)
    if kind == "dwa":  # the weights that an epoch was trained with: equal in the first two
        assert logged["weight"][: 2 * len(DOMAINS)].tolist() == pytest.approx([1.0] * 2 * len(DOMAINS))
        assert logged["weight"][2 * len(DOMAINS) :].nunique() == len(DOMAINS)


@pytest.mark.parametrize("kind", COMPARING)
def test_refused_with_the_reason_where_it_cannot_work(kind: str) -> None:
    def told(*words: str) -> str:
        with pytest.raises(UserError) as refused:
            load_config("small", None, [f"weighting.kind={kind}", *words])
        return str(refused.value)

    assert 'needs sampling = "joint", found "round_robin", one domain per step' in told("sampling=round_robin")
    assert "cannot be compiled, found compile = true" in told("compile=true")
    assert 'nothing shared learns with method = "bn"' in told("method=bn", "pool_from=any")
    assert 'nothing shared learns with method = "scratch"' in told("method=scratch")
    load_config("small", None, [f"weighting.kind={kind}", "accumulate=2"])


def test_a_misspelt_weighting_is_told_with_the_near_one() -> None:
    with pytest.raises(UserError, match=r"there is no loss weighting 'gradnrom'.*gradnorm"):
        load_config("small", None, ["weighting.kind=gradnrom"])


@pytest.mark.parametrize("kind", ["random", "dtp"])
def test_weights_of_losses_alone_need_no_joint_step(challenge: Tiny, kind: str, tmp_path: Path) -> None:
    train_tiny(challenge.store, tmp_path / "run", f"weighting.kind={kind}", "sampling=round_robin", *SHORT)
    logged = pd.read_parquet(tmp_path / "run" / "metrics.parquet")
    assert logged["weight"].notna().sum() == (logged["images"] > 0).sum()


def test_gradients_of_the_alignments_to_teachers_are_each_domains_own(challenge: Tiny, tmp_path: Path) -> None:
    train_tiny(challenge.store, tmp_path / "teacher", "method=hard-sharing", *SHORT)
    words = ("weighting.kind=upgrad", f"distillation.teachers={tmp_path / 'teacher'}", *SHORT)
    train_tiny(challenge.store, tmp_path / "run", *words)
    assert pd.read_parquet(tmp_path / "run" / "metrics.parquet")["weight"].map(math.isfinite).all()


def test_the_dry_run_counts_a_gradient_per_domain(mtan: Mtan, challenge: Tiny, tmp_path: Path) -> None:
    def cost(kind: str) -> dict[str, int]:
        words = ["decathlon", "train", "--data", challenge.store, "--run", tmp_path / "run", *tiny()]
        return document(mtan(*words, "--weighting", kind, "--dry-run", "--json"))

    costs = {kind: cost(kind) for kind in ("equal", "gradnorm", "upgrad")}
    assert costs["equal"]["row_bytes"] == 0
    more = costs["upgrad"]["row_bytes"] - costs["gradnorm"]["row_bytes"]  # which keeps one row of three
    shared = more // 2
    assert more > 0 and costs["gradnorm"]["row_bytes"] > shared
    assert 4 * costs["equal"]["parameters"] == pytest.approx(costs["gradnorm"]["row_bytes"], rel=0.2)
