"""Checkpoint files: takes public files or our own, gives tensors and a card. No code in a file is run.

inert_pickle: an interpreter of pickles that creates plain containers only
torch_tensors: what a torch file's pickle makes tensors of
torchfile: the archives and streams of `torch.save`, by that interpreter
tensor_file: the one reader of safetensors files
weight_files: files of weights of others, of either format, in one or several parts
state_dict: the network in such a file, whatever its names begin with
convert: public MASt3R, Splatt3R and GSemSplat files to ours
licences: the list in a card of what a checkpoint was made, each item with its licence
card: the JSON card of our files, checked field by field
checkpoint: our files: safetensors with a card, strictly loaded
backbone: files of geometry backbones, Depth Anything 3's or ours
parity: comparison with stored outputs of the public network
onnx_export: the network as ONNX files
onnx_check: what these hold, and whether ONNX Runtime computes the same
lpips: the LPIPS weights in public files, and the measure
"""
