"""Similarity of a rendered view and the photograph over the visible pixels, as published and corrected.

Published numbers (Splatt3R tab. 1; docs/published.md 39, 40) come in two forms. "Plain" ones black out the
pixels that no input view sees in both pictures and average over the whole picture: the shared black makes
them too good. Numbers in parentheses average over the visible pixels, but sum the squared error over the
three channels without dividing by three, so their PSNR is 4.77 dB too low. Pictures are (H, W, 3) RGB in
[0, 1]; without pixels to count, a number is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from gsemsplat_ros.checkpoints.lpips import LPIPS
from gsemsplat_ros.evaluation.metrics import MIN_MSE, psnr

WINDOW = 11  # px of SSIM's Gaussian window
SIGMA = 1.5  # px
C1, C2 = 0.01**2, 0.03**2
COLOR_SCORES = (
    'psnr',
    'ssim',
    'lpips',
    'psnr_plain',
    'psnr_masked',
    'ssim_plain',
    'lpips_plain',
    'lpips_masked',
)


# (picture, truth) -> LPIPS at every pixel (H, W)
Perceptual = Callable[[np.ndarray, np.ndarray], np.ndarray]


def color_scores(
    picture: np.ndarray, truth: np.ndarray, visible: np.ndarray, perceptual: Perceptual | None = None
) -> dict[str, float]:
    """All numbers of one view; visible (H, W) bool.

    psnr: over all channels of the visible pixels; ssim: over pixels whose whole window is visible; lpips:
    over the visible pixels, with the invisible ones equal in both pictures. psnr_plain, ssim_plain,
    lpips_plain and psnr_masked, lpips_masked: as published, without and in parentheses.

    perceptual: (picture, truth) -> LPIPS at every pixel (H, W), or None to leave LPIPS out.
    """
    picture, truth = (np.clip(image, 0, 1).astype(np.float64) for image in (picture, truth))
    shown, wanted = picture * visible[..., None], truth * visible[..., None]
    scores = dict.fromkeys(COLOR_SCORES, float('nan'))
    everywhere = np.ones_like(visible)
    similarity = ssim_map(picture, truth)
    inner = cv2.erode(visible.astype(np.uint8), np.ones((WINDOW, WINDOW), np.uint8), borderValue=0).astype(
        bool
    )
    scores.update(
        psnr=psnr(picture, truth, visible),
        psnr_plain=psnr(shown, wanted, everywhere),
        ssim=float(similarity[inner].mean()) if inner.any() else float('nan'),
        ssim_plain=float(within(ssim_map(shown, wanted)).mean()),
    )
    if visible.any():
        # the published error sums over the channels
        summed = np.square(shown - wanted).sum() / np.count_nonzero(visible)
        scores['psnr_masked'] = float(-10 * np.log10(max(summed, MIN_MSE)))
    if perceptual:
        plain = perceptual(shown, wanted)
        scores['lpips_plain'] = float(plain.mean())
        if visible.any():
            scores['lpips_masked'] = float(plain[visible].mean())
            same_outside = np.where(visible[..., None], picture, truth)
            scores['lpips'] = float(perceptual(same_outside, truth)[visible].mean())
    return scores


def ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity (Wang et al. 2004) at every pixel (H, W), mean over the channels.

    Gaussian window of 11 px, sample covariance, data range 1, as in the published numbers (scikit-image).
    """

    def blur(image: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(image, (WINDOW, WINDOW), SIGMA, borderType=cv2.BORDER_REFLECT)

    count = WINDOW**2
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, cov = (
        count / (count - 1) * (blur(x * y) - mx * my)
        for x, y, mx, my in ((a, a, mean_a, mean_a), (b, b, mean_b, mean_b), (a, b, mean_a, mean_b))
    )
    values = ((2 * mean_a * mean_b + C1) * (2 * cov + C2)) / (
        (mean_a**2 + mean_b**2 + C1) * (var_a + var_b + C2)
    )
    return values.mean(-1)


def within(values: np.ndarray) -> np.ndarray:
    """`values` (H, W) without the border where windows reach beyond the picture."""
    edge = WINDOW // 2
    return values[edge:-edge, edge:-edge]


def load_lpips(path: str | Path, device: str | torch.device = 'cpu') -> Perceptual:
    """LPIPS (Zhang et al. 2018) with VGG features, as published: (picture, truth) -> (H, W).

    path: the public Splatt3R or GSemSplat file, which contains its weights (checkpoints/lpips.py); they are
    never fetched. Raises ValueError if the file or its weights are missing.
    """
    network = LPIPS.load(path).to(device)

    @torch.inference_mode()
    def measure(picture: np.ndarray, truth: np.ndarray) -> np.ndarray:
        a, b = (
            torch.from_numpy(image).permute(2, 0, 1)[None].float().to(device) for image in (picture, truth)
        )
        return network(a, b).reshape(picture.shape[:2]).cpu().numpy()

    return measure
