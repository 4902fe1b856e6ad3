"""One domain's network as an ONNX file: uint8 images in, probabilities out, checked against the run before it is there."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from decathlon.runs import Run
from decathlon.single import SingleNetwork
from decathlon.views import normalise
from mtan_core.errors import UserError
from mtan_core.files import check_output, replacing

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
TOLERANCE = 1e-4  # largest difference of a probability
INPUT, OUTPUT = "images", "probabilities"
TIMED = 16  # images a batch when speed is measured
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Exported:
    """What was written, beside the full model: sizes in bytes, speeds in images per second on the CPU in fp32."""

    out: str
    domain: str
    checkpoint: str
    image_size: int
    classes: int
    parameters: int  # of the file, batch norms folded and with the statistics of the others
    full_parameters: int  # of all domains' network
    bytes: int
    full_bytes: int  # of the checkpoint's weights
    images_per_second: float  # by onnxruntime
    full_images_per_second: float  # by torch, `network(images, domain)`
    largest_difference: float  # between their probabilities, on the images of the check

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_export(out: Path) -> None:
    """Raises UserError, before any work, for a file that exists or cannot be, and for packages that are missing."""
    if out.exists() or out.is_symlink():
        raise UserError(f"--out: expected the name of a new file, found one that exists: {out}.")
    check_output(out, [".onnx"])
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(
            f"export: expected the packages {', '.join(PACKAGES)}, found no {', '.join(missing)}: "
            "install them by `pip install 'mtan-decathlon[export]'`."
        )


def export_domain(run: Run, domain: str, out: Path) -> Exported:
    """Write one domain's network alone to an ONNX file.

    Its input is `images`, uint8 RGB (batch, size, size, 3) at the run's image size, its output `probabilities` (batch,
    classes); classes, size and fit stand in its metadata. Raises UserError as `check_export` does, for an unknown domain,
    and where onnxruntime does not answer as the run does; then nothing is left behind.
    """
    check_export(out)
    spec, size = run.spec(domain), run.config.image_size
    if run.device.type != "cpu":
        raise ValueError(f"export_domain: expected a run on the CPU, found one on {run.device}.")
    single = SingleNetwork(run.network, spec)
    images = _check_images(size)
    with replacing(out) as temporary:
        parameters = _write(single, images, _metadata(run, domain), temporary)
        session = _session(temporary)
        answers = _torch_answers(run, domain)
        difference = _compare(session, answers, images, out)
        timed = np.resize(images, (TIMED, *images.shape[1:]))
        speed = _images_per_second(lambda: _onnx_answers(session, timed))
        full_speed = _images_per_second(lambda: answers(timed))
        written = temporary.stat().st_size
    weights = run.folder.checkpoint(run.choice) / "weights.safetensors"
    return Exported(
        str(out), domain, run.choice, size, spec.classes,
        parameters, sum(p.numel() for p in run.network.parameters()),
        written, weights.stat().st_size, speed, full_speed, difference,
    )  # fmt: skip


def _write(single: SingleNetwork, images: Pixels, metadata: dict[str, str], path: Path) -> int:
    """Export with a dynamic batch size; returns the number of parameters. torch's exporter folds batch norms.

    What it notes about the machine and the code that wrote the file is taken out.
    """
    import onnx

    program = torch.onnx.export(
        single, (torch.from_numpy(images[:2]),), dynamo=True, verbose=False, input_names=[INPUT], output_names=[OUTPUT],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
    )  # fmt: skip
    assert program is not None
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    onnx.save_model(model, path)
    return sum(math.prod(tensor.dims) for tensor in model.graph.initializer)


def _metadata(run: Run, domain: str) -> dict[str, str]:
    """What a user of the file needs to know: how images are made square, and what the classes are called."""
    spec = run.spec(domain)
    return {
        "domain": domain, "class_names": json.dumps(spec.class_names), "image_size": str(run.config.image_size),
        "fit": run.fit(domain), "colour": "RGB", "checkpoint": run.choice, "protocol": run.config.protocol,
    }  # fmt: skip


def _check_images(size: int, seed: int = 0) -> Pixels:
    """Images of all kinds for the check: noise, smooth shades, black and white (8, size, size, 3)."""
    random = np.random.default_rng(seed)
    noise = random.integers(0, 256, (3, size, size, 3))
    low = random.uniform(0, 255, (3, 4, 4, 3)).repeat(-(-size // 4), 1).repeat(-(-size // 4), 2)[:, :size, :size]
    flat = np.stack([np.zeros((size, size, 3)), np.full((size, size, 3), 255)])
    return np.concatenate([noise, low, flat]).astype(np.uint8)


def _session(path: Path) -> "InferenceSession":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _onnx_answers(session: "InferenceSession", images: Pixels) -> NDArray[np.float32]:
    answers: list[NDArray[np.float32]] = session.run([OUTPUT], {INPUT: images})
    return answers[0]


def _torch_answers(run: Run, domain: str) -> Callable[[Pixels], NDArray[np.float32]]:
    spec = run.spec(domain)

    @torch.inference_mode()
    def answers(images: Pixels) -> NDArray[np.float32]:
        return run.network(normalise(torch.from_numpy(images), spec), domain).softmax(1).numpy()

    return answers


def _compare(
    session: "InferenceSession", answers: Callable[[Pixels], NDArray[np.float32]], images: Pixels, out: Path
) -> float:
    """The largest difference, over batches of one and of several. Raises UserError for more than is tolerated, or NaN."""
    differences = [np.abs(_onnx_answers(session, part) - answers(part)).max() for part in (images[:1], images)]
    largest = float(np.max(differences))
    if not largest <= TOLERANCE:
        raise UserError(
            f"export: expected onnxruntime to answer as the run does, within {TOLERANCE:g}, found a difference of "
            f"{largest:.2g}: {out} was not written."
        )
    return largest


def _images_per_second(answer: Callable[[], object], seconds: float = 0.5) -> float:
    """By the fastest of several batches of `TIMED` images, as whatever else runs only slows them."""
    answer()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        begun = time.perf_counter()
        answer()
        times.append(time.perf_counter() - begun)
    return TIMED / min(times)
