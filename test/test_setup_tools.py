"""The set-up's logic: stamps, remedies, interpreters, and the wheels' CMake files."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def tools():
    spec = importlib.util.spec_from_file_location("setup_tools", ROOT / "scripts" / "setup_tools.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fake_python(path, version):
    path.write_text(f'#!/bin/sh\ncase "$2" in *version_info*) echo \'{version}\';; *) echo "$0";; esac\n')
    path.chmod(0o755)
    return str(path)


def test_the_wheels_cmake_files_point_at_this_machine(tools, tmp_path):
    cmake = tmp_path / "share" / "std_msgs" / "cmake"
    cmake.mkdir(parents=True)
    built = "/opt/python/cp312-cp312"
    file = cmake / "std_msgs__rosidl_generator_pyExport.cmake"
    file.write_text(
        f'INTERFACE_INCLUDE_DIRECTORIES "{built}/include/python3.12;'
        f'{built}/lib/python3.12/site-packages/numpy/_core/include"\n'
    )
    untouched = cmake / "std_msgsConfig.cmake"
    untouched.write_text("# /usr/include/python3.12\n")
    # A backslash must survive: it means something to regular expressions.
    assert tools.relocate_cmake_files(tmp_path, "/usr/include/python3.12", r"/home/a\1b/numpy") == 1
    expected = 'INTERFACE_INCLUDE_DIRECTORIES "/usr/include/python3.12;/home/a\\1b/numpy"\n'
    assert file.read_text() == expected
    assert untouched.read_text() == "# /usr/include/python3.12\n"
    assert tools.relocate_cmake_files(tmp_path, "/elsewhere", "/elsewhere") == 0


def test_old_numpy_keeps_its_headers_elsewhere(tools, tmp_path):
    cmake = tmp_path / "share" / "a" / "cmake"
    cmake.mkdir(parents=True)
    file = cmake / "a.cmake"
    file.write_text('"/opt/python/cp310-cp310/lib/python3.10/site-packages/numpy/core/include"')
    tools.relocate_cmake_files(tmp_path, "/python", "/numpy")
    assert file.read_text() == '"/numpy"'


def test_the_digest_follows_names_contents_and_values_but_not_caches(tools, tmp_path):
    (tmp_path / "a.msg").write_text("uint8 x")
    digests = [tools.digest(tmp_path, "3.11")]
    assert tools.digest(tmp_path, "3.11") == digests[0]
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("anything")
    assert tools.digest(tmp_path, "3.11") == digests[0]
    digests.append(tools.digest(tmp_path, "3.12"))
    (tmp_path / "a.msg").write_text("uint16 x")
    digests.append(tools.digest(tmp_path, "3.11"))
    (tmp_path / "a.msg").rename(tmp_path / "b.msg")
    digests.append(tools.digest(tmp_path, "3.11"))
    assert len(set(digests)) == len(digests)


def test_stamps_survive_the_process_and_a_broken_file(tools, tmp_path):
    path = tmp_path / "setup.json"
    tools.Stamps(path).record("messages", "key")
    stamps = tools.Stamps(path)
    assert stamps.is_current("messages", "key")
    assert not stamps.is_current("messages", "other")
    assert not stamps.is_current("ros", "key")
    stamps.record("messages", None)
    assert not tools.Stamps(path).is_current("messages", "key")
    for rubbish in ("", "{", "[]", '"text"'):
        path.write_text(rubbish)
        assert not tools.Stamps(path).is_current("messages", "key")


def test_the_first_supported_python_is_chosen(tools, tmp_path):
    old = fake_python(tmp_path / "python3.9", "3 9")
    new = fake_python(tmp_path / "python3.13", "3 13")
    launcher = tmp_path / "python3.12"  # a version manager's, for a version that is not there
    launcher.write_text("#!/bin/sh\nexit 127\n")
    launcher.chmod(0o755)
    good = fake_python(tmp_path / "python3.10", "3 10")
    other = fake_python(tmp_path / "python3.11", "3 11")
    names = [old, new, str(launcher), str(tmp_path / "absent"), good, other]
    assert tools.choose_python(names) == good
    assert tools.choose_python(names, works=lambda p: p == other) == other
    assert tools.choose_python(names[:4]) is None
    assert tools.choose_python([sys.executable]) == sys.executable


@pytest.mark.parametrize(
    ("log", "advice"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("Failed to establish a new connection: [Errno 101]", "no network"),
        ("ERROR: No matching distribution found for ros-rclpy[fastrtps]==9.1.2", "install ROS 2"),
        ("ERROR: No matching distribution found for torch==2.13.0", "TORCH_INDEX_URL"),
        ("something else", "make clean"),
    ],
)
def test_a_failed_step_says_what_to_do(tools, tmp_path, capsys, log, advice):
    command = [sys.executable, "-c", f"print('line before'); print({log!r}); raise SystemExit(3)"]
    with pytest.raises(SystemExit):
        tools.run_logged(command, tmp_path / "log" / "step.log")
    said = capsys.readouterr().err
    assert advice in said
    assert log in said
    assert "code 3" in said
    assert str(tmp_path / "log" / "step.log") in said


def test_only_the_failed_commands_own_lines_are_judged(tools, tmp_path, capsys):
    log = tmp_path / "step.log"
    tools.run_logged([sys.executable, "-c", "print('No space left on device')"], log)
    with pytest.raises(SystemExit):
        tools.run_logged([sys.executable, "-c", "raise SystemExit(1)"], log)
    assert "disk is full" not in capsys.readouterr().err


def test_what_is_missing_is_named_with_the_command_that_adds_it(tools, monkeypatch, capsys):
    monkeypatch.setattr(tools, "python_version", lambda _: (3, 11))
    monkeypatch.setattr(tools, "ask_python", lambda *_: None)
    monkeypatch.setattr(tools.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(tools.platform, "machine", lambda: "x86_64")
    with pytest.raises(SystemExit):
        tools.check_system("python3", without_ros=True)
    assert "sudo apt-get install python3.11-venv python3.11-dev g++ make" in capsys.readouterr().err


def test_a_platform_without_wheels_is_sent_to_ros(tools, monkeypatch, capsys):
    monkeypatch.setattr(tools.platform, "machine", lambda: "aarch64")
    with pytest.raises(SystemExit):
        tools.check_system(sys.executable, without_ros=True)
    said = capsys.readouterr().err
    assert "aarch64" in said
    assert "source its setup.bash" in said


def test_ros_sourced_but_not_importable_is_said(tmp_path):
    lonely = fake_python(tmp_path / "python3", "3 11")
    Path(lonely).write_text(
        Path(lonely).read_text().replace("case", '[ "$2" = "import rclpy" ] && exit 1; case')
    )
    env = {**os.environ, "ROS_DISTRO": "jazzy", "PYTHON": lonely, "DEPTHLM_VENV": str(tmp_path / "venv")}
    script = ROOT / "scripts" / "setup_env.py"
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot import rclpy" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_every_requirement_is_pinned():
    for file in (ROOT / "requirements").glob("*.txt"):
        for line in file.read_text().splitlines():
            if line and not line.startswith("#"):
                assert re.match(r"[A-Za-z0-9_.\[\]-]+==\S+", line), f"{file.name}: {line}"
