"""Times a SimSiam step on networks of Keras, ours and one written in plain Keras, in alternation.

    python scripts/bench/bench_keras_fit.py --network=efficientnet --json=efficientnet.json
    python scripts/bench/bench_keras_fit.py --network=vit

Both train the same backbone, heads and loss with SGD on one batch in memory. `plain` is what one would write
without this package: stock layers, the negative cosine as a loss, `compile` and `fit`, with XLA as Keras
chooses by default, and without. `fit` and `run` are our model under Keras' `fit` and under the loop of
`pretrain`. Run it on an idle machine (`bench_harness.py` says why).
"""

from __future__ import annotations

import argparse
import functools
import sys

import bench_harness

NETWORKS = {  # option backbone, pixels, batch
    "efficientnet": ("keras:EfficientNetV2B0", 96, 32),
    "vit": ("py:bench_keras_fit:small_vit", 32, 128),
}
STEPS = 5  # in a call, as `fit` has work of its own at each call
D, HIDDEN, RATE, DECAY = 512, 128, 0.05, 1e-4
CANDIDATES = ("plain", "plain, no XLA", "fit", "run")


def small_vit(size: int, channels: int):  # noqa: ANN201
    """A ViT of 1.8 million weights for small images: patches of 4 pixels, 4 layers, 192 wide."""
    import keras_hub

    return keras_hub.models.ViTBackbone((size, size, channels), 4, 4, 3, 192, 768)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", choices=NETWORKS, default="efficientnet")
    bench_harness.add_arguments(parser, repeats=5, calls=2, threads=None)
    args = parser.parse_args(argv)
    if args.network == "vit" and (hint := bench_harness.install_hint("keras_hub")):
        print(hint, file=sys.stderr)
        return 2
    candidates = [
        bench_harness.Candidate(name, functools.partial(_build, name, args.network, args.threads), STEPS)
        for name in CANDIDATES
    ]
    result = bench_harness.time_candidates(candidates, args.repeats, args.calls, args.threads)
    sizes = {metadata["parameters"] for metadata in result.metadata.values()}
    if len(sizes) > 1:
        raise SystemExit(f"The candidates differ in size: {sizes} parameters.")
    metadata = bench_harness.machine_metadata(args.threads) | {"network": args.network}
    print(_table(metadata, result))
    bench_harness.write_json(args.json, {**metadata, **result.as_json()})
    return 0


def _build(candidate: str, network: str, threads: int) -> bench_harness.TimedCall:
    """`STEPS` steps of a candidate, and its metadata."""
    import keras
    import numpy as np
    import tensorflow as tf

    bench_harness.set_threads(threads)
    backbone, size, batch = NETWORKS[network]
    views = np.random.default_rng(0).normal(size=(2, batch, size, size, 3)).astype("float32")
    xla = "auto" if candidate == "plain" else False
    plain = candidate.startswith("plain")
    model = _plain(backbone, size, xla) if plain else _ours(backbone, size, batch)
    trained = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    metadata = {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "parameters": trained,
        "batch": batch,
    }
    if candidate == "run":
        data = tuple(tf.constant(x) for x in views)
        model.optimizer.build(model.learned_variables())
        traced = tf.function(model.step).get_concrete_function(data)

        def call() -> None:
            losses = [traced(data)["loss"] for _ in range(STEPS)]
            _check(float(losses[-1]))

        return call, metadata
    options = tf.data.Options()
    options.autotune.enabled = False  # whose thread can hold up the end of `fit` for as long as it has run
    batches = tf.data.Dataset.from_tensors(tuple(views)).cache().repeat().with_options(options)
    if plain:
        batches = batches.map(lambda x1, x2: ((x1, x2), tf.zeros((batch, 2, 2, D))))

    def fit() -> None:
        _check(model.fit(batches, steps_per_epoch=STEPS, verbose=0).history["loss"][-1])

    return fit, metadata


def _check(loss: float) -> None:
    if not -1.01 < loss < 0.01:  # that of every batch, of two negative cosines
        raise SystemExit(f"The loss became {loss}.")


def _ours(backbone: str, size: int, batch: int):  # noqa: ANN202
    from simsiam_tf.command_line import cli
    from simsiam_tf.config import PretrainConfig
    from simsiam_tf.training import build_run

    options = [
        f"--backbone={backbone}", f"--d={D}", f"--projector_hidden={D}", f"--predictor_hidden={HIDDEN}",
        f"--base_lr={RATE * 256 / batch}", f"--weight_decay={DECAY}", f"--batch_size={batch}",
    ]  # fmt: skip
    config = cli.parse(PretrainConfig, options)
    model = build_run.build_model(config, 3, size)
    model.compile(build_run.build_optimizer(config, 10_000, 100 * batch))
    return model


def _plain(backbone: str, size: int, xla: str | bool):  # noqa: ANN202
    """SimSiam (Eq. 1 and 2) without this package, but for the network that is compared."""
    import keras
    from keras import layers

    if backbone.startswith("keras:"):
        name = backbone.removeprefix("keras:")
        network = getattr(keras.applications, name)(
            weights=None,
            include_top=False,
            input_shape=(size, size, 3),
            pooling="avg",
            include_preprocessing=False,
        )
    else:
        vit = small_vit(size, 3)
        network = keras.Model(vit.input, vit.output[:, 0])

    def fc(width: int, activation: str | None = "relu", bn: bool = True) -> list:
        norm = [layers.BatchNormalization(epsilon=1e-5)] if bn else []
        return [layers.Dense(width, use_bias=not bn), *norm] + (
            [layers.Activation(activation)] if activation else []
        )

    projector = keras.Sequential([*fc(D), *fc(D), *fc(D, None)])
    predictor = keras.Sequential([*fc(HIDDEN), *fc(D, None, bn=False)])
    views = [keras.Input((size, size, 3)) for _ in range(2)]
    z = [projector(network(x)) for x in views]
    pairs = [keras.ops.stack([predictor(z[i]), keras.ops.stop_gradient(z[1 - i])], 1) for i in range(2)]

    def loss(_, pairs):  # noqa: ANN001, ANN202
        return keras.ops.mean(keras.losses.cosine_similarity(pairs[:, :, 0], pairs[:, :, 1]), axis=1)

    model = keras.Model(views, keras.ops.stack(pairs, 1))
    rate = keras.optimizers.schedules.CosineDecay(RATE, 10_000)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9, weight_decay=DECAY), loss, jit_compile=xla)
    return model


def _table(metadata: dict, result: bench_harness.Timings) -> str:
    shared = result.metadata["plain"]
    best = result.best(["plain", "plain, no XLA"])
    lines = [
        f"{metadata['network']}, batch {shared['batch']}, {shared['parameters']:,} parameters, "
        f"{metadata['date']}",
        f"{metadata['cpu']}, {metadata['threads']} threads; tensorflow {shared['tensorflow']}, "
        f"keras {shared['keras']}",
        f"{'':14}{'seconds a step':>16}{f'of {best}':>22}{'MiB':>8}",
    ]
    for name in CANDIDATES:
        ratio = result.summary(name, best)
        lines.append(f"{name:14}{result.median(name):16.4f}{ratio:>22}{result.memory[name]:8.0f}")
    return "\n".join([*lines, *([result.warning()] if result.disturbed else [])])


if __name__ == "__main__":
    sys.exit(main())
