"""Accuracy: takes a pipeline and labelled data, gives scores.

metrics: the metrics in plain NumPy
published: the published evaluation of queries, exactly
corrected: the same without its flaws, and LSM's eight classes
image_quality: PSNR, SSIM and LPIPS, as published and corrected
json_fields: fields of a JSON file, with their path for error messages
annotated_views: reader of the published eval_datasets
input_pairs: finds the input images of an annotated view
splat_points, methods: the network and its baselines on such a view
annotated_scores: the scores of `eval scannetpp`
held_out_rooms: scores on rooms
floater_scores: what leaving floaters out changes in rooms
map_walk: the walk of a robot through a house, with its truth
map_scores: scores of the map that it makes
map_identity: whether things keep their ids in it
map_houses: the scores of `eval map`
boxes: the boxes of an answer against the true ones
pair_labels, labelled_pairs: reader of labelled real pairs, and scores on them
dense_classifier: their untrained peer
phrasings: descriptions that were not used in training
ablation: scores of each semantic branch and of both
mixture_fit: fit of the branches' mixture and its threshold
"""
