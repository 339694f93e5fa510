"""Where images lie: arrays in memory, folders, TFDS sets."""
