"""Procedural scenes with exact metric depth: training fuel, benchmark and demo camera, without ROS or torch."""

from depthlm_ros.synthetic.cameras import Domain, Intrinsics, Pose, sample_intrinsics
from depthlm_ros.synthetic.dataset import RenderSpec, sample_pixels, write_dataset
from depthlm_ros.synthetic.layouts import build_scene
from depthlm_ros.synthetic.paths import trajectory
from depthlm_ros.synthetic.scene import Scene
from depthlm_ros.synthetic.views import (
    View,
    render,
    sample_camera,
    sample_pose,
    sample_repeats,
    sample_view,
)

__all__ = [
    "Domain",
    "Intrinsics",
    "Pose",
    "RenderSpec",
    "Scene",
    "View",
    "build_scene",
    "render",
    "sample_camera",
    "sample_intrinsics",
    "sample_pixels",
    "sample_pose",
    "sample_repeats",
    "sample_view",
    "trajectory",
    "write_dataset",
]
