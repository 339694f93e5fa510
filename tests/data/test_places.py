"""Places of encoded images: lists, archives, tables, URLs and unions give the same images as a folder."""

import json
import tarfile
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from helpers import six_pictures
from helpers.six_pictures import COUNT, LABELS, check_images, name, png, write_tar

from simsiam_tf.data import open_source
from simsiam_tf.evaluate import knn_monitor
from simsiam_tf.runtime.errors import UserError

folder = six_pictures.folder


def test_folder(folder):
    check_images(open_source(f"folder:{folder}"), LABELS)


def test_lists(folder):
    listed = folder / "all.txt"
    listed.write_text("# a comment\n" + "".join(f"{name(i)}\n" for i in range(COUNT)))
    check_images(open_source(f"list:{listed}"))
    table = folder / "all.csv"
    rows = [f"{name(i)},{'cat' if i < 3 else 'dog'},train" for i in range(COUNT)]
    table.write_text("path,label,split\n" + "\n".join([*rows, "dogs/5.png,dog,test"]) + "\n")
    source = open_source(f"list:{table}")
    check_images(source, LABELS)
    assert source.class_names == ("cat", "dog")
    test = open_source(f"list:{table}", "test")  # whose only label is the second class of all rows
    assert (test.size, test.class_names, list(test.labels)) == (1, ("cat", "dog"), [1])
    absolute = folder.parent / "absolute.txt"
    absolute.write_text("\n".join(str(folder / name(i)) for i in range(COUNT)))
    check_images(open_source(f"list:{absolute}"))


def test_the_test_rows_of_a_list_are_the_queries_of_its_monitor(folder):
    table = folder / "all.csv"
    splits = ["train", "test", "train", "train", "test", "train"]
    table.write_text(
        "path,label,split\n" + "".join(f"{name(i)},{LABELS[i]},{splits[i]}\n" for i in range(COUNT))
    )
    monitor = knn_monitor.monitor_of(f"list:{table}", size=8)
    assert (monitor.bank.size, monitor.queries.size) == (4, 2)
    (folder / name(4)).write_bytes(b"")  # never passed over in silence
    with pytest.raises(UserError, match="dogs/4.png .empty file"):
        knn_monitor.monitor_of(f"list:{table}", size=8)
    table.write_text("path,label\n" + "".join(f"{name(i)},{LABELS[i]}\n" for i in range(4)))
    monitor = knn_monitor.monitor_of(f"list:{table}", size=8)
    assert monitor.queries is monitor.bank and monitor.query_ids.tolist() == [0]


def test_lists_that_do_not_fit(folder):
    listed = folder / "all.csv"
    listed.write_text("path,label\ncats/0.png,a\ncats/9.png,b\n")
    with pytest.raises(UserError, match="lacks 1 of its 2 images, such as cats/9.png"):
        open_source(f"list:{listed}")
    listed.write_text("cats/0.png\ncats/0.png\n")
    with pytest.raises(UserError, match="names cats/0.png 2 times"):
        open_source(f"list:{listed}")
    listed.write_text("path,split\ncats/0.png,a\n")
    with pytest.raises(UserError, match="has no split 'train'. Its splits: a"):
        open_source(f"list:{listed}")
    listed.write_text("path\ncats/0.png\n")
    with pytest.raises(UserError, match="no column `split`, and so no split 'test'"):
        open_source(f"list:{listed}", "test")
    listed.write_text("\n")
    with pytest.raises(UserError, match="names no image"):
        open_source(f"list:{listed}")
    with pytest.raises(UserError, match="cannot be read"):
        open_source(f"list:{folder}/nowhere.txt")


def test_tar_shards_of_webdataset(tmp_path):
    for shard in range(2):
        members = []
        for i in range(3 * shard, 3 * shard + 3):
            members += [
                (f"{i:04d}.png", png(i)),
                (f"{i:04d}.cls", str(i // 3).encode()),
                (f"{i:04d}.json", b"{}"),
            ]
        write_tar(tmp_path / f"shard-{shard:03d}.tar", members)
    for pattern in ("shard-{000..001}.tar", "shard-*.tar", "{shard-000,shard-001}.tar"):
        source = open_source(f"tar:{tmp_path}/{pattern}")
        check_images(source, LABELS)
        assert source.names[0] == "shard-000.tar/0000.png"
    with pytest.raises(UserError, match=r"shard-002.tar: no such file. It is one of"):
        open_source(f"tar:{tmp_path}/shard-{{000..002}}.tar")
    with pytest.raises(UserError, match="no file fits this pattern"):
        open_source(f"tar:{tmp_path}/x*.tar")


def test_a_tar_with_class_folders(tmp_path):
    write_tar(tmp_path / "all.tar", [(name(i), png(i)) for i in range(COUNT)])
    source = open_source(f"tar:{tmp_path}/all.tar")
    check_images(source, LABELS)
    assert source.class_names == ("cats", "dogs")


def test_shards_are_no_classes(tmp_path):
    for shard in range(2):
        members = [(name(i), png(i)) for i in range(shard, COUNT, 2)]
        write_tar(tmp_path / f"{shard}.tar", members)
        write_tar(tmp_path / f"flat-{shard}.tar", [(n.partition("/")[2], data) for n, data in members])
    source = open_source(f"tar:{tmp_path}/{{0..1}}.tar")
    assert source.class_names == ("cats", "dogs")
    assert np.asarray(source.labels).tolist() == [0, 0, 1, 0, 1, 1]  # images 0, 2, 4, 1, 3, 5
    assert open_source(f"tar:{tmp_path}/flat-*.tar").labels is None


def test_damaged_tars(tmp_path):
    write_tar(tmp_path / "all.tar", [(name(i), png(i) + bytes(2000)) for i in range(COUNT)])
    whole = (tmp_path / "all.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2 + 100])
    with pytest.raises(UserError, match="cut.tar is damaged or cut off"):
        open_source(f"tar:{tmp_path}/cut.tar")
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(UserError, match="compressed.*Unpack it"):
        open_source(f"tar:{tmp_path}/all.tar.gz")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_files(tmp_path, method):
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for i in range(COUNT):
            archive.writestr(name(i), png(i))
        archive.writestr("__MACOSX/cats/._0.png", b"x")
        archive.writestr("notes.txt", b"x")
    source = open_source(f"zip:{path}")
    check_images(source, LABELS)
    data = bytearray(path.read_bytes())
    data[30 + len(name(0)) + 45] ^= 1  # among the bytes of the first image
    (tmp_path / "damaged.zip").write_bytes(data)
    with pytest.raises(UserError, match="1 of 6 images cannot be decoded"):
        open_source(f"zip:{tmp_path}/damaged.zip")


@pytest.mark.parametrize(
    ("labels", "numbers", "classes"),
    [
        ([["cat", "dog", "cat"], ["dog", "owl", "dog"]], [0, 1, 0, 1, 2, 1], ("cat", "dog", "owl")),
        ([[0, 1, 0], [2, 0, 1]], [0, 1, 0, 2, 0, 1], ("0", "1", "2")),
        ([[0, 1, 0], ["cat", "dog", "1"]], [0, 1, 0, 2, 3, 1], ("0", "1", "cat", "dog")),
        ([[0, 1, None], [1, 1, 0]], None, ()),
    ],
)
def test_labels_of_several_parquet_files_are_one_set(tmp_path, capsys, labels, numbers, classes):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for part, column in enumerate(labels):
        images = [png(3 * part + i) for i in range(3)]
        pq.write_table(pa.table({"image": images, "label": column}), tmp_path / f"{part}.parquet")
    source = open_source(f"parquet:{tmp_path}/*.parquet")
    assert source.class_names == classes
    assert (source.labels is None) == (numbers is None)
    if numbers is None:
        assert (
            "labels are not used, since 1 of 6 images have none: 0.parquet/00000002"
            in capsys.readouterr().err
        )
    else:
        assert source.labels.tolist() == numbers


@pytest.mark.parametrize("form", ["bytes", "struct"])
def test_parquet_files(tmp_path, form):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for part in range(2):
        rows = range(3 * part, 3 * part + 3)
        cells = [png(i) if form == "bytes" else {"bytes": png(i), "path": name(i)} for i in rows]
        table = pa.table({"image": cells, "label": [i // 3 for i in rows]})
        features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        pq.write_table(
            table.replace_schema_metadata(metadata), tmp_path / f"{part}.parquet", row_group_size=2
        )
    for _ in range(2):  # copied; then from the copy
        source = open_source(f"parquet:{tmp_path}/*.parquet")
        check_images(source, LABELS)
        assert source.class_names == ("cat", "dog")
    check_images(open_source(f"parquet:{tmp_path}/*.parquet:image"), LABELS)
    with pytest.raises(UserError, match=r"no column 'imgae' of bytes. Did you mean image\?"):
        open_source(f"parquet:{tmp_path}/*.parquet:imgae")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "none.parq")
    with pytest.raises(UserError, match=r"has no column of bytes: a \(int64\)"):
        open_source(f"parquet:{tmp_path}/none.parq")


@pytest.mark.parametrize("feature", ["image/encoded", "photo"])
def test_tfrecord_files(tmp_path, feature):
    path = str(tmp_path / "all.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for i in range(COUNT):
            example = tf.train.Example()
            example.features.feature[feature].bytes_list.value.append(png(i))
            example.features.feature["image/class/label"].int64_list.value.append(i // 3)
            writer.write(example.SerializeToString())
    check_images(open_source(f"tfrecord:{path}"), LABELS)
    check_images(open_source(f"tfrecord:{path}:{feature}"), LABELS)
    (tmp_path / "cut.tfrecord").write_bytes((tmp_path / "all.tfrecord").read_bytes()[:-5])
    with pytest.raises(UserError, match="cut.tfrecord is damaged or cut off"):
        open_source(f"tfrecord:{tmp_path}/cut.tfrecord")


def test_several_places_are_one_set(folder, tmp_path):
    cats, dogs = folder / "cats", folder / "dogs"
    check_images(open_source(f"folder:{cats},folder:{dogs}"))
    write_tar(tmp_path / "dogs.tar", [(f"{i}.png", png(i)) for i in range(3, 6)])
    check_images(open_source(f"folder:{cats},tar:{tmp_path}/dogs.tar"))
    (dogs / "0.png").write_bytes(png(0))
    both = open_source(f"folder:{cats},folder:{dogs}")
    assert both.size == 7 and f"folder:{dogs}/0.png" in both.names
    with pytest.raises(UserError, match="is named twice"):
        open_source(f"folder:{cats},folder:{cats}")
    with pytest.raises(UserError, match="digits.*cannot be joined"):
        open_source(f"digits,folder:{cats}")
