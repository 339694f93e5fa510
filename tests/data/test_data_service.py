"""A dispatcher and two data workers, real processes: the same views in the same order, even with losses."""

import itertools
import os
import re
import shutil
import signal
import socket
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from helpers.data_servers import Server, Service
from helpers.runs import StopAt, state, tiny
from PIL import Image

from simsiam_tf import data_service, pretrain
from simsiam_tf.data import pipeline
from simsiam_tf.data.augment.augmentations import Augmentation
from simsiam_tf.data.augment.views import Views
from simsiam_tf.data.pipeline import StepBatches
from simsiam_tf.data.service import client, reorder
from simsiam_tf.data.sources.base import EncodedSource, from_arrays
from simsiam_tf.data.sources.open_source import open_source
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training import pretraining

STEPS, BATCH, SEED = 40, 16, 3


@pytest.fixture(scope="module")
def served():
    made = Service()
    yield made
    made.end()


@pytest.fixture
def own():
    """Makes services for tests that break them."""
    made = []
    yield lambda *flags: made.append(Service(*flags)) or made[-1]
    for each in made:
        each.end()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(64):
        image = tf.image.resize(rng.integers(0, 256, [9, 11, 3]).astype(np.float32), [60 + i, 90])
        tf.io.write_file(str(folder / f"{i:02d}.jpg"), tf.io.encode_jpeg(tf.cast(image, tf.uint8)))
    return folder


@pytest.fixture(scope="module")
def source(photos):
    return open_source(f"folder:{photos}")


VIEWS = Views(Augmentation(size=40))


def assert_same(ours, theirs, steps):
    """Both datasets have `steps` elements, equal to the bit."""
    count = 0
    for a, b in itertools.zip_longest(ours, theirs):
        tf.nest.map_structure(np.testing.assert_array_equal, a, b)
        count += 1
    assert count == steps


@pytest.mark.parametrize(
    ("first", "kwargs"),
    [
        pytest.param(0, {}, id="whole", marks=pytest.mark.slow),
        pytest.param(5, {}, id="continued", marks=pytest.mark.slow),
        pytest.param(
            0,
            {"rows": (8, 16), "elements_per_step": 2},
            id="the second of two, with two replicas",
            marks=pytest.mark.slow,
        ),
        pytest.param(0, {"augment_on_host": False}, id="host stage", marks=pytest.mark.slow),
    ],
)
def test_data_workers_make_the_same_batches_in_the_same_order(served, source, first, kwargs):
    batches = StepBatches(source, VIEWS, BATCH, SEED, **kwargs)
    ours = client.dataset(served.address, batches, first, STEPS)
    theirs = batches.dataset(first, STEPS)
    assert ours.element_spec == theirs.element_spec
    assert_same(served.wait_until_each_reads(iter(ours)), theirs, (STEPS - first) * batches.elements_per_step)


@pytest.mark.slow
def test_elements_are_sent_in_pieces_and_put_together(served, source, monkeypatch):
    monkeypatch.setattr(pipeline, "PIECE_PIXELS", 2 * 40**2)  # two rows
    batches = StepBatches(source, VIEWS, BATCH, SEED, elements_per_step=2)
    assert batches.pieces_per_step == 8
    assert_same(client.dataset(served.address, batches, 0, 4), batches.dataset(0, 4), 8)


def test_images_in_memory_are_sent_to_data_workers(served):
    views = Views(Augmentation(size=8, gray_p=0))
    batches = StepBatches(open_source("digits"), views, BATCH, SEED, targets=True)
    ours = client.dataset(served.address, batches, 3, 9)
    assert "target" in ours.element_spec
    assert_same(ours, batches.dataset(3, 9), 6)


@pytest.mark.slow
def test_xla_runs_on_data_workers(served, source):
    batches = StepBatches(source, Views(Augmentation(size=70)), 8, SEED)
    assert_same(client.dataset(served.address, batches, 3, 6), batches.dataset(3, 6), 3)


@pytest.mark.slow
def test_two_iterators_have_two_jobs_and_end_them(served, source):
    batches = StepBatches(source, VIEWS, BATCH, SEED)
    dataset = client.dataset(served.address, batches, 0, 100)
    indices = [[], []]
    iterators = [iter(dataset), iter(dataset)]
    for _ in range(4):
        for iterator, found in zip(iterators, indices, strict=True):
            found.append(next(iterator)["index"].numpy().tolist())
    expected = [b["index"].numpy().tolist() for b in batches.dataset(0, 100).take(4)]
    assert indices == [expected, expected]
    fetching = lambda: [t for t in threading.enumerate() if "_fetch" in t.name]
    assert len(fetching()) == 2
    del iterators, iterator
    end = time.monotonic() + 20
    while fetching() and time.monotonic() < end:
        time.sleep(0.1)
    assert not fetching()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_a_lost_data_worker_loses_no_step(own, source, monkeypatch, caplog, how):
    monkeypatch.setattr(reorder, "LATE_SECONDS", 1)
    mine = own()
    batches = StepBatches(source, VIEWS, BATCH, SEED)
    ours = mine.wait_until_each_reads(iter(client.dataset(mine.address, batches, 0, 60)))
    first = [next(ours) for _ in range(5)]
    os.kill(mine.workers[0].pid, how)
    assert_same(itertools.chain(first, ours), batches.dataset(0, 60), 60)
    assert "it is made here" in caplog.text
    if how == signal.SIGTERM:
        assert mine.workers[0].process.wait(10) == 0


@pytest.mark.slow
@pytest.mark.parametrize("keeps", [True, False])
def test_a_dispatcher_that_is_started_again_loses_no_step(own, source, tmp_path, caplog, keeps):
    flags = [f"--work_dir={tmp_path}"] if keeps else []
    mine = own(*flags)
    batches = StepBatches(source, VIEWS, BATCH, SEED)
    ours = iter(client.dataset(mine.address, batches, 0, 200))
    first = [next(ours) for _ in range(5)]
    mine.restart_dispatcher(*flags)
    assert_same(itertools.chain(first, ours), batches.dataset(0, 200), 200)
    assert ("Asking again" in caplog.text) != keeps


@pytest.mark.slow
def test_training_is_the_same_to_the_bit_and_ends_with_75_where_the_service_is_gone(own, tmp_path):
    mine = own()
    pretraining.pretrain(tiny(tmp_path / "without"))
    flag = f"--data_service={mine.address}"
    stopped = pretraining.pretrain(tiny(tmp_path / "with", flag), callbacks=[StopAt(9)])
    assert stopped.status == pretraining.INTERRUPTED and stopped.step < 22
    assert pretraining.pretrain(tiny(tmp_path / "with", flag)).status == pretraining.DONE
    assert state(tmp_path / "with") == state(tmp_path / "without")


# What is refused.


def refused(argv, capsys):
    assert pretrain.main([*argv, "--backbone=resnet10", "--width=0.125", "--epochs=1"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_wrong_addresses_are_refused(capsys, tmp_path):
    flags = ["--data=digits", f"--workdir={tmp_path}"]
    for wrong in ("here", "a b:1", "http://a:1", "a:", ":5"):
        assert "must be HOST:PORT" in refused([*flags, f"--data_service={wrong}"], capsys)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and does not listen
        line = refused([*flags, f"--data_service=localhost:{held.getsockname()[1]}"], capsys)
    assert re.search(r"no dispatcher answers there .*refused.*--role=dispatcher --port=\d+", line)


@pytest.mark.slow
def test_a_service_without_data_workers_is_refused(served, monkeypatch):
    monkeypatch.setattr(client, "START_SECONDS", (5, 2))
    dispatcher = Server("--role=dispatcher")
    try:
        with pytest.raises(UserError, match=r"no data worker .* 2 s.*--role=worker --dispatcher="):
            client.check_service(dispatcher.address())
    finally:
        dispatcher.kill()
    client.check_service(served.address)


def test_sources_that_cannot_be_sent_are_refused(served, photos, tmp_path, monkeypatch):
    client.check_source("a:1", open_source(f"folder:{photos}"))
    for folder in ("odd", "unchecked"):
        shutil.copytree(photos, tmp_path / folder)
    Image.new("RGBA", (60, 90), (9, 9, 9, 90)).save(tmp_path / "odd" / "transparent.png")
    for folder, check in (("odd", "decode"), ("unchecked", "none")):
        source = open_source(tmp_path / folder, check=check)
        with pytest.raises(UserError, match=r"is read by Python.*whose images all are JPEG and PNG"):
            client.check_source("a:1", source)
    client.check_source("a:1", open_source("digits"))
    one = lambda index: tf.numpy_function(lambda i: b"", [index], tf.string)
    records = EncodedSource("tfds:x:train", 64, 3, None, (), "", one)
    with pytest.raises(UserError, match=r"tfds:x:train is read by Python.*folder:PATH"):
        client.check_source("a:1", records)
    monkeypatch.setattr(client, "ARRAY_BYTES", 2**20)
    with pytest.raises(UserError, match=r"big has 4 MiB, and at most 1 MiB can be sent"):
        client.check_source("a:1", from_arrays("big", np.zeros([4096, 32, 32, 1], np.uint8)))


@pytest.mark.slow
def test_a_file_that_data_workers_do_not_see_is_named(served):
    source = EncodedSource("folder", 64, 3, None, (), "", lambda i: tf.io.read_file("/no/such/1.jpg"))
    dataset = client.dataset(served.address, StepBatches(source, VIEWS, BATCH, SEED), 0, STEPS)
    with pytest.raises(tf.errors.OpError) as caught:
        next(iter(dataset))
    ended = client.service_error(caught.value)
    assert type(ended) is UserError and re.search(r"failed: .*/no/such/1.jpg; No such file", str(ended))
    assert client.service_error(tf.errors.InternalError(None, None, "anything else")) is None


def test_a_folder_is_found_from_another_working_folder(photos, monkeypatch):
    monkeypatch.chdir(photos.parent)
    source = open_source(f"folder:{photos.name}")
    monkeypatch.chdir("/")
    assert source.decode(tf.constant(0)).shape == (60, 90, 3)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "--role=: no such value. Choose from dispatcher, worker"),
        (["--role=worker"], "--dispatcher=HOST:PORT belongs to --role=worker"),
        (["--role=dispatcher", "--dispatcher=a:1"], "--dispatcher=HOST:PORT belongs to --role=worker"),
        (["--role=worker", "--dispatcher=a"], "--dispatcher=a: must be HOST:PORT"),
        (["--role=dispatcher", "--port=70000"], "--port=70000: must be from 0"),
        (["--role=worker", "--dispatcher=a:1", "--work_dir=/x"], "no effect with --role=worker"),
    ],
)
def test_wrong_flags_of_a_server_are_refused(flags, expected, capsys):
    assert data_service.main(flags) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert expected in line


@pytest.mark.slow
def test_a_port_in_use_is_named(served):
    port = served.address.rpartition(":")[2]
    server = Server("--role=dispatcher", f"--port={port}")
    try:
        _, err = server.process.communicate(timeout=120)
    finally:
        server.kill()
    assert server.process.returncode == 2 and f"--port={port}: cannot serve" in err.splitlines()[-1]
