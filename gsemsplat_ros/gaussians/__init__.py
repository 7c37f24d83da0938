"""Gaussians as values: transforms, PLY files, and renderers for CUDA, CPU and training."""
