"""Synthetic furnished rooms, rendered with OpenGL. No other folder imports OpenGL.

Takes the furniture models of a Debian package and a number; gives images with depth, names and instances.

wavefront: OBJ and MTL files as arrays
catalogue: entries of the furniture catalogues, and their names
mesh: triangles, also in few bytes
furniture: the models, packed into one mesh file
layout: the description of a room, and where models may be placed
shell: floor, walls, doors and windows
materials: their textures
patterns: textures of parts that have none, pictures and screens
finish: random materials for the parts of furniture
placing, cloth, props: curtains, pillows, books, papers and other traces of people
illumination: the light of a photographic room
builder, furnish: a random furnished room
house: four of them joined by doorways, where things are taken away and moved
home: one that people live in, for the demo
shaders, triangles, renderer: images of a room
cameras: random poses in it
sensor: the effects of a camera on its images
stream: samples of rooms
packing: samples packed into files
preview: a contact sheet
"""
