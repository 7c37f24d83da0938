"""Scenes of one pair, and their files.

Takes built scenes; gives a `Scene` that queries read, and an approach pose.

scene: the scene of one pair, which never changes
ask: answers of a scene
approach: a free pose from which a robot faces an object
gaussian_columns: Gaussians with codes as tensors of a file
coded_file: the file format that scenes and maps share
scene_file: scenes on disk
splats_scene: the scene of a file in another format
"""
