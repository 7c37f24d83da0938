"""The two trainings: of the small network in rooms, and of semantic heads on prepared features; and the
code of packaged networks.

Takes samples; gives a checkpoint and the state of the run.

options: the options of a run
textspace: the text space, and the names of objects in rooms
context_code: the linear code of the context-aware branch, fitted to pictures
context_branch: that branch from packaged networks, into a checkpoint
batches: what both kinds of pairs share, as they are loaded and as tensors of a step
room_batches, scene_batches: pairs of packed rooms, and of posed scenes with their features
surfaces: depths to surfaces and visibility, in torch
random_numbers: those of the losses, by a pair's seed
objective: common part of both objectives: network, decoders, point losses
matching_loss: of the descriptors
room_losses, semantic_losses: the objective of each training
small_network, semantic_heads: start, data, state and checkpoint of each training
trainer: optimiser, running average and steps
loading: processes that load ahead
distributed: the processes of one training
state: the state of a run, in small files
snapshots: predictions of one pair as pictures
progress: log, bar and TensorBoard of the first process
loop: the loop of a run, until its end or an interruption
"""
