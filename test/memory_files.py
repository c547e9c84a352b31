"""The shared memory that is in use on this machine."""

import os
import time

PATIENCE_S = 10.0


def shared_memory():
    """Names of the files in shared memory, apart from those of ROS and of multiprocessing beside the tests.

    No engine uses multiprocessing; trainings and studies do, in other tests.
    """
    foreign = ("fastdds_", "sem.fastdds_", "sem.mp-")
    return {name for name in os.listdir("/dev/shm") if not name.startswith(foreign)}


def new_shared_memory(before):
    """What is there now and was not before; what another process uses for a moment is waited out."""
    end = time.monotonic() + PATIENCE_S
    while (new := shared_memory() - before) and time.monotonic() < end:
        time.sleep(0.05)
    return new
