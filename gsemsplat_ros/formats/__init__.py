"""Gaussians as files that other programs open: one file for each format.

Takes `Gaussians` in parts, one after the other; gives a file that appears whole or not at all, or Gaussians.

axes: from the frame of a scene or a map to the axes of a format
splats: what is written, in whatever format
glb_file: the container of GLB files (glTF)
glb: GLB files whose codes answer words
glb_reader: Gaussians of GLB files, checked at the door
ply: PLY files for standard viewers
ply_vertices: the vertices of a PLY file of whatever maker
spz: SPZ files of version 3, and 4 for very many
usda: OpenUSD as text, for simulators
html_page: one page that shows the Gaussians, with html_page.html
writers: the table of formats: what is written of a scene or map, and how
"""
