"""A worker process that answers, crashes, hangs and is late: no wrong answer, recovery, and nothing left behind."""

import math
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from memory_files import new_shared_memory, shared_memory
from worker_marks import marked_processes

from depthlm_ros.engines.base import EngineError, Finish, Paint, Prompt, PromptImage
from depthlm_ros.engines.worker_limits import Limits
from depthlm_ros.engines.worker_supervisor import Supervisor

STAND_IN = Path(__file__).parent / "stand_ins" / "worker_stand_in.py"
FOREVER = 60.0
"""Longer than any test waits; a busy machine is slow."""

PROMISE_S = 2.0
"""A node is gone within it, whatever its worker does."""


@pytest.fixture
def worker(tmp_path):
    """Starts supervisors; afterwards there is no process and no shared memory that was not there before."""
    processes, memory, started = marked_processes(), shared_memory(), []

    def start(*, begin=True, fault=None, child=False, busy=os.devnull, **limits):
        settings = {
            "lives": str(tmp_path / "lives"), "fault": fault or {}, "child": child, "busy": str(busy),
        }  # fmt: skip
        patience = {"start_s": FOREVER, "silence_s": FOREVER, "first_delay_s": 0.05} | limits
        argv = (sys.executable, str(STAND_IN))
        supervisor = Supervisor(argv, settings, at_once=4, limits=Limits(**patience))
        started.append(supervisor)
        if begin:
            supervisor.start()
        return supervisor

    yield start
    for supervisor in started:
        supervisor.stop()
    assert marked_processes() <= processes
    assert not new_shared_memory(memory)


def ask(supervisor, *questions, seconds=FOREVER, images=(), prefix=""):
    prompts = [Prompt(tuple(images), question, prefix=prefix) for question in questions]
    deadline = None if seconds is None else time.monotonic() + seconds
    return supervisor.call(prompts, max_new_tokens=9, stop=("m",), deadline=deadline)


@contextmanager
def told_when_busy(tmp_path):
    """A named pipe for a worker, and how to wait until it has begun what it never ends."""
    path = tmp_path / "busy"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def wait():
        assert select.select([reading], [], [], FOREVER)[0], "the worker never began"
        return os.read(reading, 99).decode()

    try:
        yield path, wait
    finally:
        os.close(reading)


def test_prompts_arrive_whole_and_answers_come_back_in_order(worker):
    supervisor = worker()
    base = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    painted = PromptImage(base, Paint(((0, 1), (4, 3)), (255, 0, 7)))
    other = PromptImage(np.full((2, 2, 3), 9, np.uint8))
    late, plain = ask(supervisor, "late 0.2", "näher \N{SNOWMAN}", images=[painted, other], prefix="It is")
    sums = [int(painted.pixels().sum()), 2 * 2 * 3 * 9]
    assert late.text == f"late 0.2|It is|{sums}|9|['m']"
    assert plain.text == f"näher \N{SNOWMAN}|It is|{sums}|9|['m']"
    assert plain.finish is Finish.STOP
    assert plain.tokens[0].logprob == -0.5
    assert math.isnan(plain.tokens[1].logprob)
    assert ask(supervisor) == []
    assert supervisor.details()["worker"] == "ready"
    assert supervisor.details()["life"] == "1"


def test_a_prompt_that_fails_fails_alone(worker):
    wrong, right = ask(worker(), "wrong", "right")
    assert (wrong.finish, wrong.text) == (Finish.ERROR, "")
    assert wrong.error == "ValueError: the prompt is too long"
    assert right.finish is Finish.STOP


@pytest.mark.parametrize(
    ("question", "says"),
    [("segfault", "SIGSEGV"), ("exit", "status 5.*a last word"), ("lost", "out of memory")],
)
def test_after_a_crash_the_worker_is_started_anew(worker, question, says):
    supervisor = worker()
    assert ask(supervisor, "before")[0].text.startswith("before")
    with pytest.raises(EngineError, match=says):
        ask(supervisor, question)
    assert ask(supervisor, "after")[0].text.startswith("after")
    details = supervisor.details()
    assert (details["life"], details["worker_crashes"]) == ("2", "1")
    assert "worker" in details["last_crash"]


def test_what_was_answered_before_a_crash_is_kept(worker):
    first, second = ask(worker(), "quick", "segfault")
    assert (first.finish, first.text[:5]) == (Finish.STOP, "quick")
    assert (second.finish, second.text) == (Finish.ERROR, "")
    assert "SIGSEGV" in second.error


def test_a_hanging_worker_is_killed_and_replaced(worker):
    supervisor = worker(silence_s=2.0)
    with pytest.raises(EngineError, match="no sign of life for 2 s"):
        ask(supervisor, "hang", seconds=None)
    assert ask(supervisor, "after")[0].text.startswith("after")


def test_a_worker_that_beats_but_does_not_answer_is_replaced(worker):
    with pytest.raises(EngineError, match="answered nothing for 2 s"):
        ask(worker(silence_s=2.0), "never", seconds=None)


def test_a_late_answer_is_given_to_nobody(worker):
    supervisor = worker()
    quick, late = ask(supervisor, "quick", "late 2", seconds=1.0)
    assert quick.finish is Finish.STOP
    assert (late.finish, late.text) == (Finish.DEADLINE, "")
    assert [answer.text.split("|")[0] for answer in ask(supervisor, "next", "one")] == ["next", "one"]


def test_a_deadline_in_the_past_asks_nothing(worker):
    assert [a.finish for a in ask(worker(), "late 0", "late 0", seconds=-1.0)] == [Finish.DEADLINE] * 2


def test_cancel_ends_the_call_and_not_the_next_one(worker):
    supervisor = worker()
    threading.Timer(0.5, supervisor.cancel).start()
    began = time.monotonic()
    assert [a.finish for a in ask(supervisor, "never", seconds=None)] == [Finish.DEADLINE]
    assert time.monotonic() - began < FOREVER / 2
    assert ask(supervisor, "next")[0].finish is Finish.STOP
    supervisor.cancel()
    assert ask(supervisor, "another")[0].finish is Finish.STOP


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("refuse", "the model is not here; put it there"),
        ("break", "RuntimeError: cuInit failed"),
        ("exit", "status 7.*terminate called"),
        ("slow", "not ready after 1 s.*start_timeout_s"),
    ],
)
def test_a_worker_that_cannot_start_says_why(worker, fault, says):
    supervisor = worker(begin=False, fault={"1": fault}, start_s=1.0 if fault == "slow" else FOREVER)
    with pytest.raises(EngineError, match=says):
        supervisor.start()


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ("garbage", "runs but expected a message as a JSON object, got b'garbage'"),
        ('{"event": "party", "files": 0}', "sent what is no message"),
        ('{"event": "ready", "files": 0}', "sent what is no message"),
    ],
)
def test_a_worker_that_speaks_nonsense_is_ended(tmp_path, sent, says):
    before = marked_processes()
    program = (
        f"import os, sys, time; os.write(int(sys.argv[-1]), {sent!r}.encode() + b'\\n'); time.sleep(300)"
    )
    supervisor = Supervisor((sys.executable, "-c", program), {}, at_once=1, limits=Limits())
    with pytest.raises(EngineError, match=says):
        supervisor.start()
    assert marked_processes() <= before


def test_it_gives_up_after_so_many_crashes_in_a_row(worker):
    supervisor = worker(fault={"2": "exit", "3": "break"}, restarts=2)
    with pytest.raises(EngineError, match="SIGSEGV"):
        ask(supervisor, "segfault")
    with pytest.raises(EngineError, match="cuInit failed"):
        ask(supervisor, "after")
    assert supervisor.details()["worker"] == "given up"
    with pytest.raises(EngineError, match="cuInit failed"):
        ask(supervisor, "after")


def test_while_it_starts_anew_a_caller_waits_no_longer_than_its_deadline(worker):
    supervisor = worker(first_delay_s=FOREVER)
    with pytest.raises(EngineError, match="SIGSEGV"):
        ask(supervisor, "segfault")
    with pytest.raises(EngineError, match=r"being started after this: .*SIGSEGV"):
        ask(supervisor, "next", seconds=0.2)


def test_cancel_ends_the_wait_for_a_new_worker_too(worker):
    supervisor = worker(first_delay_s=FOREVER)
    with pytest.raises(EngineError, match="SIGSEGV"):
        ask(supervisor, "segfault")
    threading.Timer(0.3, supervisor.cancel).start()
    assert [answer.finish for answer in ask(supervisor, "next", seconds=None)] == [Finish.DEADLINE]


def test_pauses_grow_up_to_a_bound():
    limits = Limits(first_delay_s=1.0, most_delay_s=10.0)
    assert [limits.delay(failures) for failures in range(1, 7)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_stopping_ends_what_the_worker_started_elsewhere(worker):
    before = marked_processes()
    supervisor = worker(child=True)
    assert len(marked_processes() - before) == 3
    began = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - began < FOREVER / 10
    assert marked_processes() <= before


@pytest.mark.parametrize("how", ["hang", "never", "freeze"])
def test_a_busy_worker_is_let_go_at_once(worker, tmp_path, how):
    """It blocks its own loop; it answers nothing but listens; the whole process stands still."""
    before = marked_processes()
    with told_when_busy(tmp_path) as (pipe, begun), ThreadPoolExecutor(1) as thread:
        supervisor = worker(child=True, busy=pipe)
        asked = thread.submit(ask, supervisor, how, seconds=None)
        assert begun() == how
        processes, process = marked_processes() - before, supervisor._worker.pid
        began = time.monotonic()
        supervisor.stop()
        took = time.monotonic() - began
        with pytest.raises(EngineError, match="the engine was stopped"):
            asked.result(FOREVER)
    assert took < PROMISE_S
    assert len(processes) == 3
    assert not marked_processes() & processes
    with pytest.raises(ChildProcessError):  # it is no zombie either
        os.waitpid(process, os.WNOHANG)


def test_a_worker_that_takes_no_message_holds_up_neither_cancel_nor_stop(worker, tmp_path):
    with told_when_busy(tmp_path) as (pipe, begun), ThreadPoolExecutor(1) as thread:
        supervisor = worker(busy=pipe)
        assert [a.finish for a in ask(supervisor, "freeze", seconds=0.2)] == [Finish.DEADLINE]
        assert begun() == "freeze"
        asked = thread.submit(ask, supervisor, *["x" * 1000] * 3000, seconds=None)
        channel = supervisor._worker.channel
        end = time.monotonic() + FOREVER
        while not channel._sending.locked() and time.monotonic() < end:
            time.sleep(0.01)
        began = time.monotonic()
        supervisor.cancel()
        answers = asked.result(FOREVER)
        supervisor.stop()
        took = time.monotonic() - began
    assert {answer.finish for answer in answers} == {Finish.DEADLINE}
    assert took < PROMISE_S


def test_a_crash_leaves_nothing_of_what_the_worker_started(worker):
    supervisor = worker(child=True, first_delay_s=FOREVER)
    mine = marked_processes()
    with pytest.raises(EngineError, match="SIGSEGV"):
        ask(supervisor, "segfault")
    end = time.monotonic() + FOREVER
    while marked_processes() & mine and time.monotonic() < end:
        time.sleep(0.05)
    assert not marked_processes() & mine


def test_when_the_parent_is_killed_nothing_survives(tmp_path):
    """The parent gets no chance to clean up: SIGKILL."""
    program = textwrap.dedent(
        f"""
        import sys, time
        from depthlm_ros.engines.worker_limits import Limits
        from depthlm_ros.engines.worker_supervisor import Supervisor
        settings = {{"lives": {str(tmp_path / "lives")!r}, "child": True}}
        Supervisor((sys.executable, {str(STAND_IN)!r}), settings, at_once=1, limits=Limits()).start()
        print("ready", flush=True)
        time.sleep(300)
        """
    )
    before, memory = marked_processes(), shared_memory()
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        assert len(marked_processes() - before) == 3
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        parent.stdout.close()
    end = time.monotonic() + FOREVER
    while marked_processes() - before and time.monotonic() < end:
        time.sleep(0.05)
    assert not marked_processes() - before
    assert not new_shared_memory(memory)
