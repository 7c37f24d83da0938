"""The network: takes a pair of image tensors, gives a `Prediction` for each view.

pixels: images as tensors
config: sizes, from which every module is built
stem: EfficientNet-Lite0, in front of the small network
layers: rotary positions, attention, encoder and decoder blocks
dpt: the DPT block, which fuses four levels into one dense map
heads: points, Gaussians, semantic codes and descriptors of each pixel
model: the whole network, with the tensor names of the public files
inference: the network on one device, with its precision and the encodings that it reuses
"""
