"""The work of `report`: runs are found, read and written as one page."""

from collections.abc import Sequence
from pathlib import Path

from experiments.compare.comparison import compare
from experiments.compare.measured import Measured, kind_of, read_runs
from experiments.report import parts
from experiments.report.common import name_of, side_by_side
from experiments.report.parts import Section
from experiments.report.search_parts import is_search, search_parts
from experiments.report.sweep_parts import is_sweep, sweep_parts
from mtan_core.errors import UserError
from mtan_core.files import check_output, write_text


def write_report(
    paths: Sequence[Path], out: Path, data: str | None = None, title: str = "", annotations: Path | None = None
) -> list[Path]:
    """Write the page of these runs, searches and sweeps (or of all runs in these folders); returns their folders.

    Raises UserError, before anything is written, for what is no run, an unfinished run, and data that are not the runs'.
    """
    check_output(out, [".html", ".htm"])
    searches, sweeps = [path for path in paths if is_search(path)], [path for path in paths if is_sweep(path)]
    folders = find_runs([path for path in paths if path not in searches])
    runs = [run for kind in ("decathlon", "dense") for run in _of_kind(folders, kind, annotations)]
    if data is not None and len({run.kind for run in runs}) > 1:
        raise UserError("--data: expected runs of one kind, found Decathlon and dense ones: make a report of each.")
    sections = [Section(f"Search {name_of(path)}", search_parts(path)) for path in searches]
    sections += [Section(f"Table {name_of(path)}", sweep_parts(path)) for path in sweeps]
    lone = [run for run in runs if not any(path.resolve() in run.path.resolve().parents for path in sweeps)]
    sections += [
        section for kind in ("decathlon", "dense") for section in _compared([r for r in lone if r.kind == kind])
    ]
    sections += [Section(name_of(run.path), _parts(run, data)) for run in runs]
    names = [name_of(path) for path in [*searches, *sweeps, *(run.path for run in lone)]]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    write_text(out, _page(title or f"Report of {', '.join(names[:3])}{more}", sections))
    return [*searches, *folders]


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The runs named, and those in folders named, up to two levels deep (of a sweep: those that are finished).

    Raises UserError for a folder without any.
    """
    found: list[Path] = []
    for path in paths:
        inside = [path] if (path / "config.toml").is_file() else sorted(
            config.parent for pattern in ("*/config.toml", "*/*/config.toml") for config in path.glob(pattern)
            if not is_sweep(path) or (config.parent / "summary.json").is_file()
        )  # fmt: skip
        if not inside:
            raise UserError(f"Expected a run's folder (with config.toml), or one that holds some, found {path}.")
        found += [run for run in inside if run not in found]
    return found


def _of_kind(folders: Sequence[Path], kind: str, annotations: Path | None) -> list[Measured]:
    own = [path for path in folders if kind_of(path) == kind]
    return read_runs(own, annotations) if own else []


def _compared(runs: Sequence[Measured]) -> list[Section]:
    """Several runs are set side by side first."""
    if len(runs) < 2:
        return []
    try:
        found = compare(runs)
    except UserError as problem:
        return [Section("Side by side", [parts.note(f"Not compared: {problem}", warning=True)])]
    return [Section("Side by side", side_by_side(found))]


def _parts(run: Measured, data: str | None) -> list[parts.Part]:
    if run.kind == "decathlon":
        from experiments.report.decathlon_runs import decathlon_parts

        return decathlon_parts(run, data)
    from experiments.report.dense_runs import dense_parts

    return dense_parts(run, data)


def _page(title: str, sections: Sequence[Section]) -> str:
    from importlib.metadata import version

    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("experiments.report", "."), autoescape=True, trim_blocks=True, undefined=StrictUndefined
    )
    subtitle = f"Written by mtan {version('mtan-decathlon')}. Accuracies are of validation images, unless it is said."
    return environment.get_template("page.html.j2").render(title=title, subtitle=subtitle, sections=sections)
