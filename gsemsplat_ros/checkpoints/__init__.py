"""Checkpoint files: takes public files or our own, gives tensors and a card. No code in a file is run.

inert_pickle: an interpreter of pickles that creates plain containers only
torchfile: tensors of a file of `torch.save`, by that interpreter
convert: public MASt3R, Splatt3R and GSemSplat files to ours
checkpoint: our files: safetensors with a JSON card, strictly loaded
parity: comparison with stored outputs of the public network
lpips: the LPIPS weights in public files, and the measure
"""
