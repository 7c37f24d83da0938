"""Targets for the semantic heads: takes posed frames, gives features in a text space, a file for each frame.

masks: instance ids, mask folders or Segment Anything
encoders: image-text encoders for masked crops and dense maps
teacher: reads the networks of the context-aware branch from their packages
features: the files of target features
prepare: makes the files, on several processes and machines
"""
