"""The ROS-free part as a pip package: the library and the ``depthlm`` command.

On a robot the package is built by colcon instead (CMakeLists.txt), which ignores this file.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def version() -> str:
    """The version, from the one place that has it. Read, not imported: nothing is installed yet."""
    text = (HERE / "depthlm_ros" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise RuntimeError('depthlm_ros/__init__.py has no line __version__ = "..."')
    return match[1]


def long_description() -> str:
    """The README, where there is one."""
    readme = HERE / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


setup(
    name="depthlm_ros",
    version=version(),
    description="Metric depth at the pixels that matter, from vision-language models",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["depthlm_ros", "depthlm_ros.*"]),
    package_data={"depthlm_ros": ["checkpoints/**/*", "py.typed", "**/*.yaml", "**/*.json"]},
    entry_points={"console_scripts": ["depthlm = depthlm_ros.cli:main"]},
    # Ranges; requirements/ has the versions that were tested together.
    install_requires=[
        "httpx>=0.27",
        "matplotlib>=3.6",
        "mcap>=1.2",
        "numpy>=1.23",
        # 5 changed its type codes and breaks cv_bridge.
        "opencv-python-headless>=4.8,<5",
        "pillow>=10",
        "pyyaml>=6",
        "rich>=13",
        "safetensors>=0.4.3",
        "scipy>=1.12",
        "tenacity>=9",
        "torch>=2.4",
        "tqdm>=4.60",
        "transformers>=5",
        "trimesh>=4",
        "typer>=0.12",
    ],
    extras_require={
        "dev": [
            "hypothesis",
            "mcap-ros2-support>=0.5.5",
            "mypy",
            "pre-commit",
            "pytest<9",
            "pytest-rerunfailures",
            "pytest-timeout",
            "pytest-xdist",
            "ruff",
            "types-PyYAML",
        ],
        "tensorrt-llm": ["tensorrt-llm"],
        "train": ["accelerate>=1.12", "datasets>=4.7", "peft>=0.18", "trl>=1.14,<2"],
    },
)
