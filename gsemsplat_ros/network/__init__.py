"""The network: takes a pair of image tensors, gives a `Prediction` for each view.

pixels: images as tensors
config: sizes, from which every module is built
efficientnet: EfficientNet-Lite, as a trunk and as a dense classifier
pixel_mlp: a perceptron a pixel, on maps of several resolutions
stem: EfficientNet-Lite0, in front of the small network, and the descriptors made of it
nanodet: a detector, of which the class scores are used
context: the context-aware branch of the small network, of classifier and detector
layers: rotary positions, attention, encoder and decoder blocks
dpt: the DPT block, which fuses four levels into one dense map
heads: points, Gaussians and semantic codes of each pixel, and the descriptors of public networks
model: the whole network, with the tensor names of the public files
backbone: the protocol of another network for the points, and Gaussians on them by formulas
depth_anything_3: the public classes as such a network
tensors: encodings and predictions as named tensors
narrow_maps: convolutions that some CPUs compute wrongly in bfloat16
inference: the network on one device, with its precision and the encodings that it reuses
"""
