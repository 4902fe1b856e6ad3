"""Mistakes of the user's: one sentence, exit code 2, no traceback, and nothing lost."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from decathlon.data.store import file_metadata, open_store
from decathlon.runs import RunFolder, load_run
from mtan_core.checkpoint import checkpoints, load_exactly, read_tensors
from mtan_core.errors import Interrupted, UserError
from tests.conftest import Mtan, Outcome
from tests.decathlon.conftest import Tiny, tiny, train_tiny


def refused(outcome: Outcome, *told: str) -> None:
    """Exit code 2, nothing on standard output, one sentence as the last line and no traceback."""
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    sentence = outcome.err.splitlines()[-1]
    assert sentence.startswith("mtan: ") and sentence.endswith(".")
    for words in told:
        assert words in sentence


@pytest.fixture
def train(mtan: Mtan, challenge: Tiny, tmp_path: Path) -> Callable[..., Outcome]:
    """`mtan decathlon train` on the tiny store into a run that a refusal must not have begun."""

    def run(*words: object, data: object = challenge.store) -> Outcome:
        outcome = mtan("decathlon", "train", "--data", data, "--run", tmp_path / "new", *words)
        assert not (tmp_path / "new").exists()
        return outcome

    return run


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--preset", "quikstart"], "did you mean 'quickstart'"),
        (["--set", "optimizer.lrate=1"], "did you mean 'optimizer.lr'"),
        (["--domains", "svnh"], "did you mean 'svhn'"),
        (["--domains", "imagenet12"], "no domain 'imagenet12'"),
        (["--domains", ""], "expected names of domains"),
        (["--set", "=3"], "key=value"),
        (["--set", "threads=100000"], "`threads`"),
        (["--set", "fit.pedestrians=crop"], "no domain 'pedestrians'"),
        (["--set", "augment.centre=svnh"], "did you mean 'svhn'"),
        (["--weighting", "fixed", "--set", "weighting.weights.dtdd=2"], "did you mean 'dtd'"),
        (["--set", "weighting.weights.dtd=2"], '`weights` needs weighting.kind = "fixed", found "equal"'),
        (["--set", "network.nodes=conv1"], '`network.nodes` are of a network that is tapped, found pool = "wrn"'),
        (["--set", "optimizer.step_epochs=1e-320"], "`optimizer.step_epochs`"),
        (["--set", "optimizer.domain_weight_decay.dtdd=2"], "did you mean 'dtd'"),
        (["--set", "phases.0.domains=svnh"], "did you mean 'svhn'"),
        (["--domains", "svhn", "--set", "phases.0.domains=dtd"], "none of its domains is trained"),
        (["--set", "batch_size=0"], "`batch_size`"),
        (["--set", "optimizer.lr=-1"], "`optimizer.lr`"),
        (["--set", "seed=true"], "`seed`: expected a number, found true"),
        (["--set", "image_size=tall"], "`image_size`"),
        (["--set", "device=cuda:99"], "cuda:99"),
        (["--set", "device=tpu"], "`device`"),
        (["--set", "seed"], "key=value"),
        (["--method", "mtann"], "`method`"),
        (["--weighting", "dva"], "`weighting.kind`"),
        (["--protocol", "test"], "`protocol`"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["train", "dry-run"])
def test_mistakes_in_options_end_before_anything_is_begun(
    train: Callable[..., Outcome], words: list[str], told: str, dry: list[str]
) -> None:
    refused(train(*([] if "--preset" in words else tiny()), *words, *dry), told)


def test_a_configuration_file_that_is_none_is_refused(train: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("batch_size = [")
    refused(train("--config", tmp_path / "mine.toml"), "mine.toml")
    (tmp_path / "mine.toml").write_text("batch = 16")
    refused(train("--config", tmp_path / "mine.toml"), "did you mean 'batch_size'")


def test_files_that_are_not_there_are_told_in_one_line(
    train: Callable[..., Outcome], mtan: Mtan, tmp_path: Path
) -> None:
    """And not in the box of a misspelt command, which breaks a long path into pieces."""
    for place in (tmp_path / "none.toml", tmp_path):
        for outcome in (
            train("--config", place),
            mtan("decathlon", "import-weights", place, "--run", tmp_path / "imported"),
        ):
            refused(outcome, str(place))
            assert len(outcome.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["train", "evaluate", "submit", "inspect"])
@pytest.mark.parametrize("kind", ["absent", "empty", "half", "version", "marker", "cut", "no-uri"])
def test_data_that_are_no_store_are_refused(
    mtan: Mtan, challenge: Tiny, trained: Path, tmp_path: Path, command: str, kind: str
) -> None:
    store, told = spoilt_store(challenge, tmp_path, kind)
    words = {
        "train": ("train", "--data", store, "--run", tmp_path / "new", *tiny()),
        "evaluate": ("evaluate", trained, "--data", store),
        "submit": ("submit", trained, "--data", store, "--out", tmp_path / "results.json"),
        "inspect": ("inspect", store),
    }[command]
    refused(mtan("decathlon", *words), told)
    assert not (tmp_path / "new").exists() and not (tmp_path / "results.json").exists()


def test_a_folder_that_is_no_store_is_not_searched_to_its_ends(mtan: Mtan, tmp_path: Path) -> None:
    """A split two levels down belongs to another folder's store, and a whole disk takes minutes to walk."""
    deep = tmp_path / "project" / "store" / "dtd"
    deep.mkdir(parents=True)
    (deep / "train.arrow").touch()
    refused(mtan("decathlon", "inspect", tmp_path / "project"), "found none")
    refused(mtan("decathlon", "inspect", tmp_path / "project" / "store"), "half-written")
    refused(mtan("decathlon", "inspect", "/"), "found none: /.")


@pytest.mark.parametrize(
    "marker",
    [{}, {"domains": []}, {"domains": {}}, {"domains": ["svhn"]}, {"domains": {"svhn": []}},
     {"domains": {"svhn": "train"}}, {"domains": {"svhn": ["tran"]}}],
    ids=str,
)  # fmt: skip
def test_a_damaged_list_of_domains_is_refused(
    mtan: Mtan, challenge: Tiny, tmp_path: Path, marker: dict[str, object]
) -> None:
    (tmp_path / "svhn").symlink_to(challenge.store / "svhn")
    (tmp_path / "store.json").write_text(json.dumps({"format": 1, **marker}))
    refused(mtan("decathlon", "inspect", tmp_path), "store.json")


@pytest.mark.parametrize("command", ["evaluate", "submit", "inspect"])
def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    mtan: Mtan, challenge: Tiny, trained: Path, tmp_path: Path, command: str
) -> None:
    place = tmp_path / "folder.png"
    place.mkdir()
    words = {
        "evaluate": ("evaluate", trained, "--data", challenge.store, "--confusion", place),
        "submit": ("submit", trained, "--data", challenge.store, "--out", place),
        "inspect": ("inspect", challenge.store, "--figure", place),
    }[command]
    outcome = mtan("decathlon", *words)
    refused(outcome, f"found a folder: {place}")
    assert len(outcome.err.splitlines()) == 1  # no progress
    assert list(tmp_path.rglob("*")) == [place]


def test_outputs_of_another_kind_are_refused_before_any_work(
    mtan: Mtan, challenge: Tiny, trained: Path, tmp_path: Path
) -> None:
    refused(mtan("decathlon", "inspect", challenge.store, "--figure", tmp_path / "x.xyz"), ".png", "x.xyz")
    (tmp_path / "results.zip").mkdir()
    words = ("decathlon", "submit", trained, "--data", challenge.store, "--zip", "--out", tmp_path / "results.json")
    refused(mtan(*words), "results.zip")
    assert not (tmp_path / "results.json").exists()
    words = ("decathlon", "submit", trained, "--data", challenge.store, "--out", tmp_path / "mine.zip")
    refused(mtan(*words), "a JSON file (--zip writes the archive beside it)", "mine.zip")


def spoilt_store(challenge: Tiny, tmp_path: Path, kind: str) -> tuple[str, str]:
    """A store with this fault, and what is to be said of it."""
    store = tmp_path / "store"
    if kind == "no-uri":
        return "nowhere://store", "nowhere://store"
    if kind == "empty":
        store.mkdir()
    elif kind != "absent":
        shutil.copytree(challenge.store, store)
        marker = store / "store.json"
        if kind == "half":
            marker.unlink()
        elif kind == "version":
            marker.write_text(json.dumps(json.loads(marker.read_text()) | {"format": 99}))
        elif kind == "marker":
            marker.write_text('{"format')
        else:
            for file in store.rglob("*.arrow"):
                file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    told = {"half": "half-written", "version": "99", "marker": "store.json", "cut": ".arrow"}
    return str(store), told.get(kind, str(store))


def test_an_existing_run_is_not_overwritten(mtan: Mtan, challenge: Tiny, trained: Path, tmp_path: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in trained.rglob("*")}
    refused(mtan("decathlon", "train", "--data", challenge.store, "--run", trained, *tiny()), str(trained), "--resume")
    assert {file: file.stat().st_mtime_ns for file in trained.rglob("*")} == before
    (tmp_path / "file").write_text("mine")
    refused(mtan("decathlon", "train", "--data", challenge.store, "--run", tmp_path / "file", *tiny()), "file")
    assert (tmp_path / "file").read_text() == "mine"


def spoil(run: Path, kind: str) -> str:
    """Do this damage to a run; returns what is to be said of it."""
    last = RunFolder(run).checkpoint()
    weights, config = last / "weights.safetensors", run / "config.toml"
    if kind == "other network":
        config.write_text(config.read_text().replace("width = 1", "width = 2"))
        return "mis-shaped"
    if kind == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:-1000])
        return "weights.safetensors"
    if kind == "truncated header":
        weights.write_bytes(weights.read_bytes()[:5])
        return "weights.safetensors"
    if kind == "truncated state":
        (last / "state.json").write_text("{")
        return "state.json"
    if kind == "no checkpoint":
        shutil.rmtree(run / "checkpoints")
        return "train the run first"
    if kind == "no configuration":
        config.unlink()
        return "config.toml"
    if kind == "damaged configuration":
        config.write_text("seed = ")
        return "config.toml"
    return spoil_domains(run / "domains.json", kind)


def spoil_domains(file: Path, kind: str) -> str:
    """Do this damage to a run's list of domains; returns what is to be said of it."""
    document = json.loads(file.read_text())
    first = document["domains"][0]
    if kind == "domain without mean":
        del first["mean"]
    elif kind == "domain of another kind":
        first["mean"] = ["red", 0.5, 0.5]
    elif kind == "other version":
        document["format"] = 99
    texts = {"damaged domains": "[", "no list of domains": "[]"}
    file.write_text(texts.get(kind, json.dumps(document)))
    return {"other version": "99", "damaged domains": file.name, "no list of domains": file.name}.get(kind, "`mean")


DAMAGES = ("other network", "truncated weights", "truncated header", "no checkpoint", "no configuration",
           "damaged configuration", "damaged domains", "other version", "no list of domains", "domain without mean",
           "domain of another kind")  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("command", ["evaluate", "submit"])
def test_a_damaged_run_is_refused(
    mtan: Mtan, challenge: Tiny, trained: Path, tmp_path: Path, command: str, kind: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    told = spoil(run, kind)
    out = () if command == "evaluate" else ("--out", tmp_path / "results.json")
    refused(mtan("decathlon", command, run, "--data", challenge.store, *out), told)
    assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize("kind", ["truncated weights", "truncated state", "damaged configuration", "damaged domains"])
def test_a_damaged_run_is_not_resumed(mtan: Mtan, challenge: Tiny, tmp_path: Path, kind: str) -> None:
    run, steps = tmp_path / "run", [5]

    def stop() -> bool:
        steps[0] -= 1
        return steps[0] == 0

    with pytest.raises(Interrupted):
        train_tiny(challenge.store, run, stop=stop)
    told = spoil(run, kind)
    before = sorted(path.name for path in checkpoints(run / "checkpoints"))
    refused(mtan("decathlon", "train", "--data", challenge.store, "--run", run, "--resume"), told)
    assert sorted(path.name for path in checkpoints(run / "checkpoints")) == before


@pytest.mark.parametrize("content", ["[]", '{"format": 99}', "{"])
def test_a_damaged_summary_is_told(mtan: Mtan, challenge: Tiny, trained: Path, tmp_path: Path, content: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "summary.json").write_text(content)
    refused(mtan("decathlon", "train", "--data", challenge.store, "--run", run, "--resume"), "summary.json")
    assert (run / "summary.json").read_text() == content


@pytest.mark.parametrize("change", [{"best": 3}, {"position": {"stepp": 1}}], ids=str)
def test_a_damaged_state_is_told(
    mtan: Mtan, challenge: Tiny, trained: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "summary.json").unlink()
    file = RunFolder(run).checkpoint() / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    refused(mtan("decathlon", "train", "--data", challenge.store, "--run", run, "--resume"), "state.json")
    refused(mtan("decathlon", "evaluate", run, "--data", challenge.store, "--checkpoint", "best"), "state.json")


@pytest.mark.parametrize("command", ["evaluate", "submit"])
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--domains", "svnh"], "did you mean 'svhn'"),
        (["--domains", "svhn,svhn"], "once"),
        (["--checkpoint", "first"], "last or best"),
        (["--split", "tset"], "tset"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_about_what_to_answer(
    mtan: Mtan, challenge: Tiny, trained: Path, command: str, words: list[str], told: str
) -> None:
    refused(mtan("decathlon", command, trained, "--data", challenge.store, *words), told)


def test_a_domain_of_other_classes_is_refused(mtan: Mtan, challenge: Tiny, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    document = json.loads((run / "domains.json").read_text())
    document["domains"][1]["source"] = "mine"
    document["domains"][1]["class_names"] = ["x", "y", "z"]
    (run / "domains.json").write_text(json.dumps(document))
    refused(mtan("decathlon", "evaluate", run, "--data", challenge.store), "dtd", "classes")


def test_a_domain_without_training_images_is_named(mtan: Mtan, tmp_path: Path) -> None:
    from tests.decathlon.images import store_split

    store_split(tmp_path / "store", [])
    words = ("decathlon", "train", "--data", tmp_path / "store", "--run", tmp_path / "run", *tiny())
    refused(mtan(*words), "dtd", "training images")
    assert not (tmp_path / "run").exists()


def test_annotations_with_a_missing_key_are_refused(mtan: Mtan, challenge: Tiny, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for key in ("images", "categories", "annotations"):
        shutil.copytree(challenge.root, root)
        file = root / "annotations" / "dtd_train.json"
        document = json.loads(file.read_text())
        del document[key]
        file.write_text(json.dumps(document))
        outcome = mtan("decathlon", "prepare", root, tmp_path / "store", "--domains", "dtd")
        assert outcome.code == 2 and "Traceback" not in outcome.err
        assert "dtd_train.json" in outcome.err and key in outcome.err
        assert not (tmp_path / "store" / "store.json").exists()
        shutil.rmtree(root)


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk of so many KiB; skipped where that is not allowed."""
    mounted = []

    def make(kibibytes: int) -> Path:
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(place)]
        if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
            pytest.skip("needs the right to mount a small tmpfs")
        mounted.append(place)
        return place

    yield make
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


def full(outcome: Outcome) -> None:
    refused(outcome, "No space left on device")


def leftovers(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.name.startswith((".tmp-", ".old-"))]


def test_prepare_on_a_full_disk(mtan: Mtan, challenge: Tiny, small_disk: Callable[[int], Path], tmp_path: Path) -> None:
    """A domain takes 0.8 to 1.5 MB: the first one fits, the rest do not. With more room it goes on."""
    disk = small_disk(2000)
    outcome = mtan("decathlon", "prepare", challenge.root, disk / "store")
    full(outcome)
    assert f"{disk / 'store'}/" in outcome.err.splitlines()[-1]  # where
    with pytest.raises(UserError):
        open_store(disk / "store")
    finished = [folder for folder in (disk / "store").iterdir() if folder.is_dir() and folder.name[0] != "."]
    assert len(finished) < 3
    for file in (folder / f"{split}.arrow" for folder in finished for split in ("train", "val", "test")):
        assert file_metadata(file)["split"] == file.stem
    subprocess.run(["mount", "-o", "remount,size=20000k", str(disk)], check=True)
    assert mtan("decathlon", "prepare", challenge.root, disk / "store").code == 0
    for name in open_store(challenge.store).domains:
        for split in ("train", "val", "test"):
            made, wanted = (open_store(store).split(name, split) for store in (disk / "store", challenge.store))
            assert made.image_ids.tolist() == wanted.image_ids.tolist()
            assert all((made.image(i) == wanted.image(i)).all() for i in range(len(wanted)))


@pytest.mark.parametrize("kibibytes", [8, 300, 1700, 3700, 5300])
def test_train_on_a_full_disk(mtan: Mtan, challenge: Tiny, small_disk: Callable[[int], Path], kibibytes: int) -> None:
    """Whatever is written when it fills up, earlier checkpoints stay whole, and with more room the run goes on."""
    disk = small_disk(kibibytes)
    words = ("decathlon", "train", "--data", challenge.store, "--run", disk / "run", "--resume",
             *tiny("phases=[{epochs = 3}]", "ema=0.5"))  # fmt: skip
    full(mtan(*words))
    assert leftovers(disk) == []
    assert not (disk / "run" / "summary.json").exists()
    found = checkpoints(disk / "run" / "checkpoints")
    for checkpoint in found:
        assert read_tensors(checkpoint, "weights") and read_tensors(checkpoint, "training")
    if found:
        run = load_run(disk / "run")
        load_exactly(run.network, read_tensors(found[-1], "weights"), "here")
    subprocess.run(["mount", "-o", "remount,size=60000k", str(disk)], check=True)
    outcome = mtan(*words)
    assert outcome.code == 0, outcome.err
    assert (disk / "run" / "summary.json").exists()


def test_submit_on_a_full_disk(mtan: Mtan, challenge: Tiny, trained: Path, small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(8)
    (disk / "results.json").write_text("earlier")
    (disk / "filler").write_bytes(b"0" * 4096)
    full(mtan("decathlon", "submit", trained, "--data", challenge.store, "--out", disk / "results.json"))
    assert (disk / "results.json").read_text() == "earlier"
    assert leftovers(disk) == []


def test_a_full_disk_is_told_by_the_installed_command(
    challenge: Tiny, trained: Path, small_disk: Callable[[int], Path]
) -> None:
    """A thread or a library that prints a traceback of its own would show here."""
    disk = small_disk(900)
    words = [str(Path(sys.executable).with_name("mtan")), "decathlon", "train", "--data", str(challenge.store),
             "--run", str(disk / "run"), *tiny()]  # fmt: skip
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert run.returncode == 2 and "Traceback" not in run.stderr
    assert "No space left on device" in run.stderr.splitlines()[-1]


def test_a_damaged_checkpoint_is_refused_with_the_way_out(mtan: Mtan, challenge: Tiny, tmp_path: Path) -> None:
    """Following the advice, the run goes on from the older checkpoint and ends as the unbroken one."""
    words = ("phases.0.epochs=3", "checkpoint.keep=3")
    train_tiny(challenge.store, tmp_path / "whole", *words)
    asked = iter([False] * 7)
    with pytest.raises(Interrupted):
        train_tiny(challenge.store, tmp_path / "run", *words, stop=lambda: next(asked, True))
    older, last = checkpoints(tmp_path / "run" / "checkpoints")[-2:]
    file = last / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    resume = ("decathlon", "train", "--data", challenge.store, "--run", tmp_path / "run", "--resume")
    refused(mtan(*resume), str(file), f"delete the folder {last} to go on from {older.name}")
    shutil.rmtree(last)
    assert mtan(*resume).code == 0
    whole, again = (read_tensors(RunFolder(tmp_path / run).checkpoint(), "weights") for run in ("whole", "run"))
    assert all(value.numpy().tobytes() == again[name].numpy().tobytes() for name, value in whole.items())


def test_a_run_that_is_being_written_is_left_alone(mtan: Mtan, challenge: Tiny, tmp_path: Path) -> None:
    asked = iter([False])
    with pytest.raises(Interrupted):
        train_tiny(challenge.store, tmp_path / "run", stop=lambda: next(asked, True))
    resume = ("decathlon", "train", "--data", challenge.store, "--run", tmp_path / "run", "--resume")
    hold = "import sys, time; from pathlib import Path; from mtan_core.files import held\n"
    hold += "with held(Path(sys.argv[1]), 'a run'): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", hold, tmp_path / "run"], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        refused(mtan(*resume), "another process is writing", str(tmp_path / "run"))
        other.kill()
    assert mtan(*resume).code == 0


def test_a_finished_run_whose_checkpoints_are_gone_is_no_success(
    mtan: Mtan, challenge: Tiny, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    refused(mtan("decathlon", "train", "--data", challenge.store, "--run", tmp_path / "run", "--resume"), "found none")


def test_a_finished_run_whose_weights_are_damaged_is_finished_again(
    mtan: Mtan, challenge: Tiny, trained: Path, tmp_path: Path
) -> None:
    """The damage is told, not taken for success; following the advice ends in the same weights."""
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    older, last = checkpoints(run / "checkpoints")[-2:]
    whole = (last / "weights.safetensors").read_bytes()
    (last / "weights.safetensors").write_bytes(whole[:1000])
    resume = ("decathlon", "train", "--data", challenge.store, "--run", run, "--resume")
    refused(mtan(*resume), f"delete the folder {last} to go on from {older.name}")
    shutil.rmtree(last)
    assert mtan(*resume).code == 0
    assert (last / "weights.safetensors").read_bytes() == whole


def test_a_folder_of_other_things_is_not_made_a_store(mtan: Mtan, challenge: Tiny, tmp_path: Path) -> None:
    shutil.copytree(challenge.root, tmp_path / "root")
    before = sorted(tmp_path.rglob("*"))
    refused(
        mtan("decathlon", "prepare", tmp_path / "root", tmp_path / "root"), str(tmp_path / "root"), "something else"
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_another_checkpoint_format_is_refused_by_readers_too(
    mtan: Mtan, challenge: Tiny, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    state = RunFolder(tmp_path / "run").checkpoint() / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "format": 9}))
    refused(mtan("decathlon", "evaluate", tmp_path / "run", "--data", challenge.store), "format 1, found 9")


def test_domains_that_no_validation_tells_of_are_named(
    challenge: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(challenge.store, tmp_path / "store")
    marker = json.loads((tmp_path / "store" / "store.json").read_text())
    marker["domains"]["svhn"].remove("val")
    (tmp_path / "store" / "store.json").write_text(json.dumps(marker))
    summary = train_tiny(tmp_path / "store", tmp_path / "run")
    assert "no validation images of svhn; mean accuracies leave them out" in capsys.readouterr().err
    assert "svhn" not in summary["val_accuracy"]


def test_miniature_on_a_full_disk(mtan: Mtan, small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(300)
    outcome = mtan("decathlon", "miniature", disk / "mini", "--domains", "svhn")
    full(outcome)
    assert outcome.err.endswith(f": {disk / 'mini'}.\n")  # by its name, not by that of what was begun
    assert not list(disk.iterdir())
