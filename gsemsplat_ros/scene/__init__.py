"""Scenes of one pair, the map of many, and their files.

Takes built scenes; gives a `Scene` or a `Map` that queries read, and an approach pose.

scene: the scene of one pair, which never changes
map: Gaussians of many scenes, at most one in a voxel
tile: those of one cube of a map, and their merging
voxels: the keys of voxels and of cubes of them
map_keyframe: the pictures by which a map is known again
relocalisation: where a picture was taken in a map
alignment: where one map stands in another
merging: one map of two
forgetting: which Gaussians of a map a keyframe sees again, and which are not there any more
known_objects: the objects that a map remembers, with their ids
object_identity: which of them an answer found, and what became of them after a scene
map_parts: parts of a map by its tiles
map_cells: the cells over which relevancy is smoothed
decoded_codes: decoded codes of cells and of Gaussians, and a store of them
map_index: those of a map, for queries
ask: answers of a scene
ask_map: answers of a map
pose_graph: where the scenes of a map stand, and what was measured of that
graph_solver: the most likely places of the scenes of a map
links: how a scene stands to the last one in the map
loops: places that a chain of scenes comes back to
correction: a map whose scenes move
fusion: the place of a scene in the map, and whether it is accepted
approach: a free pose from which a robot faces an object
coded_file: the file format that scenes and maps share
gaussian_columns: Gaussians with codes as tensors of a file
scene_file, map_file, keyframe_file, graph_file, objects_file: scenes and maps on disk
"""
