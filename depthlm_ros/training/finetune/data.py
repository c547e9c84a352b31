"""The training data of a run: sets, the plan over them, and what a place of the plan looks like."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from depthlm_ros.config import ConfigError
from depthlm_ros.evaluation.benchmark import LabelledImage, read_benchmark
from depthlm_ros.profile import CheckpointProfile
from depthlm_ros.training.finetune.config import FinetuneConfig
from depthlm_ros.training.finetune.plan import SamplePlan
from depthlm_ros.training.finetune.views import TrainingSample, make_sample

_TRIES = 200
"""Labels that are tried in a row before a set counts as unusable."""


class TrainingSamples:
    """The samples of a run in order; the same index always gives the same sample.

    A label that cannot be asked about (no room for the arrow) is replaced by the next one of its image, then of the
    images that follow, as the official loader does.

    Args:
        config: The run.
        profile: Focal length, pixel reference and words.
        samples: How many the run needs.

    Raises:
        BenchmarkError: A set cannot be read.
    """

    def __init__(self, config: FinetuneConfig, profile: CheckpointProfile, samples: int) -> None:
        self._config, self._profile = config, profile
        self.sets = [
            [image for image in read_benchmark(Path(entry.labels), Path(entry.images)) if len(image.depth)]
            for entry in config.data
        ]
        self.plan = SamplePlan(
            [[len(image.depth) for image in images] for images in self.sets],
            [entry.weight for entry in config.data],
            [entry.labels_per_image for entry in config.data],
            samples,
            config.run.seed,
        )

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> TrainingSample:
        place = self.plan[index]
        images = self.sets[place.set]
        image, label = place.image, place.label
        for attempt in range(_TRIES):
            rng = np.random.default_rng([self._config.run.seed, index, attempt])
            sample = make_sample(images[image], label, self._profile, self._config.augment, rng)
            if sample is not None:
                return sample
            image, label = _next(images, image, label)
        raise ConfigError(
            f"data.{place.set}: none of {_TRIES} labels in a row can be asked about at the canonical focal length of "
            f"{self._profile.canonical_focal_px:g} px (the last in {images[image].path}); check pixel_coords and "
            "intrinsics"
        )


def _next(images: list[LabelledImage], image: int, label: int) -> tuple[int, int]:
    if label + 1 < len(images[image].depth):
        return image, label + 1
    return (image + 1) % len(images), 0
