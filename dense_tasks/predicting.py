"""What a dense run says of single image files: a picture for each, beside what is predicted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dense_tasks.data.arrays import ArrayError, image_array, image_problem
from dense_tasks.data.resizing import resize_image
from dense_tasks.drawing import Drawn, draw_masks, draw_predictions
from dense_tasks.runs import DenseRun
from mtan_core.errors import UserError
from mtan_core.images import find_images, read_pixels
from mtan_core.progress import late_progress
from mtan_core.step import autocast

ARRAY = ".npy"  # the ending of a root's images


def predict_files(run: DenseRun, paths: Sequence[Path], out: Path, masks: bool = False) -> list[dict[str, Any]]:
    """Write `<name>.png` (and with `masks` `<name>-masks.png`) into `out` for every image file; folders stand for theirs.

    An image may also be an npy file, as a root holds it.

    An image is resized to the run's size (an imported run's: the nearest sides that the network can take). Raises UserError,
    before anything is written, for what is no image, for two that would be written under one name, for an image that would be
    overwritten, and for masks of a network without any.
    """
    files = find_images(paths, also=[ARRAY])
    _refuse_collisions(files, out, masks)
    if masks:
        _refuse_without_masks(run)
    for file in files:
        _read(file)
    told = []
    with late_progress("predicting", total=len(files)) as advance:
        for file in files:
            told.append(_predict(run, file, _read(file), out, masks))
            advance(note=file.name)
    return told


def _read(file: Path) -> np.ndarray:
    """An image (H, W, 3): bytes, or real numbers in [0, 1]. Raises UserError for what is none."""
    if file.suffix.lower() != ARRAY:
        return read_pixels(file)
    try:
        image = image_array(file)
        if problem := image_problem(image):
            raise ArrayError(problem)
    except ArrayError as problem:
        raise UserError(f"Expected an image, found {problem}: {file}.") from None
    return image


def _pictures(file: Path, out: Path, masks: bool) -> list[Path]:
    """The files that are written for an image."""
    return [out / f"{file.stem}.png"] + ([out / f"{file.stem}-masks.png"] if masks else [])


def _refuse_collisions(files: Sequence[Path], out: Path, masks: bool) -> None:
    written: dict[Path, Path] = {}
    images = {file.resolve() for file in files}
    for file in files:
        for picture in _pictures(file, out, masks):
            if picture.resolve() in images:
                raise UserError(
                    f"--out: expected another folder than the images', found that {picture} is one of them."
                )
            if picture in written:
                raise UserError(
                    f"Expected images of different names, found {written[picture]} and {file}, both for {picture.name}."
                )
            written[picture] = file


@torch.inference_mode()
def _refuse_without_masks(run: DenseRun) -> None:
    size = run.facts.size or (run.network.raw.divisor,) * 2
    run.network.raw.masks(torch.zeros(1, 3, *size, device=run.device))


@torch.inference_mode()
def _predict(run: DenseRun, file: Path, pixels: np.ndarray, out: Path, masks: bool) -> dict[str, Any]:
    size = run.facts.size or _fitting(pixels.shape[:2], run.network.raw.divisor)
    image = resize_image(pixels, size).astype(np.float32)
    batch = torch.from_numpy(image).permute(2, 0, 1)[None].to(run.device)
    with autocast(run.device, run.config.precision):
        outputs = run.network(batch)
        drawn_masks = run.network.raw.masks(batch) if masks else {}
    predictions = {name: _array(output) for name, output in outputs.items()}
    picture, *figures = _pictures(file, out, masks)
    draw_predictions(picture, [Drawn(file.name, image, predictions)], run.facts.tasks, str(run.folder.path))
    written = {"image": str(file), "figure": str(picture), "size": list(size)}
    for figure in figures:
        by_task = {task: [_array(mask).mean(0) for mask in stages] for task, stages in drawn_masks.items()}
        draw_masks(figure, file.name, image, by_task)
        written["masks"] = str(figure)
    return written


def _array(output: Tensor) -> np.ndarray:
    return output[0].float().cpu().numpy()


def _fitting(sides: tuple[int, ...], divisor: int) -> tuple[int, int]:
    """The nearest sides that the divisor divides."""
    height, width = (max(divisor, round(side / divisor) * divisor) for side in sides)
    return height, width
