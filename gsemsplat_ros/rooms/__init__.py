"""Synthetic furnished rooms, rendered with OpenGL. No other folder imports OpenGL.

Takes the furniture models of a Debian package and a number; gives images with depth, names and instances.

wavefront: OBJ and MTL files as arrays
catalogue: entries of the furniture catalogues, and their names
furniture: the models, packed into one mesh file
layout: the description of a room, and where models may be placed
shell: floor, walls, doors and windows
materials: their textures
furnish: a random furnished room
renderer: images of a room
stream: samples of rooms, one by one or packed into files
preview: a contact sheet
"""
