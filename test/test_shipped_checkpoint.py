"""The checkpoint in the package answers as well as when it was shipped: its files and its inputs are whole."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from depthlm_ros.config import DepthLMConfig, EngineConfig, ObstaclesConfig
from depthlm_ros.evaluation import evaluate, read_benchmark
from depthlm_ros.session import open_estimator
from depthlm_ros.synthetic import Domain
from depthlm_ros.synthetic.dataset import RenderSpec, write_dataset

SCENES = 12
SEEDS = {Domain.ROBOT: 828_401, Domain.WIDE: 828_402}  # of this test alone: test_training_base.py


@pytest.fixture(scope="module")
def estimator():
    with open_estimator(DepthLMConfig(engine=EngineConfig(threads=1))) as opened:
        yield opened


@pytest.fixture(scope="module")
def figures(tmp_path_factory, estimator):
    """The figures of each domain on views of cameras like those of a robot, ten labels each."""
    folder = tmp_path_factory.mktemp("views")
    found, limit = {}, DepthLMConfig().camera.max_megapixels
    for domain, seed in SEEDS.items():
        spec = RenderSpec(SCENES, seed, domain, size=(320, 240), dense=False)
        index = write_dataset(folder, spec, processes=1, progress=False)
        found[domain] = evaluate(estimator, read_benchmark(index, folder), max_megapixels=limit).metrics()
    return found


@pytest.mark.parametrize(("domain", "floor"), [(Domain.ROBOT, 0.78), (Domain.WIDE, 0.69)])
def test_the_shipped_checkpoint_is_as_good_as_when_it_was_shipped(figures, domain, floor):
    """0.833 and 0.750 when this was written; six of 120 labels are left for the arithmetic of other processors.

    Views resized to whole patches a second time gave 0.758 and 0.683, weights with noise of a tenth of their spread
    as much, a focal length of 140 px in place of 112 gave 0.54 and 0.49.
    """
    measured = figures[domain]
    assert measured["answered"] == 1.0
    assert measured["delta1"] >= floor
    assert measured["log_correlation"] >= 0.95
    assert measured["delta1"] > measured["trivial"]["oracle_image_constant"]["delta1"]
    assert measured["confidence"]["without_confidence"] == 0


def test_the_default_threshold_lies_within_the_confidence_of_the_shipped_checkpoint(estimator):
    """Below its range it would drop nothing, above it all."""
    confidence = estimator.profile.calibration.confidence
    assert confidence[0] < ObstaclesConfig().min_confidence < confidence[-1]
