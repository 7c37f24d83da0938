"""The effects of a random camera on its images: from the lens to the JPEG file."""

from __future__ import annotations

import cv2
import numpy as np

GRAY_SHARE = 0.35  # share of the rooms seen by a gray camera
DISPLAY = 2.2  # exponent from displayed to linear values
BAYER = (  # the pattern's colours of pixels (0, 0), (0, 1), (1, 0), (1, 1): red 0, green 1, blue 2
    ((0, 1, 1, 2), cv2.COLOR_BayerRGGB2RGB),
    ((2, 1, 1, 0), cv2.COLOR_BayerBGGR2RGB),
    ((1, 0, 2, 1), cv2.COLOR_BayerGRBG2RGB),
    ((1, 2, 0, 1), cv2.COLOR_BayerGBRG2RGB),
)


class Sensor:
    """The effects of one random camera; none moves a pixel but the residual lens distortion.

    A plain camera has residual lens distortion after calibration, vignetting, exposure, tone curve, blur,
    noise, and is sometimes gray. A photographic one also has a colour cast, bloom, motion blur and defocus, a
    Bayer mosaic whose noise grows with the signal, sharpening, JPEG, and if gray black borders as left by
    rectification.
    """

    def __init__(self, rng: np.random.Generator, photographic: bool):
        self.rng, self.photographic = rng, photographic
        self.gain, self.gamma = rng.uniform(0.7, 1.3), rng.uniform(0.8, 1.25)
        self.balance = rng.normal(1, 0.05, 3)
        self.blur, self.noise = max(0.0, rng.normal(0.2, 0.4)), rng.uniform(0, 0.025)
        self.gray = rng.random() < GRAY_SHARE
        # share of the radius at the corners: about a pixel
        self.residual = np.clip(rng.normal(0, 0.003), -0.006, 0.006)
        self.falloff = rng.uniform(0, 0.35)  # share of the light lost at the corners
        if not photographic:
            return
        cast = rng.normal(0, 0.08)  # from bluish to yellowish
        self.balance = self.balance * (1 + cast, 1, 1 - cast)
        self.bloom = rng.uniform(0, 0.5)
        self.motion = rng.uniform(0, 6) if rng.random() < 0.3 else 0.0  # longest, px
        self.defocus = rng.uniform(0.5, 2) if rng.random() < 0.2 else 0.0  # radius, px
        self.bayer = int(rng.integers(len(BAYER)))
        # standard deviations, of linear values, in the dark and of white
        self.read, self.shot = 0.004 * rng.random() ** 2, 0.05 * rng.random() ** 2
        self.sharpening = max(0.0, rng.normal(0.4, 0.4))
        self.quality = int(rng.integers(40, 96)) if rng.random() < 0.8 else 0  # of JPEG; 0: not compressed
        self.border = rng.uniform(0, 0.04, 4) * (rng.random() < 0.5)  # shares of height and width

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Apply the effects to an image (H, W, 3) uint8 RGB; the result has the same shape and type."""
        height, width = rgb.shape[:2]
        v, u = (
            np.mgrid[:height, :width].astype(np.float32)
            - np.array([height - 1, width - 1])[:, None, None] / 2
        )
        r2 = (u**2 + v**2) / ((height**2 + width**2) / 4)
        stretch = 1 + self.residual * r2
        x = cv2.remap(
            rgb,
            (u * stretch + (width - 1) / 2).astype(np.float32),
            (v * stretch + (height - 1) / 2).astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        x = x / np.float32(255)
        if self.photographic:
            x = self.through_the_lens(x)
        gain = self.gain * (1 - self.falloff * r2**2)[..., None]
        x = np.clip(x * gain * self.balance, 0, 1) ** self.gamma
        if self.blur > 0.2:
            x = cv2.GaussianBlur(x, (0, 0), self.blur)
        if self.photographic:
            return self.developed(x.astype(np.float32))
        if self.gray:
            x = np.repeat((x @ (0.299, 0.587, 0.114))[..., None], 3, 2)
            x += self.rng.normal(0, self.noise, x.shape[:2])[..., None]
        else:
            x += self.rng.normal(0, self.noise, x.shape)
        return _bytes(x)

    def through_the_lens(self, x: np.ndarray) -> np.ndarray:
        """Bloom of what is overexposed, motion blur and defocus of (H, W, 3) in [0, 1]."""
        bright = cv2.resize(np.maximum(x - 0.9, 0), None, fx=0.125, fy=0.125, interpolation=cv2.INTER_AREA)
        glow = cv2.GaussianBlur(bright, (0, 0), 3, borderType=cv2.BORDER_REPLICATE)
        x = x + 10 * self.bloom * cv2.resize(glow, x.shape[1::-1])
        length, angle = self.motion * self.rng.random(), self.rng.uniform(0, np.pi)
        if length > 1:
            x = cv2.filter2D(x, -1, _line(length, angle), borderType=cv2.BORDER_REPLICATE)
        if self.defocus:
            x = cv2.filter2D(x, -1, _disc(self.defocus), borderType=cv2.BORDER_REPLICATE)
        return x

    def developed(self, x: np.ndarray) -> np.ndarray:
        """Mosaic, noise, demosaicing, sharpening, borders and JPEG of (H, W, 3) in [0, 1]: uint8."""
        linear = np.clip(x, 0, 1) ** DISPLAY
        if self.gray:
            raw = linear @ np.array([0.299, 0.587, 0.114], np.float32)
        else:
            colors, code = BAYER[self.bayer]
            raw = np.empty(x.shape[:2], np.float32)
            for k, color in enumerate(colors):
                raw[k // 2 :: 2, k % 2 :: 2] = linear[k // 2 :: 2, k % 2 :: 2, color]
        raw = raw + self.rng.standard_normal(raw.shape, np.float32) * np.sqrt(
            self.read**2 + self.shot**2 * raw
        )
        raw = (np.clip(raw, 0, 1) * 65535).astype(np.uint16)
        x = np.repeat(raw[..., None], 3, 2) if self.gray else cv2.demosaicing(raw, code)
        x = (x / np.float32(65535)) ** np.float32(1 / DISPLAY)
        if self.sharpening:
            x = x + self.sharpening * (x - cv2.GaussianBlur(x, (0, 0), 1.0))
        if self.gray:
            x = self.bordered(x)
        out = _bytes(x)
        if self.quality:
            data = cv2.imencode('.jpg', out[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, self.quality])[1]
            decoded = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
            assert decoded is not None, 'encoded a line above'
            return decoded
        return out

    def bordered(self, x: np.ndarray) -> np.ndarray:
        """Black outside four slightly bent edges."""
        height, width = x.shape[:2]
        v, u = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
        left, right, top, bottom = self.border
        inside = (u >= -1 + 2 * left * v**2) & (u <= 1 - 2 * right * v**2)
        inside &= (v >= -1 + 2 * top * u**2) & (v <= 1 - 2 * bottom * u**2)
        return x * inside[..., None]


def _bytes(x: np.ndarray) -> np.ndarray:
    return np.clip(x * 255 + 0.5, 0, 255).astype(np.uint8)


def _line(length: float, angle: float) -> np.ndarray:
    """Kernel of a straight motion of `length` px, with its middle in the middle."""
    side = 2 * int(np.ceil(length / 2)) + 1
    v, u = np.mgrid[:side, :side] - side // 2
    along, across = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
    kernel = np.clip(length / 2 + 0.5 - abs(along), 0, 1) * np.clip(1 - abs(across), 0, 1)
    return (kernel / kernel.sum()).astype(np.float32)


def _disc(radius: float) -> np.ndarray:
    """Kernel of a disc with a soft edge."""
    side = 2 * int(np.ceil(radius)) + 1
    v, u = np.mgrid[:side, :side] - side // 2
    kernel = np.clip(radius + 0.5 - np.hypot(u, v), 0, 1)
    return (kernel / kernel.sum()).astype(np.float32)
