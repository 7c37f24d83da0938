"""The map of many scenes, and its files.

Takes scenes one after the other; gives a `Map` that queries read, and the places of cameras in it.

voxels: the keys of voxels and of cubes of them
tile: the Gaussians of one cube of a map, and their merging
map: Gaussians of many scenes, at most one in a voxel, in tiles
map_keyframe: the pictures by which a map is known again
relocalisation: where a picture was taken in a map
pose_graph: where the scenes of a map stand, and what was measured of that
graph_solver: the most likely places of the scenes of a map
links: how a scene stands to the last one in the map
loops: places that a chain of scenes comes back to
correction: a map whose scenes move
forgetting: which Gaussians of a map a keyframe sees again, and through which it looks
known_objects: the objects that a map remembers, with their ids
object_identity: which of them an answer found, and what became of them after a scene
fusion: the place of a scene in the map, and whether it is accepted
alignment: where one map stands in another
merging: one map of two
map_parts: parts of a map by its tiles
map_cells: the cells over which relevancy is smoothed
decoded_codes: decoded codes of cells and of Gaussians, and a store of them
map_index: those of a map, for queries
ask_map: answers of a map
map_file, keyframe_file, graph_file, objects_file: maps on disk
splats_map: the map of a file in another format
"""
