"""Messages and images on their way between two processes, here between two ends in one."""

import gc
import os
import socket

import numpy as np
import pytest

from depthlm_ros.engines.base import Answer, EngineError, Finish, Paint, Prompt, PromptImage
from depthlm_ros.engines.worker_call import Call
from depthlm_ros.engines.worker_channel import Channel, ChannelClosedError
from depthlm_ros.engines.worker_images import pack, unpack


@pytest.fixture
def ends():
    """Two channels that are connected, and their bare sockets."""
    sockets = socket.socketpair()
    channels = tuple(Channel(s) for s in sockets)
    yield (*channels, *sockets)
    for channel in channels:
        channel.close()


def open_files():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_messages_and_files_arrive_in_order(ends):
    ours, theirs, *_ = ends
    reading, writing = os.pipe()
    ours.send({"a": "ä\n"}, [writing])
    ours.send({"b": [1, None]})
    os.close(writing)
    message, (file,) = theirs.receive(1.0)
    assert message == {"a": "ä\n"}
    os.write(file, b"!")
    os.close(file)
    assert os.read(reading, 1) == b"!"
    os.close(reading)
    assert theirs.receive(1.0) == ({"b": [1, None]}, [])
    assert theirs.receive(0.01) is None


def test_a_long_message_arrives_whole(ends):
    ours, theirs, *_ = ends
    long = {"text": "x" * 100_000}
    ours.send(long)
    assert theirs.receive(1.0) == (long, [])


@pytest.mark.parametrize("sent", [b"not json\n", b"[1]\n", b'{"a": 1}\n', b'{"files": 1}\n', b"\xff\n"])
def test_what_is_no_message_is_refused(ends, sent):
    _, theirs, ours, _ = ends
    ours.sendall(sent)
    with pytest.raises(ChannelClosedError, match="expected a message"):
        theirs.receive(1.0)


def test_a_closed_end_is_seen_on_the_other(ends):
    ours, theirs, *_ = ends
    theirs.close()
    with pytest.raises(ChannelClosedError, match="closed the connection"):
        ours.receive(1.0)
    with pytest.raises(ChannelClosedError, match="does not listen"):
        ours.send({})


def test_nan_is_not_sent(ends):
    with pytest.raises(ValueError, match="JSON"):
        ends[0].send({"a": float("nan")})


def test_prompts_go_there_and_back_and_share_what_they_shared():
    before = open_files()
    base = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    view = base[1:6, ::2]  # not contiguous
    prompts = [
        Prompt((PromptImage(base, Paint(((4, 6),), (1, 2, 3))), PromptImage(view)), "q", "s", False, "p"),
        Prompt((PromptImage(base),), "r"),
        Prompt((), "no image"),
    ]
    described, files = pack(prompts)
    back = unpack(described, files)
    for file in files:
        os.close(file)
    for prompt, again in zip(prompts, back, strict=True):
        assert [i.pixels().tolist() for i in again.images] == [i.pixels().tolist() for i in prompt.images]
        assert (again.question, again.system, again.image_first, again.prefix) == (
            prompt.question, prompt.system, prompt.image_first, prompt.prefix,
        )  # fmt: skip
    assert back[0].images[0].base is back[1].images[0].base
    assert not back[1].images[0].base.flags.writeable
    assert described["bytes"] == base.size + view.size
    del back, again
    assert open_files() == before


def test_prompts_without_images_need_no_memory():
    described, files = pack([Prompt((), "q")])
    assert files == []
    assert [prompt.question for prompt in unpack(described, [])] == ["q"]


def test_a_description_that_does_not_fit_is_refused():
    described, files = pack([Prompt((PromptImage(np.zeros((2, 2, 3), np.uint8)),), "q")])
    with pytest.raises(ValueError, match="expected shared memory of 12 bytes, got 0 files"):
        unpack(described, [])
    with pytest.raises(ValueError, match="expected shared memory of 999 bytes"):
        unpack({**described, "bytes": 999}, files)
    os.close(files[0])
    with pytest.raises(ValueError, match=r"expected images of shape \(H, W, 3\)"):
        pack([Prompt((PromptImage(np.zeros((2, 2), np.uint8)),), "q")])


def message(index, text="a"):
    return {"index": index, "text": text, "tokens": [["a", None]], "finish": "stop", "error": ""}


def test_a_call_keeps_what_came_in_time():
    call = Call(1, 3)
    call.take(message(1))
    call.over.set()
    call.take(message(0))
    call.fail("too late to matter")
    assert [answer.finish for answer in call.result()] == [Finish.DEADLINE, Finish.STOP, Finish.DEADLINE]


def test_a_call_that_failed_with_and_without_answers():
    call = Call(1, 2)
    call.take(message(0))
    call.fail("gone")
    assert call.result()[1] == Answer("", finish=Finish.ERROR, error="gone")
    empty = Call(2, 2)
    empty.fail("gone")
    with pytest.raises(EngineError, match="gone"):
        empty.result()


@pytest.mark.parametrize(
    "wrong", [{"index": 2}, {"index": -1}, {"finish": "tired"}, {"tokens": [1]}, {"tokens": [["a", "b"]]}]
)
def test_an_answer_that_is_none_is_refused(wrong):
    with pytest.raises((ValueError, IndexError, TypeError)):
        Call(1, 2).take({**message(0), **wrong})
