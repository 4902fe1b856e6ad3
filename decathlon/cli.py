"""All `mtan decathlon` commands: importing a module of `decathlon.commands` adds its commands to the one `app`."""

from decathlon.commands import app, data, domains, look, runs, score

__all__ = ["app", "data", "domains", "look", "runs", "score"]
