"""STANDS IN for TensorRT-LLM; see the README beside it."""

import os

__version__ = os.environ.get("DEPTHLM_STAND_IN_VERSION", "1.2.0")
