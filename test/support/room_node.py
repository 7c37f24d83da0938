"""The real node, with a perfect network for the walked room, as a process of its own.

A box stands in the room while the images are dark, and TF is wrong while they are blue. Its map answers
'chair' by what stands off the walls.
"""

from dataclasses import replace

import numpy as np
from support.node_program import FakePipeline, run
from support.walked_room import BASELINE, BOX, GRID, off_the_walls, seen

from gsemsplat_ros.scene.scene import Scene
from gsemsplat_ros.semantics.answer import THRESHOLD, Answer, GaussianArrays
from gsemsplat_ros.semantics.objects import Object

MIN_IN_OBJECT = 30  # Gaussians
WRONG_TF = 0.4  # m, along y


class RoomPipeline(FakePipeline):
    """Builds scenes of the room, from where TF says that the camera stands."""

    def build(self, pair):
        first, right = pair.first, np.eye(4)
        right[0, 3] = BASELINE
        pose = first.map_from_camera.copy()
        if first.image[0, 0, 2] > 128:  # blue: TF is wrong
            pose[1, 3] -= WRONG_TF
        scene, _ = seen(
            pose,
            pose @ right,
            source='stereo baseline',
            thing=BOX if first.image[0, 0].max() < 128 else None,
            measured=np.ones(GRID[::-1], bool),
        )
        return of_camera(scene, first)

    def query(self, target, question):
        if isinstance(target, Scene):
            return super().query(target, question)
        return answer_off_the_walls(question, target.map)


def of_camera(scene, view):
    """The scene in the frame and at the time of a view."""
    return replace(
        scene,
        gaussians=replace(scene.gaussians, frame=view.frame),
        keyframe=replace(scene.keyframe, frame=view.frame, stamp_ns=view.stamp_ns),
        timings={'predict': 0.001},
    )


def answer_off_the_walls(question, map_, map_from_room=np.eye(4)):
    """The answer of a map of the room to whatever question: what stands off its walls is the thing."""
    off = off_the_walls(map_, map_from_room) > 0.25
    things = ()
    if off.sum() >= MIN_IN_OBJECT:
        low, high = np.quantile(map_.gaussians.means.double().numpy()[off], (0.02, 0.98), axis=0)
        things = (Object(tuple((low + high) / 2), tuple(high - low), 0.875),)
    score, centre = (0.875, things[0].center) if things else (0.25, None)
    return Answer(
        question.text,
        THRESHOLD,
        bool(things),
        score,
        centre,
        None,
        things,
        gaussians=GaussianArrays(off, off),
    )


if __name__ == '__main__':
    run(RoomPipeline.load)
