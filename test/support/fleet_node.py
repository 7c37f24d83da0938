"""The real node of one robot of a fleet in the walked room, as a process of its own.

The second channel of an image says where it was taken: the number of a pose. There is no TF, so each robot
has a map of its own, which begins at its first camera. Its map answers 'chair' by what stands off the walls.
"""

import numpy as np
from support.node_program import FakePipeline, run
from support.room_node import answer_off_the_walls, of_camera
from support.walked_room import GRID, look, seen

from gsemsplat_ros.mapping.fusion import START
from gsemsplat_ros.scene.scene import Scene

POSES = [look(1.2 + 0.3 * k, 1.5 + 0.15 * k, 25 * k) for k in np.arange(0, 7.5, 0.5)]
FIRST = {'a': 0, 'b': 3}  # number of the pose where each robot begins
BOX = np.array([[0.8, 3.6, 0.4], [1.3, 4.1, 1.5]])
RIGHT = np.eye(4)
RIGHT[0, 3] = 0.2


def map_from_room(frame):
    """(4, 4): of the map that began with the robot whose namespace its frame tells."""
    return START @ np.linalg.inv(POSES[FIRST[frame[0]]])


class RobotPipeline(FakePipeline):
    """Builds the scenes that a perfect network would make of the room."""

    def build(self, pair):
        first = pair.first
        pose = POSES[first.image[0, 0, 1]]
        source, measured = 'stereo baseline', np.ones(GRID[::-1], bool)
        scene, _ = seen(pose, pose @ RIGHT, source=source, thing=BOX, measured=measured)
        return of_camera(scene, first)

    def query(self, target, question):
        if isinstance(target, Scene):
            return super().query(target, question)
        return answer_off_the_walls(question, target.map, map_from_room(target.map.frame))


if __name__ == '__main__':
    run(RobotPipeline.load)
