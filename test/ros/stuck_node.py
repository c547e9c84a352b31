"""The node as it is started by ``ros2 run``, something of which gets stuck for good once it is told to.

DEPTHLM_TEST_STUCK names what: ``query``, the engine's work on a query, as a prefill on a slow machine; ``free``, the
freeing of the model, as a GPU driver that hangs; ``callback``, a callback of the executor; ``close``, the node's own
end; ``exit``, the interpreter's. DEPTHLM_TEST_ENTERED is a named pipe that hears when it is reached.
"""

from __future__ import annotations

import atexit
import os
import threading
from typing import Any

from depthlm_ros.engines.transformers import TransformersEngine
from depthlm_ros.ros.inputs import Inputs
from depthlm_ros.ros.main import main
from depthlm_ros.ros.queries import QueryService

ENTERED = os.open(os.environ["DEPTHLM_TEST_ENTERED"], os.O_WRONLY)


def stuck(*_: Any, **__: Any) -> Any:
    os.write(ENTERED, b".")
    threading.Event().wait()


def stuck_on_a_callers_prompts(engine: TransformersEngine, prompts: Any, **limits: Any) -> Any:
    """Those of the frames, six each, and the first question are answered."""
    return (stuck if len(prompts) > 6 else answer)(engine, prompts, **limits)


answer = TransformersEngine.generate

if __name__ == "__main__":
    what = os.environ["DEPTHLM_TEST_STUCK"]
    if what == "query":
        TransformersEngine.generate = stuck_on_a_callers_prompts  # type: ignore[method-assign]
    elif what == "free":
        TransformersEngine.__exit__ = stuck  # type: ignore[method-assign]
    elif what == "callback":
        QueryService._answer = stuck  # type: ignore[method-assign]
    elif what == "close":
        Inputs.close = stuck  # type: ignore[method-assign]
    else:
        assert what == "exit"
        atexit.register(stuck)
    main()
