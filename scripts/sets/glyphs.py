"""Printed characters in fonts of many families, some of which are held out from pre-training."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from simsiam_tf.runtime.errors import UserError

from .packages import Packages
from .set_file import Picture

SIDE, SIZE, BASELINE = 48, 32, 35  # pixels: the picture, the font, the line that letters stand on
CHARACTERS = "".join(map(chr, range(0x21, 0x7F)))  # printable ASCII without the space
STYLES = ("Regular", "Bold", "Italic", "BoldItalic")

# Family → (package, faces: files without their suffix). Families that redraw another are left out.
TRAIN = {
    "DejaVu Sans": ("fonts-dejavu-core", ("DejaVuSans", "DejaVuSans-Bold")),
    "DejaVu Mono": ("fonts-dejavu-core", ("DejaVuSansMono", "DejaVuSansMono-Bold")),
    "DejaVu Serif": ("fonts-dejavu-core", ("DejaVuSerif", "DejaVuSerif-Bold")),
    "Liberation Sans": ("fonts-liberation", tuple(f"LiberationSans-{style}" for style in STYLES)),
    "Liberation Serif": ("fonts-liberation", tuple(f"LiberationSerif-{style}" for style in STYLES)),
    "Liberation Mono": ("fonts-liberation", tuple(f"LiberationMono-{style}" for style in STYLES)),
    "Lato": ("fonts-lato", tuple(f"Lato-{s}" for s in (*STYLES, "Black", "Light", "Thin", "BlackItalic"))),
    "Roboto": ("fonts-roboto-unhinted", tuple(f"Roboto-{s}" for s in (*STYLES, "Black", "Light", "Thin"))),
    "Roboto Slab": ("fonts-roboto-slab", ("RobotoSlab-Regular", "RobotoSlab-Bold", "RobotoSlab-Thin")),
    "Caladea": ("fonts-crosextra-caladea", tuple(f"Caladea-{style}" for style in STYLES)),
    "Libertine": ("fonts-linuxlibertine", tuple(f"LinLibertine_{s}" for s in ("R", "RB", "RI", "RBI"))),
    "Biolinum": ("fonts-linuxlibertine", tuple(f"LinBiolinum_{s}" for s in ("R", "RB", "RI"))),
    "Fira Code": ("fonts-firacode", ("FiraCode-Light", "FiraCode-Regular", "FiraCode-Bold")),
    "Inconsolata": ("fonts-inconsolata", ("Inconsolata",)),
    "Quicksand": ("fonts-quicksand", ("Quicksand-Light", "Quicksand-Regular", "Quicksand-Bold")),
    "Dosis": ("fonts-dosis", ("Dosis-Light", "Dosis-Book", "Dosis-ExtraBold")),
    "Averia Serif": ("fonts-averia-serif-gwf", tuple(f"AveriaSerifGWF-{s}" for s in STYLES)),
    "Goudy": ("fonts-goudybookletter", ("GoudyBookletter1911",)),
    "Dustismo": ("fonts-dustin", ("Dustismo_Roman", "Dustismo", "Domestic_Manners")),
}
TEST = {
    "Open Sans": ("fonts-open-sans", ("OpenSans-Regular", "OpenSans-ExtraBold", "OpenSans-LightItalic")),
    "Vollkorn": ("fonts-vollkorn", ("Vollkorn-Regular", "Vollkorn-Black", "Vollkorn-Italic")),
    "Cabin": ("fonts-cabin", ("Cabin-Regular", "Cabin-BoldItalic")),
    "Courier Prime": ("fonts-courier-prime", ("Courier Prime", "Courier Prime Bold Italic")),
    "Comic Neue": ("fonts-comic-neue", ("ComicNeue-Regular", "ComicNeue-BoldItalic")),
    "Garamond": ("fonts-ebgaramond", ("EBGaramond12-Regular", "EBGaramond12-Italic")),
    "Old Standard": ("fonts-oldstandard", ("OldStandard-Regular", "OldStandard-Bold")),
    "Jura": ("fonts-jura", ("Jura-Light", "Jura-Bold")),
    "Lobster": ("fonts-lobstertwo", ("LobsterTwo-Regular", "LobsterTwo-Bold")),
}


def make(packages: Packages, folder: Path) -> list[Picture]:
    """Draws each character of each face in black on white; returns the rows.

    label and object: the character. group and domain: the family, so that no character is told by the same
    drawing in bold. Characters that a font does not have are left out.
    """
    pictures = []
    for split, families in (("train", TRAIN), ("test", TEST)):
        for family, (package, faces) in families.items():
            for face in faces:
                font = ImageFont.truetype(str(font_file(packages.debian(package), face)), SIZE)
                into = folder / split / face.replace(" ", "_")
                into.mkdir(parents=True)
                for character in CHARACTERS:
                    image = draw(font, character)
                    if image is not None:
                        image.save(into / f"u{ord(character):04x}.png")
                        path = (into / f"u{ord(character):04x}.png").relative_to(folder).as_posix()
                        pictures.append(Picture(path, character, family, character, family, split))
    return pictures


def font_file(package: Path, face: str) -> Path:
    """The file of a face. Raises UserError where the package has none."""
    for suffix in ("ttf", "otf"):
        for file in sorted(package.glob(f"usr/share/fonts/**/{face}.{suffix}")):
            if file.is_file():
                return file
    raise UserError(f"glyphs: {package.name} has no font {face}; this version of Debian names it otherwise.")


def draw(font: ImageFont.FreeTypeFont, character: str) -> Image.Image | None:
    """A character, gray [SIDE, SIDE], on one baseline in all fonts; None where the font does not have it."""
    if bytes(font.getmask(character)) in (b"", bytes(font.getmask("\uffff"))):
        return None
    image = Image.new("L", (SIDE, SIDE), 255)
    ImageDraw.Draw(image).text((SIDE / 2, BASELINE), character, fill=0, font=font, anchor="ms")
    return image
