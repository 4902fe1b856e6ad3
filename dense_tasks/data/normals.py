"""Surface normals from depth and the camera: a plane is fitted around every pixel.

In the image of a plane inverse depth is an affine function of the pixel's place, so the fit is a linear one, and noise that
grows with the square of the depth, as that of structured light and of stereo does, weighs the same everywhere.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: focal lengths and principal point in pixels, the centre of the top left pixel at (0, 0)."""

    fx: float
    fy: float
    cx: float
    cy: float

    def resized(self, across: float, down: float) -> "Camera":
        """The camera of the image resized by these factors."""
        return Camera(self.fx * across, self.fy * down, (self.cx + 0.5) * across - 0.5, (self.cy + 0.5) * down - 0.5)


# The colour camera of NYUv2 at 640x480, onto which the labelled depth is projected (`camera_params.m` of its toolbox, which
# counts pixels from 1).
NYU_CAMERA = Camera(fx=518.85790117450188, fy=519.46961112127485, cx=325.58244941119034 - 1, cy=253.73616633400465 - 1)


def normals_from_depth(
    depth: np.ndarray, camera: Camera, radius: int | None = None, edge: float = 0.05, least: float = 0.2
) -> np.ndarray:
    """Unit normals (H, W, 3) float32, x to the right, y up, z to the camera; (0, 0, 0) where there are none.

    `depth` (H, W) along the optical axis, 0 undefined. The plane is fitted by least squares to the pixels at most `radius`
    away (default: a 48th of the height) whose inverse depth differs by less than the share `edge`, so that surfaces behind
    each other do not mix; a pixel has a normal if at least the share `least` of its window takes part, and not all on one line.
    """
    radius = max(2, round(depth.shape[0] / 48)) if radius is None else radius
    near = torch.from_numpy(np.where(depth > 0, 1 / np.where(depth > 0, depth, 1).astype(np.float64), 0))
    centre, across, down = _solve(_moments(near.float(), radius, edge), least * (2 * radius + 1) ** 2)
    height, width = near.shape
    x = torch.arange(width, dtype=torch.float64)[None, :]
    y = torch.arange(height, dtype=torch.float64)[:, None]
    # 1/Z = a (u - x) + b (v - y) + c with u = fx X/Z + cx, v = fy Y/Z + cy is the plane n P = 1 with these components;
    # the camera's y points down and its z away, and n points away from the camera.
    forward = across * (camera.cx - x) + down * (camera.cy - y) + torch.where(centre.isnan(), 0.0, near + centre)
    normals = torch.stack([-across * camera.fx, down * camera.fy, forward], dim=-1)
    lengths = normals.norm(dim=-1, keepdim=True)
    return torch.where(lengths > 0, normals / lengths.clamp(min=1e-300), 0.0).float().numpy()


def _moments(near: Float[Tensor, "h w"], radius: int, edge: float) -> Float[Tensor, "9 h w"]:
    """Sums over the pixels of each window that take part of 1, u, v, uu, uv, vv, q, uq, vq.

    (u, v) is the place within the window, q how much inverse depth differs from that of the middle. The first six are whole
    numbers, exact in fp32; rows are summed first, so that each pixel costs five sums and not nine.
    """
    height, width = near.shape
    padded = F.pad(near, (radius,) * 4)
    sums = torch.zeros(9, height, width)
    limit = edge * near
    for v in range(-radius, radius + 1):
        rows = torch.zeros(5, height, width)  # of 1, u, uu, q, uq
        for u in range(-radius, radius + 1):
            q = padded[radius + v : radius + v + height, radius + u : radius + u + width]
            difference = q - near
            takes_part = ((difference.abs() < limit) & (q > 0)).float()
            difference *= takes_part
            for row, part, moment in zip(rows, [takes_part] * 3 + [difference] * 2, (1, u, u * u, 1, u), strict=True):
                row.add_(part, alpha=moment)
        n, us, uus, qs, uqs = rows
        for total, row, moment in zip(
            sums, (n, us, n, uus, us, n, qs, uqs, qs), (1, 1, v, 1, v, v * v, 1, 1, v), strict=True
        ):
            total.add_(row, alpha=moment)
    return sums


def _solve(sums: Float[Tensor, "9 h w"], least: float) -> tuple[Tensor, Tensor, Tensor]:
    """Value in the middle (NaN where no plane can be fitted) and slopes across and down, by Cramer's rule."""
    n, u, v, uu, uv, vv, q, uq, vq = sums.double()
    cofactors = uu * vv - uv * uv, uv * v - u * vv, u * uv - uu * v
    determinant = n * cofactors[0] + u * cofactors[1] + v * cofactors[2]
    solvable = (n >= least) & (determinant > 0.5)  # a whole number, 0 where all points lie on a line
    divisor = torch.where(solvable, determinant, 1.0)
    centre = q * cofactors[0] + uq * cofactors[1] + vq * cofactors[2]
    across = q * cofactors[1] + uq * (n * vv - v * v) + vq * (u * v - n * uv)
    down = q * cofactors[2] + uq * (u * v - n * uv) + vq * (n * uu - u * u)
    across, down = (torch.where(solvable, part / divisor, 0.0) for part in (across, down))
    return torch.where(solvable, centre / divisor, torch.nan), across, down
