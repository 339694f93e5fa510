"""Images in S3, as moto serves it: the same as on disk, and one line where they cannot be read."""

import logging
import os
import subprocess
import sys
import urllib.request

import numpy as np
import pytest

pytest.importorskip("moto.server")
boto3, s3fs = pytest.importorskip("boto3"), pytest.importorskip("s3fs")

from helpers import places
from helpers.places import COUNT, check_same_images, name, png

from simsiam_tf import embed
from simsiam_tf.data import open_source
from simsiam_tf.data.sources import addresses
from simsiam_tf.runtime.errors import UserError

RUN = [
    "--backbone=resnet10", "--stem=cifar", "--width=0.125", "--d=64", "--predictor_hidden=32",
    "--image_size=16", "--batch_size=8", "--epochs=2", "--log_every=2", "--precision=float32",
    "--strategy=one_device",
]  # fmt: skip


@pytest.fixture(scope="module")
def endpoint():
    """The address of a server of S3, named as a user does, with the images in the bucket "bucket"."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for own in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(own, os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        pytest.importorskip("pyarrow")
        images = {f"images/{name(i)}": png(i) for i in range(COUNT)}
        urls = [f"s3://bucket/images/{name(i)}" for i in range(COUNT)]
        client = boto3.client("s3")
        client.create_bucket(Bucket="bucket")
        for key, data in {**images, **places.shards(), "list.txt": "\n".join(urls).encode()}.items():
            client.put_object(Bucket="bucket", Key=key, Body=data)
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def fresh(endpoint, tmp_path, monkeypatch):
    """A cache without records, and no listings from other tests."""
    monkeypatch.setattr(addresses, "FIRST_WAIT", 0.001)
    monkeypatch.setenv("SIMSIAM_TF_CACHE", str(tmp_path / "cache"))
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return places.images_of(open_source(places.write_folder(tmp_path_factory.mktemp("local") / "images")))


@pytest.mark.parametrize(
    "spec",
    [
        "folder:s3://bucket/images", "tar:s3://bucket/{0..1}.tar", "tar:s3://bucket/*.tar",
        "zip:s3://bucket/*.zip", "parquet:s3://bucket/{0..1}.parquet",
        "tfrecord:s3://bucket/*.tfrecord:image", "list:s3://bucket/list.txt",
        "folder:s3://bucket/images/cats,folder:s3://bucket/images/dogs",
    ],
)  # fmt: skip
def test_the_same_images(expected, spec):
    source = open_source(spec)
    check_same_images(source, expected)
    labelled = spec.startswith(("tar", "zip")) or spec == "folder:s3://bucket/images"
    assert source.class_names == (("cats", "dogs") if labelled else ())


def test_a_list_on_this_machine(expected, tmp_path):
    (tmp_path / "list.csv").write_text(
        "path,label\n" + "".join(f"s3://bucket/images/{name(i)},{i % 2}\n" for i in range(COUNT))
    )
    source = open_source(f"list:{tmp_path}/list.csv")
    check_same_images(source, expected)
    assert np.asarray(source.labels).tolist() == [i % 2 for i in range(COUNT)]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("folder:s3://nobody/images", "cannot be listed .No such file or directory"),
        ("folder:s3://bucket/none", "holds no image"),
        ("tar:s3://nobody/0.tar", "no such file"),
        ("tar:s3://bucket/{0..2}.tar", "no such file. It is one of"),
        ("tar:s3://bucket/none*.tar", "no file fits this pattern"),
        ("parquet:s3://bucket/none.parquet", "no such file"),
        ("list:s3://bucket/none.txt", "cannot be read .No such file or directory"),
    ],
)
def test_what_is_not_there(spec, reason):
    with pytest.raises(UserError, match=reason) as raised:
        open_source(spec)
    url = spec.partition(":")[2].replace("{0..2}", "2")
    assert url in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "spec",
    [
        "folder:s3://bucket/images", "tar:s3://bucket/0.tar", "tar:s3://bucket/*.tar",
        "parquet:s3://bucket/0.parquet", "list:s3://bucket/list.txt",
    ],
)  # fmt: skip
def test_wrong_keys(endpoint, spec):
    set_calls_without_keys(endpoint, 0)
    try:
        with pytest.raises(UserError, match="Forbidden|Access Key Id you provided does not exist") as raised:
            open_source(spec)
    finally:
        set_calls_without_keys(endpoint, float("inf"))
    assert spec.partition(":")[2] in str(raised.value) and "\n" not in str(raised.value)


def set_calls_without_keys(endpoint, count):
    """moto checks keys after so many calls."""
    request = urllib.request.Request(
        f"{endpoint}/moto-api/reset-auth", str(count).encode(), {"Content-Type": "text/plain"}
    )
    urllib.request.urlopen(request).close()


def test_no_keys(monkeypatch):
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    with pytest.raises(UserError, match="s3://bucket/0.tar: cannot be read .Unable to locate credentials"):
        open_source("tar:s3://bucket/0.tar")


def test_a_command_says_it_in_one_line(tmp_path):
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "simsiam_tf.pretrain", "--data=tar:s3://nobody/0.tar"]
    done = subprocess.run(
        [*command, f"--workdir={tmp_path}/run"], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["simsiam_tf.pretrain: s3://nobody/0.tar: no such file."]


@pytest.mark.slow
def test_a_run_on_shards_and_embeddings_of_a_folder(tmp_path):
    command = [sys.executable, "-m", "simsiam_tf.pretrain", "--data=tar:s3://bucket/{0..1}.tar"]
    done = subprocess.run(
        [*command, *RUN, f"--workdir={tmp_path}/run"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run" / "export" / "backbone.keras").is_file()
    out = tmp_path / "images.npz"
    flags = [f"--weights={tmp_path}/run", "--data=folder:s3://bucket/images", f"--out={out}"]
    assert embed.main(flags) == 0
    with np.load(out, allow_pickle=False) as embeddings:
        names = embeddings["names"].tolist()
        assert names == [name(i) for i in range(COUNT)]
        features = embeddings["features"]
    assert len(features) == COUNT and np.isfinite(features).all() and np.ptp(features) > 0
