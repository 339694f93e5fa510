"""The command line on one CPU as two devices: python tests/helpers/two_cpus.py FLAGS."""

import sys

import tensorflow as tf

import simsiam_tf  # noqa: F401, I001 - before TensorFlow, which it sets up
from simsiam_tf import pretrain

if __name__ == "__main__":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    sys.exit(pretrain.main(sys.argv[1:]))
