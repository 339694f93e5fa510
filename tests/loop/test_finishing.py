"""Runs that go on or end in trouble: the final kNN, what was changed meanwhile, memory and room."""

import dataclasses
import errno
import shutil
import types

import keras
import pytest
from helpers.runs import StopAt, state, tiny

from simsiam_tf import nets
from simsiam_tf.evaluate.knn_monitor import Monitor
from simsiam_tf.loop import compiled_steps
from simsiam_tf.loop.loop import Loop
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training import pretraining, run_summary


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return pretraining.pretrain(tiny(workdir, "--knn_every=1")), workdir


@pytest.mark.slow
def test_the_final_knn_comes_after_the_export_and_alone_where_it_was_left_out(whole, tmp_path, monkeypatch):
    left_out = pretraining.pretrain(tiny(tmp_path, "--knn_every=1", "--final_images=0"))
    assert left_out.status == pretraining.DONE and "backbone" not in left_out.accuracy
    assert "a sample" in run_summary.pretraining_summary(tiny(tmp_path), left_out)
    card = backbone_file.read_card(tmp_path)
    assert card["step"] == 22 and card["accuracy"] == {}
    export = (tmp_path / "export" / "backbone.keras").read_bytes()

    def no_room(*args, **options):
        raise MemoryError

    with monkeypatch.context() as scarce:
        scarce.setattr(Monitor, "backbone_accuracy", no_room)
        with pytest.raises(UserError, match="do not fit into memory. Rerun with final_images=0"):
            pretraining.pretrain(tiny(tmp_path, "--knn_every=1"))
    trained = []
    monkeypatch.setattr(compiled_steps, "compiled_steps", lambda *args: trained.append(args))
    for _ in range(2):
        judged = pretraining.pretrain(tiny(tmp_path, "--knn_every=1"))
        assert judged.accuracy == whole[0].accuracy == backbone_file.read_card(tmp_path)["accuracy"]
        assert '"card sha256"' in (tmp_path / backbone_file.EXPORTED).with_suffix(".json").read_text()
    assert state(tmp_path) == state(whole[1]) and not trained
    assert (tmp_path / "export" / "backbone.keras").read_bytes() == export


@pytest.mark.slow
def test_the_monitor_can_be_dropped_when_a_run_goes_on(whole, tmp_path):
    pretraining.pretrain(tiny(tmp_path, "--knn_every=1"), callbacks=[StopAt(12)])
    outcome = pretraining.pretrain(tiny(tmp_path, "--monitor=none"))
    assert outcome.status == pretraining.DONE and "backbone" not in outcome.accuracy
    assert state(tmp_path)[:2] == state(whole[1])[:2]
    assert backbone_file.read_card(tmp_path)["accuracy"] == {}


@pytest.mark.slow
def test_what_a_run_finds_changed_is_said_on_the_terminal(whole, tmp_path, capsys):
    shutil.copytree(whole[1], tmp_path / "run")
    run = tiny(tmp_path / "run", "--knn_every=1")
    records, newest = tmp_path / "run" / "metrics.jsonl", tmp_path / "run" / "checkpoints" / "step-00000022"

    def told(*lines):
        assert pretraining.pretrain(run).status == pretraining.DONE
        said, logged = capsys.readouterr().err, (tmp_path / "run" / "train.log").read_text()
        for line in lines:
            assert said.count(line) == 1 and line in logged

    records.write_text(records.read_text().replace("0.", "0.0", 1))
    told(f"{records} was removed, cut or changed after the checkpoint of step 22 was made")
    (newest / "state.index").write_bytes(b"")
    (tmp_path / "run" / "config.json").write_text("{")
    told(
        f"checkpoint {newest} is damaged or of another model: it is passed over",
        "config.json was gone or damaged",
    )
    assert state(tmp_path / "run")[:2] == state(whole[1])[:2]


@pytest.mark.slow
def test_an_export_that_cannot_be_written_is_named_and_made_by_a_rerun(whole, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(backbone_file, "export_network", full)
        with pytest.raises(UserError, match="the export could not be written .No space left.*room and rerun"):
            pretraining.pretrain(tiny(tmp_path, "--knn_every=1"))
    assert pretraining.pretrain(tiny(tmp_path, "--knn_every=1")).accuracy == whole[0].accuracy
    assert state(tmp_path) == state(whole[1])


@pytest.mark.slow
def test_other_weights_to_start_from_are_refused_and_the_same_elsewhere_are_not(whole, tmp_path):
    started = tiny(tmp_path / "run", f"--weights={whole[1]}", "--monitor=none")
    pretraining.pretrain(started, callbacks=[StopAt(12)])
    other = tmp_path / "other" / "export"
    other.mkdir(parents=True)
    for name in ("backbone.keras", "backbone.json"):
        shutil.copy(whole[1] / "export" / name, other)
    moved = dataclasses.replace(started, weights=str(other.parent))
    assert pretraining.pretrain(moved, callbacks=[StopAt(15)]).status == pretraining.INTERRUPTED
    backbone_file.export_network(nets.resnet("resnet10", "cifar", 0.125, 1), other.parent, {})
    with pytest.raises(UserError, match="weights was [0-9a-f]{64}, is [0-9a-f]{64}"):
        pretraining.pretrain(moved)


def test_memory_that_runs_out_names_the_batch(tmp_path, monkeypatch):
    class Scarce:
        def get_concrete_function(self, *args):
            pass

        def __call__(self, *args):
            raise MemoryError

    monkeypatch.setattr(compiled_steps, "compiled_steps", lambda *args: Scarce())
    reason = (
        "step 0 failed: MemoryError. Checkpoints are kept. Out of memory: try a smaller `batch_size` than 64"
    )
    with pytest.raises(UserError, match=reason):
        pretraining.pretrain(tiny(tmp_path, "--monitor=none"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [errno.ECONNREFUSED, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES],
)
def test_only_a_disk_that_cannot_be_written_is_to_be_given_room(tmp_path, number):
    error = OSError(number, "the reason")  # of errno's subclass, as ConnectionRefusedError

    class Fails(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise error

    with pytest.raises(Exception, match="the reason") as raised:
        pretraining.pretrain(tiny(tmp_path, "--monitor=none"), callbacks=[Fails()])
    if number == errno.ECONNREFUSED:
        assert raised.value is error and isinstance(error, ConnectionRefusedError)
    else:
        assert raised.type is UserError and "Make room and rerun" in str(raised.value)


def test_initial_weights_are_evaluated_at_the_step_and_the_epoch_where_a_run_begins():
    evaluations = []
    log = types.SimpleNamespace(add_picture=print, add_evaluation=lambda *values: evaluations.append(values))
    begun = types.SimpleNamespace(
        step=400, accuracy={"untrained backbone": {"knn20": 0.5}}, metrics_log=log,
        config=types.SimpleNamespace(batch_size=16),
        components=types.SimpleNamespace(source=types.SimpleNamespace(size=64)),
        task=types.SimpleNamespace(picture=lambda: None, untrained_name="untrained backbone"),
    )  # fmt: skip
    Loop._evaluate_baselines(begun)  # pyright: ignore[reportArgumentType]
    assert evaluations == [(400, 100, {"knn20": 0.5})]
