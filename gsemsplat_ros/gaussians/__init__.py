"""Gaussians as values, in files and in pictures.

Takes a `Prediction` or a PLY file; gives `Gaussians` and a `Rendering`.

rotations: unit quaternions (w, x, y, z) and matrices
gaussians: the value and its transforms
ply: PLY files for standard viewers
ply_vertices: the vertices of a PLY file of whatever maker
rows: rows of float32, as messages hold them
render: the entry to the renderers: gsplat on CUDA, else render_cpu
render_cpu: the compiled renderer
render_plain: the differentiable one in plain torch, twin of both and renderer of training
"""
