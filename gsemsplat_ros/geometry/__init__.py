"""The geometry of one pair.

Takes the images with their cameras and the `Prediction`; gives poses, metric scale and corrected points.

solve: the one entry, which calls the others in this order
features: pixels of two images that look alike
retrieval: one vector for a picture, by which the same place is found among many
descriptors: the same by the descriptors of a public network
rectified: whether the images of a stereo pair belong together
matches: matched pixels and their depths; those of rectified pairs
epipolar: depths, errors and polished motion of matched points
motion: the motion on which pixels that look alike agree
calibrate: the cameras of a pair, calibrated or told by file, network and images
pose: focal length, relative pose and scale from point maps, images and odometry
visibility: the surfaces visible in a view with known depth
flow: dense correction of poses and depths by optical flow
rays: points moved onto the rays of a calibrated camera
similarity: turn, move and scale; those of one set of points into another
refine: predicted depths, corrected smoothly to the measured ones
"""
