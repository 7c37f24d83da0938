"""A ROS node that sends queries with deadlines, for `query`, `drive` and `demo`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import rclpy
from gsemsplat_msgs.srv import Query
from rclpy.client import Client as ServiceClient
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import Header

from gsemsplat_ros.report.pair_result import ReportedAnswer
from gsemsplat_ros.ros.client.reply import NodeReply, reply_of
from gsemsplat_ros.terminal.console import Failure


class Client:
    """A node of its own context, so that Ctrl-C stays Python's. Use it in a `with`."""

    def __enter__(self) -> Client:
        self._context = Context()
        rclpy.init(args=[], context=self._context)
        self.node = rclpy.create_node('gsemsplat_client', context=self._context, use_global_arguments=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._services: dict[str, ServiceClient] = {}
        return self

    def __exit__(self, *error: object) -> None:
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

    def _service(self, name: str) -> ServiceClient:
        if name not in self._services:
            self._services[name] = self.node.create_client(Query, name)
        return self._services[name]

    def query(self, request: Query.Request, deadline_s: float, service: str = '/query') -> NodeReply:
        """Ask the node. Raises ValueError with the node's words when it cannot answer, Failure when it says
        nothing within `deadline_s`.
        """
        future = self._service(service).call_async(request)
        if not self.until(future.done, deadline_s):
            raise Failure(
                f"no answer to '{request.text}' from {service} within {deadline_s:g} s: "
                "look at the node's log"
            )
        try:
            return reply_of(request, future.result())
        except ValueError as error:
            raise ValueError(f"'{request.text}' was not answered: {error}") from None

    def ask(
        self, text: str, deadline_s: float, service: str = '/query', **request: Any
    ) -> tuple[ReportedAnswer, Header]:
        """`query` for a report; `request`: further fields of Query. Returns the answer and its header."""
        start = time.perf_counter()
        reply = self.query(Query.Request(text=text, **request), deadline_s, service)
        return ReportedAnswer(reply.answer, reply.picture, time.perf_counter() - start), reply.header
