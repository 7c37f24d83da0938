"""The network: a pair of images in, a Prediction out."""
