"""The real node of one robot of a fleet in the walked room, as a process of its own.

The second channel of an image says where it was taken: the number of a pose. There is no TF, so each robot
has a map of its own, which begins at its first camera. Its map answers 'chair' by what stands off the walls.
"""

from dataclasses import replace

import numpy as np
from support.node_program import FakePipeline, run
from support.walked_room import GRID, look, off_the_walls, seen

from gsemsplat_ros.mapping.fusion import START
from gsemsplat_ros.scene.scene import Scene
from gsemsplat_ros.semantics.answer import THRESHOLD, Answer
from gsemsplat_ros.semantics.objects import Object

POSES = [look(1.2 + 0.3 * k, 1.5 + 0.15 * k, 25 * k) for k in np.arange(0, 7.5, 0.5)]
FIRST = {'a': 0, 'b': 3}  # number of the pose where each robot begins
BOX = np.array([[0.8, 3.6, 0.4], [1.3, 4.1, 1.5]])
RIGHT = np.eye(4)
RIGHT[0, 3] = 0.2
MIN_IN_OBJECT = 30  # Gaussians


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
        return replace(
            scene,
            gaussians=replace(scene.gaussians, frame=first.frame),
            keyframe=replace(scene.keyframe, frame=first.frame, stamp_ns=first.stamp_ns),
            timings={'predict': 0.001},
        )

    def query(self, target, question):
        if isinstance(target, Scene):
            return super().query(target, question)
        off = off_the_walls(target.map, map_from_room(target.map.frame)) > 0.25
        things = ()
        if off.sum() >= MIN_IN_OBJECT:
            low, high = np.quantile(target.map.gaussians.means.double().numpy()[off], (0.02, 0.98), axis=0)
            things = (Object(tuple((low + high) / 2), tuple(high - low), 0.875),)
        score, centre = (0.875, things[0].center) if things else (0.25, None)
        return Answer(question.text, THRESHOLD, bool(things), score, centre, None, things)


if __name__ == '__main__':
    run(RobotPipeline.load)
