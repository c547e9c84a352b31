"""The node is stopped while the process that runs its model is stuck: it is gone at once, and so is that process."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import pytest
from graph import HEIGHT, WIDTH, alone, image_message
from lifecycle_msgs.msg import Transition
from stopwatch import Stopwatch
from worker_marks import marked_processes

STAND_IN = Path(__file__).parents[1] / "stand_ins" / "trtllm"
FOREVER = 120.0
PROMISE_S = 2.0


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "shutdown"])
def test_a_stuck_worker_process_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    pipe, before = tmp_path / "busy", marked_processes()
    os.mkfifo(pipe)
    busy = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(STAND_IN), os.environ.get("PYTHONPATH", ""))))
    monkeypatch.setenv("DEPTHLM_STAND_IN_BUSY", str(pipe))
    engine = ("engine.name:=tensorrt_llm", "engine.dtype:=bfloat16", "engine.silence_s:=600.0")
    try:
        with alone("lifecycle.autostart:=true", "stream.max_age_s:=600.0", *engine) as (node, bench):
            bench.wait(lambda: bench.state() == "active", FOREVER)
            bench.send_until_answered()
            bright = image_message(bench.header())
            bright.data = bytes([255]) * (WIDTH * HEIGHT * 3)
            bench.send(bright)
            assert select.select([busy], [], [], FOREVER)[0], "\n".join(node.log)
            assert marked_processes() - before
            watch = Stopwatch()
            if how == "shutdown":
                assert bench.transition(Transition.TRANSITION_ACTIVE_SHUTDOWN)
            else:
                assert node.end(signal.Signals[how]) == 0, "\n".join(node.log)
            took = watch.own_s()
            assert not marked_processes() - before
            assert not node.logged("Traceback"), "\n".join(node.log)
            assert took < PROMISE_S
    finally:
        os.close(busy)
