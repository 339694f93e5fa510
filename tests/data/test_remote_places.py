"""Images behind HTTP: the same as on disk though requests fail; many read at a time; failures in one line."""

import collections
import dataclasses
import re

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")  # which fsspec's http needs

from helpers import places
from helpers.http_files import serving
from helpers.places import COUNT, KINDS, check_same_images, name, picture, png

from simsiam_tf import embed, pretrain
from simsiam_tf.data import AUGMENTATIONS, Views, open_source, pipeline
from simsiam_tf.data.sources import addresses, file_records
from simsiam_tf.runtime.errors import UserError

TINY = [
    "--backbone=resnet10", "--stem=cifar", "--width=0.125", "--d=64", "--predictor_hidden=32",
    "--image_size=16", "--batch_size=8", "--epochs=2", "--precision=float32", "--strategy=one_device",
    "--monitor=none",
]  # fmt: skip
SPECS = [*(f"{kind}:URL/{{0..1}}.{kind}" for kind in KINDS), "list:URL/list.txt", "folder:URL/images"]


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    monkeypatch.setattr(addresses, "FIRST_WAIT", 0.001)
    monkeypatch.setenv("SIMSIAM_TF_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def contents():
    images = {f"images/{name(i)}": png(i) for i in range(COUNT)}
    pytest.importorskip("pyarrow")
    return {**images, **places.shards()}


@pytest.fixture
def server(contents):
    with serving(dict(contents)) as server:
        urls = [f"{server.url}/images/{name(i)}" for i in range(COUNT)]
        server.contents["list.txt"] = "\n".join(urls).encode()
        yield server


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return places.images_of(open_source(places.write_folder(tmp_path_factory.mktemp("local") / "images")))


def at(server, spec) -> str:
    return spec.replace("URL", server.url)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(("every", "failure"), [(10, 500), (10, 0), (1, 429)])
def test_every_read_is_tried_again(server, expected, spec, failure, every):
    """Of ten requests one fails, or all; but none more than twice."""
    failures = collections.Counter()

    def fail(n, request):
        fails = n % every == 0 and failures[request] < 2
        failures[request] += fails
        return failure if fails else None

    server.fail = fail
    check_same_images(open_source(at(server, spec)), expected)
    assert server.failed >= server.requests // 20


@pytest.mark.parametrize("status", [500, 0, 403, 404])
@pytest.mark.parametrize("spec", SPECS)
def test_a_place_where_everything_fails_ends_with_one_line(server, spec, status):
    server.fail = lambda n, _: status
    with pytest.raises(UserError) as raised:
        open_source(at(server, spec))
    assert server.url in str(raised.value) and "\n" not in str(raised.value)
    reason = {500: "HTTP status 500", 403: "HTTP status 403", 404: "no such file", 0: "cannot be"}[status]
    assert reason in str(raised.value).lower().replace("http", "HTTP")
    assert server.requests <= 2 * 2 * addresses.TRIES, "it kept on asking"


@pytest.mark.parametrize("spec", [SPECS[0], SPECS[1], SPECS[-1]])
def test_images_that_cannot_be_read_today_are_read_tomorrow(server, expected, spec, contents):
    server.fail = lambda n, _: None if n <= listed else 503
    listed = 10**9
    open_source(at(server, spec), check="none")
    listed, server.requests = server.requests, 0
    with pytest.raises(UserError, match=rf"{server.url}/\S+: cannot be read \(HTTP status 503"):
        open_source(at(server, spec))
    most = (file_records.MAX_FAILED + 2 * addresses.READS_AT_ONCE) * addresses.TRIES
    assert server.failed <= most, "it kept on asking"
    server.fail = lambda n, _: None
    check_same_images(open_source(at(server, spec)), expected)


def test_the_command_says_it_in_one_line(server, tmp_path, capsys):
    server.fail = lambda n, _: 500
    status = pretrain.main([f"--data=tar:{server.url}/0.tar", f"--workdir={tmp_path}/run"])
    lines = capsys.readouterr().err.strip().splitlines()
    assert status == 2 and len(lines) == 1
    assert f"{server.url}/0.tar: cannot be read (HTTP status 500" in lines[0]


@pytest.mark.parametrize("kind", KINDS)
def test_addresses_with_a_port_and_a_column(server, kind):
    column = {"parquet": ":image", "tfrecord": ":image"}.get(kind, "")
    assert open_source(f"{kind}:{server.url}/0.{kind}{column}").size == COUNT // 2


def test_a_run_survives_a_network_that_is_away_for_a_while(server, tmp_path, capsys):
    source = open_source(f"list:{server.url}/list.txt", run=tmp_path, on_bad_image="skip")
    until = server.requests + addresses.TRIES
    server.fail = lambda n, _: 503 if n <= until else None
    for i in (4, 3):  # the next image, then the image itself
        np.testing.assert_array_equal(source.decode(tf.constant(3, tf.int64)).numpy(), picture(i))
    error = capsys.readouterr().err
    assert "03.png: HTTP status 503 Service Unavailable; the next image stands in for it" in error


def test_an_archive_that_was_replaced_is_read_anew(server):
    first, second = list(range(COUNT // 2)), list(reversed(range(COUNT // 2)))
    server.headers["Last-Modified"] = "Sat, 01 Jan 2028 00:00:00 GMT"
    before = open_source(f"tar:{server.url}/0.tar").names
    server.contents["0.tar"] = places.shard("tar", second)
    assert len(server.contents["0.tar"]) == len(places.shard("tar", first))
    server.headers["Last-Modified"] = "Sun, 02 Jan 2028 00:00:00 GMT"
    assert open_source(f"tar:{server.url}/0.tar").names == before[::-1]


def test_a_server_without_parts_of_files(server):
    server.ranges = False
    with pytest.raises(UserError, match="the server sends whole files where a part is asked for"):
        open_source(f"tar:{server.url}/0.tar")


@pytest.mark.parametrize(
    "spec",
    [
        "tar:URL/{0..1}.tar",
        pytest.param("list:URL/list.txt", marks=pytest.mark.slow),
        pytest.param("folder:URL/images", marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_many_images_are_read_at_a_time(server, spec):
    """No read is answered before eight wait for their answers."""
    source = open_source(at(server, spec), check="none")
    augmentation = dataclasses.replace(AUGMENTATIONS["imagenet"], size=16)
    views, ids = Views(augmentation, 2), np.arange(COUNT)
    readers = {
        "check": lambda: [open_source(at(server, spec))] * 3,
        "evaluation": lambda: pipeline.evaluation_views(source, views, ids, 8),
        "training": lambda: pipeline.StepBatches(source, views, 8).dataset(0, 3),
        "fit": lambda: pipeline.pretraining(source, augmentation, 8),
    }
    for reader, batches in readers.items():
        server.most_at_once, server.wait_for = 0, {"GET image": 8}
        assert len(list(batches())) == 3
        assert server.most_at_once >= 8, reader


def test_many_addresses_of_a_list_are_asked_for_at_a_time(server):
    server.wait_for = {"HEAD image": 8}
    assert open_source(f"list:{server.url}/list.txt", check="none").size == COUNT
    assert server.most_at_once >= 8


@pytest.mark.slow
def test_a_network_that_fails_meanwhile_is_named(server, tmp_path, capsys):
    data = f"--data=tar:{server.url}/{{0..1}}.tar"
    run = [data, f"--workdir={tmp_path}/run", *TINY]
    open_source(data.removeprefix("--data="))  # the check is made; the run asks for the shards and one image
    server.fail = lambda n, request: 503 if n > checked and "GET" in request else None
    checked = server.requests + 20
    assert pretrain.main(run) == 2
    error = capsys.readouterr().err
    assert re.search(
        rf"step \d+ failed: {server.url}/[01].tar: HTTP status 503 Service Unavailable. Ch", error
    )
    assert "Traceback" not in error
    checked = 10**9
    assert pretrain.main(run) == 0
    capsys.readouterr()
    checked = server.requests
    embedded = embed.main([f"--weights={tmp_path}/run", data, f"--out={tmp_path}/images.npz"])
    assert embedded == 2
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert re.search(rf"embed: {server.url}/[01].tar: HTTP status 503 Service Unavailable. Rerun", line)
