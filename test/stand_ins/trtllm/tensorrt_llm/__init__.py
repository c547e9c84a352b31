"""STANDS IN for TensorRT-LLM; see the README beside it."""

import os

if os.environ.get("DEPTHLM_STAND_IN_FAULT") == "import":
    raise ImportError("libcuda.so.1: cannot open shared object file")

from .llmapi import LLM
from .sampling_params import SamplingParams
from .version import __version__

__all__ = ["LLM", "SamplingParams", "__version__"]
