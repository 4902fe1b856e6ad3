"""What can be searched, what cannot, and the points that it gives."""

from pathlib import Path

import optuna
import pytest

from decathlon.config import load_config
from experiments.search.config import Dimension, SchedulerConfig, SearchConfig, read_search
from experiments.search.metric import References, measures, value_of
from experiments.search.space import base_point, drawn, enqueued, grid, suggest
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


def test_the_first_trial_is_the_base_where_the_space_has_it(tmp_path: Path) -> None:
    search = read_search(written(tmp_path, HEAD + "trials = 4\n" + LR))
    points, without = drawn(search), drawn(search.model_copy(update={"base_first": False}))
    assert points == [{"optimizer.lr": load_config("quickstart", None).optimizer.lr}, *without[:3]]
    for change in (
        {"space": {"optimizer.lr": Dimension(uniform=(10.0, 20.0))}},
        {"space": {"weighting.weights.svhn": Dimension(uniform=(0.5, 2.0))}},
        {"scheduler": SchedulerConfig(kind="pbt")},
        {"sampler": "grid"},
        {"trials": 1},
    ):
        assert base_point(search.model_copy(update=change)) is None


@pytest.mark.parametrize(
    ("dimension", "value", "found"),
    [
        (Dimension(choice=("equal", "dwa")), "dwa", "dwa"), (Dimension(choice=("equal",)), "dwa", None),
        (Dimension(choice=(1, 2)), 2.0, 2), (Dimension(choice=(0, 1)), True, None), (Dimension(choice=(True,)), True, True),
        (Dimension(choice=([4, 5], [6])), [6], [6]),
        (Dimension(integer=(1, 4)), 4, 4), (Dimension(integer=(1, 4)), 5, None), (Dimension(integer=(0, 1)), True, None),
        (Dimension(quantised=(0.1, 0.7, 0.2)), 0.1 + 0.2, 0.3), (Dimension(quantised=(0.1, 0.7, 0.2)), 0.2, None),
        (Dimension(log_uniform=(0.1, 1)), 1.0, 1.0), (Dimension(log_uniform=(0.1, 1)), 1.01, None),
        (Dimension(uniform=(0, 1)), "1", None), (Dimension(uniform=(0, 1)), None, None),
    ],
)  # fmt: skip
def test_whether_a_dimension_has_a_value(dimension: Dimension, value: object, found: object) -> None:
    held = dimension.holding(value)
    assert held == found and type(held) is type(found)


def test_optuna_is_told_of_the_base_in_its_own_terms(tmp_path: Path) -> None:
    space = '[space]\n"norm" = {choice = ["shared", "domain"]}\n"batch_size" = {integer = [2, 64]}\n'
    search = read_search(written(tmp_path, 'preset = "small"\nsampler = "tpe"\n' + space))
    study = optuna.create_study()
    for point in enqueued(search):
        study.enqueue_trial(point)
    assert suggest(study.ask(), search) == {"point": base_point(search)}
    assert base_point(search) == {"norm": "domain", "batch_size": load_config("small", None).batch_size}


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
