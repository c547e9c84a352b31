"""STANDS IN for TensorRT-LLM; see the README beside it."""

import os


class InputProcessor:
    multimodal_hashing_supported: bool | None = None

    def process(self, images):
        if images and self.multimodal_hashing_supported is None:
            self.multimodal_hashing_supported = os.environ.get("DEPTHLM_STAND_IN_FAULT") != "no_hashes"
