"""Bad input gets one clear line, exit status 2, before anything long."""

import dataclasses
import re
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from helpers import small_backbones
from PIL import Image

from simsiam_tf import config, convert, knn_eval, neighbours, pretrain, probe
from simsiam_tf.command_line import cli
from simsiam_tf.config import PretrainConfig
from simsiam_tf.data import AUGMENTATIONS, open_source
from simsiam_tf.data.sources import open_source as open_source_module
from simsiam_tf.evaluate import cached_scores
from simsiam_tf.pretrained import backbone_file
from simsiam_tf.pretrained.pretrained_backbone import open_pretrained
from simsiam_tf.runtime import progress
from simsiam_tf.runtime.errors import UserError
from simsiam_tf.training import build_run


def parse(*argv):
    return cli.parse(PretrainConfig, list(argv))


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--epohcs=3"], r"--epohcs: no such flag. Did you mean --epochs\?"),
        (["--qqqq=3"], r"--qqqq: no such flag"),
        (["--backbone=resnet81"], r"backbone=resnet81: .*Did you mean resnet18\?"),
        (["--strategy=miror"], r"Did you mean mirrored\?"),
        (["--epochs=many"], r"epochs"),
        (["--epochs=0"], r"epochs=0: trains nothing"),
        (["--epochs=-1"], r"epochs=-1.0: must be above 0"),
        (["--epochs=nan"], r"must be above 0"),
        (["--batch_size=1"], r"batch_size=1: must be from 2"),
        (["--crop_area=1.5"], r"crop_area=1.5: must be from"),
        (["--warmup_epochs=200"], r"must be below epochs"),
        (["fashion_mnist"], r"'fashion_mnist': stray argument"),
        (["--seed=1", "--", "x"], r"stray argument"),
        (["--flagfile=flags/quikstart.cfg"], r"no such file. Did you mean flags/quickstart.cfg\?"),
        (["--flagfile"], r"names no file"),
        (["--predictor=none", "--predictor_hidden=64"], r"predictor_hidden=64 has no effect with"),
        (["--predictor=fixed", "--predictor_lr=constant"], r"predictor_lr=constant has no effect"),
        (["--predictor=none", "--predictor_lr_factor=3"], r"predictor_lr_factor=3.0 has no effect"),
        (["--jitter=1.1"], r"jitter=1.1: must be from 0 to 1"),
        (["--bn=none", "--output_affine=false"], r"output_affine=False has no effect"),
        (["--monitor=none", "--knn_every=3"], r"knn_every=3 has no effect"),
        (["--data=digits", "--on_bad_image=skip"], r"on_bad_image=skip has no effect"),
        (["--projector_layers=1", "--projector_hidden=64"], r"projector_hidden=64 has no effect"),
    ],
)
def test_bad_flags_are_named_with_the_mend(argv, expected):
    with pytest.raises(UserError, match=expected):
        parse(*argv)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--data=fashion_mnits"], r"no such data set. Did you mean fashion_mnist\?"),
        (["--data=folder:/no/such/place"], r"no such folder"),
        (["--data=folder:"], r"no such folder"),
        (["--data=digits:train[5000:]"], r"the slice holds no image"),
        (["--data=digits:dev"], r"'dev' is not a split"),
        (["--data=digits", "--batch_size=2000"], r"larger than digits:train.*Try --batch_size=1024"),
        (["--data=digits", "--weights=/no/such.keras"], r"no such file"),
        (["--data=digits", "--strategy=multi_worker"], r"neither TF_CONFIG nor a Slurm job"),
        (["--data=digits", "--strategy=mirrored", "--batch_size=63"], r"does not divide over 2"),
        (["--data=digits", "--workdir=/proc/nothing"], r"cannot be written"),
        (["--data=digits", "--preview", "--workdir=/proc/nothing"], r"--workdir=/proc/nothing.*cannot be wr"),
        (["--data=digits", "--dry_run", "--workdir=/proc/nothing"], r"--workdir=/proc/nothing.*cannot be wr"),
    ],
)
def test_bad_values_end_in_one_line_and_status_2(argv, expected, capsys, tmp_path):
    argv = argv if any("workdir" in a for a in argv) else [*argv, f"--workdir={tmp_path}"]
    assert pretrain.main([*argv, "--backbone=resnet10", "--width=0.125", "--epochs=1"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert re.search(expected, lines[0]), lines[0]
    assert not (tmp_path / "checkpoints").exists()


def test_help_describes_every_flag_and_succeeds(capsys):
    assert pretrain.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in config.field_types(PretrainConfig):
        assert f"--{name}=" in text
    assert max(map(len, text.splitlines())) <= 100


def test_later_flags_win_over_flagfiles_and_nested_paths_are_found(tmp_path, monkeypatch):
    (tmp_path / "inner.cfg").write_text("# a comment\n--epochs=7\n--d=64\n")
    (tmp_path / "outer.cfg").write_text("--flagfile=inner.cfg\n\n--d=32\n")
    monkeypatch.chdir("/")
    made = parse(f"--flagfile={tmp_path}/outer.cfg", "--seed=5")
    assert (made.epochs, made.d, made.seed) == (7.0, 32, 5)
    assert parse("--d=16", f"--flagfile={tmp_path}/outer.cfg").d == 32
    assert parse("--flagfile=flags/quickstart.cfg").data.startswith("fashion_mnist")


def test_a_flagfile_that_includes_itself_or_holds_no_flag_is_refused(tmp_path):
    (tmp_path / "loop.cfg").write_text("--flagfile=loop.cfg\n")
    with pytest.raises(UserError, match="includes itself"):
        parse(f"--flagfile={tmp_path}/loop.cfg")
    (tmp_path / "words.cfg").write_text("epochs 3\n")
    with pytest.raises(UserError, match="is not a flag"):
        parse(f"--flagfile={tmp_path}/words.cfg")


def test_a_typed_flag_drops_what_it_makes_moot_in_a_flagfile(tmp_path):
    (tmp_path / "a.cfg").write_text("--predictor_lr=constant\n--knn_every=3\n--d=32\n")
    file = f"--flagfile={tmp_path}/a.cfg"
    made = parse(file, "--predictor=none", "--monitor=none")
    assert (made.predictor_lr, made.knn_every, made.d) == ("decayed", None, 32)
    assert parse(file).predictor_lr == "constant"
    with pytest.raises(UserError, match="knn_every=2 has no effect"):
        parse(file, "--monitor=none", "--knn_every=2")
    for typed in ("--nooutput_affine", "-nooutput_affine", "--output_affine=false"):
        with pytest.raises(UserError, match="output_affine=False has no effect"):
            parse("--bn=none", typed)
    (tmp_path / "b.cfg").write_text(f"{file}\n--predictor=none\n")
    with pytest.raises(UserError, match="predictor_lr=constant has no effect"):
        parse(f"--flagfile={tmp_path}/b.cfg")


def test_flags_written_are_the_flags_read(tmp_path):
    made = parse("--data=digits", "--width=0.25", "--predictor=none", "--stop_gradient=false", "--d=33")
    (tmp_path / "config.flags").write_text(config.to_flags(made))
    assert parse(f"--flagfile={tmp_path}/config.flags") == made
    assert config.to_flags(parse("--data=digits", "--dry_run")) == config.to_flags(parse("--data=digits"))


def test_a_signal_after_the_end_changes_nothing_and_python_callers_keep_theirs():
    code = (
        "import os, signal, sys; from simsiam_tf import pretrain\n"
        "given = ['--data=folder:/nowhere', '--epochs=-1']\n"
        "pretrain.main(given)\n"
        "assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL\n"
        "sys.argv[1:] = given\n"
        "status = pretrain.main()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2, done


def test_only_what_pillow_says_of_metadata_is_silent():
    def call(config):
        for module in ("PIL.TiffImagePlugin", "other"):
            warnings.warn_explicit(module, UserWarning, "file.py", 1, module)

    with warnings.catch_warnings(record=True) as caught:
        assert cli.run_command(PretrainConfig, call, "pretrain", "", []) == 0
    assert [str(warning.message) for warning in caught] == ["other"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), "there is not enough memory. Try a smaller --batch_size than 512."),
        (OSError(28, "No space left on device", "/a/b"), "/a/b: No space left on device. Make room or"),
        (UserError("--d=1: two\nlines"), "--d=1: two lines"),
    ],
)
def test_trouble_that_no_part_has_named_is_a_line_and_status_2(error, expected, capsys):
    def call(config):
        raise error

    assert cli.run_command(PretrainConfig, call, "pretrain", "", []) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"pretrain: {expected}") and said.count("\n") == 1


def test_a_fault_of_the_program_stays_one():
    with pytest.raises(KeyError):
        cli.run_command(PretrainConfig, lambda config: {}[config], "pretrain", "", [])


def test_what_takes_seconds_at_the_start_is_said_before_it_begins(monkeypatch, capsys):
    with cli.heavy_imports():
        assert capsys.readouterr().err == ""  # TensorFlow is loaded already
    monkeypatch.delitem(sys.modules, "keras")
    with cli.heavy_imports():
        assert capsys.readouterr().err == f"{cli.LOADING}\n"
    monkeypatch.setattr(progress, "DELAY", 0.01)

    def slow(*_: object) -> None:
        time.sleep(0.3)
        raise UserError("the end")

    for module, name, line in (
        (open_source_module, "list_images", "listing the images of folder:x"),
        (backbone_file, "load_backbone", "opening the weights of x"),
    ):
        monkeypatch.setattr(module, name, slow)
        with pytest.raises(UserError, match="the end"):
            open_source("folder:x") if name == "list_images" else open_pretrained("x")
        assert capsys.readouterr().err == f"{line}\n"


def test_libraries_that_do_not_fit_into_memory_are_a_line():
    for error in (MemoryError(), ImportError("libx.so: failed to map segment from shared object")):
        with pytest.raises(UserError, match="not enough memory to load TensorFlow"), cli.heavy_imports():
            raise error
    with pytest.raises(ImportError, match="no module"), cli.heavy_imports():
        raise ImportError("no module")


@pytest.mark.parametrize("option", ["stem=cifar", "augmentation=cifar", "image_size=32", "prefix=net"])
def test_options_of_a_conversion_from_pytorch_are_refused_of_one_to_it(option, tmp_path, capsys):
    for weights in (tmp_path, tmp_path / "x.keras"):
        assert convert.main([f"--weights={weights}", f"--out={tmp_path}/x.pth", f"--{option}"]) == 2
        line = f"simsiam_tf.convert: --{option} has no effect with --weights that are converted to PyTorch. "
        assert capsys.readouterr().err == f"{line}Leave it out.\n"
    assert convert.main([f"--{option}"]) == 2
    assert "--weights: missing" in capsys.readouterr().err
    (tmp_path / "a.cfg").write_text(f"--{option}\n")
    argv = [f"--flagfile={tmp_path}/a.cfg", f"--weights={tmp_path}", f"--out={tmp_path}/x.pth"]
    assert cli.parse(convert.ConvertConfig, argv).stem == "auto"
    config = cli.parse(convert.ConvertConfig, ["--weights=x.pth", f"--out={tmp_path}/x", f"--{option}"])
    name, _, value = option.partition("=")
    assert str(getattr(config, name)) == value


def test_commands_with_a_backbone_take_the_same_augmentations():
    choices = {
        field.metadata["choices"]
        for cls in (config.WeightsConfig, convert.ConvertConfig, neighbours.NeighboursConfig)
        for field in dataclasses.fields(cls)
        if field.name == "augmentation"
    }
    ((auto, *names),) = choices
    assert auto == "auto" and "multichannel" in names and set(names) < set(AUGMENTATIONS)


@pytest.mark.parametrize("command", [knn_eval, probe])
def test_a_result_that_could_not_be_written_is_known_before_the_work(command, tmp_path, capsys, monkeypatch):
    folder = small_backbones.exported(tmp_path / "run", AUGMENTATIONS["grayscale"], channels=1)
    monkeypatch.setattr(
        cached_scores, "open_splits", lambda *args, **options: pytest.fail("the data was opened")
    )
    assert command.main([f"--weights={folder}", "--out=/proc/none.json"]) == 2
    assert "--out=/proc/none.json: cannot be written" in capsys.readouterr().err


def test_images_of_a_relative_path_are_asked_for_where_they_are_not(tmp_path, monkeypatch, capsys):
    folder = small_backbones.exported(
        tmp_path / "run", AUGMENTATIONS["grayscale"], channels=1, data="folder:photos"
    )
    monkeypatch.chdir(tmp_path)
    assert knn_eval.main([f"--weights={folder}"]) == 2
    said = capsys.readouterr().err
    assert "was trained on folder:photos, a path that is relative to another working folder" in said
    (tmp_path / "photos").mkdir()
    assert cached_scores.training_data(open_pretrained(str(folder))) == "folder:photos"


def test_one_image_is_told_to_be_too_few(tmp_path):
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "a.png")
    source = open_source(f"folder:{tmp_path}")
    with pytest.raises(UserError, match="has 1 image, and a batch needs two. Give more images"):
        build_run.check_batch_size(source, 512)
