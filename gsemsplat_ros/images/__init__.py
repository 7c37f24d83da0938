"""Images and their cameras: the pinhole, views and pairs, and which images make a pair.

`camera` is the only pinhole; `view` holds an image with its camera, `window` where the network's picture lies
in it; `stereo` pairs images by stamps, `keyframes` by `motion`, `still` finds whether anything is new.
"""
