"""The other side of the node, for `query` and `demo`: a ROS node that asks, with deadlines."""

from __future__ import annotations

import time
from collections.abc import Callable

import rclpy
from gsemsplat_msgs.srv import Query
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import Header

from gsemsplat_ros.report.pair_result import Answer, known
from gsemsplat_ros.ros.conversions import image_to_rgb
from gsemsplat_ros.semantics.objects import Object
from gsemsplat_ros.terminal.console import Failure


class Client:
    """A node of its own context, so that Ctrl-C stays Python's. Use it in a `with`."""

    def __enter__(self) -> Client:
        self._context = Context()
        rclpy.init(args=[], context=self._context)
        self.node = rclpy.create_node('gsemsplat_client', context=self._context, use_global_arguments=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._services = {}
        return self

    def __exit__(self, *error) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def until(self, condition: Callable[[], object], deadline_s: float) -> bool:
        """Take in messages until `condition()`; whether that was within `deadline_s`."""
        end = time.monotonic() + deadline_s
        while not condition():
            if time.monotonic() > end:
                return False
            self._executor.spin_once(timeout_sec=0.05)
        return True

    def wait_for_service(self, service: str, deadline_s: float) -> bool:
        """Whether the service is there within `deadline_s`."""
        return self.until(self._service(service).service_is_ready, deadline_s)

    def _service(self, name: str):
        if name not in self._services:
            self._services[name] = self.node.create_client(Query, name)
        return self._services[name]

    def ask(self, text: str, deadline_s: float, service: str = '/query', **request) -> tuple[Answer, Header]:
        """Ask the node; `request`: further fields of Query. Returns the answer and its frame and stamp.

        Raises ValueError with the node's words when it cannot answer, Failure when it says nothing.
        """
        start = time.perf_counter()
        future = self._service(service).call_async(Query.Request(text=text, **request))
        if not self.until(future.done, deadline_s):
            raise Failure(
                f"no answer to '{text}' from {service} within {deadline_s:g} s: look at the node's log"
            )
        seconds, response = time.perf_counter() - start, future.result()
        if not response.success:
            raise ValueError(f"'{text}' was not answered: {response.message}")
        objects = tuple(Object(_xyz(o.pose.position), _xyz(o.size), o.score) for o in response.objects)
        picture = image_to_rgb(response.image[0]) if response.image else None
        return Answer(
            text,
            response.found,
            response.score,
            known((response.peak_u, response.peak_v)),
            known(_xyz(response.peak)),
            objects,
            picture,
            seconds,
        ), response.header


def _xyz(value) -> tuple[float, float, float]:
    return value.x, value.y, value.z
