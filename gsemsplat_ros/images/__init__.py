"""Images and cameras, up to the pair that the network receives. NumPy and OpenCV.

Takes images, calibrations and stamps; gives a `Pair` of `View`s with their `Camera`, cropped by a `Window`.

calibration: which numbers a camera or a stereo pair can have
camera: the pinhole camera: projection, rays, crop and scale
window: the part of an image that the network sees
exif: the focal length that an image file tells
view: views, pairs, and the resize to the network's size
levels: images of 16 bits a channel in 8
image_file: JPEG, PNG, TIFF and WebP files as views
stereo: pairs of left and right images by their stamps
detail: whether an image shows anything
motion: image motion between two views
still: whether a stereo pair differs from the last one
keyframes: selection of the frames of one camera that make a pair
"""
