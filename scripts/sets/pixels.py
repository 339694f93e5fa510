"""Pictures as makers of sets see them: on white, in RGB; without TensorFlow, which imports for seconds."""

from __future__ import annotations

import hashlib
from pathlib import Path

from PIL import Image


def on_white(file: Path) -> Image.Image:
    """A picture in RGB, transparent pixels on white."""
    with Image.open(file) as image:
        rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def pixel_digest(image: Image.Image) -> str:
    """Equal for pictures of equal pixels, whatever their files say."""
    return hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).hexdigest()
