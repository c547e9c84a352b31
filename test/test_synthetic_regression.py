"""A seed draws the same scene for ever: checkpoints, caches and published scores were made from these pictures.

``data/renderer.json`` is a record of the renderer at the time of the first trained checkpoint, not independent truth;
that depth is right is what test_synthetic.py holds.
"""

import hashlib
import json
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from depthlm_ros.synthetic import Domain, sample_view
from depthlm_ros.synthetic.layouts import KINDS, build_scene

RECORDS = json.loads((Path(__file__).parent / "data" / "renderer.json").read_text())


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: f"{r['domain']}-{r['seed']}")
def test_a_seed_draws_what_it_always_drew(record):
    view = sample_view(record["seed"], Domain(record["domain"]), focal_px=record["focal_px"])
    assert view.kind == record["kind"]
    np.testing.assert_allclose(astuple(view.pose), record["pose"], atol=1e-5)
    np.testing.assert_allclose(astuple(view.intrinsics), record["intrinsics"], atol=1e-4)
    expected = np.array(record["z_depth"], dtype=np.float64)  # null is sky
    expected[np.isnan(expected)] = np.inf
    drawn = view.z_depth[np.ix_(record["rows"], record["columns"])]
    np.testing.assert_allclose(drawn, expected, rtol=1e-3)
    # Libraries may round differently in the last place; a change of what is drawn is larger.
    np.testing.assert_allclose(view.rgb.reshape(-1, 3).mean(axis=0), record["mean_rgb"], atol=0.3)


def test_scenes_are_laid_out_as_before_their_sizes_were_named():
    """Sizes and places of all kinds of scenes to six digits: the digest is of when layouts held bare numbers."""
    digest = hashlib.sha256()
    for domain in Domain:
        for kind in KINDS:
            for seed in (3, 4):
                scene = build_scene(np.random.default_rng(seed), domain, kind)
                placed = [value for footprint in scene.footprints for value in astuple(footprint)]
                numbers = [f"{value:.6g}" for value in (*scene.bounds, scene.height, *placed)]
                digest.update(f"{' '.join([scene.kind, *numbers])}\n".encode())
    assert digest.hexdigest() == "53ff6caaafe3e699439ef5a6f0fecbf4526196fcb0d828e3a4d490241d799307"
