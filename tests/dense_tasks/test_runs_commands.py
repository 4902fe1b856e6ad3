"""The commands on dense runs: what is wrong ends in one sentence, exit code 2 and an untouched disk, before training begins."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dense_tasks.networks import methods
from dense_tasks.runs import DenseFolder, DenseRun
from mtan_core.errors import Interrupted
from tests.conftest import Mtan, Outcome, document
from tests.dense_tasks.conftest import tiny, train_tiny
from tests.dense_tasks.roots import arrays, write_frame, write_root
from tests.dense_tasks.test_resume import after


def refused(outcome: Outcome, *told: str) -> None:
    """One sentence, nothing on standard output, exit code 2."""
    lines = [line for line in outcome.err.splitlines() if not line.startswith("mtan: warning:")]
    assert (outcome.code, outcome.out, len(lines)) == (2, "", 1), outcome.err
    assert lines[0].startswith("mtan: ")
    for words in told:
        assert words in lines[0]


def listing(folder: Path) -> set[str]:
    """What lies in a folder, but for the memory of looking at a root."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != "scan.json"}


# Options


CHOICES = {
    "a preset": (["--preset", "smal"], "did you mean 'small'?"),
    "a method": (["--method", "mtam"], "there is no method 'mtam' (did you mean 'mtan'?)"),
    "a task": (["--tasks", "sematic"], "did you mean 'semantic'?"),
    "no task": (["--tasks", ","], "--tasks: expected names of tasks"),
    "a task twice": (["--tasks", "depth,depth"], "each name once"),
    "a weighting": (["--weighting", "dvwa"], "did you mean 'dwa'?"),
    "a key": (["--set", "batchsize=3"], "there is no key 'batchsize' (did you mean 'batch_size'?)"),
    "a key of a table": (["--set", "network.filter=[3, 4]"], "did you mean 'network.filters'?"),
    "a key of a phase": (["--set", "phases=[{epoch = 3}]"], "did you mean 'phases.0.epochs'?"),
    "no phase": (["--set", "phases=[]"], "`phases`"),
    "no assignment": (["--set", "seed"], "--set: expected key=value"),
    "one image a step": (["--set", "batch_size=1"], "`batch_size`"),
    "too many images a step": (["--set", "batch_size=5"], "`batch_size`: expected at most the 4 training images, found 5"),
    "one filter": (["--set", "network.filters=[4]"], "`network.filters`"),
    "no filter": (["--set", "network.filters=[4, 0, 4]"], "`network.filters.1`"),
    "many stages": (["--set", "network.filters=[2,2,2,2,2,2]"], "images whose sides divide by 64, found 32x64"),
    "a network that cannot fit": (["--set", "network.filters=[4096,4096,4096,4096,4096]"], "GiB"),
    "a metric": (["--set", "metric=old"], "`metric`"),
    "a data set": (["--set", "dataset=nyu"], "did you mean 'nyuv2'?"),
    "a device": (["--set", "device=cuda:99"], "`device`"),
    "weights of no task": (["--weighting", "fixed", "--set", "weighting.weights.edges=2"], "there is no task 'edges' in training"),
    "a small scale": (["--set", "augment.scales=[0.5]"], "`augment.scales.0`"),
    "nothing shared": (["--method", "single", "--weighting", "pcgrad"], "parameters that tasks share"),
    "no last convolution": (["--method", "cross-stitch", "--weighting", "gradnorm"], "a last convolution"),
}  # fmt: skip


@pytest.mark.parametrize("what", CHOICES)
def test_a_choice_that_cannot_be_is_refused(mtan: Mtan, root: Path, tmp_path: Path, what: str) -> None:
    words, told = CHOICES[what]
    refused(mtan("dense", "train", "--data", root, "--run", tmp_path / "run", *tiny(), *words), told)
    assert listing(tmp_path) == set()


def test_the_memory_of_compared_gradients_is_told_and_counted(
    mtan: Mtan, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that fits by itself may not with a gradient of each task beside it."""
    words = (
        "dense",
        "train",
        "--data",
        root,
        *tiny("phases=[{epochs = 1}]", "steps_per_epoch=1"),
        "--weighting",
        "upgrad",
    )
    done = mtan(*words, "--run", tmp_path / "run", "--json")
    assert "upgrad compares the gradients of the tasks, for which it keeps" in done.err
    weights = 4 * document(done)["parameters"]
    monkeypatch.setattr("dense_tasks.fitting.available_memory", lambda device: 4 * weights)
    refused(mtan(*words, "--run", tmp_path / "other"), "the gradient of each task, which upgrad compares")
    assert not (tmp_path / "other").exists()
    monkeypatch.setattr("dense_tasks.fitting.available_memory", lambda device: 4 * weights - 1)
    refused(mtan(*words, "--run", tmp_path / "other"), "the network and its optimiser need")


def test_a_configuration_file_that_is_none_is_refused(mtan: Mtan, root: Path, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("seed = ")
    words = ("dense", "train", "--data", root, "--run", tmp_path / "run", "--config", file)
    refused(mtan(*words), "--config: expected a TOML file")
    refused(mtan(*words, "--preset", "small"), "--preset or --config")
    assert listing(tmp_path) == {"config.toml"}


# Roots


def spoilt(name: str, edit: Callable[[np.ndarray], None]) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        values = np.load(root / name)
        edit(values)
        np.save(root / name, values)

    return make


def put(place: object, value: float) -> Callable[[np.ndarray], None]:
    def edit(values: np.ndarray) -> None:
        values[place] = value

    return edit


def other_shape(root: Path) -> None:
    write_frame(root, "train", 1, arrays(np.random.default_rng(0), 32, 32))


def all_undefined(root: Path) -> None:
    for file in (root / "train/label").iterdir():
        np.save(file, np.full((32, 64), -1))


ROOTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing there": (shutil.rmtree, "found none at"),
    "no folder": (lambda r: shutil.rmtree(r / "train/normal"), "no folder train/normal"),
    "unequal counts": (lambda r: (r / "train/depth/1.npy").unlink(), "1 files in train/depth and 2 in train/image"),
    "another shape": (other_shape, "pixels where images have"),
    "all undefined": (all_undefined, "no defined label of semantic in the whole of train"),
    "a label beyond the classes": (spoilt("val/label/0.npy", put((2, 3), 13)), "a label of 13 where the 13 classes end at 12"),
    "NaN depth": (spoilt("train/depth/1.npy", put((2, 3), np.nan)), "a depth that is NaN"),
    "long normals": (spoilt("train/normal/1.npy", put(2, 0.9)), "normals not of unit length"),
    "a corrupt file": (lambda r: (r / "val/image/0.npy").write_bytes(b"\x93NUMPY"), "val/image/0.npy with a file that is no npy"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", ROOTS)
def test_a_root_with_a_mistake_is_refused(mtan: Mtan, tmp_path: Path, mistake: str) -> None:
    make, told = ROOTS[mistake]
    root = write_root(tmp_path / "root", train=2, val=2)
    make(root)
    before = listing(tmp_path)
    refused(mtan("dense", "train", "--data", root, "--run", tmp_path / "run", *tiny()), str(root), told)
    assert listing(tmp_path) == before


def test_sizes_that_the_network_cannot_halve_are_refused(mtan: Mtan, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for number in range(2):
            write_frame(tmp_path / "root", split, number, arrays(np.random.default_rng(0), 40, 64))
    words = ("dense", "train", "--data", tmp_path / "root", "--run", tmp_path / "run", *tiny("phases=[{epochs = 1}]"))
    refused(mtan(*words, "--set", "network.filters=[3,3,3,3,3]"), "images whose sides divide by 32, found 40x64")
    assert not (tmp_path / "run").exists()
    assert document(mtan(*words, "--set", "network.filters=[3,3,3]", "--json"))["size"] == [40, 64]


# Runs


def test_an_existing_run_is_not_overwritten(mtan: Mtan, root: Path, trained: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    refused(
        mtan("dense", "train", "--data", root, "--run", trained, *tiny()), "--run: expected a new folder", "--resume"
    )
    (tmp_path / "file").write_text("mine")
    refused(mtan("dense", "train", "--data", root, "--run", tmp_path / "file", *tiny()), "--run: expected a new folder")
    assert before == {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_is_resumed_as_it_was_begun(mtan: Mtan, root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        train_tiny(root, run, "method=split-standard", stop=after(1))
    words = ("dense", "train", "--data", root, "--run", run, "--resume")
    refused(
        mtan(*words, "--set", "optimizer.lr=0.5"), "--resume: expected the run's own `optimizer.lr` = 0.01, found 0.5"
    )
    refused(mtan(*words, "--tasks", "depth"), "`tasks`")
    other = write_root(tmp_path / "other", train=2, val=3)
    refused(mtan("dense", "train", "--data", other, "--run", run, "--resume"), "--data: expected the frames")
    assert document(mtan(*words, "--json"))["steps"] == 4


def test_runs_of_another_kind_are_refused(mtan: Mtan, root: Path, trained: Path, tmp_path: Path) -> None:
    """By their documents: those of a Decathlon run lie in `domains.json`, those of a dense one in `tasks.json`."""
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "tasks.json").rename(run / "domains.json")
    told = "Expected a dense run (with tasks.json), found one with domains.json"
    refused(mtan("dense", "evaluate", run, "--data", root), told)
    refused(mtan("dense", "predict", run, root), told)
    refused(mtan("dense", "train", "--data", root, "--run", run, "--resume", *tiny("phases=[{epochs = 3}]")), told)
    told = "Expected a Decathlon run (with domains.json), found one with summary.json, tasks.json"
    refused(mtan("decathlon", "evaluate", trained, "--data", tmp_path), told)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated weights": (lambda r: cut(DenseFolder(r).checkpoint() / "weights.safetensors"), "weights.safetensors"),
    "truncated state": (lambda r: cut(DenseFolder(r).checkpoint() / "state.json"), "state.json"),
    "no checkpoint": (lambda r: shutil.rmtree(r / "checkpoints"), "train the run first"),
    "no configuration": (lambda r: (r / "config.toml").unlink(), "config.toml"),
    "damaged configuration": (lambda r: (r / "config.toml").write_text("seed = "), "config.toml"),
    "damaged tasks": (lambda r: cut(r / "tasks.json"), "tasks.json"),
    "another format": (lambda r: (r / "tasks.json").write_text('{"format": 99}'), "99"),
    "unknown tasks": (lambda r: swap(r / "tasks.json", '"depth"', '"edges"'), "tasks.json"),
    "an unknown data set": (lambda r: swap(r / "tasks.json", '"nyuv2"', '"nyu"'), "tasks.json"),
    "another network": (lambda r: swap(r / "config.toml", 'method = "mtan"', 'method = "single"'), "missing"),
}  # fmt: skip


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def swap(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_refused(mtan: Mtan, root: Path, trained: Path, tmp_path: Path, damage: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    make, told = DAMAGES[damage]
    make(run)
    refused(mtan("dense", "evaluate", run, "--data", root), told)


def test_a_truncated_checkpoint_is_not_resumed(mtan: Mtan, root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        train_tiny(root, run, "method=split-standard", stop=after(3))
    cut(DenseFolder(run).checkpoint() / "training.safetensors")
    refused(mtan("dense", "train", "--data", root, "--run", run, "--resume"), "step-3", "to go on from step-2")


# Questions


ANSWERS = {
    "a split": (["--split", "test"], "--split: expected val or train, found test"),
    "a checkpoint": (["--checkpoint", "first"], "--checkpoint: expected last or best"),
    "a metric": (["--metric", "legasy"], "did you mean 'legacy'?"),
    "a device": (["--device", "cuda:99"], "cuda:99"),
    "no run to compare with": (["--against", "nowhere"], "nowhere"),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_mistakes_about_what_to_answer(mtan: Mtan, root: Path, trained: Path, what: str) -> None:
    words, told = ANSWERS[what]
    refused(mtan("dense", "evaluate", trained, "--data", root, *words), told)


def test_nothing_is_relative_to_a_measure_of_0(
    mtan: Mtan, root: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(run: DenseRun, *_: object) -> dict[str, dict[str, float]]:
        return {name: {measure.name: 0.0 for measure in task.measures} for name, task in run.facts.tasks.items()}

    monkeypatch.setattr("dense_tasks.reports._evaluated", blind)
    refused(mtan("dense", "evaluate", trained, "--data", root, "--against", trained), "--against", "not 0")


def test_a_root_of_another_data_set_is_refused(mtan: Mtan, root: Path, trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "root"
    shutil.copytree(root, other)
    (other / "dataset.json").write_text(json.dumps({"format": 1, "dataset": "cityscapes19"}))
    refused(mtan("dense", "evaluate", trained, "--data", other), "cityscapes19")


# Lists


PUBLISHED = {
    "single": 24_981_069, "stan": 38_185_805, "split-standard": 25_055_188 - 3, "split-wide": 43_934_164 - 3,
    "split-deep": 50_807_764 - 3, "dense": 123_743_995 - 3, "cross-stitch": 74_941_807 - 3, "mtan": 44_229_076 - 3,
}  # fmt: skip


def test_methods_have_the_published_numbers_of_parameters(mtan: Mtan) -> None:
    """Those of the authors' networks for NYUv2, less the log-variances, which belong to the weighting."""
    counts = document(mtan("dense", "methods", "--json"))
    assert set(counts) == set(methods())
    assert {name: counts[name]["parameters"] for name in PUBLISHED} == PUBLISHED
    assert all(set(count) == {"parameters", "pool_parameters"} for count in counts.values())
    assert counts["single"]["pool_parameters"] == 0 < counts["mtan"]["pool_parameters"]


def test_presets_tell_the_parameters_of_their_networks(mtan: Mtan) -> None:
    counts = document(mtan("dense", "presets", "--json"))
    assert set(counts) == {"paper", "paper-cityscapes", "segnet", "small"}
    assert counts["paper"] == counts["paper-cityscapes"] == document(mtan("dense", "methods", "--json"))["mtan"]
    assert counts["small"]["parameters"] < counts["paper"]["parameters"] / 10
    shown = mtan("dense", "presets")
    assert shown.code == 0 and f"{counts['paper']['parameters']:,}" in shown.out
