"""What counts as a number of a spatial task, and what is refused with which reason."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthlm_ros.answers import AnswerStatus as S
from depthlm_ros.engines.base import Answer, Finish
from depthlm_ros.profile import CheckpointProfile, ProfileError
from depthlm_ros.spatial.parsing import parse_spatial
from depthlm_ros.spatial.request import SpatialRequest, SpatialRequestError, SpatialStatus
from depthlm_ros.spatial.tasks import SpatialTask

PROFILE = CheckpointProfile("test", 100.0, max_depth_m=200.0)
SPEED = SpatialRequest(SpatialTask.SPEED, ((10, 10),), seconds=4.0)
TIME = SpatialRequest(SpatialTask.TIME, ((10, 10),), speed=2.0)
APART = SpatialRequest(SpatialTask.TWO_POINT_DISTANCE, ((10, 10), (40, 40)))
AHEAD = SpatialRequest(SpatialTask.PRINCIPAL_AXIS_DISTANCE, ((10, 10),))
MOTION = SpatialRequest(SpatialTask.CAMERA_MOTION)
REASONING = " 7.23 meters away. Hence, the speed should be around 7.23 / 4.0 = 1.81m/s. </think>\n\n"


def parse(text, request=SPEED, finish=Finish.STOP):
    return parse_spatial(Answer(text, finish=finish), request, PROFILE)


@pytest.mark.parametrize(
    ("text", "request_", "values"),
    [
        (REASONING + "<answer> 1.81 </answer>", SPEED, (1.81,)),
        (REASONING + "<answer>1.81m/s</answer>", SPEED, (1.81,)),
        (REASONING + "<answer> 1.81 meters per second </answer>", SPEED, (1.81,)),
        (REASONING + "<ANSWER> .5 m / s. </answer>", SPEED, (0.5,)),
        ("<answer> 2 </answer> <answer> 2.0 </answer>", SPEED, (2.0,)),
        ("<answer> 8.05 ", TIME, (8.05,)),
        ("<answer> 8.05s </answer>", TIME, (8.05,)),
        ("<answer> 8.05 seconds</answer>", TIME, (8.05,)),
        (" 2.58 meters", APART, (2.58,)),
        (" 258 cm", APART, (2.58,)),
        (" 4.30 meters from the camera", AHEAD, (4.3,)),
        ("<answer> 0.10 -0.02 1.20 0.0 -12.5 0.3 </answer>", MOTION, (0.1, -0.02, 1.2, 0.0, -12.5, 0.3)),
        ("<answer>0.10,-0.02, 1.2; 0 -12.5 0.3</answer>", MOTION, (0.1, -0.02, 1.2, 0.0, -12.5, 0.3)),
    ],
)
def test_numbers_are_read(text, request_, values):
    parsed = parse(text, request_)
    assert parsed.status is S.OK
    assert parsed.values == values


@pytest.mark.parametrize(
    ("text", "request_", "finish", "status"),
    [
        ("", SPEED, Finish.ERROR, S.ENGINE_ERROR),
        ("", SPEED, Finish.DEADLINE, S.DEADLINE),
        ("", APART, Finish.DEADLINE, S.DEADLINE),
        (REASONING, SPEED, Finish.STOP, S.NO_NUMBER),
        (REASONING, SPEED, Finish.LENGTH, S.TRUNCATED),
        (REASONING + "<answer> 1.8", SPEED, Finish.LENGTH, S.TRUNCATED),
        ("<answer> </answer>", SPEED, Finish.STOP, S.NO_NUMBER),
        ("<answer> 7.23 / 4.0 </answer>", SPEED, Finish.STOP, S.SEVERAL_NUMBERS),
        ("<answer> 1.8 </answer><answer> 1.9 </answer>", SPEED, Finish.STOP, S.SEVERAL_NUMBERS),
        ("<answer> -1.8 </answer>", SPEED, Finish.STOP, S.NOT_POSITIVE),
        ("<answer> 0.00 </answer>", TIME, Finish.STOP, S.NOT_POSITIVE),
        ("<answer> inf </answer>", TIME, Finish.STOP, S.NOT_FINITE),
        ("<answer> 1e999 </answer>", TIME, Finish.STOP, S.NOT_FINITE),
        ("<answer> 6.5 km/h </answer>", SPEED, Finish.STOP, S.BAD_FORMAT),
        ("<answer> 3 minutes </answer>", TIME, Finish.STOP, S.BAD_FORMAT),
        ("<answer> 2,42 </answer>", TIME, Finish.STOP, S.SEVERAL_NUMBERS),
        ("<answer> 50.1 </answer>", SPEED, Finish.STOP, S.OUT_OF_RANGE),  # 4 s at that speed: beyond 200 m
        ("<answer> 100.1 </answer>", TIME, Finish.STOP, S.OUT_OF_RANGE),
        (" 200.1 meters", APART, Finish.STOP, S.OUT_OF_RANGE),
        (" -2 meters", APART, Finish.STOP, S.NOT_POSITIVE),
        ("<answer> 0.1 0.2 0.3 1.0 2.0 </answer>", MOTION, Finish.STOP, S.BAD_FORMAT),
        ("<answer> 0.1 0.2 0.3 1.0 2.0 3.0 4.0 </answer>", MOTION, Finish.STOP, S.SEVERAL_NUMBERS),
        ("<answer> 201 0 0 0 0 0 </answer>", MOTION, Finish.STOP, S.OUT_OF_RANGE),
        ("<answer> 1 0 0 0 0 361 </answer>", MOTION, Finish.STOP, S.OUT_OF_RANGE),
    ],
)
def test_what_is_no_such_number_is_refused_with_its_reason(text, request_, finish, status):
    parsed = parse(text, request_, finish)
    assert parsed.status is status
    assert parsed.values == ()


@given(st.text(max_size=60), st.sampled_from([SPEED, TIME, APART, AHEAD, MOTION]), st.sampled_from(Finish))
def test_any_text_gives_numbers_or_a_reason_never_both(text, request_, finish):
    for said in (text, f"<answer>{text}</answer>"):
        parsed = parse(said, request_, finish)
        assert (parsed.status is S.OK) == bool(parsed.values)
        assert all(math.isfinite(value) for value in parsed.values)
        if request_ is not MOTION:
            assert all(value > 0.0 for value in parsed.values)


numbers = st.floats(-20.0, 20.0).map(lambda x: round(x, 2))


@given(st.lists(numbers, min_size=6, max_size=6))
def test_six_signed_numbers_are_a_motion(six):
    parsed = parse(f"<answer> {' '.join(f'{x:.2f}' for x in six)} </answer>", MOTION)
    assert parsed.values == pytest.approx(tuple(six))


@given(st.floats(0.01, 49.99).map(lambda x: round(x, 2)))
def test_a_speed_survives_the_answers_template(speed):
    text = REASONING + f"<answer> {speed:.2f} </answer>"
    assert parse(text).values == pytest.approx((speed,))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"task": SpatialTask.SPEED, "seconds": 2.0}, "speed: expected 1 pixels, got 0"),
        ({"task": SpatialTask.TWO_POINT_DISTANCE, "pixels": ((1, 2),)}, "expected 2 pixels, got 1"),
        ({"task": SpatialTask.TWO_POINT_DISTANCE, "pixels": ((1, 2), (1, 2))}, "expected different pixels"),
        ({"task": SpatialTask.CAMERA_MOTION, "pixels": ((1, 2),)}, "expected 0 pixels, got 1"),
        ({"task": SpatialTask.SPEED, "pixels": ((1, 2),)}, "expected seconds from 0.01 to 10000 s, got none"),
        ({"task": SpatialTask.SPEED, "pixels": ((1, 2),), "seconds": -1.0}, "got -1"),
        ({"task": SpatialTask.TIME, "pixels": ((1, 2),), "speed": math.inf}, "got inf"),
        (
            {"task": SpatialTask.TIME, "pixels": ((1, 2),), "speed": 1.0, "seconds": 1.0},
            "expected no seconds, got 1: leave it out",
        ),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_with_what_to_do(fields, says):
    with pytest.raises(SpatialRequestError, match=says.replace(".", r"\.")):
        SpatialRequest(**fields)


def test_statuses_keep_the_numbers_of_the_depth_answers():
    for status in S:
        assert SpatialStatus[status.name] == status
    assert set(SpatialStatus) - set(map(int, S)) == {32, 33, 34}


def test_a_profile_names_only_known_tasks():
    assert CheckpointProfile("x", 100.0, spatial_tasks=["speed", "time"]).spatial_tasks == ("speed", "time")
    with pytest.raises(ProfileError, match="spatial_tasks: expected a list of"):
        CheckpointProfile("x", 100.0, spatial_tasks=("velocity",))
    with pytest.raises(ProfileError, match="spatial_tasks: expected a list of"):
        CheckpointProfile("x", 100.0, spatial_tasks="speed")
    with pytest.raises(ProfileError, match="spatial_tasks: expected a list of"):
        CheckpointProfile("x", 100.0, spatial_tasks=[["speed"]])
