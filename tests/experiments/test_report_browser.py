"""Reports in a real browser: nothing goes wrong, every figure is drawn and readable, tables sort, a phone is wide enough."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.report.build import write_report
from experiments.search.config import KIND, SearchConfig
from experiments.search.results import write_results
from experiments.search.space import points
from mtan_core.config import dump_config
from tests.decathlon.conftest import Tiny, challenge, trained
from tests.dense_tasks.conftest import root
from tests.dense_tasks.conftest import trained as dense_trained

__all__ = ["challenge", "dense_trained", "root", "trained"]

PAGES = ("decathlon", "dense")
PROBLEMS = """addEventListener("securitypolicyviolation", (event) => console.error("blocked " + event.blockedURI));"""
FIGURES = """() => [...document.querySelectorAll("figure")].map((figure) => {
  const image = figure.querySelector("img"), chart = figure.querySelector("svg"), box = (image || chart).getBoundingClientRect();
  return { told: image ? image.alt : chart.getAttribute("aria-label"), width: box.width, height: box.height,
    drawn: image ? image.naturalWidth : chart.querySelectorAll("rect, circle, polyline").length };
})"""
# The contrast of each text with the page's ground, after WCAG 2.1.
CONTRASTS = """() => {
  const part = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b); };
  const ground = light(getComputedStyle(document.body).backgroundColor);
  const against = (colour) => {
    const one = light(colour);
    return (Math.max(one, ground) + 0.05) / (Math.min(one, ground) + 0.05); };
  return [...document.querySelectorAll("svg text")].map((text) => against(getComputedStyle(text).fill))
    .concat([...document.querySelectorAll("p, td, th, dt, dd, figcaption, li, h2")].map((text) => against(getComputedStyle(text).color)));
}"""
COLUMN = "(rows, place) => rows.map((row) => row.cells[place].textContent)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window; tests are skipped where it is not installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("needs the browser chromium (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(
    challenge: Tiny, trained: Path, root: Path, dense_trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A page of a Decathlon run, a search and a sweep; and one of a dense run."""
    folder = tmp_path_factory.mktemp("pages")
    made = {name: folder / f"{name}.html" for name in PAGES}
    searched, swept = write_search(folder / "search"), write_sweep(folder / "sweep", trained, challenge)
    write_report([trained, searched, swept], made["decathlon"], str(challenge.store))
    write_report([dense_trained], made["dense"], str(root))
    return made


def write_search(folder: Path) -> Path:
    """A search of sixteen trials as it is left behind: some stopped, one failed."""
    folder.mkdir()
    space = {
        "optimizer.lr": {"log_uniform": [1e-4, 1e-1]}, "norm": {"choice": ["domain", "statistics"]},
        "weighting.kind": {"choice": ["equal", "dwa"]},
        "weighting.temperature": {"uniform": [1.0, 4.0], "when": {"weighting.kind": ["dwa"]}},
    }  # fmt: skip
    search: SearchConfig = KIND.parse({"preset": "small", "trials": 16, "space": space}, "test")
    trials = []
    for number, point in enumerate(points(search) or []):
        epochs = 0 if number == 4 else 2 if number % 3 else 6
        rows = [
            {"epoch": epoch, "metric": point["optimizer.lr"] * epoch + number / 100} for epoch in range(1, epochs + 1)
        ]
        trials.append({
            "trial": number, "point": point, "status": {0: "failed", 2: "stopped", 6: "finished"}[epochs],
            "error": None if epochs else "svhn: expected a finite loss, found nan", "seconds": 2.5 * epochs, "rows": rows,
        })  # fmt: skip
    write_results(folder, search, trials)
    (folder / "search.toml").write_text(dump_config(search))
    (folder / "search.json").write_text(json.dumps({"format": 1, "data": "store", "storage": None, "address": None}))
    return folder


def write_sweep(folder: Path, run: Path, challenge: Tiny) -> Path:
    """A sweep as it is left behind, with one finished training and one that failed."""
    shutil.copytree(run, folder / "runs" / "plain-0")
    (folder / "sweep.toml").write_text('seeds = [0]\nrows = [{name = "plain"}, {name = "diverging"}]\n')
    where = {"format": 1, "data": str(challenge.store), "storage": None, "address": None, "annotations": None}
    (folder / "sweep.json").write_text(json.dumps(where))
    failed = {"row": "diverging", "seed": 0, "run": "", "status": "failed", "error": "found nan"}
    (folder / "status.json").write_text(json.dumps([failed]))
    return folder


def opened(browser: Any, page: Path, width: int = 1100, scheme: str = "light") -> tuple[Any, list[str]]:
    """The page on a screen of that width, and what went wrong on it or was asked of the network."""
    shown = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
    problems: list[str] = []
    shown.on("console", lambda message: problems.append(message.text))
    shown.on("pageerror", lambda error: problems.append(str(error)))
    shown.on("request", lambda request: problems.append(request.url[:80])
             if not request.url.startswith((page.as_uri(), "data:")) else None)  # fmt: skip
    shown.add_init_script(PROBLEMS)
    shown.goto(page.as_uri())
    return shown, problems


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_figure_is_drawn_and_every_word_readable(
    browser: Any, pages: dict[str, Path], name: str, scheme: str
) -> None:
    page, problems = opened(browser, pages[name], scheme=scheme)
    figures, contrasts = page.evaluate(FIGURES), page.evaluate(CONTRASTS)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    page.context.close()
    assert problems == [] and dark == (scheme == "dark")
    assert len(figures) >= 20 and all(figure["told"] for figure in figures)
    assert [figure for figure in figures if not figure["drawn"] or figure["width"] < 30 or figure["height"] < 10] == []
    assert len(contrasts) > 200 and min(contrasts) >= 4.5


@pytest.mark.parametrize("name", PAGES)
def test_every_table_sorts_by_every_column(browser: Any, pages: dict[str, Path], name: str) -> None:
    page, problems = opened(browser, pages[name])
    page.evaluate("document.querySelectorAll('details').forEach((folded) => { folded.open = true; })")
    tables = page.query_selector_all("table")
    assert len(tables) >= (1 if name == "dense" else 5)
    for table in tables:
        for place, button in enumerate(table.query_selector_all("thead button")):
            orders = []
            for direction in ("ascending", "descending"):
                button.click()
                assert button.evaluate("(button) => button.closest('th').ariaSort") == direction
                orders.append(table.evaluate(f"(table) => ({COLUMN})([...table.tBodies[0].rows], {place})"))
            up, down = (key_of(column) for column in orders)
            assert up == sorted(up, key=str if any(isinstance(value, str) for value in up) else None)
            assert [down[-1 - at] for at in range(len(down))] == up
    page.context.close()
    assert problems == []


def key_of(column: list[str]) -> list[Any]:
    """A column's values without what is not known, which is always last."""
    known = [cell for cell in column if cell != "-"]
    assert column == known + ["-"] * (len(column) - len(known))
    try:
        return [float(cell.split("±")[0].strip(" %x~").removesuffix("%").replace(",", "")) for cell in known]
    except ValueError:
        return [cell.lower() for cell in known]


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_does_not_scroll_sideways(browser: Any, pages: dict[str, Path], name: str) -> None:
    page, problems = opened(browser, pages[name], width=390)
    wide = page.evaluate("document.documentElement.scrollWidth")
    page.context.close()
    assert problems == [] and wide <= 390


def test_it_is_printed_on_white_paper(browser: Any, pages: dict[str, Path]) -> None:
    page, _ = opened(browser, pages["decathlon"], scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    contrasts = page.evaluate(CONTRASTS)
    printed = page.pdf(format="A4")
    page.context.close()
    assert ground == "rgb(255, 255, 255)" and min(contrasts) >= 4.5
    assert printed.startswith(b"%PDF") and printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") >= 2
