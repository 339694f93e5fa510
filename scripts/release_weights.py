"""The backbones of finished runs as files of a release: NAME-DIGEST.keras, and its card as .json and .md.

    python -m scripts.release_weights --out=dist quickstart=runs/quickstart emoji=runs/emoji

DIGEST is the first 8 digits of the SHA-256 of the .keras file. Only the weights of the backbone are written,
with no picture and no path of this machine: the card names the set, its number of images, and the options of
the run. `ss.from_pretrained` opens the files by path, or by the URL of the .json and its SHA-256.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path

from simsiam_tf.runtime.errors import UserError

LICENSE = "apache-2.0"


def write_release(workdir: str, name: str, folder: Path) -> Path:
    """Writes the three files of one backbone; returns the path of its JSON card.

    Raises:
        UserError: as `open_pretrained`; or the backbone is not the file of a run.
    """
    from simsiam_tf.model_export.card_text import escape_markdown, method_summary, training_sections
    from simsiam_tf.model_export.hub_folder import published_card
    from simsiam_tf.pretrained.backbone_file import card_text
    from simsiam_tf.pretrained.pretrained_backbone import open_pretrained
    from simsiam_tf.runtime.atomic_files import atomic_write_text
    from simsiam_tf.runtime.digests import sha256

    pretrained = open_pretrained(workdir)
    views = pretrained.card.get("views")
    if not pretrained.as_stored or not views:
        raise UserError(f"{name}={workdir}: is not the backbone of a run, with its card.")
    network = folder / f"{name}-{pretrained.sha256[:8]}.keras"
    shutil.copyfile(pretrained.path, network)
    # The views of the training, and not those of the size that its features are read at.
    card = {**published_card(pretrained), "views": views, "file": network.name, "license": LICENSE}
    path = network.with_suffix(".json")
    atomic_write_text(path, card_text(card))
    page = f"""# {escape_markdown(network.stem)}

{method_summary(card)[1]}

```python
import simsiam_tf as ss
net = ss.from_pretrained("{network.name}")  # or "https://…/{path.name}#sha256={sha256(path)}"
```

- network: {escape_markdown(pretrained.backbone.name)}, {pretrained.backbone.count_params():,} weights
- images: uint8 [B, H, W, {pretrained.channels}], read at {pretrained.augmentation.size} pixels; \
features: float32 [B, {pretrained.features}]
- license: {LICENSE}. The file holds weights and no picture.
- SHA-256 of `{network.name}`: `{pretrained.sha256}`
{training_sections(card)}"""
    atomic_write_text(network.with_suffix(".md"), page)
    return path


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("runs", nargs="+", metavar="NAME=WORKDIR")
    arguments = parser.parse_args(argv)
    for run in arguments.runs:
        name, _, workdir = run.partition("=")
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) or not workdir:
            parser.error(f"{run}: must be NAME=WORKDIR, with a name of small letters, as emoji=runs/emoji")
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        for run in arguments.runs:
            name, _, workdir = run.partition("=")
            print(f"written: {write_release(workdir, name, arguments.out)}", flush=True)
    except UserError as error:
        print(f"release_weights: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
