"""Sources of images: arrays, Python objects, folders, lists, archives, tables, TFDS and Hugging Face sets."""
