"""STANDS IN for a worker with a real model: answers by the question, or misbehaves as the question says.

Run as ``python worker_stand_in.py FD``. What it does wrong while it starts is said by the settings.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from depthlm_ros.engines.base import Answer, EngineError, Finish, Token
from depthlm_ros.engines.worker_main import BackendLostError, run_worker


class StandInBackend:
    def load(self, settings):
        self._busy = settings.get("busy", os.devnull)
        lives = Path(settings["lives"])
        number = len(lives.read_text()) + 1 if lives.exists() else 1
        lives.write_text("x" * number)
        fault = settings.get("fault", {}).get(str(number), "")
        if fault == "refuse":
            raise EngineError("the model is not here; put it there")
        if fault == "break":
            raise RuntimeError("cuInit failed")
        if fault == "exit":
            print("terminate called without an active exception", flush=True)
            os._exit(7)
        if fault == "slow":
            time.sleep(60)
        if settings.get("child"):
            # As an MPI launcher does: in a session of its own, and left behind by its parent.
            subprocess.run(["setsid", "-f", "sleep", "300"], check=True)
            if os.fork() == 0:  # holds all that the worker has open, its end of the channel too
                os.setsid()
                time.sleep(300)
        return {"life": str(number)}

    async def warm_up(self):
        pass

    async def answer(self, prompt, max_new_tokens, stop):
        if prompt.question == "segfault":
            await asyncio.sleep(0.1)
            os.kill(os.getpid(), signal.SIGSEGV)
        if prompt.question == "exit":
            print("a last word", flush=True)
            os._exit(5)
        if prompt.question in ("hang", "never", "freeze"):
            Path(self._busy).write_text(prompt.question)  # a named pipe that the test reads
        if prompt.question == "hang":
            time.sleep(60)
        if prompt.question == "never":
            await asyncio.sleep(60)
        if prompt.question == "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        if prompt.question == "wrong":
            raise ValueError("the prompt is too long")
        if prompt.question == "lost":
            raise BackendLostError("the GPU is out of memory")
        if prompt.question.startswith("late "):
            await asyncio.sleep(float(prompt.question[5:]))
        pixels = [image.pixels() for image in prompt.images]
        text = f"{prompt.question}|{prompt.prefix}|{[int(p.sum()) for p in pixels]}|{max_new_tokens}|{list(stop)}"
        return Answer(text, (Token(text, -0.5), Token("", float("nan"))), Finish.STOP)

    def close(self):
        pass


if __name__ == "__main__":
    sys.exit(run_worker(StandInBackend(), int(sys.argv[-1])))
