# SPDX-License-Identifier: Apache-2.0
"""The command line: settings that no config has are refused by name, and an input error is one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from scripts import cli
from scripts.errors import InputError

ROOT = Path(__file__).parents[1]
PYTHON_M_RUN = ["/some/where/monai/bundle/__main__.py", "run"]
CONFIG = """
max_epochs: 20
image_size: 256
random: false
train:
  trainer: {_target_: Trainer, max_epochs: '@max_epochs'}
  handlers: []
validate:
  key_metric: {dice/click_1: {_target_: Metric}}
"""


@pytest.fixture(autouse=True)
def keep_excepthook(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(CONFIG)
    return str(path)


def prepare(config, *arguments):
    cli.check_settings([*PYTHON_M_RUN, "training", "--config_file", config, *arguments])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--max_epoch", r"^--max_epoch is not a setting: did you mean --max_epochs\?$"),
        ("--max_epoch=3", r"^--max_epoch is not a setting: did you mean --max_epochs\?$"),
        ("--max-epoch", r"^--max_epoch is not a setting: did you mean --max_epochs\?$"),
        ("--imagesize", r"did you mean --image_size\?$"),
        ("--zzzzzz", r"^--zzzzzz is not a setting: the settings are listed at the top of the config file$"),
        ("--trian#trainer", r"^--trian#trainer is not a setting: did you mean --train\?$"),
        ("--valdate", "the settings are listed at the top"),
        ("--trian::trainer", r"did you mean --train\?$"),
        ("--train#trianer#max_epochs", "is not a setting"),
        ("--+handlrs", r"^--\+handlrs is not a setting"),
    ],
)
def test_a_setting_that_no_config_has_is_refused_by_name(config, argument, message):
    with pytest.raises(InputError, match=message):
        prepare(config, argument, "3")


@pytest.mark.parametrize(
    "argument",
    [
        "--max_epochs",
        "--max_epochs=3",
        "--max-epochs",  # Fire takes it for max_epochs
        "--train#trainer#max_epochs",
        "--train::trainer::max_epochs",
        "--train#trainer#amp",  # a further argument of a component that is there
        "--+train#keeping",
        "--validate#key_metric#dice/box",
        "--run_id",
        "--init_id",
        "--meta_file",
        "--logging_file",
    ],
)
def test_settings_and_options_of_the_command_pass(config, argument):
    prepare(config, argument, "3")


@pytest.mark.parametrize(("value", "python"), [("true", "True"), ("false", "False")])
def test_a_truth_value_that_would_be_read_as_text_is_refused(config, value, python):
    with pytest.raises(InputError, match=f"--random {value} is not Python: write {python}$"):
        prepare(config, "--random", value)
    prepare(config, "--random", python)


@pytest.mark.parametrize("setting", ["tracking_uri", "experiment_name", "run_name", "save_execute_config"])
def test_settings_of_tracking_pass_only_with_tracking(config, setting):
    prepare(config, "--tracking", "mlflow", f"--{setting}", "x")
    with pytest.raises(InputError, match=f"--{setting} is not a setting"):
        prepare(config, f"--{setting}", "x")


def test_a_setting_of_any_file_of_a_list_passes(config, tmp_path):
    (tmp_path / "evaluate.yaml").write_text("ckpt_path: none\n")
    files = str([config, str(tmp_path / "evaluate.yaml")])
    prepare(files, "--ckpt_path", "model.pt", "--max_epochs", "1")
    with pytest.raises(InputError, match=r"did you mean --ckpt_path\?"):
        prepare(files, "--ckptpath", "model.pt")
    with pytest.raises(InputError, match="--ckpt_path is not a setting"):
        prepare(config, "--ckpt_path", "model.pt")


@pytest.mark.parametrize("config_in_file", [False, True])
def test_settings_of_an_args_file_are_checked_too(config, tmp_path, config_in_file):
    def run(settings):
        path = tmp_path / "args.json"
        path.write_text(json.dumps({**settings, **({"config_file": config} if config_in_file else {})}))
        options = [] if config_in_file else ["--config_file", config]
        cli.check_settings([*PYTHON_M_RUN, "training", "--args_file", str(path), *options])

    run({"max_epochs": 3, "train#trainer#max_epochs": 3, "run_id": "training"})
    with pytest.raises(InputError, match=r"--max_epoch is not a setting: did you mean --max_epochs\?"):
        run({"max_epoch": 3})


@pytest.mark.parametrize(
    "argv",
    [
        ["monai.bundle", "verify_net_in_out", "--config_file", "absent.yaml", "--max_epoch", "3"],
        ["monai.bundle", "ckpt_export", "--args_file", "absent.json", "--max_epoch", "3"],
        ["pytest", "--max_epoch", "3"],
        ["monai.bundle", "run", "--max_epoch", "3"],  # no config, which MONAI itself refuses
    ],
)
def test_other_commands_are_left_alone(argv):
    cli.check_settings(argv)


def test_errors_are_shown_from_then_on():
    cli.show_errors()
    assert sys.excepthook is cli._show


# --- errors


def raised(raise_it):
    """Give the exception that a function raises, as the interpreter hands it to the hook."""
    try:
        raise_it()
    except Exception as error:
        return type(error), error, error.__traceback__


def plain():
    raise InputError("/data does not exist: give a folder")


def caused():
    try:
        plain()
    except InputError as error:
        raise ValueError("applying transform") from error


def deep():
    try:
        caused()
    except ValueError as error:
        raise RuntimeError("Failed to instantiate component") from error


def in_passing():
    try:
        caused()
    except ValueError:
        raise RuntimeError("engine run is terminating")  # noqa: B904


@pytest.mark.parametrize("raise_it", [plain, caused, deep, in_passing])
def test_an_input_error_is_one_line_however_deep_it_lies(raise_it, capsys):
    cli._show(*raised(raise_it))
    assert capsys.readouterr() == ("", "error: /data does not exist: give a folder\n")


@pytest.mark.parametrize("raise_it", [lambda: 1 / 0, lambda: int("x")])
def test_another_error_keeps_its_traceback(raise_it, capsys):
    cli._show(*raised(raise_it))
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):")
    assert "test_cli.py" in shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failing", "shown"),
    [
        ("read('/data')", ["error: /data does not exist"]),
        ("1 / 0", ["Traceback (most recent call last):", "ZeroDivisionError: division by zero"]),
    ],
)
def test_a_program_that_fails_exits_with_status_1(failing, shown):
    program = f"""
from scripts import cli
from scripts.errors import InputError

def read(path):
    raise InputError(f"{{path}} does not exist")

cli.show_errors()
try:
    {failing}
except InputError as error:
    raise RuntimeError("component") from error
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert [lines[0], lines[-1]] == [shown[0], shown[-1]]
    assert (len(lines) == 1) == (len(shown) == 1)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"max_epochs": "abc"}, "max_epochs is a whole number from 1 on, got 'abc'"),
        ({"max_epochs": 1.5}, "max_epochs is a whole number from 1 on, got 1.5"),
        ({"batch_size": 0}, "batch_size is a whole number from 1 on, got 0"),
        ({"warmup_fraction": 5}, "warmup_fraction is a number from 0 to 1, got 5"),
        ({"box_jitter": -3}, "box_jitter is a number from 0 to 1, got -3"),
        ({"learning_rate": True}, "learning_rate is a number from 0 on, got True"),
        ({"learning_rate": float("nan")}, "learning_rate is a number from 0 on, got nan"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(setting, says):
    with pytest.raises(InputError, match=f"^{says}$"):
        cli.check_numbers(**setting)


@pytest.mark.parametrize("name", ["max_epochs", "train#trainer#max_epochs", "train::trainer::max_epochs"])
def test_numbers_of_the_command_line_and_of_files_are_looked_at(config, tmp_path, name):
    prepare(config, f"--{name}", "3")
    prepare(config, f"--{name}", "$1 + 2")
    with pytest.raises(InputError, match="max_epochs is a whole number from 1 on, got 0"):
        prepare(config, f"--{name}", "0")
    (tmp_path / "more.yaml").write_text("max_epochs: -1\n")
    with pytest.raises(InputError, match="max_epochs is a whole number from 1 on, got -1"):
        prepare(f"['{config}','{tmp_path / 'more.yaml'}']")


def test_numbers_that_can_be_meant_are_taken():
    cli.check_numbers(max_epochs=1, warmup_fraction=0, box_jitter=1.0, seed=0, learning_rate=1e-4, image_size="any")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (KeyboardInterrupt(), "error: stopped by Ctrl-C"),
        (OSError(28, "No space left on device", "/full/model.pt"), "error: No space left on device: /full/model.pt"),
        (OSError(36, "File name too long"), "error: File name too long: while writing"),
        (AssertionError("Torch not compiled with CUDA enabled"), "CUDA enabled: choose another --device"),
    ],
)
def test_what_is_no_fault_of_the_bundle_is_one_line_too(capsys, error, says):
    cli._show(type(error), error, None)
    assert says in capsys.readouterr().err


def test_none_is_refused_because_it_would_change_nothing(config):
    with pytest.raises(InputError, match=r"^--max_epochs None is not heard: write --max_epochs '\$None'$"):
        prepare(config, "--max_epochs", "None")
    prepare(config, "--max_epochs", "$None")


def test_help_gives_the_settings_as_the_config_has_them(capsys):
    with pytest.raises(SystemExit) as end:
        cli.check_settings([*PYTHON_M_RUN, "training", "--config_file", str(ROOT / "configs/train.yaml"), "--help"])
    told = capsys.readouterr().out
    assert end.value.code == 0
    assert told.startswith("# Train EfficientSAM with adapters:")
    assert "\nlearning_rate: 0.003\n" in told
    assert "\n# --- where things are\n" in told
    assert "SupervisedTrainer" not in told


def test_version_is_that_of_the_metadata(config, capsys):
    with pytest.raises(SystemExit):
        prepare(config, "--version")
    assert capsys.readouterr().out.strip() == json.loads((ROOT / "configs/metadata.json").read_text())["version"]


def test_a_tilde_that_the_shell_left_is_refused(config):
    with pytest.raises(InputError, match=r'--image_size ~/models: write the folder out, as in "\$HOME/models"'):
        prepare(config, "--image_size=~/models")


@pytest.mark.parametrize(
    "value",
    ["$1 + 1", "@max_epochs", "%train.yaml", "Patient #1", "$@", "a\nb", {"_target_": "os.abort"}, [{"image": "$1"}]],
)
def test_values_from_outside_reach_a_config_as_they_are(value):
    config = ConfigParser(
        {"max_epochs": 20, "train": {"data": None, "shown": "@train#data"}, "path": "$str(@folder)", "folder": ""}
    )
    config.update(cli.as_values({"folder": value, "train#data": value}))
    assert config.get_parsed_content("folder") == config.get_parsed_content("train#shown") == value
    assert config.get_parsed_content("path") == str(value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--dataset_dir", "Patient #1/p.png"], ["--dataset_dir", r"$'Patient \x231/p.png'"]),
        (["--output-dir=out #1"], [r"--output-dir=$'out \x231'"]),
        (["--dataset_dir", "2020_01"], ["--dataset_dir", "$'2020_01'"]),
        (["--dataset_dir", "1e3"], ["--dataset_dir", "$'1e3'"]),
        (["--dataset_dir", "it's #1"], ["--dataset_dir", '$"it\'s \\x231"']),
        (["--dataset_dir", "$'a#b'", "--points", "[[1,2,1]]#"], None),
        (["--dataset_dir", "2017", "--val_clicks#0", "3", "--max_epochs", "1_0"], None),
        (["--help", "#1"], None),
    ],
)
def test_paths_that_monai_would_change_are_quoted(given, expected):
    assert cli.quote_paths(["python", *given]) == ["python", *(expected or given)]
    for before, after in zip(given, expected or []):
        if after.startswith("$"):
            assert ConfigParser({"path": after}).get_parsed_content("path") == before
