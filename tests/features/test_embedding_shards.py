"""Shards of a set equal one process; finished ones are kept, foreign ones refused; without a cluster."""

import contextlib
import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from helpers import small_backbones
from PIL import Image

from simsiam_tf import embed, neighbours
from simsiam_tf.data import AUGMENTATIONS
from simsiam_tf.distributed import ray_actors
from simsiam_tf.features import embedding_shards, parquet, shard_worker
from simsiam_tf.features.embedding_file import read_embeddings
from simsiam_tf.features.embedding_shards import part_file
from simsiam_tf.features.names import ArrowNames

BAD = ["05.png", *(f"{i}.png" for i in range(16, 24))]  # of eight images, the third shard has none


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """26 images; those of BAD are none."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(26):
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).save(root / f"{i:02}.png")
    return root


@pytest.fixture
def damaged(photos, tmp_path):
    root = shutil.copytree(photos, tmp_path / "damaged")
    for name in BAD:
        (root / name).write_text("no picture")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return small_backbones.exported(folder, dataclasses.replace(AUGMENTATIONS["cifar"], size=16), channels=3)


@pytest.fixture
def cluster(monkeypatch):
    """A cluster of this process alone; numbers of the shards that it has computed."""
    computed = []

    def run_items(ray, make, items, cores):
        worker = make(None)
        for item in items:
            worker(item)
            computed.append(item)
            yield item

    monkeypatch.setattr(ray_actors, "joined_cluster", lambda address: contextlib.nullcontext())
    monkeypatch.setattr(ray_actors, "run_items", run_items)
    return computed


def run(command, *argv):
    return command.main([f"--{name}" for name in argv])


def argv_for(weights, photos, out, *more):
    return f"weights={weights}", f"data=folder:{photos}", f"out={out}", "batch_size=4", *more


SHARDED = ("ray", "shard_images=8")


def unreadable(tmp_path, name):
    return json.loads((tmp_path / f"{name}.unreadable.json").read_text())["unreadable"]


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float16", marks=pytest.mark.slow)])
def test_shards_equal_one_process_to_the_bit(photos, weights, tmp_path, cluster, capsys, dtype):
    argv = argv_for(weights, photos, "", f"dtype={dtype}", f"features_dir={tmp_path / 'f'}")
    assert run(embed, *argv, f"out={tmp_path}/one.npz") == 0
    assert run(embed, *argv[:-1], f"out={tmp_path}/s/", *SHARDED) == 0
    assert "s: 26 images of folder:" in capsys.readouterr().out and cluster == [0, 1, 2, 3]
    one, sharded = read_embeddings(tmp_path / "one.npz"), read_embeddings(tmp_path / "s")
    assert list(sharded.names) == list(one.names) and sharded.about == one.about
    np.testing.assert_array_equal(sharded.features, one.features)
    assert isinstance(sharded.features, np.memmap) and isinstance(sharded.names, ArrowNames)
    each = [parquet.read_about(part_file(tmp_path / "s", i))[0] for i in range(4)]
    assert each == [8, 8, 8, 2] and not (tmp_path / "s.unreadable.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("check", ["decode", "none"])
def test_unreadable_images_are_named_as_by_one_process(damaged, weights, tmp_path, cluster, capsys, check):
    argv = argv_for(weights, damaged, "")
    assert run(embed, *argv, f"out={tmp_path}/one.npz", f"features_dir={tmp_path / 'f'}") == 0
    line = capsys.readouterr().err.splitlines()[-1]
    assert run(embed, *argv, f"out={tmp_path}/s/", *SHARDED, f"check={check}") == 0
    assert capsys.readouterr().err.splitlines()[-1] == line.replace("one.unreadable", "s.unreadable")
    one, sharded = read_embeddings(tmp_path / "one.npz"), read_embeddings(tmp_path / "s")
    assert list(sharded.names) == list(one.names) and len(one.names) == 26 - len(BAD)
    largest = np.abs(one.features).max()
    np.testing.assert_allclose(sharded.features, one.features, rtol=0, atol=1e-6 * largest)
    assert unreadable(tmp_path, "s") == unreadable(tmp_path, "one") and sharded.about == one.about
    assert list(unreadable(tmp_path, "s")) == BAD
    for asked in ("03.png", damaged / "03.png"):
        answers = []
        for place in ("one.npz", "s"):
            capsys.readouterr()
            assert run(neighbours, f"embeddings={tmp_path / place}", f"query={asked}", "k=3") == 0
            answers.append(capsys.readouterr().out)
        assert answers[0] == answers[1] and "03.png" in answers[0]


@pytest.mark.slow
def test_an_unreadable_image_stops_the_command_and_finished_shards_stay(
    damaged, weights, tmp_path, cluster, capsys
):
    argv = argv_for(weights, damaged, f"{tmp_path}/s/", *SHARDED)
    shutil.copy(damaged / "00.png", damaged / "05.png")
    assert run(embed, *argv, "on_bad_image=error") == 2
    err = capsys.readouterr().err
    assert re.search(
        r"images 16 to 23 of folder:\S+: 8 of 8 images cannot be decoded, such as 16.png \(", err
    )
    assert "Traceback" not in err and cluster == [0, 1]
    assert run(embed, *argv) == 0 and cluster == [0, 1, 2, 3]
    assert run(embed, *argv, "on_bad_image=error") == 2 and cluster == [0, 1, 2, 3]
    assert "8 of 26 images cannot be decoded" in capsys.readouterr().err


@pytest.mark.slow
def test_a_rerun_computes_what_is_missing(photos, weights, tmp_path, cluster, monkeypatch, capsys):
    root, out = shutil.copytree(photos, tmp_path / "images"), tmp_path / "s"
    argv = argv_for(weights, root, f"{out}/", *SHARDED)

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        write = shard_worker.write_shard
        patch.setattr(shard_worker, "write_shard", lambda *a: full() if a[2] == 2 else write(*a))
        assert run(embed, *argv) == 2 and "cannot be written (No space left" in capsys.readouterr().err
    (out / ".writing-0123456789abcdef.tmp").write_text("of a killed process")
    assert run(neighbours, f"embeddings={out}", "query=all") == 2
    assert "it has 2 of 4 files, without part-00002.parquet; rerun embed" in capsys.readouterr().err
    assert run(embed, *argv) == 0 and cluster == [0, 1, 2, 3]
    assert sorted(p.name for p in out.iterdir()) == [
        *(f"part-0000{i}.parquet" for i in range(4)),
        "shards.json",
    ]
    before = read_embeddings(out).features.copy()
    part_file(out, 1).write_bytes(part_file(out, 1).read_bytes()[:-100])
    shutil.copy(root / "00.png", root / "17.png")
    del cluster[:]
    assert run(embed, *argv) == 0 and cluster == [1, 2]
    err = capsys.readouterr().err
    assert "1 of 4 shards are made anew, since their images changed, such as part-00002.parquet" in err
    assert "1 of 4 shards are made anew, since they are damaged, such as part-00001.parquet" in err
    after = read_embeddings(out).features  # the copy is made anew as well
    assert [i for i in range(26) if (after[i] != before[i]).any()] == [17]
    np.testing.assert_array_equal(after[17], after[0])
    assert run(embed, *argv) == 0 and cluster == [1, 2]


@pytest.mark.slow
def test_shards_of_other_weights_data_and_options_are_refused(photos, weights, tmp_path, cluster, capsys):
    out = f"{tmp_path}/s/"
    assert run(embed, *argv_for(weights, photos, out, *SHARDED)) == 0
    written = {p.name: p.read_bytes() for p in (tmp_path / "s").iterdir()}
    augmentation = dataclasses.replace(AUGMENTATIONS["cifar"], size=16)
    other = small_backbones.exported(tmp_path / "other", augmentation, channels=3, seed=1)
    moved = shutil.copytree(photos, tmp_path / "moved")
    capsys.readouterr()
    for argv, message in (
        (argv_for(other, photos, out, *SHARDED), "holds shards of other weights. Choose"),
        (argv_for(weights, moved, out, *SHARDED), "holds shards of other images. Choose"),
        (argv_for(weights, photos, out, "ray", "shard_images=4"), "shard_images=8, not 4. Choose"),
        (argv_for(weights, photos, out, *SHARDED, "image_size=17"), "image_size=16, not 17. Choose"),
        (argv_for(weights, photos, out, *SHARDED, "fast"), "fast=False, not True. Choose"),
        (argv_for(weights, photos, out, *SHARDED, "dtype=float16"), "dtype=float32, not float16"),
    ):
        assert run(embed, *argv) == 2
        err = capsys.readouterr().err
        assert message in err and "or pass --overwrite" in err and len(err.splitlines()) == 1, err
        assert {p.name: p.read_bytes() for p in (tmp_path / "s").iterdir()} == written
    del cluster[:]
    assert run(embed, *argv_for(other, photos, out, *SHARDED, "overwrite")) == 0 and cluster == [0, 1, 2, 3]
    foreign = part_file(tmp_path / "s", 3)
    foreign.write_bytes(written[foreign.name])
    assert run(embed, *argv_for(other, photos, out, *SHARDED)) == 2
    assert "part-00003.parquet is of other weights" in capsys.readouterr().err
    assert run(neighbours, f"embeddings={tmp_path / 's'}", "query=all") == 2
    assert "part-00003.parquet is of other weights" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("mine")
    assert run(embed, *argv_for(weights, photos, f"{tmp_path}/mine/", *SHARDED, "overwrite")) == 2
    assert "is a folder of other files, such as a.txt" in capsys.readouterr().err


@pytest.mark.slow
def test_arrays_have_their_numbers_as_names(tmp_path, cluster):
    gray = dataclasses.replace(AUGMENTATIONS["grayscale"], size=8)
    weights = small_backbones.exported(tmp_path / "run", gray, channels=1)
    argv = (f"weights={weights}", "data=digits:train[:70]", "batch_size=16")
    assert run(embed, *argv, f"out={tmp_path}/one.npz", "fast") == 0
    assert run(embed, *argv, f"out={tmp_path}/s/", "ray", "shard_images=32", "fast") == 0
    one, sharded = read_embeddings(tmp_path / "one.npz"), read_embeddings(tmp_path / "s")
    assert list(sharded.names) == [str(i) for i in range(70)] == list(one.names)
    assert sharded.about == one.about and sharded.about["fast"]
    np.testing.assert_array_equal(sharded.features, one.features)


@pytest.mark.slow
def test_the_range_of_deep_pixels_is_that_of_the_whole_set(photos, weights, tmp_path, cluster, capsys):
    root = shutil.copytree(photos, tmp_path / "images")
    for i in (3, 20):
        deep = np.random.default_rng(i).integers(0, 4000, (20, 30), np.uint16)
        Image.fromarray(deep).save(root / f"{i:02}.png")
    argv = argv_for(weights, root, "", f"features_dir={tmp_path / 'f'}")
    assert run(embed, *argv[:-1], f"out={tmp_path}/s/", *SHARDED) == 2
    assert "Pass --pixel_range=LOW,HIGH or --pixel_range=type" in capsys.readouterr().err
    assert run(embed, *argv, f"out={tmp_path}/one.npz", "pixel_range=0,4000") == 0
    assert run(embed, *argv[:-1], f"out={tmp_path}/t/", *SHARDED, "pixel_range=0,4000") == 0
    one, sharded = read_embeddings(tmp_path / "one.npz"), read_embeddings(tmp_path / "t")
    np.testing.assert_array_equal(sharded.features, one.features)
    assert sharded.about == one.about and one.about["pixels"]["pixel_range"] == "0,4000"


@pytest.mark.slow
def test_a_machine_that_sees_other_files_is_refused(photos, weights, tmp_path, cluster, monkeypatch, capsys):
    root = shutil.copytree(photos, tmp_path / "images")
    start = shard_worker.ShardWorker.__init__
    for change, lines in (
        (lambda: (root / "26.png").write_bytes(b"new"), []),
        (lambda: shutil.copy(root / "01.png", root / "20.png"), [0, 1]),
    ):

        def elsewhere(self, job, cores=None, change=change):
            change()
            start(self, job, cores)

        del cluster[:]
        with monkeypatch.context() as patch:
            patch.setattr(shard_worker.ShardWorker, "__init__", elsewhere)
            assert run(embed, *argv_for(weights, root, f"{tmp_path}/{len(lines)}/", *SHARDED)) == 2
        assert "differs from what the command began with. Files" in capsys.readouterr().err
        assert cluster == lines
        (root / "26.png").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--out=a.npz", "--ray"], "--out=a.npz: must be a folder with --ray, as in --out=photos/"),
        (["--out=a/", "--ray=ray://x:1"], "--ray=ray://x:1: run the command on a machine of the cluster"),
        (["--out=a/", "--ray", "--shard_images=500"], "Pass --shard_images=256"),
        (["--out=a/", "--shard_images=512"], "--shard_images=512 has no effect with one process"),
        (["--out=a/", "--ray_cores=2"], "--ray_cores=2 has no effect with one process"),
        (["--out=a/", "--ray", "--features_dir=f"], "--features_dir=f has no effect with --ray"),
    ],
)
def test_bad_options_are_one_line(argv, message, weights, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert embed.main([f"--weights={weights}", *argv]) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1 and not list(tmp_path.iterdir()), err


def test_the_copy_takes_bounded_memory(tmp_path, monkeypatch):
    """Shards of 32 MiB in all, of which a block of 1 MiB is in memory at a time."""
    import tracemalloc

    from simsiam_tf.features import columns

    monkeypatch.setattr(columns, "BLOCK", 2**18)
    monkeypatch.setattr(parquet, "BLOCK", 2**18)
    shards = embedding_shards.Shards(2**14, 2**12, 512, "float32", {"sha256": "a"})
    rows = np.random.default_rng(0).normal(size=(2**12, 512)).astype(np.float32)
    contents = ["c"] * 4
    assert embedding_shards.missing_shards(tmp_path / "s", shards, contents) == [0, 1, 2, 3]
    for number in range(4):
        names = np.array([str(i) for i in shards.images_of(number)], object)
        content = names, rows + number, {"data": "d"}
        embedding_shards.write_shard(tmp_path / "s", shards, number, "c", content, {})
    tracemalloc.start()
    found = read_embeddings(tmp_path / "s")
    assert tracemalloc.get_traced_memory()[1] < 6 * 2**20
    tracemalloc.stop()
    np.testing.assert_array_equal(found.features[5 * 2**11], rows[2**11] + 2)
    assert found.names[5 * 2**11] == str(5 * 2**11) and found.about == {"data": "d"}
