"""Make the golden edges and blurred masks: `python tests/golden/make_images.py`. Made with opencv-python-headless
5.0, which nothing else here needs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

PLACE = Path(__file__).parent.parent / "images/opencv.npz"
THRESHOLDS = [(100, 200), (50, 100), (200, 600), (0, 0)]
BLURS = [1, 4, 9.5]


def main() -> None:
    picture, mask = drawn(), np.zeros((61, 83), np.uint8)
    mask[5:30, 60:] = mask[40:42, 10:50] = 255
    edges = {f"edges/{low}/{high}": np.packbits(cv2.Canny(picture, low, high) > 0) for low, high in THRESHOLDS}
    blurred = {f"blurred/{pixels}": blur(mask, pixels) for pixels in BLURS}
    np.savez_compressed(PLACE, picture=picture, mask=mask, **edges, **blurred)
    print(PLACE.stat().st_size)


def drawn() -> np.ndarray:
    """Shapes, a gradient, soft blobs and noise of odd size, so that every direction and strength occurs."""
    rng = np.random.default_rng(0)
    height, width = 121, 157
    picture = np.linspace(0, 255, width)[None, :, None] * np.ones((height, 1, 3))
    picture[:, 80:] = cv2.GaussianBlur(rng.uniform(0, 255, (height, width - 80, 3)), (0, 0), 2.0) * 2 - 128
    picture = picture.clip(0, 255).astype(np.uint8)
    cv2.circle(picture, (40, 40), 30, (200, 30, 90), -1)
    cv2.line(picture, (3, 110), (120, 7), (10, 250, 60), 3)
    cv2.rectangle(picture, (60, 70), (110, 118), (0, 0, 255), -1)
    picture[90:, :40] = rng.integers(0, 256, (height - 90, 40, 3))
    return picture


def blur(mask: np.ndarray, pixels: float) -> np.ndarray:
    """As A1111 calls it: across, then down, each rounded to eight bits."""
    size = 2 * int(2.5 * pixels + 0.5) + 1
    return cv2.GaussianBlur(cv2.GaussianBlur(mask, (size, 1), pixels), (1, size), pixels)


if __name__ == "__main__":
    main()
