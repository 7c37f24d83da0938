"""Readers of images with poses and depths. No renderer, no OpenGL.

Takes a folder; gives frames, and samples of context and target views.

frames: the interface `Source`, frames and their crop
scannetpp, tum: ScanNet++ and TUM RGB-D folders
sample: a pair of a room with a third view
packed_rooms: such samples in files
coverage: which frames and pixels see the same surfaces, and the selection of samples
phrase_table: tables of phrases in the package
sources: the reader for a folder, and samples of it
demo_pairs: the stereo pairs of the demo
"""
