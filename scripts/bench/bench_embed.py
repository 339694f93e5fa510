"""Times `embed` and `embed --fast` on JPEG files, and how far their features are apart.

    python scripts/bench/bench_embed.py --weights=runs/photos --out=runs/bench_embed
    python scripts/bench/bench_embed.py --weights=runs/photos --out=runs/bench_embed \\
        --peer=peers/bin/python  # whose environment has lightly-train

    python scripts/bench/bench_embed.py --out=runs/bench_embed --ray=local --ray_cores=1

Each command runs as a process of its own, one after the other, --rounds times; the table has the medians of
all of the command. Without --weights the network is a ResNet-18 with random weights that reads 224 pixels.
The files are crops of the two photographs that come with scikit-learn, enlarged where need be, of quality 90.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # this checkout's package

QUALITY = 90
PEER = ROOT / "scripts/bench/peers/lightly_train_embed.py"
FAST = {"embed": [], "embed-fast": ["--fast"]}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--weights", help="a pre-trained backbone, as embed takes it")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", default="500x375", help="width and height of the files in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray", help="address of a Ray cluster, as embed takes it; timed on the same files")
    parser.add_argument("--ray_cores", type=int, help="cores of each process of the cluster")
    parser.add_argument("--shard_images", type=int, default=256, help="images of a file of the cluster")
    parser.add_argument("--peer", help="Python of an environment with lightly-train, timed on the same files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files and the features")
    args = parser.parse_args(argv)
    width, height = map(int, args.size.split("x"))
    out = args.out.expanduser().resolve()
    images = out / f"jpegs-{args.size}-{args.images}"
    if not images.is_dir():
        write_jpegs(images, args.images, width, height)
    weights = [f"--weights={args.weights or random_resnet18(out / 'resnet18')}"]
    weights += [] if args.weights else ["--augmentation=imagenet"]  # its file has no card
    commands = {n: embed_command(images, out / n, [*weights, *fast]) for n, fast in FAST.items()}
    if args.ray:
        more = [f"--ray={args.ray}", f"--shard_images={args.shard_images}"]
        more += [f"--ray_cores={args.ray_cores}"] if args.ray_cores else []
        commands["embed-ray"] = cluster_command(images, out / "embed-ray", [*weights, *more])
    if args.peer:
        peer = [args.peer, str(PEER), str(images), f"--run={out / 'peer'}"]
        timed(peer, out / "output.txt")  # makes the checkpoint
        commands["lightly-train"] = [*peer, f"--out={out / 'peer.pt'}"]
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(args.rounds):
        for name, command in commands.items():
            for made in (f"{name}.features", "embed-ray"):
                shutil.rmtree(out / made, ignore_errors=True)
            seconds[name].append(timed(command, out / "output.txt"))
    print("| command | seconds | images a second |\n| --- | --- | --- |")
    for name, all_seconds in seconds.items():
        median = statistics.median(all_seconds)
        spread = f"{min(all_seconds):.1f}–{max(all_seconds):.1f}"
        print(f"| {name} | {median:.1f} ({spread}) | {args.images / median:.0f} |")
    print(agreement(*(out / f"{name}.npz" for name in FAST)))
    return 0


def embed_command(images: Path, out: Path, more: Sequence[str]) -> list[str]:
    """The command line of embed, which keeps no features between rounds."""
    return [
        sys.executable, "-m", "simsiam_tf.embed", f"--data=folder:{images}", f"--out={out}.npz",
        f"--features_dir={out}.features", "--overwrite", *more,
    ]  # fmt: skip


def cluster_command(images: Path, out: Path, more: Sequence[str]) -> list[str]:
    """The command line of embed on a Ray cluster."""
    return [sys.executable, "-m", "simsiam_tf.embed", f"--data=folder:{images}", f"--out={out}/", *more]


def timed(command: Sequence[str], output: Path) -> float:
    """Seconds that a command takes; what it prints is added to a file."""
    began = time.perf_counter()
    with open(output, "a", encoding="utf-8") as file:
        subprocess.run(command, check=True, stdout=file, stderr=file, cwd=ROOT)
    return time.perf_counter() - began


def write_jpegs(folder: Path, count: int, width: int, height: int) -> None:
    """Writes JPEG files: random crops of half to all of a photograph."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    folder.mkdir(parents=True)
    photographs: list[np.ndarray] = load_sample_images().images
    rng = np.random.default_rng(0)
    for i in range(count):
        photograph = Image.fromarray(photographs[i % len(photographs)])
        share = rng.uniform(0.5, 1.0)
        crop = share * photograph.width, share * photograph.width * height / width
        if crop[1] > photograph.height:
            crop = crop[0] * photograph.height / crop[1], photograph.height
        left, top = rng.uniform(0, photograph.width - crop[0]), rng.uniform(0, photograph.height - crop[1])
        box = (left, top, left + crop[0], top + crop[1])
        photograph.resize((width, height), Image.Resampling.BICUBIC, box).save(
            folder / f"{i:06}.jpg", quality=QUALITY
        )


def random_resnet18(folder: Path) -> str:
    """The file of a ResNet-18 with random weights."""
    import keras

    from simsiam_tf import nets
    from simsiam_tf.nets.keras_networks import to_stock_layers

    keras.utils.set_random_seed(0)
    network = to_stock_layers(nets.resnet18())
    path = folder / "backbone.keras"
    folder.mkdir(parents=True, exist_ok=True)
    network.save(path)
    return str(path)


def agreement(exact: Path, fast: Path) -> str:
    """How far the features of two files are apart, in words."""
    a, b = (np.load(path)["features"].astype(np.float64) for path in (exact, fast))
    apart = np.linalg.norm(a - b, axis=1) / np.linalg.norm(a, axis=1)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return (
        f"features of --fast differ by {100 * np.median(apart):.2g} % in the median, by "
        f"{100 * apart.max():.2g} % at most; smallest cosine {cosine.min():.6f}"
    )


if __name__ == "__main__":
    sys.exit(main())
