"""What a click is answered with."""

from __future__ import annotations

from dataclasses import dataclass

from depthlm_ros.config_options import Section, option


@dataclass(frozen=True)
class ClicksConfig(Section):
    """Points clicked by a person in rviz2 or rqt_image_view."""

    enabled: bool = option(
        True,
        "Whether a point clicked in rviz2 (/clicked_point) or a pixel clicked in rqt_image_view is measured in the "
        "newest frame and published on ~/clicked/point.",
        live=True,
    )
