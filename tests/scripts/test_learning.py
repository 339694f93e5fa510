"""The bench beside other libraries: which pictures each training sees, and the table of their answers."""

import learning
import numpy as np
from PIL import Image

from scripts.sets.set_file import Picture, read_set, write_set


def write_pictures(folder):
    rng = np.random.default_rng(0)
    pictures = []
    for i in range(12):
        mode = "RGBA" if i % 2 else "RGB"
        pixels = rng.integers(0, 256, [20, 20, len(mode)], np.uint8)
        Image.fromarray(pixels, mode).save(folder / f"{i:02d}.png")
        split = "test" if i >= 8 else "train"
        pictures.append(
            Picture(f"{i:02d}.png", "ab"[i % 2], f"group {i}", f"object {i // 2}", "xy"[i % 2], split)
        )
    write_set(folder, pictures)
    return read_set(folder)


def test_held_out_pictures_are_embedded_and_not_trained_on(tmp_path):
    (tmp_path / "set").mkdir()
    rows = write_pictures(tmp_path / "set")
    lists = learning.write_pictures(tmp_path / "set", rows, tmp_path)
    train, embed = (lists[name].read_text().splitlines() for name in ("train", "embed"))
    assert len(embed) == 12 and train == embed[:8]
    for file, row in zip(embed, rows, strict=True):
        ours, given = Image.open(file), Image.open(tmp_path / "set" / row.path).convert("RGBA")
        white = Image.new("RGBA", given.size, "white")
        expected = np.asarray(Image.alpha_composite(white, given).convert("RGB"), int)
        assert ours.mode == "RGB" and np.abs(np.asarray(ours, int) - expected).max() <= 1


def test_features_that_are_there_are_asked_and_nothing_is_trained(tmp_path, capsys, monkeypatch):
    """Features that are the object answer all pairs."""
    (tmp_path / "set").mkdir()
    rows = write_pictures(tmp_path / "set")
    out = tmp_path / "out"
    out.mkdir()
    objects = np.array([int(row.object.split()[1]) for row in rows])
    for name in ("simsiam_tf", "lightly-train_SimCLR", "lightly_SimSiam"):
        np.save(out / f"{name}-30-0.npy", np.eye(6, dtype=np.float32)[objects])
        (out / f"{name}-30-0.txt").write_text("30.2\n")
    monkeypatch.setattr(learning.subprocess, "run", lambda *args, **options: 1 / 0)
    assert learning.main([str(tmp_path / "set"), f"--out={out}"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 6 and table[3].startswith("| simsiam_tf | 30.2 | ") and " 100.0 |" in table[3]
    assert learning.main([str(tmp_path), f"--out={out}"]) == 2
