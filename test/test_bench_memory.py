"""Peak memory of a piece of work: what it needs, not what an earlier one left to be used again."""

from __future__ import annotations

import numpy as np
import pytest

from depthlm_ros.bench import memory
from depthlm_ros.bench.memory import peak_memory

SIDE_MB = 0.1
"""Of one array: below what glibc takes from the system by itself, so that freed ones stay with the process."""


def small_arrays(mb):
    """Take memory in small pieces, hold it all at once and free all but what comes last."""
    held = [np.ones(int(SIDE_MB * 1e6), dtype=np.uint8) for _ in range(round(mb / SIDE_MB))]
    # It lies behind the others, so that the C library cannot give them back by itself.
    return held[-1]


def needs():
    """What three pieces of work need, in MB, and what keeps what they left from being given back by itself."""
    kept = []

    def work(mb):
        kept.append(small_arrays(mb))

    return work


@pytest.mark.parametrize("order", [(80, 20, 40), (20, 40, 80), (40, 80, 20)])
def test_a_peak_is_what_the_work_needs_whatever_ran_before(order):
    work = needs()
    work(100)
    for mb in order:
        found = peak_memory("cpu", lambda: work(mb))["resident"]  # noqa: B023
        assert found["above_rest"] == pytest.approx(mb, rel=0.1, abs=2.0)
        assert found["peak"] > found["above_rest"]


def test_without_giving_back_the_second_would_show_nothing(monkeypatch):
    """Shows that the work above is of the kind that an allocator hides, so that the test before can fail."""
    work = needs()
    peak_memory("cpu", lambda: work(100))
    monkeypatch.setattr(memory, "give_back", lambda: None)
    assert peak_memory("cpu", lambda: work(40))["resident"]["above_rest"] < 10.0


def test_a_peak_that_lasts_no_time_is_seen():
    def work():
        np.ones(150_000_000, dtype=np.uint8)

    assert peak_memory("cpu", work)["resident"]["above_rest"] == pytest.approx(150.0, abs=3.0)


def test_work_that_takes_nothing_shows_nothing():
    assert 0.0 <= peak_memory("cpu", lambda: None)["resident"]["above_rest"] < 2.0


def test_on_a_gpu_the_peak_is_counted_from_what_was_there(monkeypatch):
    cuda = pytest.importorskip("torch").cuda
    taken = [300e6, 900e6]
    monkeypatch.setattr(cuda, "reset_peak_memory_stats", lambda: taken.pop())
    monkeypatch.setattr(cuda, "memory_allocated", lambda: taken[-1])
    monkeypatch.setattr(cuda, "max_memory_allocated", lambda: max(taken))
    found = peak_memory("cuda", lambda: taken.append(750e6))
    assert found["gpu"] == {"above_rest": 450.0, "peak": 750.0}


def test_a_kernel_without_a_mark_of_the_peak_gives_no_figure(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "not" / "there")
    assert peak_memory("cpu", lambda: None) == {}
