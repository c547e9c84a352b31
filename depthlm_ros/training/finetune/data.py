"""The training data of a run: sets, the plan over them, and what a place of the plan looks like."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from depthlm_ros.config import ConfigError
from depthlm_ros.evaluation.benchmark import read_benchmark
from depthlm_ros.profile import CheckpointProfile
from depthlm_ros.training.finetune.config import FinetuneConfig
from depthlm_ros.training.finetune.plan import SamplePlan
from depthlm_ros.training.finetune.views import TrainingSample, make_sample

_TRIES = 200
"""Labels that are tried in a row before a set counts as unusable."""


class TrainingSamples:
    """The samples of a run in order; the same index always gives the same sample.

    A label that cannot be asked about (outside the crop, no room for the arrow) gives way to the next one that is
    planned for its set. The official loader takes another label of the image; here that would bring in labels that
    ``labels_per_image`` leaves out.

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
            [entry.redraw for entry in config.data],
            samples,
            config.run.seed,
        )

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> TrainingSample:
        for attempt in range(_TRIES):
            place = self.plan.later(index, attempt)
            image = self.sets[place.set][place.image]
            rng = np.random.default_rng([self._config.run.seed, index, attempt])
            sample = make_sample(image, place.label, self._profile, self._config.augment, rng)
            if sample is not None:
                return sample
        raise ConfigError(
            f"data.{place.set}: none of {_TRIES} labels in a row can be asked about at the canonical focal length of "
            f"{self._profile.canonical_focal_px:g} px (the last in {image.path}); check pixel_coords, intrinsics and "
            "the crop"
        )
