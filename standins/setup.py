"""The stand-ins as a small distribution; the set-up installs those whose real package is absent."""

import os

from setuptools import setup

# Which ones: names separated by spaces. scripts/setup_env.py finds out what is absent.
NAMES = os.environ.get("DEPTHLM_STANDINS", "cv_bridge message_filters sensor_msgs_py").split()

setup(
    name="depthlm-ros-standins",
    version="0.1.0",
    description="API-compatible stand-ins for ROS 2 Python packages that PyPI does not have",
    license="Apache-2.0",
    packages=NAMES,
    python_requires=">=3.10",
)
