"""Pose, scale and the scene that queries read."""
