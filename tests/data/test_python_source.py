"""Images of a Python object."""

from helpers import six_pictures as places

from simsiam_tf.data import open_source
from simsiam_tf.data.sources.python_source import from_images


class MySource:
    name = "mine"
    labels = places.LABELS

    def __len__(self):
        return places.COUNT

    def __getitem__(self, i):
        return places.png(i) if i % 2 else places.picture(i)


def test_an_object_of_ones_own():
    source = from_images(MySource())
    places.check_images(source, places.LABELS)
    assert source.name == "mine" and open_source(source) is source
