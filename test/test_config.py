"""One place of every default: what is refused, and how the same values come from YAML, ROS and a command line."""

import dataclasses
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from depthlm_ros.config import (
    ConfigError,
    DepthLMConfig,
    ObstaclesConfig,
    SamplingConfig,
    flatten,
    from_flat,
    options,
)
from depthlm_ros.config_yaml import load_config


@pytest.fixture
def write(tmp_path):
    def to(text):
        path = tmp_path / "config.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return to


def test_every_option_says_what_it_means_and_its_default_fits():
    names = [name for name, _ in options()]
    assert len(names) == len(set(names)) > 15
    for name, spec in options():
        assert spec.metadata["description"].endswith("."), name
        assert type(spec.default) in (str, int, float, bool, tuple), name
        from_flat({name: spec.default})
        if name.endswith(("_m", "_s")):
            assert spec.metadata["unit"] == name[-1], name


def test_flat_values_and_back():
    config = from_flat({"sampling.columns": 3, "obstacles.max_range_m": 5, "camera.image_kind": "rectified"})
    assert config.sampling.columns == 3
    assert config.obstacles.max_range_m == 5.0
    assert config.camera.image_kind == "rectified"
    assert from_flat(flatten(config)) == config
    assert from_flat({}) == DepthLMConfig()
    assert set(flatten(config)) == {name for name, _ in options()}


@given(
    st.integers(1, 1000), st.integers(0, 2**31 - 1), st.floats(0.0, 1.0), st.tuples(*[st.integers(1, 99)] * 4)
)
def test_any_allowed_values_go_there_and_back(columns, seed, confidence, roi):
    values = {
        "sampling.columns": columns,
        "sampling.seed": seed,
        "sampling.roi": list(roi),
        "obstacles.min_confidence": confidence,
    }
    config = from_flat(values)
    flat = flatten(config)
    assert {name: flat[name] for name in values} == {**values, "sampling.roi": roi}
    assert from_flat(flat) == config


def test_values_are_laid_over_a_base():
    base = from_flat({"sampling.columns": 3, "sampling.rows": 4})
    config = from_flat({"sampling.rows": 9}, base)
    assert (config.sampling.columns, config.sampling.rows) == (3, 9)
    assert base.sampling.rows == 4


def test_a_configuration_cannot_be_changed_behind_ones_back():
    config = DepthLMConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.sampling.columns = 3


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sampling.colums", "did you mean 'sampling.columns'"),
        ("engine.devise", "did you mean 'engine.device'"),
        ("obstacles.max_range", "did you mean 'obstacles.max_range_m'"),
        ("columns", "unknown option 'columns'"),
        ("qqqqqq", "the known ones are"),
        ("", "unknown option ''"),
    ],
)
def test_an_unknown_option_is_named_with_what_was_meant(name, hint):
    with pytest.raises(ConfigError, match=hint) as caught:
        from_flat({name: 1})
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("sampling.columns", "12", "a whole number"),
        ("sampling.columns", 12.0, "a whole number"),
        ("sampling.columns", True, "a whole number"),
        ("sampling.columns", None, "a whole number"),
        ("sampling.columns", [12], "a whole number"),
        ("sampling.columns", 0, "from 1 to 1000"),
        ("sampling.columns", 1001, "from 1 to 1000"),
        pytest.param("sampling.columns", 10**400, "from 1 to 1000", id="huge int"),
        ("sampling.seed", -1, "from 0 to"),
        ("sampling.method", "random", "one of grid, gradient, roi"),
        ("sampling.method", 3, "a text"),
        ("camera.max_megapixels", math.nan, "a number from"),
        ("camera.max_megapixels", math.inf, "a number from"),
        ("camera.max_megapixels", 0, "a number from"),
        ("camera.max_megapixels", "1e1", "a number"),
        ("camera.max_megapixels", False, "a number"),
        pytest.param("camera.max_megapixels", 10**400, "a number from", id="huge float"),
        ("sampling.roi", "1234", "a list of whole numbers"),
        ("sampling.roi", 5, "a list of whole numbers"),
        ("sampling.roi", [1.0, 2, 3, 4], "a list of whole numbers"),
        ("sampling.roi", [True, 2, 3, 4], "a list of whole numbers"),
        ("sampling.roi", [1, 2, 3], "u, v, width, height"),
        ("sampling.roi", [1, 2, 3, 0], "u, v, width, height"),
        ("sampling.roi", [-1, 2, 3, 4], "u, v, width, height"),
        ("engine.name", "magic", "one of"),
        ("obstacles.min_confidence", 1.1, "from 0.0 to 1.0"),
        ("stream.max_age_s", -1.0, "a number from"),
        ("stream.sync_slop_s", 0.0, "from 0.0001 to 10"),  # message_filters would pair nothing
        ("lifecycle.autostart", 1, "true or false"),
        ("lifecycle.autostart", "true", "true or false"),
    ],
)
def test_a_bad_value_is_refused_with_its_option_and_itself(name, value, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        from_flat({name: value})
    assert name in str(caught.value)


def test_options_that_contradict_each_other_are_refused():
    with pytest.raises(ConfigError, match=r"sampling\.roi"):
        SamplingConfig(method="roi")
    with pytest.raises(ConfigError, match=r"obstacles\.min_range_m.*max_range_m"):
        ObstaclesConfig(min_range_m=8.0, max_range_m=8.0)
    with pytest.raises(ConfigError, match=r"^obstacles\.min_range_m"):
        from_flat({"obstacles.min_range_m": 9.0})


PLAIN = """
sampling:
  columns: 3
  roi: [1, 2, 30, 40]
engine:
  device: cpu
"""


def as_ros_file(text, node):
    body = "".join(f"    {line}\n" for line in text.strip().splitlines())
    return f"{node}:\n  ros__parameters:\n{body}"


@pytest.mark.parametrize("node", [None, "/**", "depthlm", "/robot/depthlm"])
def test_a_plain_file_and_a_ros_parameter_file_say_the_same(write, node):
    config = load_config(write(PLAIN if node is None else as_ros_file(PLAIN, node)))
    expected = {"sampling.columns": 3, "sampling.roi": (1, 2, 30, 40), "engine.device": "cpu"}
    assert flatten(config) == {**flatten(DepthLMConfig()), **expected}


def test_dotted_names_as_ros_writes_them_are_understood(write):
    config = load_config(write(as_ros_file("sampling.columns: 3\nengine: {device: cpu}\n", "/**")))
    assert (config.sampling.columns, config.engine.device) == (3, "cpu")


def test_a_file_is_laid_over_a_base_and_an_empty_one_changes_nothing(write):
    base = from_flat({"sampling.rows": 4})
    assert load_config(write(PLAIN), base).sampling.rows == 4
    assert load_config(write(""), base) == base
    assert load_config(write("# nothing\n"), base) == base
    assert load_config(write("sampling:\n  # columns: 3\n"), base) == base


def test_the_whole_configuration_survives_a_file(write):
    config = from_flat({"sampling.method": "gradient", "sampling.points": 7, "camera.max_megapixels": 2})
    nested = {section: dataclasses.asdict(part) for section, part in vars(config).items()}
    nested["sampling"]["roi"] = list(nested["sampling"]["roi"])
    assert load_config(write(yaml.safe_dump(nested))) == config


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sampling: {colums: 3}", "did you mean 'sampling.columns'"),
        ("/**: {ros__parameters: {sampling: {colums: 3}}}", "did you mean 'sampling.columns'"),
        ("samplings: {columns: 3}", "did you mean 'sampling.columns'"),
        ("sampling: {columns: many}", r"sampling\.columns: expected a whole number, got 'many'"),
        ("sampling: 3", "unknown option 'sampling'"),
        ("use_sim_time: true", "unknown option 'use_sim_time'"),
        ("- 1", "expected sections"),
        ("just words", "expected sections"),
        ("a: [1", "expected options as YAML, but"),
        pytest.param(
            "sampling: {columns: " + "1" * 5000 + "}", "expected options as YAML, but", id="5000 digits"
        ),
        (b"\xff\xfe\x00", "expected options as YAML, but"),
        ("!!python/object/apply:os.getcwd []", "expected options as YAML, but"),
    ],
)
def test_a_bad_file_is_refused_with_its_name(write, text, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        load_config(write(text))
    assert "config.yaml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml")
