"""What can be searched, what cannot, and the points that it gives."""

from pathlib import Path

import pytest

from experiments.search.config import Dimension, SearchConfig, read_search
from experiments.search.metric import References, measures, value_of
from experiments.search.space import drawn, grid
from mtan_core.errors import UserError
from tests.conftest import Mtan, document
from tests.experiments.searching import HEAD, LR, written


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[space]\n"optimizer.lrr" = {uniform = [0.1, 0.2]}', "did you mean 'optimizer.lr'?"),
        ('[space]\n"optimizer.lr" = {uniform = [-1.0, 0.2]}', "greater than 0"),
        ('[space]\n"optimizer.lr" = {uniform = [0.2, 0.1]}', "lower end first"),
        ('[space]\n"optimizer.lr" = {choise = [0.1]}', "did you mean 'space.optimizer.lr.choice'"),
        ('[space]\n"optimizer.lr" = {}', "expected one of"),
        ("[space]", "at least one key"),
        ("trials = 3", "space"),
        ("trails = 3\n" + LR, "did you mean 'trials'?"),
        ('sampler = "grid"\n' + LR, "needs choice"),
        ('metric = "acuracy"\n' + LR, "MEASURE.TASK"),
        ('[space]\n"ema" = {choice = [0.5], when = {"norm" = ["domain"]}}', "declared before"),
    ],
)
def test_a_configuration_that_cannot_be_searched(mtan: Mtan, tmp_path: Path, text: str, told: str) -> None:
    config = written(tmp_path, HEAD + text)
    outcome = mtan("experiments", "search", config, "--data", tmp_path, "--out", tmp_path / "out", "--dry-run")
    assert outcome.code == 2 and told in outcome.err and outcome.out == ""
    assert outcome.err.count("\n") == 1


def test_a_dry_run_prints_the_trials_and_starts_nothing(mtan: Mtan, tmp_path: Path) -> None:
    config = written(tmp_path, HEAD + "trials = 3\n" + LR)
    words = ("experiments", "search", config, "--data", tmp_path, "--out", tmp_path / "out", "--dry-run", "--json")
    assert document(mtan(*words)) == {"trials": 3, "points": drawn(read_search(config))}
    assert not (tmp_path / "out").exists()


def test_the_documented_configuration_is_one(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "search.md"
    block = page.read_text().split("```toml\n")[1].split("```")[0]
    assert len(drawn(read_search(written(tmp_path, block)))) == 20


def test_a_key_is_there_only_where_its_condition_holds() -> None:
    space = {
        "weighting.kind": Dimension(choice=("equal", "dwa")),
        "weighting.temperature": Dimension(quantised=(1.0, 3.0, 1.0), when={"weighting.kind": ("dwa",)}),
    }
    search = SearchConfig(space=space, trials=40, seed=1)
    full = grid(search)
    assert len(full) == 4 and full[0] == {"weighting.kind": "equal"}
    assert {frozenset(point.items()) for point in drawn(search)} == {frozenset(point.items()) for point in full}
    assert drawn(search) != drawn(search.model_copy(update={"seed": 2}))


def test_the_metric_of_an_epoch() -> None:
    rows = [
        {"epoch": 1, "domain": name, "loss": 0.1, "val_accuracy": value}
        for name, value in (("dtd", 0.5), ("svhn", 1.0))
    ]
    found = measures(rows)
    assert value_of("mean_accuracy", found, References()) == 0.75
    assert value_of("val_accuracy.svhn", found, References()) == 1.0
    assert value_of("decathlon_score", found, References({"dtd": 0.5, "svhn": 0.1})) == pytest.approx(250 + 1000)
    assert value_of("mean_accuracy", measures([{**rows[0], "val_accuracy": None}]), References()) is None
    with pytest.raises(UserError, match=r"did you mean 'val_accuracy\.dtd'"):
        value_of("val_acuracy.dtd", found, References())
