"""What every method shares: one update, served to Keras' `fit` and to `train.run` alike."""

from __future__ import annotations

import contextvars
import inspect
from typing import Any

import keras
import tensorflow as tf

from simsiam_tf import optimizers  # noqa: F401 - its optimizers a saved model may name
from simsiam_tf.distributed import strategies
from simsiam_tf.methods import metrics
from simsiam_tf.methods.batches import HOW, batch_of

STOP = {True: tf.stop_gradient, False: tf.identity}  # Sec. 4.1, Fig. 2

# Of its thread alone, since each replica of a strategy has one.
TRAINING = contextvars.ContextVar("training", default=True)


class ViewModel(keras.Model):
    """A backbone and what is on it, trained on views of images.

    A method subclasses this and writes `objective` and `figure`. It owns the tape, the mean over
    replicas, the update and the metrics. `fit`, `evaluate` and `train_on_batch` take a `tf.data.Dataset`
    of tuples of views or of {"views": (x1, x2, …), "index": …}, or arrays, `fit((x1, x2))`; each view is
    [B, H, W, C]. Labels beside the views are not read. `predict` takes images and gives backbone features.

    Saving, loading and cloning make a model anew from the arguments of its constructor, so that these have
    to be what Keras can serialise: networks, numbers, strings, arrays.

    d: width of "z". figure_name: what `figure` is called.
    """

    d: int
    figure_name: str

    def __new__(cls, *args, **kwargs) -> ViewModel:
        model = super().__new__(cls, *args, **kwargs)
        arguments = inspect.signature(cls.__init__).bind(model, *args, **kwargs)
        arguments.apply_defaults()  # which may be others in another version
        vars(model)["_constructor"] = arguments  # NOTE: past Keras, which would look for layers in it
        return model

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith("simsiam_tf."):
            keras.saving.register_keras_serializable("simsiam_tf")(cls)

    def __init__(self, backbone: keras.Model, **kwargs) -> None:
        super().__init__(**kwargs)
        self.backbone = backbone
        self._loss_mean = keras.metrics.Mean(name="loss")
        self._figure_mean = keras.metrics.Mean(name=self.figure_name)

    def objective(self, batch: dict[str, Any]) -> dict[str, tf.Tensor]:
        """{"views", "index"} → {"loss": scalar, "z": [B, d]}, of this replica's rows."""
        raise NotImplementedError(f"{type(self).__name__} must define objective(batch).")

    def figure(self, z: tf.Tensor) -> tf.Tensor:
        """The "z" of a batch, [B, d] → the scalar that is watched beside the loss."""
        raise NotImplementedError(f"{type(self).__name__} must define figure(z).")

    def after_step(self, outputs: dict[str, tf.Tensor]) -> None:
        """Moving averages and queues; nothing by default."""
        del outputs

    def learned_variables(self) -> list[keras.Variable]:
        """The variables that the optimizer updates."""
        return self.trainable_variables

    def step(self, data: Any) -> dict[str, tf.Tensor]:
        """One update from one batch of this replica.

        Returns:
            "loss" and the figure, scalars of this replica's rows, and "z", [B, d] in float32.
        """
        batch = batch_of(data)
        with tf.GradientTape() as tape:
            outputs = self.objective(batch)
            # Keras optimizers sum over replicas, so each contributes its share of the mean.
            share = outputs["loss"] / tf.distribute.get_strategy().num_replicas_in_sync
            share = self.optimizer.scale_loss(share)  # in float16
        variables = self.learned_variables()
        self.optimizer.apply(tape.gradient(share, variables), variables)
        self.after_step(outputs)
        z = outputs["z"]
        return {"loss": outputs["loss"], self.figure_name: self.figure(z), "z": z}

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        return self._logs(self.step(data))

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Loss and figure of a batch in inference mode: BN by its moving statistics, nothing changed."""
        token = TRAINING.set(False)
        try:
            return self._logs(self.objective(batch_of(data)))
        finally:
            TRAINING.reset(token)

    def predict_step(self, data: Any) -> tf.Tensor:
        """Images, or images with labels → backbone features."""
        images, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        if isinstance(images, (dict, tuple, list)):
            raise ValueError("predict takes images, [B, H, W, C], not views. Pass an array of them.")
        return self(images, training=False)

    def _logs(self, outputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Means over batches, by their rows; the figure is that of the rows of all replicas."""
        rows = tf.shape(outputs["z"])[0]
        z, _ = strategies.all_gather(outputs["z"])
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas > 1:  # whose rows count alike, and have their places in the whole batch
            line = f"A batch does not divide over {replicas} replicas. Try batch(n, drop_remainder=True)."
            tf.debugging.assert_equal(tf.shape(z)[0], rows * replicas, line)
        self._loss_mean.update_state(outputs["loss"], rows)
        self._figure_mean.update_state(self.figure(z), rows)
        return {m.name: m.result() for m in self.metrics}

    def fit(self, x: Any = None, *args, **kwargs) -> keras.callbacks.History:
        """As Keras' own. Epochs of `data.pretraining` go on from the step that the optimizer has come to.

        So a model that was loaded, or restored by `BackupAndRestore`, sees what it would have seen next.
        """
        given = inspect.signature(super().fit).bind(x, *args, **kwargs).arguments
        if hasattr(x, "stream"):
            steps, callbacks = given.get("steps_per_epoch") or len(x), given.get("callbacks")
            step = given.get("initial_epoch", 0) * steps

            def note(logs: dict | None) -> None:
                # NOTE: as the training begins. Read by the data themselves, it could be the next step's.
                del logs
                nonlocal step
                step = int(self.optimizer.iterations.numpy()) or step

            last = keras.callbacks.LambdaCallback(on_train_begin=note)  # after what restores the optimizer
            if isinstance(callbacks, keras.callbacks.CallbackList):
                callbacks.append(last)
            else:
                callbacks = [*keras.tree.flatten(callbacks or []), last]
            stream = x.stream(lambda: step)
            given |= {"x": stream, "steps_per_epoch": steps, "shuffle": False, "callbacks": callbacks}
        if "validation_data" in given:
            given["validation_data"] = _same_views(given["validation_data"])
        return super().fit(**given)

    def evaluate(self, x: Any = None, *args, **kwargs) -> list[float] | dict[str, float]:
        """As Keras' own, by `test_step`; on `data.pretraining` always on the views of its first epoch."""
        return super().evaluate(_same_views(x), *args, **kwargs)

    def compile(self, optimizer="rmsprop", jit_compile=False, **kwargs) -> None:
        """As Keras' own, but without XLA unless asked: on CPUs it halves the speed.

        The optimizer is built for what is trainable now: compile again after freezing or unfreezing.

        Raises:
            ValueError: for a loss or metrics, which the method has of its own.
        """
        named = [k for k in ("loss", "loss_weights", "metrics", "weighted_metrics") if kwargs.get(k)]
        if named:
            raise ValueError(f"{type(self).__name__} has its own loss and metrics. Leave out {named[0]}.")
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **kwargs)
        if self.built:  # now, so that whatever is restored later finds its place
            with self.distribute_strategy.scope():
                self.optimizer.build(self.learned_variables())

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self._loss_mean, self._figure_mean]

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.backbone(images, training=training)

    def get_config(self) -> dict[str, Any]:
        _, *arguments = self._constructor.arguments.items()
        more = self._constructor.signature.parameters
        flat = {}
        for name, value in arguments:
            flat |= value if more[name].kind is inspect.Parameter.VAR_KEYWORD else {name: value}
        return {**keras.saving.serialize_keras_object(flat), **super().get_config()}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> ViewModel:
        before = keras.config.dtype_policy()
        policy = keras.saving.deserialize_keras_object(config.get("dtype"))
        keras.config.set_dtype_policy(policy or before)  # which the heads take
        try:
            return cls(**keras.saving.deserialize_keras_object(config, custom_objects))
        finally:
            keras.config.set_dtype_policy(before)

    def get_compile_config(self) -> dict[str, Any]:
        """What `compile` was given, and which layers are frozen; nothing before it."""
        config = super().get_compile_config()
        frozen = [not layer.trainable for layer in self._flatten_layers(include_self=False)]
        return {**config, "frozen": frozen} if config else {}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        config = keras.saving.deserialize_keras_object(config)
        for layer, frozen in zip(self._flatten_layers(include_self=False), config.pop("frozen"), strict=True):
            if layer.trainable == frozen:
                layer.trainable = not frozen
        self.compile(**config)


def _same_views(data: Any) -> Any:
    """A dataset of `data.pretraining` → its first epoch, whenever it is iterated; other data as they are."""
    if not hasattr(data, "stream"):
        return data
    return data.stream().take(len(data)).apply(tf.data.experimental.assert_cardinality(len(data)))


class SiameseModel(ViewModel):
    """A backbone and its heads, trained to agree on views; `model(images)` gives backbone features.

    "z" are the embeddings of the first view; "std" tells whether they collapse
    (`metrics.collapse_std`). f is the backbone with the projector, h the predictor, where there is one.

    view_count: how many views of each image the loss takes.
    """

    figure_name = "std"
    view_count = 2
    projector: keras.Model
    predictor: keras.Model | None = None

    def figure(self, z: tf.Tensor) -> tf.Tensor:
        return metrics.collapse_std(z)

    def f(self, x: tf.Tensor) -> tf.Tensor:
        """View [B, H, W, C] → projection z [B, d], float32; in training mode but in `test_step`."""
        training = TRAINING.get()
        z = self.projector(self.backbone(x, training=training), training=training)
        return tf.cast(z, tf.float32)

    def h(self, z: tf.Tensor) -> tf.Tensor:
        """Projection z [B, d] → prediction p [B, d], float32; z itself without a predictor."""
        if self.predictor is None:
            return z
        return tf.cast(self.predictor(z, training=TRAINING.get()), tf.float32)

    def views(self, batch: dict) -> tuple[tf.Tensor, ...]:
        """The views of a batch, as many as the loss takes. Raises ValueError for another number."""
        views = batch["views"]
        if len(views) != self.view_count:
            raise ValueError(
                f"This loss compares {self.view_count} views of an image. Received: {len(views)} views. {HOW}"
            )
        return views
