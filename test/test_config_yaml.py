"""The three places where an option is seen: config.py, config/depthlm.yaml, and the generated text."""

from pathlib import Path

import pytest
import yaml

from depthlm_ros.config import DepthLMConfig, flatten, from_flat, options
from depthlm_ros.config_yaml import config_yaml, load_config

SHIPPED = Path(__file__).parents[1] / "config" / "depthlm.yaml"


def test_the_shipped_file_is_what_the_command_prints() -> None:
    assert SHIPPED.read_text(encoding="utf-8") == config_yaml()


def test_the_shipped_file_holds_every_option_with_its_default() -> None:
    assert flatten(load_config(SHIPPED)) == flatten(DepthLMConfig())
    text = SHIPPED.read_text(encoding="utf-8")
    for name, _ in options():
        assert f"{name.split('.')[1]}:" in text, name


@pytest.mark.parametrize("value", [True, False])
def test_an_option_that_is_left_open_is_written_where_it_is_not_the_default(
    value: bool, tmp_path: Path
) -> None:
    """Its default in a copy of the file would overrule the launch files, which activate where nobody says a word."""
    config = from_flat({"lifecycle.autostart": value})
    path = tmp_path / "written.yaml"
    path.write_text(config_yaml(config), encoding="utf-8")
    assert load_config(path) == config
    written = yaml.safe_load(path.read_text(encoding="utf-8"))["/**"]["ros__parameters"]["lifecycle"]
    assert ("autostart" in written) is value
