"""Configurations: presets, files, changes, and every mistake told at once."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decathlon.building import build, build_network, parameter_counts
from decathlon.config import KIND, RunConfig, config_keys, dump_config, load_config, parse_config, preset_names
from decathlon.specs import official_domains
from decathlon.training import phases_of
from mtan_core.errors import UserError
from mtan_core.runs import resolve
from tests.conftest import Outcome
from tests.decathlon.conftest import Tiny


def refusal(*changes: str, preset: str = "small") -> str:
    with pytest.raises(UserError) as problem:
        load_config(preset, None, changes)
    return str(problem.value)


def test_the_presets_are_there() -> None:
    assert {"paper", "wrn28-4", "small", "quickstart"} <= set(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_read_back_equal(name: str) -> None:
    config = load_config(name, None)
    assert parse_config(tomllib.loads(dump_config(config)), "here") == config


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_passes_through_the_real_command(mtan: Callable[..., Outcome], challenge: Tiny, name: str) -> None:
    """A dry run does all that training does, up to a real step."""
    smoke = ["threads=1", "batch_size=2", "network.depth=10", "network.width=1", "precision=fp32"]
    changes = [word for change in smoke for word in ("--set", change)]
    outcome = mtan("decathlon", "train", "--data", challenge.store, "--run", "unused", "--preset", name, *changes,
                   "--dry-run", "--json")  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["steps"] > 0


def test_presets_without_any_change_are_resolved_by_name_and_default() -> None:
    assert load_config(None, None) == load_config("wrn28-4", None)


def test_the_paper_preset_is_the_papers() -> None:
    config = load_config("paper", None)
    assert (config.norm, config.sampling, config.network.head_pool, config.network.last_momentum) == (
        "shared", "sequential", "8x8", 0.9,
    )  # fmt: skip
    assert config.fit == dict.fromkeys(official_domains(), "crop")
    assert set(config.augment.centre) == {"gtsrb", "omniglot", "svhn"}
    first, second = phases_of(config, list(official_domains()))
    assert first.streams == tuple(official_domains()) and first.lr == 0.1
    assert set(second.streams) == set(official_domains()) - {"imagenet12"} and second.lr == 0.01


@pytest.mark.parametrize("name", ["wrn28-4", "paper"])
def test_presets_of_the_papers_network_have_its_parameters(name: str) -> None:
    counts = parameter_counts(build(name))
    assert (counts["parameters"], counts["pool_parameters"]) == (10_237_656, 5_850_528)
    assert counts["norm_parameters"] == (0 if name == "paper" else 9 * 8_608)


def test_a_new_domain_costs_its_ladder_and_head() -> None:
    config = load_config("wrn28-4", None)
    counts = [parameter_counts(build_network(config, dict.fromkeys(names, 7))) for names in (["a"], ["a", "b"])]
    assert counts[1]["parameters"] - counts[0]["parameters"] == 261_344 + 257 * 7
    assert counts[1]["norm_parameters"] - counts[0]["norm_parameters"] == 8_608


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("optimiser.lr=1", "did you mean 'optimizer.lr'"),
        ("optimizer.lrr=1", "did you mean 'optimizer.lr'"),
        ("batchsize=3", "did you mean 'batch_size'"),
        ("network.widht=3", "did you mean 'network.width'"),
        ("phases.0.epoch=3", "did you mean 'phases.0.epochs'"),
    ],
)
def test_an_unknown_key_suggests_the_near_one(change: str, told: str) -> None:
    message = refusal(change)
    assert "there is no key" in message
    assert told in message


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("changes=[{after = 2, lr = 0.1}, {after = 2}]", "changes.1.after`: expected changes in order"),
        ("changes=[{after = 1000, lr = 0.1}]", "changes.0.after`: expected changes in order, before the last"),
        ("changes=[{after = 1, weights = {svhn = 2.0}}]", "changes.0.weights` needs weighting.kind"),
        ("batch_size=1", "batch_size"), ("batch_size=many", "batch_size"), ("image_size=8", "image_size"),
        ("optimizer.lr=0", "optimizer.lr"), ("optimizer.lr=inf", "optimizer.lr"), ("optimizer.lr=nan", "optimizer.lr"),
        ("network.depth=11", "depth"), ("network.depth=4", "network.depth"), ("ema=1", "ema"), ("seed=-1", "seed"),
        ("seed=99999999999999999999", "seed"), ("device=tpu", "device"), ("precision=fp64", "precision"),
        ("norm=batch", "norm"), ("phases.0.epochs=0", "phases.0.epochs"), ("phases=[]", "phases"),
        ("protocol=test", "protocol"), ("method=stl", "method"), ("weighting.temperature=0", "weighting.temperature"),
        ("network.head_pool=9x9", "network.head_pool"), ("phases.0.freeze=trunk", "phases.0.freeze"),
        ("phases.0.freeze=pool,ladder,masks,heads", "freeze"), ("fit.dtd=stretch", "fit.dtd"),
        ("domains=svhn,dtd,svhn", "domains"), ("phases.0.domains=dtd,dtd", "phases.0.domains"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_named(change: str, key: str) -> None:
    message = refusal(change)
    assert f"`{key}" in message
    assert message.count("Configuration") == 1 and message.endswith(".")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("phases.0.lr=0", "`phases.0.lr`: Input should be greater than 0, found 0."),
        ("network.depth=11", "`network`: `depth` must be 6n + 4 (10, 16, 22, 28, ...), found 11."),
        ("phases=[]", "`phases`: Tuple should have at least 1 item after validation, not 0, found []."),
        ("network.width=100000000", "`network.width`: Input should be less than or equal to 64, found 100000000."),
        ("network.depth=1006", "`network.depth`: Input should be less than or equal to 1000, found 1006."),
    ],
)
def test_one_mistake_is_one_sentence(change: str, told: str) -> None:
    assert refusal(change) == f"Configuration (preset small): {told}"


def test_all_problems_are_in_one_error() -> None:
    message = refusal("batch_size=0", "optimizer.lr=-1", "norms=shared", "network.width=0", "phases.0.epochs=-3")
    for key in ("`batch_size`", "`optimizer.lr`", "'norms'", "`network.width`", "`phases.0.epochs`"):
        assert key in message


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["sampling=sequential", "accumulate=2"], "accumulate"),
        (["sampling=sequential", "steps_per_epoch=5"], "steps_per_epoch"),
        (["network.head_pool=8x8", "image_size=40"], "image_size"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: list[str], told: str) -> None:
    assert told in refusal(*changes)


@pytest.mark.parametrize(("size", "fits"), [(56, False), (64, True), (72, True), (120, True), (128, False)])
def test_the_authors_head_pool_needs_a_map_of_8_to_15(size: int, fits: bool) -> None:
    changes = ["network.head_pool=8x8", f"image_size={size}"]
    if fits:
        assert load_config("small", None, changes).image_size == size
    else:
        assert "`network.head_pool" in refusal(*changes)


def test_changes_reach_tables_lists_and_dictionaries() -> None:
    config = load_config("paper", None, [
        "phases.1.epochs=3", "phases.0.lr=0.5", "optimizer.domain_weight_decay.vgg-flowers=0.001", "fit.dtd=squash",
        "domains=dtd, svhn", "phases.1.domains=[\"dtd\"]", "augment.centre=svhn", "phases.0.freeze=pool,masks",
    ])  # fmt: skip
    assert config.phases[1].epochs == 3 and config.phases[0].lr == 0.5
    assert config.optimizer.domain_weight_decay == {"vgg-flowers": 0.001}
    assert config.fit["dtd"] == "squash" and config.fit["svhn"] == "crop"
    assert config.domains == ("dtd", "svhn") and config.phases[1].domains == ("dtd",)
    assert config.augment.centre == ("svhn",) and config.phases[0].freeze == ("pool", "masks")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("epochs", "key=value"),
        ("phases.7.epochs=1", "a number below 1"),
        ("phases.first.epochs=1", "a number below 1"),
        ("batch_size.a=1", "a table at 'batch_size'"),
    ],
)
def test_a_change_that_leads_nowhere_is_refused(change: str, told: str) -> None:
    assert told in refusal(change)


def test_preset_then_changes_then_short_options(tmp_path: Path) -> None:
    short = {"protocol": "train+val", "weighting.kind": None, "domains": "svhn", "method": None}
    changes = ["seed=1", "seed=2", "protocol=train", 'domains=["dtd"]', "weighting.kind=dwa"]
    config = resolve(KIND, "small", None, changes, short, tmp_path, resume=False)
    assert (config.seed, config.protocol, config.domains, config.weighting.kind) == (2, "train+val", ("svhn",), "dwa")
    assert config.network == load_config("small", None).network


def test_a_file_takes_the_place_of_a_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("seed = 5\n[[phases]]\nepochs = 7\n")
    assert load_config(None, file, ["seed=6"]) == RunConfig(seed=6, phases=[{"epochs": 7}])  # type: ignore[list-item]
    with pytest.raises(UserError, match="both"):
        load_config("small", file)
    for content in (b"seed = ", b"\xff\xfe"):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"mine\.toml"):
            load_config(None, file)


def test_a_misspelt_preset_suggests_the_near_one() -> None:
    with pytest.raises(UserError, match="did you mean 'small'"):
        load_config("smal", None)


def test_every_key_says_what_it_is() -> None:
    keys = config_keys()
    assert len(set(keys)) == len(keys)
    for key in ("seed", "sampling_temperature", "network.head_pool", "optimizer.domain_weight_decay", "phases"):
        assert key in keys
    schema = RunConfig.model_json_schema()
    tables = [schema, *schema["$defs"].values()]
    described = [field for table in tables for field in table["properties"].values() if "$ref" not in field]
    assert all("description" in field for field in described)


SCALARS = st.one_of(st.integers(-5, 200), st.floats(), st.booleans(), st.text("abc.,[]= \"'", max_size=6))


@given(changes=st.lists(st.tuples(st.sampled_from([*config_keys(), "x", "phases.0.lr"]), SCALARS), max_size=4))
def test_any_change_is_taken_or_refused_in_words(changes: list[tuple[str, object]]) -> None:
    """No change ends in a fault, and what is taken is written and read back equal."""
    try:
        config = load_config("small", None, [f"{key}={value}" for key, value in changes])
    except UserError:
        return
    assert parse_config(tomllib.loads(dump_config(config)), "here") == config


def test_masks_that_are_switched_off_do_not_count_as_learning() -> None:
    told = refusal("network.mask_activation=ones", 'phases.0.freeze=["pool", "ladder", "heads"]')
    assert "`phases.0.freeze` must leave something to learn" in told
