"""What `prepare` tells: the state of every domain, and the problems."""

import json
import sys
from pathlib import Path
from typing import Any

from decathlon.data.prepare import Outcome
from decathlon.data.problems import PROBLEMS, summary
from decathlon.data.store import file_metadata
from mtan_core.errors import UserError
from mtan_core.files import write_json


def tell_outcome(outcome: Outcome, store: Path, as_json: bool) -> None:
    """Print a pass's outcome and leave all its problems in `STORE/problems.json`. Raises UserError where a domain failed."""
    listed = store / PROBLEMS
    problems = [problem.to_dict() for problem in outcome.problems]
    if problems:
        write_json(listed, problems, indent=1)
        print(f"{summary(outcome.problems)}\n  all of them: {listed}", file=sys.stderr)
    else:
        listed.unlink(missing_ok=True)
    if as_json:
        print(json.dumps(_document(outcome, store, problems), allow_nan=False))
    else:
        _print_states(outcome, store)
    failed = [name for name, state in outcome.states.items() if state == "failed"]
    if failed:
        raise UserError(
            f"Expected files without problems, found some in {', '.join(failed)}: mend them and run the same again, "
            f"or leave images out with --on-error skip; finished domains are kept in {store}."
        )


def _document(outcome: Outcome, store: Path, problems: list[dict[str, str]]) -> dict[str, Any]:
    domains = {
        name: {"state": state, "skipped": _skipped(store, name, state)} for name, state in outcome.states.items()
    }
    return {
        "store": str(store),
        "domains": domains,
        "images": outcome.images,
        "seconds": outcome.seconds,
        "problems": problems,
    }


def _print_states(outcome: Outcome, store: Path) -> None:
    for name, state in outcome.states.items():
        skipped = _skipped(store, name, state)
        print(f"{name:15} {state}{f', {skipped} left out' if skipped else ''}")
    rate = outcome.images / outcome.seconds if outcome.seconds else 0
    print(f"{outcome.images} images in {outcome.seconds:.1f} s ({rate:.0f} images/s): {store}")


def _skipped(store: Path, name: str, state: str) -> int | None:
    return file_metadata(store / name / "train.arrow")["skipped"] if state in ("prepared", "kept") else None
