"""What was found, in the map or in the newest scene, and where to stand before it: for /query and standing
queries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gsemsplat_msgs.srv import Query
from std_msgs.msg import Header

from gsemsplat_ros.ros import messages, publishers
from gsemsplat_ros.ros.clouds import gaussian_cloud
from gsemsplat_ros.ros.conversions import make_header
from gsemsplat_ros.ros.parameters import Parameters
from gsemsplat_ros.ros.snapshot import Kept, Snapshot
from gsemsplat_ros.ros.tf_listener import TfListener
from gsemsplat_ros.scene.approach import Approach, approach_pose

UP = (0.0, 0.0, 1.0)  # of a map (REP 103)
UP_OF_CAMERA = (0.0, -1.0, 0.0)  # of a scene, if its camera looks ahead


@dataclass(frozen=True)
class Found:
    """The answer to a question, of the whole map where there is one, else of the newest scene.

    answer: pipeline.MapRelevancy of `kept`, or the scene's own Relevancy where `kept` is None. seen: what the
    newest scene answers, None where there is none; shown: `answer` with the pixel where the scene sees it.
    header: frame and stamp of the answer.
    """

    answer: Any
    header: Header
    kept: Kept | None
    scene: Any
    seen: Any
    shown: Any


def find(ask: Callable, pipeline, now: Snapshot) -> Found:
    """`ask(method, scene or map)` with the map's and the scene's method of `pipeline`.

    A scene that could not be fused answers for itself what it finds and the map does not.
    """
    kept, scene = now.kept if now.kept.answers else None, now.scene
    seen = scene and ask(pipeline.query, scene)
    answer = ask(pipeline.query_map, kept.map) if kept else seen
    if kept is None or (seen and seen.found and not answer.found and not kept.last_fused):
        return Found(seen, messages.scene_header(scene), None, scene, seen, seen)
    pixel = seen.peak_pixel if seen and seen.found else (np.nan, np.nan)
    shown = seen and replace(
        seen,
        found=answer.found,
        score=answer.score,
        peak_pixel=pixel,
        peak_point=answer.peak_point,
        objects=answer.objects,
    )
    return Found(answer, map_header(kept), kept, scene, seen, shown)


def fill(
    found: Found,
    request: Query.Request,
    response: Query.Response,
    parameters: Parameters,
    transforms: TfListener | None,
) -> None:
    """The response of /query."""
    answer, kept = found.answer, found.kept
    gaussians = kept.map.gaussians if kept else found.scene.gaussians
    _found(answer, gaussians, found.header, request, response, parameters)
    if kept:
        robot, up, scale_source = (
            robot_position(kept, parameters.base_frame, transforms),
            UP,
            kept.map.scale_source,
        )
    else:
        robot, up, scale_source = np.zeros(3), UP_OF_CAMERA, found.scene.scale_source
    _approach(answer, gaussians, scale_source, robot, up, response, parameters)
    response.peak_u, response.peak_v = map(float, found.shown.peak_pixel if found.seen else (np.nan, np.nan))
    if found.seen and request.with_image:
        response.image = [publishers.relevancy_image(found.scene, found.seen)]


def map_header(kept: Kept) -> Header:
    """Frame and stamp of the map."""
    return make_header(kept.map.frame, kept.stamp_ns)


def robot_position(kept: Kept, base_frame: str, transforms: TfListener | None) -> np.ndarray | None:
    """Where the robot is in the map (3,) [m]: TF's word, else where the last keyframe stood; None:
    unknown.
    """
    if transforms:
        map_from_base, _ = transforms.lookup(kept.map.frame, base_frame, 0)
        if map_from_base is not None:
            return map_from_base[:3, 3]
    return None if kept.map_from_camera is None else kept.map_from_camera[:3, 3]


def _found(
    answer,
    gaussians,
    header: Header,
    request: Query.Request,
    response: Query.Response,
    parameters: Parameters,
) -> None:
    response.header = header
    response.success, response.found, response.score = True, bool(answer.found), float(answer.score)
    response.peak = messages.point(answer.peak_point)
    response.objects = messages.object_messages(answer)
    response.message = (
        f"'{answer.text}' "
        + (f'found, {len(answer.objects)} object(s)' if answer.found else 'not found')
        + (f': score {answer.score:.3f}, threshold {answer.threshold:.3f}')
    )
    if request.with_cloud:
        inside = messages.inside_objects(gaussians, answer.objects)
        response.cloud = [gaussian_cloud(gaussians, header, inside=inside, codes=parameters.publish_codes)]


def _approach(
    answer,
    gaussians,
    scale_source: str,
    robot: np.ndarray | None,
    up,
    response: Query.Response,
    parameters: Parameters,
) -> None:
    """`robot` (3,) [m], None where unknown."""
    if not answer.objects:
        return
    found: Approach | None = None
    if scale_source == 'network':
        reason = "the scale is the network's guess: give a stereo baseline or map_frame"
    elif robot is None:
        reason = 'nothing says where the robot is: set map_frame and base_frame'
    else:
        found, reason = approach_pose(
            answer.objects[0],
            gaussians.means.detach().cpu().numpy(),
            robot,
            parameters.robot_radius_m,
            parameters.approach_distance_m,
            up,
        )
    response.approach_found = found is not None
    if found:
        response.approach = messages.approach_message(found)
    else:
        response.message += f'; no approach: {reason}'
