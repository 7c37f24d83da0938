"""Arrays as pictures, (H, W, 3) uint8. NumPy and OpenCV.

heat: the contrast of relevancy, for pixels and Gaussians
overlay: relevancy over an image, depth in colours
labels: names in colours, written where they are
principal: features in colours, by principal components
top_view: a map from above
"""
