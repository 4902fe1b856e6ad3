"""`mtan experiments compare`: grouping over seeds, statistics against formulas, and what must not be compared."""

import csv
import io
import math
import shutil
from pathlib import Path
from statistics import mean, stdev

import pytest

from decathlon.config import load_config
from decathlon.runs import RunFolder
from decathlon.scoring import decathlon_score
from decathlon.specs import official_domains
from experiments.compare.comparison import compare
from experiments.compare.measured import read_runs
from experiments.compare.published import decathlon_rows
from experiments.compare.rendering import latex_text, letter
from experiments.compare.statistics import Sample, difference
from tests.conftest import Mtan, document
from tests.decathlon.conftest import Tiny, challenge, trained

__all__ = ["challenge", "trained"]

ACCURACY = {"plain": (0.50, 0.54, 0.52), "dwa": (0.60, 0.61, 0.65)}


def write_run(
    path: Path, accuracy: float, *changes: str, source: str = "custom", names: tuple[str, ...] = ("dtd", "svhn")
) -> Path:
    """A finished run's documents, without a network: all that comparing reads."""
    path.mkdir(parents=True)
    config = load_config("small", None, changes)
    specs = [official_domains()[name].spec(source=source) for name in names]
    folder = RunFolder(path)
    folder.start(config, specs, {name: {"train": "1", "val": "2"} for name in names})
    validated = {} if config.protocol == "train+val" else dict.fromkeys(names, accuracy)
    folder.write_summary({
        "protocol": config.protocol, "seed": config.seed, "parameters": 1000, "seconds": 60.0,
        "val_accuracy": validated, "mean_val_accuracy": accuracy if validated else None, "commit": "abc",
    })  # fmt: skip
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two configurations of three seeds each."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        write_run(folder / f"{kind}-{seed}", accuracy, f"seed={seed}", f"threads={seed + 1}",
                  f"weighting.kind={'equal' if kind == 'plain' else 'dwa'}")
        for kind, values in ACCURACY.items() for seed, accuracy in enumerate(values)
    ]  # fmt: skip


def test_seeds_are_one_row_with_mean_spread_and_welch(mtan: Mtan, runs: list[Path]) -> None:
    found = document(mtan("experiments", "compare", *runs, "--json"))
    plain, dwa = found["groups"]
    assert plain["seeds"] == dwa["seeds"] == [0, 1, 2]
    assert found["reference"] == plain["name"] and plain["measures"]["mean"]["delta"] is None
    own = dwa["measures"]["mean"]
    assert own["mean"] == pytest.approx(mean(ACCURACY["dwa"])) and own["spread"] == pytest.approx(
        stdev(ACCURACY["dwa"])
    )
    assert own["delta"] == pytest.approx(mean(ACCURACY["dwa"]) - mean(ACCURACY["plain"]))
    assert own["p"] == pytest.approx(welch(ACCURACY["dwa"], ACCURACY["plain"]))
    assert own["interval_95"][0] < own["delta"] < own["interval_95"][1]
    assert dwa["differs"] == {"weighting.kind": ["equal", "dwa"]}


def welch(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """The two-sided p from the formulas, with Student's distribution integrated numerically."""
    one, two = stdev(a) ** 2 / len(a), stdev(b) ** 2 / len(b)
    t = abs(mean(a) - mean(b)) / math.sqrt(one + two)
    freedom = (one + two) ** 2 / (one**2 / (len(a) - 1) + two**2 / (len(b) - 1))
    scale = math.gamma((freedom + 1) / 2) / math.sqrt(freedom * math.pi) / math.gamma(freedom / 2)
    step = t / 20_000
    inside = sum(scale * (1 + ((i + 0.5) * step) ** 2 / freedom) ** (-(freedom + 1) / 2) for i in range(20_000)) * step
    return 1 - 2 * inside


def test_one_seed_or_no_spread_gives_no_significance() -> None:
    assert Sample((0.5,)).spread is None
    assert difference(Sample((0.5,)), Sample((0.4, 0.6))).p is None
    assert difference(Sample((0.5, 0.5)), Sample((0.4, 0.4))).p is None


def test_every_form_holds_the_same_numbers(mtan: Mtan, runs: list[Path]) -> None:
    words = ("experiments", "compare", *runs, "--published")
    lines = list(csv.DictReader(io.StringIO(mtan(*words, "--csv").out)))
    ours = [line for line in lines if line["split"] == "val" and line["measure"] == "mean"]
    assert [float(line["mean"]) for line in ours] == pytest.approx([mean(values) for values in ACCURACY.values()])
    assert {line["comparable"] for line in lines if line["split"] == "test"} == {"False"}
    markdown, latex, plain = mtan(*words, "--markdown").out, mtan(*words, "--latex").out, mtan(*words).out
    for text in (markdown, latex, plain):
        assert "0.620" in text and "+0.100" in text and "NOT COMPARABLE" in text
    widths = {line.count("|") for line in markdown.split("\n\n")[1].splitlines()}
    assert len(widths) == 1
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 3 and r"$\pm$" in latex


def test_other_data_and_protocols_are_said_and_not_compared(mtan: Mtan, runs: list[Path], tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", 0.9, names=("dtd",))
    both = write_run(tmp_path / "both", 0.9, "protocol=train+val")
    found = document(mtan("experiments", "compare", runs[0], other, both, "--json"))
    assert [group["unlike"] for group in found["groups"]] == [None, "other data", "protocol train+val, not train"]
    assert found["groups"][1]["measures"]["dtd"]["delta"] is None
    assert any("other data" in note for note in found["notes"])
    assert any("nothing was validated" in note for note in found["notes"])


def test_published_rows_stand_beside_official_data_and_protocol_alone(mtan: Mtan, tmp_path: Path) -> None:
    ten = tuple(official_domains())
    official = write_run(tmp_path / "a", 0.5, "protocol=train+val", source="official", names=ten)
    beside = mtan("experiments", "compare", official, "--published")
    assert "NOT COMPARABLE" not in beside.out and "test mean" in beside.out and "MTAN (WRN-28-4)" in beside.out
    custom = write_run(tmp_path / "b", 0.5, "protocol=train+val", "seed=1", names=ten)
    val = write_run(tmp_path / "c", 0.5, source="official", names=ten)
    part = write_run(tmp_path / "d", 0.5, "protocol=train+val", source="official")
    for run, why in ((custom, "official split sizes"), (val, "protocol train"), (part, "ten official domains")):
        found = document(mtan("experiments", "compare", run, "--published", "--json"))
        assert not any(row["comparable"] for row in found["published"])
        assert len(found["not_comparable"]) == 1 and why in found["not_comparable"][0]


def test_published_rows_agree_with_the_scores_they_come_with() -> None:
    rows = decathlon_rows()
    assert len(rows) >= 12 and all(row.source and "recalled" not in row.source for row in rows)
    for row in rows:
        errors = {name: 1 - accuracy for name, accuracy in row.accuracy.items()}
        assert decathlon_score(errors) == pytest.approx(row.score, abs=4)


def test_a_reference_by_folder_and_by_name(mtan: Mtan, runs: list[Path]) -> None:
    by_run = document(mtan("experiments", "compare", *runs, "--reference", runs[4], "--json"))
    by_name = document(mtan("experiments", "compare", *runs, "--reference", by_run["reference"], "--json"))
    assert by_run["reference"] == by_name["reference"] == by_run["groups"][1]["name"]


def test_submissions_in_the_runs_folders_are_scored(mtan: Mtan, challenge: Tiny, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    words = ("experiments", "compare", run, "--annotations", challenge.hidden)
    assert document(mtan(*words, "--json"))["groups"][0]["measures"].keys() == {"mean", "daimlerpedcls", "dtd", "svhn"}
    submitted = mtan("decathlon", "submit", run, "--data", challenge.store, "--out", run / "results.json")
    scored = document(mtan("decathlon", "score", run / "results.json", "--annotations", challenge.hidden, "--json"))
    measures = document(mtan(*words, "--json"))["groups"][0]["measures"]
    assert submitted.code == 0 and measures["score"]["mean"] == scored["score"]
    errors = {name: domain["error"] for name, domain in scored["domains"].items()}
    assert {name: 1 - measures[f"test {name}"]["mean"] for name in errors} == pytest.approx(errors)
    assert measures["test mean"]["mean"] == pytest.approx(1 - mean(errors.values()))
    shown = mtan(*words).out
    assert f"{scored['score']:.0f}" in shown and "not comparable with published ones" in shown
    lines = {line["measure"]: line["split"] for line in csv.DictReader(io.StringIO(mtan(*words, "--csv").out))}
    assert (lines["mean"], lines["test mean"], lines["score"]) == ("val", "test", "test")


def test_what_a_run_is_built_upon_counts_by_its_configuration(tmp_path: Path) -> None:
    pools = [write_run(tmp_path / f"pool-{seed}", 0.5, f"seed={seed}", "method=hard-sharing") for seed in (0, 1)]
    other = write_run(tmp_path / "other", 0.5, "method=hard-sharing", "optimizer.lr=0.5")
    built = [
        write_run(tmp_path / f"built-{place}", 0.5, f"seed={place}", "method=feature", f"pool_from={pool}")
        for place, pool in enumerate([*pools, other])
    ]
    groups = compare(read_runs(built)).groups
    assert [[run.seed for run in group.runs] for group in groups] == [[0, 1], [2]]
    assert len({group.name for group in groups}) == 2


def test_mistakes_are_told_in_a_sentence(mtan: Mtan, runs: list[Path], tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(runs[0], again)
    unfinished = tmp_path / "unfinished"
    shutil.copytree(runs[1], unfinished)
    (unfinished / "summary.json").unlink()
    dense = tmp_path / "dense"
    dense.mkdir()
    (dense / "config.toml").write_text("seed = 0\n")
    (dense / "tasks.json").write_text("{}")
    for words, told in (
        ((tmp_path / "nothing",), "Expected a run's folder"),
        ((runs[0], runs[0]), "twice"),
        ((runs[0], again), "seed 0"),
        ((runs[0], unfinished), str(unfinished)),
        ((runs[0], dense), "one kind"),
        ((runs[0], "--reference", "dawn"), "--reference"),
        ((runs[0], "--csv", "--latex"), "at most one"),
    ):
        outcome = mtan("experiments", "compare", *words)
        assert (outcome.code, outcome.out) == (2, "") and told in outcome.err and outcome.err.count("\n") == 1
    assert mtan("experiments", "compare").code == 2


def test_names_are_short_and_tell_groups_apart(runs: list[Path]) -> None:
    found = compare(read_runs(runs))
    assert [group.name for group in found.groups] == ["mtan kind=equal", "mtan kind=dwa"]
    assert [letter(place) for place in (0, 25, 26)] == ["A", "Z", "AA"]
    assert latex_text("a_b 5% \\") == r"a\_b 5\% \textbackslash{}"


def test_a_dense_run_stands_beside_itself_with_another_seed(mtan: Mtan, tmp_path: Path) -> None:
    from dense_tasks import config as dense
    from dense_tasks.data.root import open_root
    from dense_tasks.runs import DenseFolder, Facts
    from tests.dense_tasks.roots import write_root

    facts = Facts.of(open_root(write_root(tmp_path / "root")))
    made = []
    for seed, (method, miou) in enumerate((("mtan", 0.3), ("mtan", 0.4), ("split-wide", 0.2))):
        folder = DenseFolder(tmp_path / f"{method}{seed}")
        folder.path.mkdir()
        folder.start(dense.load_config("small", None, [f"seed={seed}", f"method={method}"]), facts)
        values = {
            name: {m.name: miou if m.higher_is_better else 1 / miou for m in task.measures}
            for name, task in facts.tasks.items()
        }
        folder.write_summary({"kind": "dense", "parameters": 5, "seconds": 9.0, "val_last": values})
        made.append(folder.path)
    found = document(mtan("experiments", "compare", *made, "--json"))
    assert [group["seeds"] for group in found["groups"]] == [[0, 1], [2]]
    assert found["groups"][0]["measures"]["semantic/miou"]["mean"] == pytest.approx(0.35)
    assert (
        found["groups"][1]["delta_mtl"] < 0
        and not found["groups"][1]["measures"]["depth/absolute_error"]["higher_is_better"]
    )
    refused = mtan("experiments", "compare", *made, "--annotations", tmp_path)
    assert refused.code == 2 and "expected runs of the Decathlon, which have submissions" in refused.err
    told = mtan("experiments", "compare", *made).out
    assert "Delta-MTL" in told and "metric whole-set" in told.replace("\n", " ")
    beside = document(mtan("experiments", "compare", *made, "--published", "--json"))
    assert len(beside["published"]) == 17 and not any(row["comparable"] for row in beside["published"])
    best = next(row for row in beside["published"] if (row["method"], row["weighting"]) == ("mtan", "equal"))
    assert best["measures"]["semantic/miou"] == 0.1772 and best["measures"]["normal/within_30"] == 0.5748
    assert any("288x384" in why for why in beside["not_comparable"]) and any(
        "legacy" in why for why in beside["not_comparable"]
    )
    assert "NOT COMPARABLE" in mtan("experiments", "compare", *made, "--published").out
    other = DenseFolder(tmp_path / "other")
    other.path.mkdir()
    other.start(dense.load_config("small", None, ["metric=legacy"]), facts)
    other.write_summary({"kind": "dense", "val_last": {}})
    mixed = document(mtan("experiments", "compare", made[0], other.path, "--json"))["groups"]
    assert [group["metric"] for group in mixed] == ["whole-set", "legacy"]
    assert mixed[1]["unlike"] == "segmentation measured by legacy, not whole-set" and mixed[1]["delta_mtl"] is None
    blind = {name: {measure.name: 0.0 for measure in task.measures} for name, task in facts.tasks.items()}
    DenseFolder(made[2]).write_summary({"kind": "dense", "val_last": blind})  # nothing is relative to 0
    against = mtan("experiments", "compare", made[2], made[0])
    assert against.code == 0 and "no Delta-MTL" in against.out.replace("\n", " ")
