"""Metric depth from vision-language models, as a ROS 2 node and a library that needs no ROS.

The path is extended so that a source checkout on ``sys.path`` still finds the generated message
modules ``depthlm_ros.msg`` and ``depthlm_ros.srv``, which the build installs elsewhere.
"""

import pkgutil

__path__ = pkgutil.extend_path(__path__, __name__)

__version__ = "0.1.0"
