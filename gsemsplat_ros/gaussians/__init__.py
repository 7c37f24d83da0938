"""Gaussians as values and in pictures.

Takes a `Prediction`; gives `Gaussians` and a `Rendering`.

rotations: unit quaternions (w, x, y, z) and matrices
gaussians: the value and its transforms
rows: rows of float32, as clouds hold them
packed: 28 bytes for each, as packed splats hold them
merged: neighbours merged into fewer, larger ones
floaters: Gaussians in the air at the edges of things
projection: Gaussians as a pinhole camera sees them
render: the entry to the renderers: render_cpu on the CPU; on a GPU render_gsplat, else render_tiles
render_cpu: the compiled renderer
render_gsplat: pictures by gsplat, where its operators run
render_plain: the differentiable one in plain torch, twin of all and renderer of training on the CPU
render_tiles: pictures by PyTorch operations, many at once, for GPUs without gsplat
tile_lists: which Gaussians each tile of a picture has to draw
"""
