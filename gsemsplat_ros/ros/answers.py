"""Answers to /query and to standing queries, from the map or the newest scene, with the approach pose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from gsemsplat_msgs.srv import Query
from std_msgs.msg import Header

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.images.camera import UP_OF_CAMERA
from gsemsplat_ros.mapping.map import UP_OF_MAP
from gsemsplat_ros.mapping.map_index import IndexCache
from gsemsplat_ros.mapping.map_parts import near
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.ros import messages, object_messages, publishers
from gsemsplat_ros.ros.clouds import gaussian_cloud
from gsemsplat_ros.ros.conversions import make_header, stamp_ns
from gsemsplat_ros.ros.map_keeper import MapKeeper
from gsemsplat_ros.ros.parameters import Parameters
from gsemsplat_ros.ros.snapshot import Kept, Snapshot
from gsemsplat_ros.ros.tf_listener import TfListener
from gsemsplat_ros.scene.approach import Approach, approach_pose, looked_at
from gsemsplat_ros.scene.ask import moved
from gsemsplat_ros.scene.scene import Scene
from gsemsplat_ros.semantics.answer import Answer, Question
from gsemsplat_ros.semantics.objects import inside_any

NAMED = 8  # objects at most, in the message of a response


@dataclass(frozen=True, eq=False)
class Reply:
    """The answer to a question, of the whole map where there is one, else of the newest scene.

    answer: in the frame of `header`; its peak_pixel is where the newest scene sees the thing. near: those of
    the Gaussians that were asked, in that frame, that lie in boxes (B, 2, 3), from corner to corner, and some
    others; metric: whether in metres. in_map: whether the frame is that of the map, with z
    up, else it is the camera's. camera (3,) [m]: position of the camera there, None: unknown. scene: the
    newest, seen: what it answers, both None without one.
    """

    answer: Answer
    header: Header
    near: Callable[[np.ndarray], list[Gaussians]]
    metric: bool
    in_map: bool
    camera: np.ndarray | None
    scene: Scene | None
    seen: Answer | None


def question(text: str, parameters: Parameters, threshold: float = 0.0, max_objects: int = 0) -> Question:
    """The question of a standing query or of a request: 0 takes the node's parameter, whose 0 is the
    checkpoint's threshold. Raises ValueError for one that cannot be asked.
    """
    return Question(text, threshold or parameters.threshold or None, max_objects or parameters.max_objects)


def find(
    question: Question, pipeline: Pipeline, indexes: IndexCache, now: Snapshot, keeper: MapKeeper
) -> Reply:
    """Ask the map and the newest scene of `now`, of which there must be one; `keeper` notes what the map
    answers, and knows its objects.

    A scene that could not be fused answers for itself what it finds and the map does not.
    """
    scene, kept = now.scene, now.kept
    seen = None if scene is None else pipeline.query(scene, question)
    of_map = pipeline.query(indexes.of(kept.map), question) if kept.answers else None
    if scene is not None and seen is not None:
        only_the_scene_knows = seen.found and not kept.last_fused and not (of_map and of_map.found)
        if of_map is None or only_the_scene_knows:
            return _of_scene(scene, seen, question, now)
    assert of_map is not None, 'there is neither a map nor a scene to ask'
    of_map = keeper.note(kept.map, of_map)
    answer = replace(of_map, peak_pixel=seen.peak_pixel if seen and seen.found else None)
    camera = None if kept.map_from_camera is None else kept.map_from_camera[:3, 3]
    return Reply(
        answer, map_header(kept), partial(near, kept.map), kept.map.metric, True, camera, scene, seen
    )


def _of_scene(scene: Scene, seen: Answer, question: Question, now: Snapshot) -> Reply:
    """What the newest scene answers: in the frame of the map where TF has placed it, else in its camera's."""
    pose, placed = now.map_from_camera, now.placed
    if pose is None or placed is None:
        header = messages.scene_header(scene)
        return Reply(
            seen, header, lambda boxes: [scene.gaussians], scene.metric, False, np.zeros(3), scene, seen
        )
    header = make_header(placed.frame, scene.keyframe.stamp_ns)
    answer = moved(seen, pose, placed, question)
    return Reply(answer, header, lambda boxes: [placed], scene.metric, True, pose[:3, 3], scene, seen)


def fill(
    reply: Reply,
    request: Query.Request,
    response: Query.Response,
    parameters: Parameters,
    tf: TfListener | None,
    is_active: bool,
    complain: Callable[[Exception], str],
) -> None:
    """The response of /query, without success where the question was not understood. An error of the approach
    goes to `complain`, which returns its words: the answer stands without."""
    answer = reply.answer
    response.header = reply.header
    understood = answer.state != 'not understood'
    response.success, response.found = understood, answer.found
    (response.score,) = messages.finite(answer.score)
    response.peak = messages.point(answer.peak_point)
    response.peak_u, response.peak_v = messages.pixel(answer.peak_pixel)
    response.objects = object_messages.object_messages(answer)
    response.message = (
        f"'{answer.text}' {answer.state}"
        + (f', {len(answer.objects)} object(s)' if answer.found else '')
        + f': score {answer.score:.3f}, threshold {answer.threshold:.3f}'
        + sights(answer, stamp_ns(reply.header))
    )
    if answer.guessed:
        response.message += "; its distance is the network's guess: nothing of it was measured"
    if request.with_cloud:
        left_out: list[str] = []
        response.cloud = [
            gaussian_cloud(inside(reply), reply.header, codes=parameters.publish_codes, say=left_out.append)
        ]
        response.message = '; '.join([response.message, *left_out])
    if request.with_image and reply.scene is not None and reply.seen is not None:
        response.image = [publishers.relevancy_image(reply.scene, reply.seen)]
    if answer.objects:
        try:
            found, reason = _approach(reply, parameters, tf)
        except Exception as error:
            found, reason = None, complain(error)
        response.approach_found = found is not None
        if found:
            response.approach = messages.approach_message(found)
        if reason:
            response.message += f'; {"approach" if found else "no approach"}: {reason}'
    if not is_active:
        response.message += '; the node is not active: this is of what it saw before'
    if answer.note:  # last, where ros/client/reply.py finds it
        response.message = f'{response.message}; {answer.note}' if understood else answer.note


def sights(answer: Answer, now_ns: int) -> str:
    """When the map's objects of an answer were seen last, and what has gone, to follow its other words;
    now_ns: stamp of the newest images."""
    return ''.join(
        f'; #{thing.history.id} {thing.history.sight(now_ns)}'
        for thing in (*answer.objects, *answer.gone)[:NAMED]
        if thing.history
    )


def map_header(kept: Kept) -> Header:
    """Frame and stamp of the map."""
    return make_header(kept.map.frame, kept.stamp_ns)


def inside(reply: Reply) -> Gaussians:
    """The Gaussians in the boxes of the answer."""
    objects = reply.answer.objects
    parts = reply.near(np.array([thing.corners[[0, 7]] for thing in objects]).reshape(-1, 2, 3))
    chosen = [inside_any(objects, part.means.detach().cpu().numpy()) for part in parts]
    return Gaussians.joined(
        [part.select(torch.from_numpy(rows).to(part.means.device)) for part, rows in zip(parts, chosen)]
    )


def robot_position(reply: Reply, base_frame: str, tf: TfListener | None) -> np.ndarray | None:
    """Position of the robot in the map of the reply (3,) [m]: from TF, else the camera's; None: unknown."""
    if tf:
        map_from_base, _ = tf.lookup(reply.header.frame_id, base_frame, 0)
        if map_from_base is not None:
            return map_from_base[:3, 3]
    return reply.camera


def _approach(reply: Reply, parameters: Parameters, tf: TfListener | None) -> tuple[Approach | None, str]:
    """Approach pose for the best object, in the frame of the reply, and what it leaves open; or None and the
    reason."""
    if not reply.metric:
        return None, "the scale is the network's guess: give a stereo baseline or map_frame"
    if not reply.header.frame_id:
        return (
            None,
            'frame_id of the images is empty, so the place would be in no frame: set it in the driver',
        )
    robot, up = reply.camera, UP_OF_CAMERA
    if reply.in_map:
        robot, up = robot_position(reply, parameters.base_frame, tf), UP_OF_MAP
    if robot is None:
        return None, 'nothing says where the robot is: set map_frame and base_frame'
    target = reply.answer.objects[0]
    parts = reply.near(looked_at(target, robot)[None])
    return approach_pose(
        target,
        torch.cat([part.means for part in parts]).detach().cpu().numpy(),
        robot,
        parameters.robot_radius_m,
        parameters.approach_distance_m,
        up,
    )
