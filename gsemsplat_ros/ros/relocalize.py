"""~/relocalize: where a picture was taken in the map."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from gsemsplat_msgs.srv import Relocalize
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node

from gsemsplat_ros.images.view import View
from gsemsplat_ros.ros import messages
from gsemsplat_ros.ros.conversions import make_header, time_message
from gsemsplat_ros.ros.log import NodeLog
from gsemsplat_ros.ros.map_keeper import MapKeeper
from gsemsplat_ros.ros.parameters import Parameters
from gsemsplat_ros.ros.services import answered
from gsemsplat_ros.ros.sources import single_view
from gsemsplat_ros.scene.scene import Scene


class RelocalizeService:
    """Created on configure, closed on cleanup. parameters: those of now; say: logs a warning."""

    def __init__(
        self,
        node: Node,
        log: NodeLog,
        keeper: MapKeeper,
        parameters: Callable[[], Parameters],
        say: Callable[[str], None],
    ):
        self._node, self._log, self._keeper = node, log, keeper
        self._parameters, self._say = parameters, say
        # of its own: a map is saved meanwhile
        group = MutuallyExclusiveCallbackGroup()
        self._service = node.create_service(Relocalize, '~/relocalize', self._answer, callback_group=group)

    def _answer(self, request: Relocalize.Request, response: Relocalize.Response) -> Relocalize.Response:
        return answered('relocalize', lambda: self._fill(request, response), response, self._log.error)

    def _fill(self, request: Relocalize.Request, response: Relocalize.Response) -> None:
        """Raises ValueError where the place is not known."""
        seen, stamp_ns = self._seen(request)
        kept = self._keeper.kept
        place = self._keeper.place_of(seen)
        response.header = make_header(kept.map.frame, stamp_ns)
        response.pose = messages.pose_of(place.map_from_camera)
        response.inliers, response.points = place.inliers, place.points
        response.keyframe = time_message(place.keyframe.stamp_ns)
        response.success = True
        x, y, z = np.round(place.map_from_camera[:3, 3], 2).tolist()
        unit = 'm' if kept.map.metric else "of the network's unit, as the map has no metric scale"
        response.message = (
            f"in '{kept.map.frame}' at {x:g}, {y:g}, {z:g} {unit}, by the keyframe of scene "
            f'{place.keyframe.number}: {place.inliers} of {place.points} points agree'
        )

    def _seen(self, request: Relocalize.Request) -> tuple[View | Scene, int]:
        """What is looked for, and its stamp [ns]. Raises ValueError for what cannot be."""
        if request.image:
            if not request.camera_info:
                raise ValueError(
                    'an image without its camera_info: send both, or neither for the newest images'
                )
            view = single_view(request.image[0], request.camera_info[0], self._parameters(), self._say)
            return view, view.stamp_ns
        if request.camera_info:
            raise ValueError('a camera_info without its image: send both, or neither for the newest images')
        scene = self._keeper.latest.now.scene
        if scene is None:
            raise ValueError('no images yet: send one with its camera_info')
        return scene, scene.keyframe.stamp_ns

    def close(self) -> None:
        """Take the service down."""
        self._node.destroy_service(self._service)
