"""~/changes: what appeared in the map and what went from it since a time."""

from __future__ import annotations

from gsemsplat_msgs.srv import Changes
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node

from gsemsplat_ros.ros.answers import map_header
from gsemsplat_ros.ros.conversions import time_ns
from gsemsplat_ros.ros.log import NodeLog
from gsemsplat_ros.ros.map_keeper import MapKeeper
from gsemsplat_ros.ros.object_messages import object_message
from gsemsplat_ros.ros.services import answered


class ChangesService:
    """Created on configure, closed on cleanup."""

    def __init__(self, node: Node, log: NodeLog, keeper: MapKeeper):
        self._node, self._log, self._keeper = node, log, keeper
        group = MutuallyExclusiveCallbackGroup()  # of its own: a map is saved meanwhile
        self._service = node.create_service(Changes, '~/changes', self._answer, callback_group=group)

    def _answer(self, request: Changes.Request, response: Changes.Response) -> Changes.Response:
        return answered('changes', lambda: self._fill(request, response), response, self._log.error)

    def _fill(self, request: Changes.Request, response: Changes.Response) -> None:
        """Raises ValueError where there is no map."""
        kept = self._keeper.kept
        if not len(kept.map):
            raise ValueError('the map is empty: fuse scenes into it, or load one')
        known = kept.map.objects
        appeared, gone = known.since(time_ns(request.since))
        response.header = map_header(kept)
        response.appeared, response.gone = (
            [object_message(thing, thing.history.label) for thing in things if thing.history]
            for things in (appeared, gone)
        )
        response.success = True
        response.message = f'{len(appeared)} appeared, {len(gone)} went, of {len(known.objects)} known'

    def close(self) -> None:
        """Take the service down."""
        self._node.destroy_service(self._service)
