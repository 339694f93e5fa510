"""Views made by the data workers of a tf.data service."""
