"""Checkpoints damaged in a hundred ways: the older one is restored, or the run ends with an error."""

import json
import random
import shutil

import pytest
import tensorflow as tf

from simsiam_tf.loop import checkpoints
from simsiam_tf.runtime import digests
from simsiam_tf.runtime.errors import UserError

FILES = ("state.index", "state.data-00000-of-00001", "manifest.json")


class State(tf.Module):
    """Variables like a model's: a kernel of many floats and a step counter."""

    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(tf.zeros([64, 33]))
        self.step = tf.Variable(0, dtype=tf.int64)

    def set(self, value):
        self.kernel.assign(tf.random.stateless_uniform([64, 33], seed=[value, 1]))
        self.step.assign(value)

    def value(self):
        """The step if the kernel is that of its checkpoint, else None."""
        now = int(self.step.numpy())
        known = tf.random.stateless_uniform([64, 33], seed=[now, 1])
        return now if bool(tf.reduce_all(self.kernel == known)) else None


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    """A folder with the checkpoints of steps 1 and 2, and its state."""
    folder, state = tmp_path_factory.mktemp("whole") / "checkpoints", State()
    saved = checkpoints.Checkpoints(folder, {"state": state}, about={"configuration": {"d": 64}})
    for step in (1, 2):
        state.set(step)
        saved.save(step, {"interval": [[-0.25, 0.5]], "ended_epoch": None})
    return folder, state


def restored_step(folder, state):
    """The step that is restored, or the error's text."""
    state.set(77)
    saved = checkpoints.Checkpoints(folder, {"state": state}, writes=False)
    try:
        manifest = saved.restore()
    except UserError as error:
        return str(error)
    assert manifest is not None, "started afresh where checkpoints exist"
    assert manifest["progress"] == {"interval": [[-0.25, 0.5]], "ended_epoch": None}
    assert manifest["configuration"] == {"d": 64}
    assert state.value() == manifest["step"], "what was restored is no checkpoint's state"
    return manifest["step"]


def flip(path, rng):
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def cut(path, rng):
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def grow(path, rng):
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.randint(1, 600)))


def zero(path, rng):
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data))
    data[at : at + 512] = bytes(len(data[at : at + 512]))
    path.write_bytes(data)


def swap(path, rng):
    data = bytearray(path.read_bytes())
    half = len(data) // 2
    path.write_bytes(data[half:] + data[:half])


RANDOM = {"flip": flip, "cut": cut, "grow": grow, "zero": zero, "swap": swap}


def edit(path, change):
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def edit_and_sign(path, change):
    """Changes a manifest and writes the right digest of its new content."""
    manifest = json.loads(path.read_text())
    change(manifest)
    body = {k: v for k, v in manifest.items() if k != "sha256"}
    path.write_text(json.dumps({"sha256": digests.json_sha256(body), **body}))


def _name_file_outside(c):
    name = "state.index"
    digest = json.loads((c / "manifest.json").read_text())["files"][name]
    edit_and_sign(c / "manifest.json", lambda m: m["files"].update({f"../step-00000002/{name}": digest}))


def _link_file(c, name):
    moved = c.parent.parent / f"moved-{name}"
    shutil.move(c / name, moved)
    (c / name).symlink_to(moved)


def _link_folder(c):
    moved = c.parent.parent / "moved"
    shutil.move(c, moved)
    c.symlink_to(moved)


def _copy_from_step_1(c, *names):
    for name in names:
        shutil.copy(c.parent / "step-00000001" / name, c / name)


MANIFEST = "manifest.json"
DONE_BY_HAND = {
    **{f"no {name}": lambda c, n=name: (c / n).unlink() for name in FILES},
    **{f"empty {name}": lambda c, n=name: (c / n).write_bytes(b"") for name in FILES},
    **{f"a link for {name}": lambda c, n=name: _link_file(c, n) for name in FILES},
    **{f"a folder for {name}": lambda c, n=name: ((c / n).unlink(), (c / n).mkdir()) for name in FILES},
    "a link for the checkpoint": _link_folder,
    "an empty checkpoint": lambda c: [p.unlink() for p in c.iterdir()],
    "a file for the checkpoint": lambda c: (shutil.rmtree(c), c.write_text("x")),
    "one file more": lambda c: (c / "state.data-00001-of-00002").write_bytes(b"x" * 99),
    "the other's index": lambda c: _copy_from_step_1(c, "state.index"),
    "the other's data": lambda c: _copy_from_step_1(c, "state.data-00000-of-00001"),
    "the other's manifest": lambda c: _copy_from_step_1(c, MANIFEST),
    "the other's files": lambda c: _copy_from_step_1(c, *FILES[:2]),
    "all of the other's": lambda c: _copy_from_step_1(c, *FILES),
    "no JSON": lambda c: (c / MANIFEST).write_text("{"),
    "JSON without end": lambda c: (c / MANIFEST).write_text("[" * 100_000),
    "a number": lambda c: (c / MANIFEST).write_text("7"),
    "a list": lambda c: (c / MANIFEST).write_text("[]"),
    "an empty object": lambda c: (c / MANIFEST).write_text("{}"),
    "a manifest of no files": lambda c: edit_and_sign(c / MANIFEST, lambda m: m.update(files={})),
    "files as a list": lambda c: edit_and_sign(c / MANIFEST, lambda m: m.update(files=[1])),
    "no step": lambda c: edit_and_sign(c / MANIFEST, lambda m: m.pop("step")),
    "a step that is text": lambda c: edit_and_sign(c / MANIFEST, lambda m: m.update(step="2")),
    "another step": lambda c: edit_and_sign(c / MANIFEST, lambda m: m.update(step=1)),
    "another step, unsigned": lambda c: edit(c / MANIFEST, lambda m: m.update(step=1)),
    "another loss": lambda c: edit(c / MANIFEST, lambda m: m["progress"].update(interval=[[-0.5, 0.5]])),
    "another configuration": lambda c: edit(c / MANIFEST, lambda m: m["configuration"].update(d=65)),
    "a digest cut off": lambda c: edit(c / MANIFEST, lambda m: m["files"].update({FILES[0]: "abc"})),
    "a path outside": _name_file_outside,
    "an absolute path": lambda c: edit_and_sign(
        c / MANIFEST, lambda m: m["files"].update({str(c / FILES[0]): m["files"].pop(FILES[0])})
    ),
    "no UTF-8": lambda c: (c / MANIFEST).write_bytes(b"\xff\xfe{}"),
    "huge": lambda c: (c / MANIFEST).write_bytes(b" " * (checkpoints.MANIFEST_BYTES + 1)),
    "a state of something else": lambda c: _save_other_variables(c),
}


def _save_other_variables(c):
    """A complete, correctly signed checkpoint of other variables."""
    folder = c.parent.parent / "foreign"
    other = checkpoints.Checkpoints(folder, {"other": tf.Variable([1.0])}, about={"configuration": {"d": 64}})
    other.save(2, {"interval": [[-0.25, 0.5]], "ended_epoch": None})
    shutil.rmtree(c)
    shutil.copytree(folder / "step-00000002", c)


def assert_passed_over(two_checkpoints, tmp_path, damage):
    folder, state = two_checkpoints
    copy = tmp_path / "checkpoints"
    shutil.copytree(folder, copy)
    damage(copy / "step-00000002")
    assert restored_step(copy, state) == 1
    shutil.rmtree(copy / "step-00000001")
    assert "none of its 1 checkpoints is whole" in restored_step(copy, state)


def test_without_damage_the_newest_is_restored(two_checkpoints):
    assert restored_step(*two_checkpoints) == 2


@pytest.mark.parametrize("name", DONE_BY_HAND)
def test_damage_done_by_hand(two_checkpoints, tmp_path, name):
    assert_passed_over(two_checkpoints, tmp_path, DONE_BY_HAND[name])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("kind", RANDOM)
def test_random_damage(two_checkpoints, tmp_path, kind, file, seed):
    rng = random.Random(f"{kind} {file} {seed}")

    def damage(checkpoint):
        before = (checkpoint / file).read_bytes()
        manifest = json.loads((checkpoint / MANIFEST).read_text())
        RANDOM[kind](checkpoint / file, rng)
        if file == MANIFEST:  # where only its white space changed, cut it instead
            try:
                same = json.loads((checkpoint / file).read_bytes()) == manifest
            except (ValueError, RecursionError):
                same = False
            if same:
                (checkpoint / file).write_bytes(before[:-2])
        assert (checkpoint / file).read_bytes() != before

    assert_passed_over(two_checkpoints, tmp_path, damage)


def test_the_index_of_tensorflows_manager_is_ignored(two_checkpoints, tmp_path):
    """TensorFlow's manager would start at step 0 without its file `checkpoint`, and follow a path in it."""
    folder, state = two_checkpoints
    copy = tmp_path / "checkpoints"
    shutil.copytree(folder, copy)
    (copy / "checkpoint").write_text('model_checkpoint_path: "/etc/passwd"\n')
    assert restored_step(copy, state) == 2
