"""Semantic 3D Gaussians from two camera images, searched with words; a core without ROS and a ROS 2 node.

`pipeline` is the face of the core; docs/architecture.md shows the folders and the way of the data.
"""
