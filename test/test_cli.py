"""The command line as a whole: version, help, configuration, errors."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from depthlm_ros import __version__
from depthlm_ros.cli import app
from depthlm_ros.cli_common import InputError, build_config, one_line_errors
from depthlm_ros.config import ConfigError, DepthLMConfig, SamplingConfig, from_flat, options
from depthlm_ros.config_yaml import config_yaml, load_config
from depthlm_ros.evaluation import read_benchmark


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def test_version():
    assert run("--version").output.strip() == __version__


def test_help_comes_without_heavy_libraries():
    code = (
        "import sys; from depthlm_ros.cli import app; app(['--help'], standalone_mode=False); "
        "print([m for m in ('torch', 'transformers', 'cv2', 'numpy', 'PIL', 'scipy', 'rclpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == "[]"
    for command in ("mark", "estimate", "eval", "card", "render", "bench", "demo", "config"):
        assert command in done.stdout


@pytest.mark.parametrize("command", ["mark", "estimate", "eval", "card", "render", "bench", "demo", "config"])
def test_every_command_has_help(command):
    result = run(command, "--help")
    assert result.exit_code == 0, result.output


def options_of(*names):
    """{flag: (type, default, help)} of a command."""
    command = typer.main.get_command(app)
    for name in names:
        command = command.commands[name]
    return {
        flag: (p.type.name, p.default, p.help) for p in command.params for flag in p.opts if flag[:2] == "--"
    }


def test_commands_that_share_options_share_them_whole():
    model = {"--engine", "--checkpoint", "--profile", "--device", "--dtype", "--config", "--set"}
    camera = {"--camera-info", "--fx", "--fy", "--cx", "--cy"}
    first = options_of("estimate")
    assert model | camera <= first.keys()
    others = (("eval",), ("calibrate",), ("ask-eval",), ("engine", "check"))
    for name, shared in [(("ask",), model | camera), *((name, model) for name in others)]:
        other = options_of(*name)
        assert {flag: other[flag] for flag in shared} == {flag: first[flag] for flag in shared}
    assert all(first[flag][1] is None for flag in camera | model)
    assert "[default: 'transformers']" in first["--engine"][2]


def test_config_prints_every_option_and_reads_back(tmp_path):
    result = run("config")
    assert result.exit_code == 0
    path = tmp_path / "depthlm.yaml"
    path.write_text(result.stdout)
    assert load_config(path) == DepthLMConfig()
    for name, spec in options():
        left_open = "# " if spec.metadata["left_open"] else ""
        assert f"      {left_open}{name.split('.')[1]}: " in result.stdout


def test_config_yaml_of_other_values_reads_back(tmp_path):
    values = {
        "engine.checkpoint": 'a "b": #c', "engine.profile": "off", "sampling.roi": (1, 2, 30, 40),
        "obstacles.min_confidence": 1e-5, "sampling.method": "roi",
    }  # fmt: skip
    config = from_flat(values)
    path = tmp_path / "c.yaml"
    path.write_text(config_yaml(config))
    assert load_config(path) == config


def test_settings_take_the_type_of_the_option(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("sampling: {rows: 3, columns: 7}\n")
    settings = [
        "sampling.roi=1,2,30,40", "stream.sync_slop_s=1e-3", "engine.checkpoint=123", "sampling.rows=5",
        "stream.max_age_s=3",
    ]  # fmt: skip
    got = build_config(path, settings, {"engine.device": "cpu", "engine.dtype": None})
    assert got.sampling == SamplingConfig(columns=7, rows=5, roi=(1, 2, 30, 40))
    assert (got.stream.sync_slop_s, got.stream.max_age_s) == (0.001, 3.0)
    assert (got.engine.checkpoint, got.engine.device) == ("123", "cpu")


@pytest.mark.parametrize(
    "setting",
    ["sampling.rows", "sampling.rows=many", "sampling.row=3", "stream.max_age_s=soon", "sampling.roi=1,2",
     "sampling.roi=[", "engine.device=tpu", "=3"],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused(setting):
    with pytest.raises(ConfigError):
        build_config(None, [setting], {})


def test_an_expected_error_is_one_line_and_a_bug_is_not_hidden(capsys):
    @one_line_errors
    def refuse():
        raise InputError("name\n  a file")

    @one_line_errors
    def stumble():
        raise KeyError("a bug")

    with pytest.raises(typer.Exit) as caught:
        refuse()
    assert caught.value.exit_code == 2
    assert capsys.readouterr().err == "depthlm: name a file\n"
    with pytest.raises(KeyError):
        stumble()


def test_the_demo_says_what_it_needs(monkeypatch, tmp_path):
    monkeypatch.setattr("depthlm_ros.cli.find_spec", lambda name: None)
    result = run("demo", "--out", tmp_path)
    assert result.exit_code == 2
    assert "rclpy" in result.output
    assert "make demo" in result.output


def test_the_demo_writes_where_the_readme_says_and_git_ignores():
    command = typer.main.get_command(app).commands["demo"]
    (out,) = (parameter for parameter in command.params if parameter.name == "out")
    assert str(out.default) == "demo_out"
    assert "/demo_out/" in (Path(__file__).parents[1] / ".gitignore").read_text().splitlines()


def test_render_writes_what_eval_reads(tmp_path):
    result = run("render", "--out", tmp_path, "--scenes", 2, "--seed", 3, "--domain", "robot")
    assert result.exit_code == 0, result.output
    samples = read_benchmark(tmp_path / "robot.jsonl", tmp_path)
    assert len(samples) == 2
    assert all(sample.path.is_file() for sample in samples)
    refused = run("render", "--out", tmp_path, "--domain", "moon")
    assert refused.exit_code == 2
    assert "robot" in refused.output
