"""The real command line with an ear and a trigger: notes the ids consumed, dies at a chosen call.

    python tests/faults/traced.py IDS READY FAULT FLAGS…

IDS: file that takes "step: ids" for every batch that the loop takes. READY: file that is made once
signals are handled. FAULT: "none";
"NAME:N" or "NAME:N:after", to be killed (−9) at or after the N-th call of a point below; "clock:N",
a clock that is a day slow from step N on; or "control:optimizer" and "control:data", faults of the
program itself that the harness must notice.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import simsiam_tf  # noqa: F401 - before TensorFlow
from simsiam_tf import pretrain
from simsiam_tf.command_line import cli


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(owner, name: str, count: int, after: bool) -> None:
    """Makes the count-th call of owner.name the last."""
    real, calls = getattr(owner, name), [0]

    def armed(*args, **kwargs):
        calls[0] += 1
        if calls[0] == count and not after:
            die()
        result = real(*args, **kwargs)
        if calls[0] == count:
            die()
        return result

    setattr(owner, name, armed)


def listen(ids_file: str) -> None:
    """Notes the ids of every batch when the loop takes it, neither earlier nor later."""
    import tensorflow as tf

    from simsiam_tf.data import pipeline
    from simsiam_tf.loop import compiled_steps

    real, batches = pipeline.StepBatches.dataset, compiled_steps.batches
    out = os.open(ids_file, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def heard(self, first_step, last_step):
        step, parts = [int(first_step)], []

        def note(ids):
            parts.extend(map(str, ids))
            heard.point()
            if len(parts) == self.batch_size:
                os.write(out, f"{step[0]}: {' '.join(parts)}\n".encode())
                step[0] += 1
                parts.clear()
            return ids

        def tap(batch):
            ids = tf.numpy_function(note, [batch["index"]], batch["index"].dtype)
            return {**batch, "index": tf.ensure_shape(ids, batch["index"].shape)}

        return real(self, first_step, last_step).map(tap)

    def of_the_loop(parts, config, first_step):
        pipeline.StepBatches.dataset = heard
        try:
            return batches(parts, config, first_step)
        finally:
            pipeline.StepBatches.dataset = real

    heard.point = lambda: None
    compiled_steps.batches = of_the_loop  # the picture at the start takes views, too
    return heard


def prepare(ids_file: str, fault: str) -> None:
    """Puts ear and trigger in place. Loads TensorFlow, so it comes when the command line would."""
    import tensorflow as tf

    from simsiam_tf.loop import checkpoints, compiled_steps, metrics_file
    from simsiam_tf.pretrained import backbone_file

    if "CPUS" in os.environ:  # one CPU as several devices
        parts = [tf.config.LogicalDeviceConfiguration()] * int(os.environ["CPUS"])
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, parts)
    from simsiam_tf.evaluate.knn_monitor import Monitor

    heard = listen(ids_file)
    points = {
        "step": (heard, "point"),
        "write": (tf.train.Checkpoint, "write"),
        "verify": (checkpoints, "_read_back"),
        "fsync": (os, "fsync"),
        "rename": (os, "rename"),
        "replace": (os, "replace"),
        "rmtree": (shutil, "rmtree"),
        "evaluate": (Monitor, "backbone_accuracy"),
        "export": (backbone_file, "export_network"),
        "record": (metrics_file.MetricsFile, "scalars"),
    }
    name, _, rest = fault.partition(":")
    if name in points:
        count, _, after = rest.partition(":")
        arm(*points[name], int(count), after == "after")
    elif fault == "control:optimizer":
        restore = checkpoints.Checkpoints.restore

        def forgetful(checkpoints):
            manifest = restore(checkpoints)
            for variable in checkpoints.checkpoint.optimizer.variables[2:]:
                variable.assign(variable * 0)
            return manifest

        checkpoints.Checkpoints.restore = forgetful
    elif name == "clock":
        real, seen = time.time, []
        heard.point = lambda: seen.append(1)
        time.time = lambda: real() - (86400 if len(seen) >= int(rest) else 0)
    elif fault == "control:data":
        batches = compiled_steps.batches
        compiled_steps.batches = lambda parts, config, first_step: batches(parts, config, 0)
    elif fault != "none":
        sys.exit(f"{fault}: no such fault")


def main() -> int:
    ids_file, ready_file, fault, *flags = sys.argv[1:]
    sys.argv[1:] = flags
    call = pretrain.call

    def traced(config):
        Path(ready_file).touch()
        with cli.silence_stderr():
            prepare(ids_file, fault)
        return call(config)

    pretrain.call = traced
    return pretrain.main()


if __name__ == "__main__":
    sys.exit(main())
