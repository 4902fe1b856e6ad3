"""The one exception for mistakes of the user's, the words it is made of, and that for their wish to stop."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A mistake of the user's, told in one sentence: what was expected, what was found, where.

    The command line prints it without a traceback and exits with code 2; from Python it is a ``ValueError``.
    """


class Interrupted(Exception):  # noqa: N818 -- an event, not an error
    """Somebody asked the run to stop; its state is safe in the checkpoint that `args[0]` names."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint at the known word that `word` was probably meant to be, e.g. `` (did you mean 'svhn'?)``, else all of them."""
    known = sorted(known)
    close = get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else f" (known: {', '.join(known)})"
