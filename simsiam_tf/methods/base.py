"""The base of all trained models: one update, which Keras' `fit` and the loop of runs both call."""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Self

import keras
import tensorflow as tf

from simsiam_tf.distributed import strategies
from simsiam_tf.methods import batches, metrics
from simsiam_tf.methods.run_size import RunSize
from simsiam_tf.nets import batch_norm, layer_order, layer_seeds
from simsiam_tf.nets.backbones import pooled
from simsiam_tf.optimizers import VariableRates

STOP = {True: tf.stop_gradient, False: tf.identity}  # Sec. 4.1, Fig. 2
HAS_PREDICTOR = {"trained": True, "none": False}  # Sec. 6.2

# Local to the thread, since a strategy runs each replica in a thread of its own.
TRAINING = contextvars.ContextVar("training", default=True)


class ViewModel(keras.Model):
    """A backbone and the layers on it, trained on views of images.

    A subclass writes `objective`, `metric` and `metric_name`. `fit` and `evaluate` take arrays, as in
    `fit((x1, x2))`, or a `tf.data.Dataset` of tuples of views or of {"views": (x1, x2, …), "index": …,
    "target": …}; each view is [B, H, W, C]. `train_on_batch` takes one batch of these. `predict` takes
    images and returns what `call` does: backbone features, if no subclass changes it.

    A model is saved, loaded and cloned by the arguments of its constructor, which therefore must be values
    that Keras can serialise: networks, numbers, strings, arrays.
    """

    d: int  # width of "z"
    metric_name: str  # name of `metric` in the logs
    draw_seed = 0  # seed of the draws of random layers, such as dropout
    augmentation: Any = None  # that of the training's views, for callbacks; None where it is not known
    view_size: int | None = None  # side of these views in pixels

    def __new__(cls, *args, **kwargs) -> Self:
        model = super().__new__(cls, *args, **kwargs)
        arguments = inspect.signature(cls.__init__).bind(model, *args, **kwargs)
        arguments.apply_defaults()  # saved, too: another version may have other defaults
        vars(model)["_constructor"] = arguments  # NOTE: hidden from Keras, which would look for layers in it
        return model

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith("simsiam_tf."):
            keras.saving.register_keras_serializable("simsiam_tf")(cls)

    def __init__(self, backbone: keras.Model, **kwargs) -> None:
        super().__init__(**kwargs)
        self.backbone = backbone
        self._loss_mean = keras.metrics.Mean(name="loss")
        self._metric_mean = keras.metrics.Mean(name=self.metric_name)

    def objective(self, batch: dict[str, Any]) -> dict[str, Any]:
        """{"views", "index", "target"} → {"loss": scalar, "z": [B, d]}, for the rows of this replica.

        Only some models need "index" and "target". Further results are for `after_step` alone.
        """
        raise NotImplementedError

    def metric(self, z: tf.Tensor) -> tf.Tensor:
        """The "z" of a batch, [B, d] → the scalar that is logged beside the loss."""
        raise NotImplementedError

    def counted_rows(self, z: tf.Tensor) -> tf.Tensor:
        """The number of rows that `metric` is a mean over; without any the metric is not logged."""
        return tf.shape(z)[0]

    def after_step(self, outputs: dict[str, Any]) -> None:
        """Updates what the optimizer does not, such as moving averages. outputs: results of `objective`."""
        del outputs

    def learned_variables(self) -> list[keras.Variable]:
        """The variables that the optimizer updates."""
        return self.trainable_variables

    def step(self, data: Any) -> dict[str, tf.Tensor]:
        """Updates the model by a batch of this replica → "loss", the metric, and "z", [B, d] in float32."""
        batch = batches.to_batch(data)
        seeds = layer_seeds.step_seeds(self, self.draw_seed, self.optimizer.iterations)
        with tf.GradientTape() as tape, seeds:
            outputs = self.objective(batch)
            # Keras optimizers sum over replicas, so each contributes its share of the mean.
            share = outputs["loss"] / tf.distribute.get_strategy().num_replicas_in_sync
            share = self.optimizer.scale_loss(share)  # changes it in float16 only
        variables = self.learned_variables()
        self.optimizer.apply(tape.gradient(share, variables), variables)
        self.after_step(outputs)
        return {name: outputs[name] for name in ("loss", "z")} | {self.metric_name: self.metric(outputs["z"])}

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        return self._logs(self.step(data))

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Loss and metric of a batch in inference mode: BN by its moving statistics, without an update."""
        token = TRAINING.set(False)
        try:
            return self._logs(self.objective(batches.to_batch(data)))
        finally:
            TRAINING.reset(token)

    def predict_step(self, data: Any) -> tf.Tensor:
        """Images, or images with labels → the outputs of `call`."""
        images, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        if isinstance(images, (dict, tuple, list)):
            raise ValueError("predict takes images, [B, H, W, C], not views. Pass an array of them.")
        return self(images, training=False)

    def _logs(self, outputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Means over batches, weighted by rows; the metric is computed on the rows of all replicas."""
        rows = tf.shape(outputs["z"])[0]
        z, _ = strategies.all_gather(outputs["z"])
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas > 1:  # `all_gather` takes the same number of rows from each
            line = f"A batch does not divide over {replicas} replicas. Try batch(n, drop_remainder=True)."
            tf.debugging.assert_equal(tf.shape(z)[0], rows * replicas, line)
        self._loss_mean.update_state(outputs["loss"], rows)
        counted = self.counted_rows(z)
        self._metric_mean.update_state(tf.where(counted > 0, self.metric(z), 0.0), counted)
        return {m.name: m.result() for m in self.metrics}

    def fit(self, x: Any = None, *args, **kwargs) -> keras.callbacks.History:
        """Keras' `fit`; a dataset of `data.pretraining` starts at the optimizer's step."""
        given = inspect.signature(super().fit).bind(x, *args, **kwargs).arguments
        self.augmentation, self.view_size = getattr(x, "augmentation", None), batches.view_size(x)
        if hasattr(x, "stream"):
            steps = given.get("steps_per_epoch") or len(x)
            first = given.get("initial_epoch", 0) * steps

            def note(logs: dict | None) -> None:
                # NOTE: the step is read here: the dataset prepares batches ahead, and would read a later one.
                del logs
                nonlocal first
                first = int(self.optimizer.iterations.numpy()) or first

            # This callback comes last, since callbacks before it may restore the optimizer.
            last = keras.callbacks.LambdaCallback(on_train_begin=note)
            callbacks = [*keras.tree.flatten(given.get("callbacks") or []), last]
            stream = x.stream(lambda: first)
            given |= {"x": stream, "steps_per_epoch": steps, "shuffle": False, "callbacks": callbacks}
        if "validation_data" in given:
            given["validation_data"] = batches.same_views(given["validation_data"])
        return super().fit(**given)

    def evaluate(self, x: Any = None, *args, **kwargs) -> list[float] | dict[str, float]:
        """Keras' `evaluate`; a dataset of `data.pretraining` always gives the views of its first epoch."""
        return super().evaluate(batches.same_views(x), *args, **kwargs)

    def compile(self, optimizer="rmsprop", jit_compile=False, seed: int = 0, **kwargs) -> None:
        """Keras' `compile`, without XLA unless asked for: XLA halves the speed on CPUs.

        The optimizer is built for the variables that are trainable now: compile again after freezing or
        unfreezing. The keys of its `part_learning_rates` are attributes of the model, such as "predictor".

        seed: seed of the draws of random layers, such as dropout, in [0, 2³¹).
        """
        named = [k for k in ("loss", "loss_weights", "metrics", "weighted_metrics") if kwargs.get(k)]
        if named:
            raise ValueError(f"{type(self).__name__} has its own loss and metrics. Leave out {named[0]}.")
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **kwargs)
        self.draw_seed = seed
        if self.built:  # now, so that a checkpoint restored later finds the optimizer's variables
            inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)  # in float16
            learned = self.learned_variables()
            with self.distribute_strategy.scope():
                if isinstance(inner, VariableRates):
                    layers = {name: getattr(self, name, None) for name in inner.part_learning_rates}
                    parts = {n: p.trainable_variables for n, p in layers.items() if p}
                    factors = layer_order.rate_factors(self.backbone, learned, inner.layer_decay)
                    inner.build(learned, parts, factors)
                self.optimizer.build(learned)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self._loss_mean, self._metric_mean]

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.backbone(images, training=training)

    def get_config(self) -> dict[str, Any]:
        _, *arguments = self._constructor.arguments.items()
        more = self._constructor.signature.parameters
        flat = {}
        for name, value in arguments:
            flat |= value if more[name].kind is inspect.Parameter.VAR_KEYWORD else {name: value}
        return {k: keras.saving.serialize_keras_object(v) for k, v in flat.items()} | super().get_config()

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> ViewModel:
        before = keras.config.dtype_policy()
        policy = keras.saving.deserialize_keras_object(config.get("dtype"))
        keras.config.set_dtype_policy(policy or before)  # for the heads, which the constructor makes
        try:
            return cls(**keras.saving.deserialize_keras_object(config, custom_objects))
        finally:
            keras.config.set_dtype_policy(before)

    def get_compile_config(self) -> dict[str, Any]:
        """The arguments of `compile`, and which layers are frozen; empty before `compile`."""
        config = super().get_compile_config()
        frozen = [not layer.trainable for layer in self._flatten_layers(include_self=False)]
        return {**config, "seed": self.draw_seed, "frozen": frozen} if config else {}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        config = keras.saving.deserialize_keras_object(config)
        for layer, frozen in zip(self._flatten_layers(include_self=False), config.pop("frozen"), strict=True):
            if layer.trainable == frozen:
                layer.trainable = not frozen
        self.compile(**config)


class SiameseModel(ViewModel):
    """A backbone and its heads, trained to agree on views; `model(images)` returns backbone features.

    f is the backbone with the projector, h the predictor, if any. "z" are the projections of the first
    view; the metric "std" shows whether they collapse (`metrics.collapse_std`). All methods take the first
    four of these arguments, BYOL also predictor_hidden, SimSiam, SimCLR and SwAV all of them:

    backbone: [B, H, W, C] → [B, F], for example `nets.resnet50()`; feature maps are averaged over space.
    d: width of z and p (App. B).
    projector_hidden: width of the projector's hidden layers; that of the features when None.
    projector_layers: fc layers of the projector.
    predictor: "trained", or "none": z itself takes the place of the prediction (Sec. 6.2).
    predictor_hidden: width of the predictor's hidden layer; d // 4 when None.
    stop_gradient: whether targets are constants (Sec. 4.1).
    """

    metric_name = "std"
    view_count = 2  # views of each image that the loss takes
    local_views = 0  # how many of these views are small; they come last
    table_bytes = 0  # bytes that a replica stores for values of single images, or for a teacher
    projector: keras.Model
    predictor: keras.Model | None = None

    def __init__(self, backbone: keras.Model, **kwargs) -> None:
        super().__init__(pooled(backbone), **kwargs)

    @classmethod
    def from_options(cls, backbone: keras.Model, options: dict[str, Any], run: RunSize) -> SiameseModel:
        """Makes the model from a run's options; a subclass turns them into arguments of its constructor.

        options: those of the method in `config.METHODS`, its defaults filled in, and d, projector_hidden,
        projector_layers and, where there is a predictor, predictor_hidden.
        """
        del run
        return cls(backbone, **options)

    def metric(self, z: tf.Tensor) -> tf.Tensor:
        return metrics.collapse_std(z)

    def f(self, x: tf.Tensor) -> tf.Tensor:
        """View [B, H, W, C] → projection z [B, d], float32; in training mode except in `test_step`."""
        training = TRAINING.get()
        z = self.projector(self.backbone(x, training=training), training=training)
        return tf.cast(z, tf.float32)

    def project(self, views: tuple[tf.Tensor, ...]) -> list[tf.Tensor]:
        """Views → the projection z of each, [B, d]. Each full view is a BN batch, all small ones are another.

        The small ones go first, so that BN's moving statistics follow the full ones most.
        """
        full = len(views) - self.local_views
        z = tf.split(self.f(tf.concat(views[full:], axis=0)), self.local_views) if self.local_views else []
        return self.each(self.f, views[:full]) + z

    def each(self, function: Callable[[tf.Tensor], tf.Tensor], views: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Applies a network, such as `f` or `h`, to views of equal size [B, …], each of which is a BN batch.

        On several replicas it takes them all at once, so that a BN layer sends one message for all of them.
        """
        if len(views) == 1 or not batch_norm.joins_views(self):
            return [function(x) for x in views]
        with batch_norm.separate_views(len(views)):
            return tf.split(function(tf.concat(views, axis=0)), len(views))

    def h(self, z: tf.Tensor) -> tf.Tensor:
        """Projection z [B, d] → prediction p [B, d], float32; z itself without a predictor."""
        if self.predictor is None:
            return z
        return tf.cast(self.predictor(z, training=TRAINING.get()), tf.float32)

    def views(self, batch: dict) -> tuple[tf.Tensor, ...]:
        """The views of a batch, as many as the loss takes."""
        views = batch["views"]
        if len(views) != self.view_count:
            wanted = f"This loss compares {self.view_count} views of an image."
            raise ValueError(f"{wanted} Received: {len(views)} views. {batches.HINT}")
        return views
