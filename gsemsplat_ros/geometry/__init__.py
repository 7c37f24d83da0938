"""The geometry of one pair.

Takes the images with their cameras and the `Prediction`; gives poses, metric scale and corrected points.

solve: the one entry, which calls the others in this order
epipolar: relative motion and depths of matched points
matches: matched pixels, relative motion and depths from the images alone
pose: focal length, relative pose and scale from point maps, images and odometry
visibility: the surfaces visible in a view with known depth
flow: dense correction of poses and depths by optical flow
rays: points moved onto the rays of a calibrated camera
refine: predicted depths, corrected smoothly to the measured ones
"""
