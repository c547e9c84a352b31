"""The three places where an option is seen: config.py, config/depthlm.yaml, and the generated text."""

from pathlib import Path

from depthlm_ros.config import DepthLMConfig, flatten, options
from depthlm_ros.config_yaml import config_yaml, load_config

SHIPPED = Path(__file__).parents[1] / "config" / "depthlm.yaml"


def test_the_shipped_file_is_what_the_command_prints() -> None:
    assert SHIPPED.read_text(encoding="utf-8") == config_yaml()


def test_the_shipped_file_holds_every_option_with_its_default() -> None:
    assert flatten(load_config(SHIPPED)) == flatten(DepthLMConfig())
    text = SHIPPED.read_text(encoding="utf-8")
    for name, _ in options():
        assert f"{name.split('.')[1]}:" in text, name
