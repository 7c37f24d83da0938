"""~/save_map, ~/load_map and ~/clear_map."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from gsemsplat_msgs.srv import LoadMap, SaveMap
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from std_srvs.srv import Trigger

from gsemsplat_ros.ros.log import NodeLog
from gsemsplat_ros.ros.map_keeper import MapKeeper
from gsemsplat_ros.ros.services import answered
from gsemsplat_ros.terminal.console import printable


class MapServices:
    """Created on configure, closed on cleanup; calls `changed()` after a service replaced the map."""

    def __init__(self, node: Node, log: NodeLog, keeper: MapKeeper, changed: Callable[[], None]):
        self._node, self._log, self._keeper, self._changed = node, log, keeper, changed
        group = MutuallyExclusiveCallbackGroup()  # a file takes a second: queries go on meanwhile
        self._services = [
            node.create_service(kind, f'~/{name}', partial(self._answer, work), callback_group=group)
            for kind, name, work in (
                (SaveMap, 'save_map', self._save),
                (LoadMap, 'load_map', self._load),
                (Trigger, 'clear_map', self._clear),
            )
        ]

    def _answer(self, work: Callable[[Any], str], request: Any, response: Any) -> Any:
        def fill() -> None:
            response.message = printable(work(request))
            response.success = True
            self._log.info(response.message)

        return answered('a service of the map', fill, response, self._log.error)

    def _save(self, request: SaveMap.Request) -> str:
        return 'saved ' + self._keeper.save(request.path)

    def _load(self, request: LoadMap.Request) -> str:
        done = self._keeper.load(request.path, self._node.get_clock().now().nanoseconds)
        self._changed()
        return 'loaded ' + done

    def _clear(self, request: Trigger.Request) -> str:
        gone = len(self._keeper.kept.map)
        self._keeper.clear(self._node.get_clock().now().nanoseconds)
        self._changed()
        return f'cleared the map of {gone} Gaussians'

    def close(self) -> None:
        """Take the services down."""
        for service in self._services:
            self._node.destroy_service(service)
