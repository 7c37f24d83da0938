"""The response of /query: what was found in the newest scene or in the map, and where to stand before it."""

from __future__ import annotations

import numpy as np
from gsemsplat_msgs.srv import Query
from std_msgs.msg import Header

from gsemsplat_ros.mapping.approach import Approach, approach_pose
from gsemsplat_ros.ros import messages, publishers
from gsemsplat_ros.ros.conversions import make_header
from gsemsplat_ros.ros.map_keeper import Kept
from gsemsplat_ros.ros.parameters import Parameters
from gsemsplat_ros.ros.transforms import Transforms

UP = (0.0, 0.0, 1.0)               # of a map (REP 103)
UP_OF_CAMERA = (0.0, -1.0, 0.0)    # of a scene, if its camera looks ahead


def of_scene(scene, answer, request: Query.Request, response: Query.Response, parameters: Parameters) -> None:
    """Fill the response with what the newest scene answers (pipeline.Relevancy)."""
    _found(answer, scene.gaussians, messages.scene_header(scene), request, response, parameters)
    _approach(answer, scene.gaussians, scene.scale_source, np.zeros(3), UP_OF_CAMERA, response, parameters)
    response.peak_u, response.peak_v = map(float, answer.peak_pixel)
    if request.with_image:
        response.image = [publishers.relevancy_image(scene, answer)]


def of_map(kept: Kept, answer, scene, seen, request: Query.Request, response: Query.Response, parameters: Parameters,
           transforms: Transforms | None) -> None:
    """Fill the response with what the map answers (pipeline.MapRelevancy), and with what the newest image shows of it:
    `scene` and what it answers, `seen`; both None where there is none yet."""
    response.peak_u, response.peak_v = map(float, seen.peak_pixel if seen and seen.found else (np.nan, np.nan))
    if seen and request.with_image:
        response.image = [publishers.relevancy_image(scene, seen)]
    _found(answer, kept.map.gaussians, map_header(kept), request, response, parameters)
    robot = robot_position(kept, parameters.base_frame, transforms)
    _approach(answer, kept.map.gaussians, kept.map.scale_source, robot, UP, response, parameters)


def map_header(kept: Kept) -> Header:
    """Frame and stamp of the map."""
    return make_header(kept.map.frame, kept.stamp_ns)


def robot_position(kept: Kept, base_frame: str, transforms: Transforms | None) -> np.ndarray | None:
    """Where the robot is in the map (3,) [m]: TF's word, else where the last keyframe stood; None: unknown."""
    if transforms:
        map_from_base, _ = transforms.lookup(kept.map.frame, base_frame, 0)
        if map_from_base is not None:
            return map_from_base[:3, 3]
    return kept.camera


def _found(answer, gaussians, header: Header, request: Query.Request, response: Query.Response,
           parameters: Parameters) -> None:
    response.header = header
    response.success, response.found, response.score = True, bool(answer.found), float(answer.score)
    response.peak = messages.point(answer.peak_point)
    response.objects = messages.object_messages(answer)
    response.message = f"'{answer.text}' " + (
        f'found, {len(answer.objects)} object(s)' if answer.found else 'not found') + (
        f': score {answer.score:.3f}, threshold {answer.threshold:.3f}')
    if request.with_cloud:
        inside = messages.inside_objects(gaussians, answer.objects)
        response.cloud = [messages.gaussian_cloud(gaussians, header, inside=inside, codes=parameters.publish_codes)]


def _approach(answer, gaussians, scale_source: str, robot: np.ndarray | None, up, response: Query.Response,
              parameters: Parameters) -> None:
    """`robot` (3,) [m], None where unknown."""
    if not answer.objects:
        return
    found: Approach | None = None
    if scale_source == 'network':
        reason = "the scale is the network's guess: give a stereo baseline or map_frame"
    elif robot is None:
        reason = 'nothing says where the robot is: set map_frame and base_frame'
    else:
        found, reason = approach_pose(answer.objects[0], gaussians.means.detach().cpu().numpy(), robot,
                                      parameters.robot_radius_m, parameters.approach_distance_m, up)
    response.approach_found = found is not None
    if found:
        response.approach = messages.approach_message(found)
    else:
        response.message += f'; no approach: {reason}'
