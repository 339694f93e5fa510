"""Two crops of each photograph, from its opposite ends."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from simsiam_tf.runtime.errors import UserError

from .packages import Packages
from .set_file import Picture

SIDE = 240  # pixels of a crop, at most
ENDS = ("first", "second")  # left and right; of an upright photograph top and bottom

# Package → files that are photographs, not drawings.
SOURCES = {
    "endless-sky-data": ("usr/share/games/endless-sky/images/land/*.jpg",),
    "mate-backgrounds": ("usr/share/backgrounds/mate/nature/*.jpg",),
    "lomiri-wallpapers-16.04": tuple(
        f"usr/share/backgrounds/{name}_by_*.jpg"
        for name in (
            "Bridge", "Dragonfly", "Picture_0B", "Picture_1A", "Wine", "aitzgorri", "free", "friends",
            "greentock", "life", "picosdeeuropa", "seeding", "sunset",
        )
    ),
    "plasma-workspace-wallpapers": tuple(
        f"usr/share/wallpapers/{name}/contents/images/*"
        for name in (
            "BytheWater", "ColdRipple", "ColorfulCups", "DarkestHour", "EveningGlow", "FallenLeaf", "Grey",
            "Kite", "OneStandsOut", "Path", "summer_1am",
        )
    ),
}  # fmt: skip


def make(packages: Packages, folder: Path) -> list[Picture]:
    """Writes two crops of each photograph as PNG files; returns their rows of set.csv.

    object: the photograph. Label and domain are empty: for each crop, the pair question is whether the
    nearest of all other crops is from the same photograph.
    """
    pictures = []
    for package, patterns in SOURCES.items():
        root = packages.debian(package)
        for pattern in patterns:
            files = sorted(root.glob(pattern))
            if "wallpapers/" in pattern:
                files = files[:1]  # one photograph in several sizes
            for file in files:
                name = file.parents[2].name if file.parent.name == "images" else file.stem
                with Image.open(file) as image:
                    crops = opposite_crops(image.convert("RGB"))
                for end, crop in zip(ENDS, crops, strict=True):
                    path = f"{package}/{name}-{end}.png"
                    (folder / package).mkdir(exist_ok=True)
                    crop.save(folder / path)
                    pictures.append(Picture(path, object=f"{package}/{name}"))
    if not pictures:
        raise UserError("photographs: the packages hold none of the photographs.")
    return pictures


def opposite_crops(image: Image.Image) -> tuple[Image.Image, Image.Image]:
    """Two squares at the ends of the longer side, in the middle of the shorter one, shrunk to SIDE at most.

    The side of a square is at most a third of the longer side. So at least a third of the photograph lies
    between the squares, and no pixel is in both.
    """
    width, height = image.size
    side = min(width, height, max(width, height) // 3)
    if width >= height:
        corners = [(0, (height - side) // 2), (width - side, (height - side) // 2)]
    else:
        corners = [((width - side) // 2, 0), ((width - side) // 2, height - side)]
    crops = [image.crop((x, y, x + side, y + side)) for x, y in corners]
    for crop in crops:
        crop.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return crops[0], crops[1]
