"""All `mtan dense` commands: importing a module of `dense_tasks.commands` adds its commands to the one `app`."""

from dense_tasks.commands import app, data, runs

__all__ = ["app", "data", "runs"]
