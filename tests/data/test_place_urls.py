"""Places of encoded images behind URLs."""

import pytest
from helpers import six_pictures
from helpers.six_pictures import COUNT, LABELS, check_images, name, png, write_tar

from simsiam_tf.data import open_source
from simsiam_tf.data.sources import addresses
from simsiam_tf.runtime.errors import UserError

folder = six_pictures.folder


@pytest.fixture
def memory(folder):
    """The images in fsspec's memory, as a folder and in archives."""
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    for i in range(COUNT):
        system.pipe(f"/bucket/images/{name(i)}", png(i))
    system.pipe("/bucket/images/notes.txt", b"x")
    write_tar(folder.parent / "all.tar", [(name(i), png(i)) for i in range(COUNT)])
    system.pipe("/bucket/all.tar", (folder.parent / "all.tar").read_bytes())
    system.pipe("/bucket/list.csv", b"path,label\n" + b"".join(
        f"memory://bucket/images/{name(i)},{i // 3}\n".encode() for i in range(COUNT)
    ))  # fmt: skip
    return system


@pytest.mark.parametrize(
    "spec", ["folder:memory://bucket/images", "tar:memory://bucket/*.tar", "list:memory://bucket/list.csv"]
)
def test_places_behind_urls(memory, spec):
    check_images(open_source(spec), LABELS)


def test_reads_are_tried_again(memory, monkeypatch):
    monkeypatch.setattr(addresses, "FIRST_WAIT", 0.001)
    calls, cat_file = [], type(memory).cat_file

    def failing(self, *args, **kwargs):
        calls.append((args, tuple(kwargs.items())))
        if calls.count(calls[-1]) % 3:  # every read fails twice
            raise OSError("the network is away")
        return cat_file(self, *args, **kwargs)

    monkeypatch.setattr(type(memory), "cat_file", failing)
    check_images(open_source("tar:memory://bucket/all.tar"), LABELS)
    assert len(calls) > 2 * COUNT
    monkeypatch.setattr(
        type(memory), "cat_file", lambda *a, **k: (_ for _ in ()).throw(OSError("away for good"))
    )
    with pytest.raises(OSError, match="away for good"):
        addresses.read_bytes("memory://bucket/all.tar")


def test_a_part_of_a_path_and_of_a_url(memory, folder):
    places = folder.parent / "all.tar", "memory://bucket/all.tar"
    whole = places[0].read_bytes()
    for address in map(str, places):
        assert addresses.read_bytes(address) == whole
        for start, length in ((0, 7), (512, 40), (len(whole) - 3, 3), (5, 0)):
            assert addresses.read_bytes(address, (start, length)) == whole[start : start + length]
        with pytest.raises(OSError, match="cut off at byte"):
            addresses.read_bytes(address, (len(whole) - 3, 4))


def test_urls_that_lead_nowhere(memory):
    with pytest.raises(UserError, match="no such file"):
        open_source("tar:memory://bucket/none.tar")
    with pytest.raises(UserError, match="cannot be opened"):
        open_source("tar:nosuchscheme://bucket/none.tar")
