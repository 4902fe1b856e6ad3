"""Checkpoints of the MTAN authors' dense networks (`im2im_pred/model_segnet_*.py`), read by name and shape."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dense_tasks.networks import build_network
from mtan_core.checkpoint import misfits
from mtan_core.dense import DenseNetwork
from mtan_core.errors import UserError
from mtan_core.state_dicts import read_state_dict

AUTHORS_TASKS = ("semantic", "depth", "normal")  # in the order of their heads
STATISTICS = {"running_mean": "mean", "running_var": "var"}
LOG_VARIANCES, STITCHES = "logsigma", {"cs_unit_encoder": "stitches_down", "cs_unit_decoder": "stitches_up"}


@dataclass(frozen=True)
class Imported:
    """An authors' network: what it is, and the log-variances of its uncertainty weighting, which belong to the weighting here."""

    network: DenseNetwork
    method: str
    tasks: dict[str, int]  # output channels
    filters: tuple[int, ...]
    log_variances: dict[str, float] | None  # None: a network of one task has none


def import_network(file: Path, task: str | None = None) -> Imported:
    """The network of a plain state dict of the authors', in evaluation mode, with all their oddities (`paper`).

    Its layout is theirs, too: normals are made unit vectors, and near-zero outputs turn rounding into angles.

    Method, widths and output channels are read off names and shapes. `task` names the task of a network of one; without
    it 1 channel means depth, 3 the normals, others the semantic classes. Raises UserError for a file that is no state dict,
    and, with the names that are missing, extra and mis-shaped, for one that is not such a network's.
    """
    return imported(read_state_dict(file), str(file), task)


def imported(state: Mapping[str, Tensor], where: str, task: str | None = None) -> Imported:
    """The network of these weights, see `import_network`."""
    state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    filters = _filters(state, where)
    method = _method(state, filters)
    tasks = _tasks(state, where, task)
    log_variances = _log_variances(state, list(tasks), where)
    network = build_network(method, tasks, paper=True, filters=filters, channels_last=False)
    names = _Names(
        list(tasks),
        len(filters),
        alone="pred_task.0.weight" in state,
        deep=method == "split-deep",
        streams=method in ("dense", "cross-stitch"),
    )
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        if name in STITCHES:
            renamed |= {f"{STITCHES[name]}.{level}.weight": row[None] for level, row in enumerate(value)}
        elif name != LOG_VARIANCES:
            renamed[names.ours(name)] = value
    expected = {name: value.shape for name, value in network.state_dict().items()}
    theirs = {names.ours(name): name for name in (*names.theirs(), *state)}
    problems = misfits(
        {theirs.get(name, name): shape for name, shape in expected.items()},
        {theirs.get(name, name): value for name, value in renamed.items()},
    )
    if problems:
        raise UserError(f"{where}: expected the weights of the authors' SegNet ({method}); {problems}.")
    network.load_state_dict(renamed)
    return Imported(network.eval(), method, tasks, filters, log_variances)


@dataclass(frozen=True)
class _Names:
    """Our names for the authors'.

    `alone`: of a network of one task; `deep`: with twice as many convolutions before the gate; `streams`: with a SegNet for
    each task, whose stages the authors write as one block.
    """

    tasks: Sequence[str]
    levels: int
    alone: bool = False
    deep: bool = False
    streams: bool = False

    def ours(self, name: str) -> str:
        """A name that is none of theirs stays as it is, so that it is told as extra."""
        for pattern, rename in (
            (r"(en|de)coder_block\.(\d+)\.(\d+)\.(\w+)", self._first),
            (r"conv_block_(enc|dec)\.(\d+)(?:\.(\d+))?\.(\d+)\.(\w+)", self._rest),
            (r"(en|de)coder_block_t\.(\d+)\.(\d+)\.(\d+)\.(\w+)", self._stream),
            (r"(en|de)coder_att\.(\d+)\.(\d+)\.([0134])\.(\w+)", self._mask),
            (r"(en|de)coder_block_att\.(\d+)\.([01])\.(\w+)", self._carry),
            (r"pred_task(\d?)\.([01])\.(\w+)", self._head),
        ):
            found = re.fullmatch(pattern, name)
            if found:
                ours = rename(*found.groups())
                return f"own.{self.tasks[0]}.{ours}" if self.alone else ours
        return name

    def theirs(self) -> Iterator[str]:
        """All of their names, and more that no network has."""
        leaves = ("weight", "bias", *STATISTICS)
        tasks, levels = range(len(self.tasks)), range(self.levels)
        rows = [f".{place}.{leaf}" for place in range(9) if place % 3 < 2 for leaf in leaves]
        heads = ["pred_task"] if self.alone else [f"pred_task{number + 1}" for number in tasks]
        begins = [f"{side}coder_block.{level}" for side in ("en", "de") for level in levels]
        begins += [f"{side}coder_block_att.{level}" for side in ("en", "de") for level in levels]
        for part in ("block_t", "att"):
            begins += [f"{side}coder_{part}.{t}.{level}" for side in ("en", "de") for t in tasks for level in levels]
        for level in levels if not self.streams else ():
            blocks = [""] if level < 2 else [".0", ".1"]  # the two finest levels have one block
            begins += [f"conv_block_{side}.{level}{block}" for side in ("enc", "dec") for block in blocks]
        yield from (begin + row for begin in [*begins, *heads] for row in rows)

    def _task(self, number: str) -> str:
        return self.tasks[int(number)] if int(number) < len(self.tasks) else number

    def _first(self, side: str, level: str, place: str, leaf: str) -> str:
        return f"pool.{side}coder.{level}.convs.{_conv_norm(int(place), leaf)}"

    def _rest(self, side: str, level: str, block: str | None, place: str, leaf: str) -> str:
        each = 2 if self.deep else 1
        return f"pool.{side[:2]}coder.{level}.convs.{_conv_norm(int(place), leaf, each * (1 + int(block or 0)))}"

    def _stream(self, side: str, task: str, level: str, place: str, leaf: str) -> str:
        return f"own.{self._task(task)}.{side}coder.{level}.convs.{_conv_norm(int(place), leaf)}"

    def _mask(self, side: str, task: str, level: str, place: str, leaf: str) -> str:
        part = {"0": "conv1", "1": "norm1", "3": "conv2", "4": "norm2"}[place]
        return f"{self._stage(side, level)}.masks.{self._task(task)}.{part}.{_in_norm(leaf) if place in '14' else leaf}"

    def _carry(self, side: str, level: str, place: str, leaf: str) -> str:
        return f"{self._stage(side, level)}.{_conv_norm(int(place), leaf).split('.', 1)[1]}"

    def _stage(self, side: str, level: str) -> str:
        """A stage of the ladder; the authors number the decoder's from the finest."""
        return f"ladder.stages.{level}" if side == "en" else f"ladder.upward.{self.levels - 1 - int(level)}"

    def _head(self, number: str, place: str, leaf: str) -> str:
        return f"heads.{self._task(str(int(number or 1) - 1))}.conv{int(place) + 1}.{leaf}"


def _conv_norm(place: int, leaf: str, before: int = 0) -> str:
    """Of a row (convolution, batch norm, ReLU, ...): the number of the convolution, and the leaf in it or in its batch norm."""
    part = f"norm.{_in_norm(leaf, '.shared')}" if place % 3 else f"conv.{leaf}"
    return f"{before + place // 3}.{part}"


def _in_norm(leaf: str, shared: str = "") -> str:
    return f"statistics{shared}.{STATISTICS[leaf]}" if leaf in STATISTICS else f"affine{shared}.{leaf}"


def _filters(state: Mapping[str, Tensor], where: str) -> tuple[int, ...]:
    """The stages' channels, off the encoder's first convolutions."""
    found: dict[int, int] = {}
    for name, value in state.items():
        level = re.fullmatch(r"encoder_block(?:_t\.0)?\.(\d+)\.0\.weight", name)
        if level and value.ndim == 4:
            found[int(level[1])] = value.shape[0]
    if len(found) < 2 or sorted(found) != list(range(len(found))):
        raise UserError(
            f"{where}: expected the weights of one of the authors' SegNets, found no encoder of theirs "
            "(encoder_block.0.0.weight, ... or encoder_block_t.0.0.0.weight, ...)."
        )
    return tuple(found[level] for level in range(len(found)))


def _method(state: Mapping[str, Tensor], filters: Sequence[int]) -> str:
    attention, alone = "encoder_att.0.0.0.weight" in state, "pred_task.0.weight" in state
    if "cs_unit_encoder" in state:
        return "cross-stitch"
    if "encoder_block_t.0.0.0.weight" in state:
        return "dense"
    if alone:
        return "stan" if attention else "single"
    if attention:
        return "mtan"
    if "encoder_block.0.3.weight" in state:
        return "split-deep"
    return "split-wide" if filters[-1] > filters[-2] else "split-standard"


def _tasks(state: Mapping[str, Tensor], where: str, task: str | None) -> dict[str, int]:
    """Output channels by task, off the heads."""
    if "pred_task.1.weight" in state:
        channels = len(state["pred_task.1.weight"])
        return {task or {1: "depth", 3: "normal"}.get(channels, "semantic"): channels}
    heads = [f"pred_task{number}.1.weight" for number, _ in enumerate(AUTHORS_TASKS, 1)]
    missing = [head for head in heads if head not in state]
    if missing:
        raise UserError(
            f"{where}: expected the heads of the authors' SegNet (pred_task or {', '.join(heads)}), found no {missing[0]}."
        )
    if task:
        raise UserError(f"--task: expected a network of one task to name it, found one of {len(heads)}: {where}.")
    return {name: len(state[head]) for name, head in zip(AUTHORS_TASKS, heads, strict=True)}


def _log_variances(state: Mapping[str, Tensor], tasks: Sequence[str], where: str) -> dict[str, float] | None:
    if len(tasks) == 1:
        return None
    values = state.get(LOG_VARIANCES)
    if values is None or values.shape != (len(tasks),):
        found = "none" if values is None else f"a tensor of shape {tuple(values.shape)}"
        raise UserError(f"{where}: expected {len(tasks)} log-variances ({LOG_VARIANCES}), found {found}.")
    return dict(zip(tasks, values.tolist(), strict=True))
