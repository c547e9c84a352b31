"""Everything that touches ROS."""
