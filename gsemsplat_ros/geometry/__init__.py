"""One pair's geometry: `solve` finds cameras, pose and scale and corrects the predicted points.

What the images show without the network is in `matches` (corners, disparities), `flow` (textured pixels) and
`epipolar` (the motion that explains matches); `pose` fixes pose and unit, `refine` bends depths to measured
ones, `rays` puts points onto calibrated rays, `visibility` says which surfaces a view sees.

Poses are `a_from_b` (4, 4) rigid, in metres where the name says nothing else: `_net` is in the network's
unit, `_rel` in a unit that only the depths beside it share.
"""
