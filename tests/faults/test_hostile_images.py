"""Folders made to harm: every bad file is named with its reason, nothing hangs, memory is bounded."""

import io
import json
import os
import random
import socket
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hostile_files import normal
from PIL import Image

from simsiam_tf.command_line import cli
from simsiam_tf.config import PretrainConfig
from simsiam_tf.data import open_source
from simsiam_tf.data.images.decode import decode_checked
from simsiam_tf.data.images.header import read_header
from simsiam_tf.data.images.render import PixelRule, render
from simsiam_tf.runtime.errors import UserError

BLACK = np.zeros((11, 17), np.uint8)


def encoded(kind, image=BLACK, **kwargs):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **kwargs)
    return buffer.getvalue()


def chunk(kind, data=b""):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, before=b"", after=b""):
    """A PNG of so many black pixels, 8,000 a byte."""
    pack, row = zlib.compressobj(9), bytes(1 + (width + 7) // 8)
    body = b"".join(pack.compress(row) for _ in range(height)) + pack.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + before + chunk(b"IDAT", body) + after + chunk(b"IEND")


def text(kind=b"zTXt", head=b"k\0\0", size=2**20):
    return chunk(kind, head + zlib.compress(bytes([97]) * size, 9))


def frame(width, height):
    data = encoded("GIF", np.zeros((height, width), np.uint8))
    return data[data.index(b",\0\0\0\0") : -1]


def gif(*frames, between=b"", screen=1):
    """An animation on a screen of so many pixels square."""
    head = b"GIF89a" + struct.pack("<HH", screen, screen) + b"\x80\0\0" + bytes(3) + b"\xff" * 3
    return head + between + b"".join(frames) + b";"


def jpeg(progressive=False, width=None, junk=b"", segments=b"", scans=0, hidden=b""):
    data = encoded("JPEG", progressive=progressive)
    last = data[data.rindex(b"\xff\xda") : -2]
    data = data[:2] + segments + data[2:20] + junk + data[20:-2] + hidden + last * scans + data[-2:]
    frame = data.index(b"\xff\xc2" if progressive else b"\xff\xc0") + 5
    return data if width is None else data[:frame] + struct.pack(">HH", width, width) + data[frame + 4 :]


def webp(side):
    """An animation whose canvas claims side² pixels."""
    frames = [Image.new("RGBA", (8, 8), (9 * i, 0, 0, 9)) for i in range(2)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    data = buffer.getvalue()
    return data[:24] + 2 * (side - 1).to_bytes(3, "little") + data[30:]


def bmp(side):
    data = encoded("BMP")
    return data[:18] + struct.pack("<ii", side, side) + data[26:]


def tiff(side, channels):
    """The header of a TIFF that claims side² pixels of so many channels."""
    tags = [(256, 4, side), (257, 4, side), (258, 3, 8), (262, 3, 1), (277, 3, channels)]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4)


def npy(shape):
    np.lib.format.write_array_header_1_0(
        file := io.BytesIO(), {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def sparse(path):
    path.write_bytes(png(9, 9))
    os.truncate(path, 2**30)


def bound(path):
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket has to be short
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(path.name)
    os.chdir(here)


PIXELS = "pixels, above max_megapixels=100"
HOSTILE = {  # name → (the file, or how to make it there; what is said of it)
    "png of 400 megapixels": (lambda p: png(20_000, 20_000), f"20000×20000 {PIXELS}"),
    "png with texts before its pixels": (lambda p: png(9, 9, before=17 * text()), "compressed texts"),
    "png with texts after its pixels": (lambda p: png(9, 9, after=17 * text()), "compressed texts"),
    "png with texts of another kind": (
        lambda p: png(9, 9, after=17 * text(b"iTXt", b"k\0\1\0\0\0")), "compressed texts"),
    "png with profiles": (lambda p: png(9, 9, after=17 * text(b"iCCP")), "compressed texts"),
    "png of nothing but chunks": (lambda p: png(9, 9, before=200_000 * chunk(b"teSt")), "114040 chunks"),
    "gif of nothing but comments": (
        lambda p: gif(frame(1, 1), between=b"!\xfe" + 800_000 * b"\1a" + b"\0"), "797634 blocks"),
    "gif of nothing": (lambda p: gif(frame(1, 1), between=800_000 * b"\0"), "797634 blocks"),
    "gif of 400 megapixels": (lambda p: gif(frame(1, 1), screen=20_000), f"20000×20000 {PIXELS}"),
    "jpeg of 4 gigapixels": (lambda p: jpeg(width=65_500), f"65500×65500 {PIXELS}"),
    "jpeg of 4 gigapixels, progressive": (lambda p: jpeg(True, width=65_500), f"65500×65500 {PIXELS}"),
    "jpeg of a thousand scans": (lambda p: jpeg(True, scans=1000), "more than 100 scans"),
    "jpeg of scans behind what is no segment": (
        lambda p: jpeg(True, scans=1000, hidden=b"\xff\x02\xff\xff"), "more than 100 scans"),
    "jpeg of nothing but segments": (lambda p: jpeg(segments=20_000 * b"\xff\xe9\0\2"), "16384 segments"),
    "jpeg of nothing": (lambda p: jpeg(junk=b"A" * 2**20), "65536 bytes outside segments"),
    "jpeg of 4 gigapixels behind what looks like a small frame": (
        lambda p: jpeg(width=65_500, segments=b"\xff\xe9\0\x0a\xff\xc1\0\x0b\x08\0\1\0"),
        f"65500×65500 {PIXELS}"),
    "webp of 268 megapixels": (lambda p: webp(16_383), "268402689 pixels"),
    "bmp of 400 megapixels": (lambda p: bmp(20_000), f"20000×20000 {PIXELS}"),
    "tiff of channels": (lambda p: tiff(9000, 100), "9000×9000 pixels of 100 channels, too many"),
    "npy of channels": (lambda p: npy((9000, 9000, 100)), "9000×9000 pixels of 100 channels, too many"),
    "a gigabyte of nothing": (sparse, "above 400065536 bytes"),
    "a pipe": (os.mkfifo, "not a regular file"),
    "a socket": (bound, "not a regular file"),
    "a link to a device": (lambda p: p.symlink_to("/dev/zero"), "not a regular file"),
    "a link to memory": (lambda p: p.symlink_to("/proc/self/mem"), "empty file|error"),
    "a link to itself": (lambda p: p.symlink_to(p), "Too many levels of symbolic links"),
    "a link to nowhere": (lambda p: p.symlink_to("/no/such/file"), "No such file"),
    "a link to a text": (lambda p: p.symlink_to("/etc/passwd"), "a text, not an image"),
    "a header cut off": (lambda p: png(9, 9)[:20], "damaged header"),
    "nothing": (lambda p: b"", "empty file"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_image_is_named(tmp_path, name):
    make, expected = HOSTILE[name]
    root, report = tmp_path / "images", tmp_path / "report.json"
    normal(root)
    data = make(root / "bad.jpg")
    if isinstance(data, bytes):
        (root / "bad.jpg").write_bytes(data)
    said = rf"1 of 2 images cannot be decoded, such as bad.jpg \(.*({expected})"
    with pytest.raises(UserError, match=said):
        open_source(root)
    assert list(open_source(root, on_bad_image="skip", report=report).names) == ["ok.png"]
    assert list(json.loads(report.read_text())["unreadable"]) == ["bad.jpg"]
    assert sorted(os.listdir(tmp_path)) == ["images", "report.json"]


def test_what_the_decoder_does_with_them():
    """Without the checks: what they are there for."""
    assert tf.io.decode_image(png(9, 9, after=17 * text()), 3).shape == (9, 9, 3)
    assert tf.io.decode_image(jpeg(True, scans=1000), 3).shape == (11, 17, 3)


def test_images_at_the_limits_are_read():
    few = [png(9, 9, after=16 * text()), png(1250, 800), jpeg(True, scans=90), gif(99 * frame(100, 100))]
    few += [jpeg(junk=b"A" * 2**16), jpeg(segments=10_000 * b"\xff\xe9\0\2"), encoded("WEBP"), encoded("BMP")]
    few += [png(9, 9, after=500 * chunk(b"iTXt", b"k\0\0\0\0\0text"))]
    few += [gif(frame(20, 1), frame(1, 20)), gif(4000 * frame(100, 100), screen=100)]  # of the first frame
    for data in few:
        decode_checked(data, 1.0)
    with pytest.raises(ValueError, match="1250×800 pixels, above max_megapixels=0.99"):
        read_header(few[1], 0.99)


def test_the_limit_is_a_flag_and_binds_the_run(tmp_path):
    made = cli.parse(PretrainConfig, [f"--data=folder:{tmp_path}", "--max_megapixels=0.5"])
    assert made.max_megapixels == 0.5
    assert not PretrainConfig.__dataclass_fields__["max_megapixels"].metadata["resumable"]
    for argv, expected in [
        (["--data=digits", "--max_megapixels=5"], "has no effect with data that is not a folder, a list"),
        (["--data=folder:x", "--max_megapixels=nan"], "must be from"),
    ]:
        with pytest.raises(UserError, match=expected):
            cli.parse(PretrainConfig, argv)
    normal(tmp_path)
    (tmp_path / "large.png").write_bytes(png(1000, 900))
    report = tmp_path / "report.json"
    assert open_source(f"folder:{tmp_path}", report=report).size == 2
    with pytest.raises(UserError, match=r"such as large.png \(1000×900 pixels, above"):
        open_source(f"folder:{tmp_path}", report=report, max_megapixels=0.5)


def test_altered_images_are_refused_or_small():
    """What passes never decodes to more pixels than allowed, and nothing but a ValueError is raised."""
    rng, passed = random.Random(0), 0
    seeds = [encoded(k) for k in ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "AVIF", "JPEG2000")]
    seeds += [jpeg(True), gif(frame(3, 5), frame(5, 3)), webp(8)]
    for _ in range(800):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.choice([1, 1, 2, 3])):
            at = rng.randrange(2, min(len(data), rng.choice([32, 64, 500])))
            data[at] = rng.choice([0, 1, 2, 8, 16, 0x7F, 0x80, 0xFF, 0xC0, 0xDA, rng.randrange(256)])
        try:
            header = decode_checked(bytes(data), 1.0)
            passed += 1
            shape = render(bytes(data), PixelRule(header.channels)).shape
        except ValueError:
            continue
        assert shape[0] * shape[1] <= 10**6
    assert passed > 200


@pytest.mark.slow
def test_bombs_take_no_memory(tmp_path):
    bombs = {
        "a.png": png(20_000, 20_000), "b.gif": gif(frame(1, 1), screen=20_000),
        "d.png": png(9, 9, after=60 * text(size=7_900_000)),
        "e.gif": gif(frame(1, 1), between=b"!\xfe" + 10**7 * b"\1a" + b"\0"), "f.tif": tiff(9000, 1000),
    }  # fmt: skip
    for name in ("plain", "bombs"):
        normal(tmp_path / name)
    for name, data in bombs.items():
        (tmp_path / "bombs" / name).write_bytes(data)
    assert sum(map(len, bombs.values())) < 30 * 2**20
    code = (
        "import re, sys\nimport tensorflow as tf\nfrom simsiam_tf.data import open_source\n"
        "def say(): print(re.search('VmHWM:.* ([0-9]+) kB', open('/proc/self/status').read())[1])\n"
        "root = sys.argv[1]\n"
        "open_source('folder:' + root + '/plain', on_bad_image='skip'); say()\n"
        "assert open_source('folder:' + root + '/bombs', on_bad_image='skip').names == ('ok.png',); say()\n"
        "tf.io.decode_image(tf.io.read_file(root + '/bombs/a.png'), 3, expand_animations=False); say()\n"
    )
    argv = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    # NOTE: not ru_maxrss, which a process inherits from the one that started it.
    plain, checked, decoded = (int(kib) // 1024 for kib in done.stdout.split())
    assert checked < plain + 150 and decoded > checked + 1000, done.stdout
