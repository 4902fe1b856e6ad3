"""Which nodes of a network a ladder taps: chosen by their names or by the sizes of their maps, and told where they do not fit."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import pairwise

from mtan_core.backbone_graph import Map, Maps
from mtan_core.errors import UserError
from mtan_core.pools import StageChannels

SHOWN = 24  # entries of a list that people are to read


def existing(node: str, maps: Maps, problem: str = "") -> str:
    """The node of that name, or a module's last. Raises UserError, with those that exist, where there is none."""
    if node in maps:
        return node
    inner = [name for name in maps if name.startswith(f"{node}.")]
    if inner:
        return inner[-1]
    paths = {name: None for node in maps for name in _paths(node)}
    close = [] if node.endswith("?") else get_close_matches(node, paths, n=1, cutoff=0.6)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    ended = f"; for images of this size it fails at one: {problem}" if problem else ""
    raise UserError(
        f"`network.nodes`: the network has no node '{node}' with a map{hint}{ended}; {listed(maps, _within(node, maps))}."
    )


def _paths(node: str) -> list[str]:
    """The node and the modules that it lies in."""
    parts = node.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _within(node: str, maps: Maps) -> str:
    """The innermost module on the way to a node that does not exist, "" for the whole network."""
    known = {path for name in maps for path in _paths(name)[:-1]}
    return next((path for path in reversed(_paths(node)[:-1]) if path in known), "")


def listed(maps: Maps, within: str = "") -> str:
    """The nodes and modules of a network, or of one of its modules, as deep as can be read in one sentence."""
    start = f"{within}." if within else ""
    inner = {name.removeprefix(start): found for name, found in maps.items() if name.startswith(start)}
    shown = _cut(inner, 1)
    for depth in range(2, 1 + max(len(name.split(".")) for name in inner)):
        if len(_cut(inner, depth)) > SHOWN:
            break
        shown = _cut(inner, depth)
    entries = _runs(shown) if len(shown) > SHOWN else _each(shown)
    told = f"{f'in {within} ' if within else ''}there are {', '.join(entries)}"
    if set(shown) == set(inner):
        return told
    module = start + next(name for name in shown if name not in inner)
    return f"{told} (a module stands for its last node; '{module}.?' as a node lists what is in it)"


def _cut(maps: Maps, depth: int) -> dict[str, Map]:
    """Modules of that depth, and nodes above it, each with its last map."""
    return {".".join(name.split(".")[:depth]): found for name, found in maps.items()}


def _each(shown: Maps) -> list[str]:
    return [f"{name} {found.channels}x{found.side}x{found.side}" for name, found in shown.items()]


def _runs(shown: Maps) -> list[str]:
    """Those that differ by a number only, such as `add`, `add_1`, ..., and are of one shape, in one entry."""
    runs: dict[tuple[str, Map], list[str]] = {}
    for name, found in shown.items():
        runs.setdefault((re.sub(r"_?\d+$", "", name), found), []).append(name)
    return [
        f"{names[0]}{f' ... {names[-1]}' if len(names) > 1 else ''} {found.channels}x{found.side}x{found.side}"
        for (_, found), names in runs.items()
    ]


def default_nodes(maps: Maps) -> list[str]:
    """For each size of maps the last module that gives it, as far as these sizes are each other's whole fractions.

    Modules are looked at as near the root as all sizes can be seen: blocks, not what is inside of them. Raises UserError
    for networks whose maps are all of one size.
    """
    sides, found, depth = {one.side for one in maps.values()}, dict[int, str](), 0
    while set(found) != sides:
        depth += 1
        ends = {".".join(name.split(".")[:depth]): name for name in maps}
        found = {maps[name].side: name for name in ends.values()}
    kept: list[str] = []
    for side in sorted(found):
        if not kept or shrink_of(side, maps[kept[0]].side):
            kept.insert(0, found[side])
    if len(kept) < 2:
        what = f"all of {kept[0]}'s size" if kept else "none"
        raise UserError(
            f"`pool`: expected a network whose maps of features change in size, found {what}: name the nodes to tap by "
            f"`network.nodes`{'; ' + listed(maps) if maps else ''}."
        )
    return kept


def shrink_of(side: int, after: int) -> int | None:
    """By which whole factor a map shrinks, rounded up or down; None where there is none."""
    factors = (factor for factor in (side // after, side // after + 1) if factor)
    return next((factor for factor in factors if after in (side // factor, -(-side // factor))), None)


def stages_of(names: Sequence[str], maps: Maps) -> list[StageChannels]:
    """The stages of these nodes. Raises UserError where a ladder cannot get from one to the next."""
    stages = []
    for name, following in pairwise(names):
        (channels, side, _), after = maps[name], maps[following].side
        shrink = shrink_of(side, after)
        if shrink is None:
            raise UserError(
                f"`network.nodes`: expected maps that shrink by whole factors, found {name} of {side}x{side} before {following} "
                f"of {after}x{after}; {listed(maps)}."
            )
        stages.append(StageChannels(channels, channels, shrink, round_up=after > side // shrink))
    last = maps[names[-1]].channels
    return [*stages, StageChannels(last, last, 1)]
