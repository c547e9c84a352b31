"""Spatial questions beyond depth: distances between points, speed, time, and the camera's own motion."""
