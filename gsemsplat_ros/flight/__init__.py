"""Flights through a scene: takes a `Scene` and the name of a path, gives frames and MP4 files.

paths: camera paths
flight: the frames along a path, in colour and by meaning
video: frames to H.264
"""
