"""The one direction of imports, and what the command loads before it knows what to do."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# mtan_core <- {decathlon, dense_tasks} <- experiments
MAY_IMPORT = {
    "mtan_core": {"mtan_core"},
    "decathlon": {"mtan_core", "decathlon"},
    "dense_tasks": {"mtan_core", "dense_tasks"},
    "experiments": {"mtan_core", "decathlon", "dense_tasks", "experiments"},
}
ONLY_IN_EXPERIMENTS = {"ray"}
HEAVY = (
    "torch",
    "torchvision",
    "ray",
    "matplotlib",
    "numpy",
    "pandas",
    "pyarrow",
    "sklearn",
    "scipy",
    "PIL",
    "h5py",
)
FILES = sorted(file for room in MAY_IMPORT for file in (ROOT / room).rglob("*.py"))


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(source: str) -> Iterator[str]:
    """The top-level packages that a source text imports anywhere, in functions too, by absolute name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def forbidden(room: str, source: str) -> set[str]:
    """Which imports of a source text in `room` go against the arrow."""
    names = set(imported(source))
    against = (names & (set(MAY_IMPORT) | {"tests"})) - MAY_IMPORT[room]
    return against | (names & ONLY_IN_EXPERIMENTS if room != "experiments" else set())


def test_every_room_has_modules() -> None:
    assert {module_name(file).split(".")[0] for file in FILES} == set(MAY_IMPORT)


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_nothing_imports_against_the_arrow(file: Path) -> None:
    assert forbidden(module_name(file).split(".")[0], file.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    ("room", "source", "found"),
    [
        ("mtan_core", "def f():\n    from decathlon.specs import DomainSpec", {"decathlon"}),
        ("decathlon", "import dense_tasks.losses, mtan_core.errors", {"dense_tasks"}),
        ("dense_tasks", "import ray.train", {"ray"}),
        ("decathlon", "from tests.decathlon import challenge", {"tests"}),
        ("experiments", "import ray, decathlon, dense_tasks", set()),
    ],
)
def test_the_scan_sees_what_it_is_for(room: str, source: str, found: set[str]) -> None:
    assert forbidden(room, source) == found


@pytest.mark.parametrize("name", [module_name(file) for file in FILES if file.stem != "__main__"])
def test_every_module_imports(name: str) -> None:
    assert importlib.import_module(name).__name__ == name


def loaded_by(words: list[str], names: Iterable[str]) -> tuple[subprocess.CompletedProcess[str], str]:
    """What a command leaves loaded of some modules."""
    program = f"""if True:
        import sys
        from experiments.cli import main
        sys.argv = ["mtan", *{words!r}]
        try:
            main()
        finally:
            print("loaded:", *(name for name in {tuple(names)!r} if name in sys.modules), file=sys.stderr)
    """
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    return run, run.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "words",
    [
        [], ["--help"], ["decathlon", "--help"], ["decathlon", "score", "--help"], ["dense", "--help"],
        ["experiments", "search", "--help"], ["experiments", "sweep", "--help"],
    ],
)  # fmt: skip
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    run, loaded = loaded_by(words, HEAVY)
    assert "Usage: mtan" in run.stdout + run.stderr
    assert loaded == "loaded:"


@pytest.mark.parametrize("room", ["decathlon", "dense"])
def test_work_in_one_room_never_loads_ray(room: str) -> None:
    run, loaded = loaded_by([room, "presets", "--json"], ("torch", "ray", "optuna"))
    assert run.returncode == 0 and run.stdout.startswith("{")
    assert loaded == "loaded: torch"


@pytest.mark.parametrize(
    ("words", "without"),
    [
        (["decathlon", "prepare", "nowhere", "store"], ("torch", "pandas", "ray")),
        (["decathlon", "inspect", "nowhere"], ("torch", "pandas", "ray")),
        (["decathlon", "evaluate", "nowhere", "--data", "nowhere"], ("torch._dynamo", "pandas", "ray")),
    ],
)
def test_a_mistake_need_not_wait_for_what_is_not_used(words: list[str], without: tuple[str, ...]) -> None:
    run, loaded = loaded_by(words, without)
    assert run.returncode == 2
    assert loaded == "loaded:"
