"""Stand-in for ROS's ``sensor_msgs_py``: `point_cloud2`, the calls this project makes."""
