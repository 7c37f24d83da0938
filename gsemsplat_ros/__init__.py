"""Semantic 3D Gaussians from two uncalibrated camera images, and answers about them in words, inside ROS
2.
"""
