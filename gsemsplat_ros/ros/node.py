"""The lifecycle node `gsemsplat`: wires inputs, worker, map, results, services and status.

Which thread runs what (the executor of main.py has three threads; each callback group runs one callback at a
time, in any of them):

    callback group       callbacks                               what they may change
    the node's own       transitions, parameters, 1 Hz timer     configured, active, parameters
    inputs               images, camera_info                     Subscriptions; the worker's mailbox
    TF                   /tf, /tf_static                         TfListener, under its lock
    query                the service query                       shown, under the output lock; known objects
    map services         save_map, load_map, clear_map           latest.kept; the source's memory (forget)
    (worker thread)      an input; what a parameter changes      source; latest; shown, under the output lock

The main thread runs the first transitions before the executor spins, and the last release after it. Between
threads go values that are replaced and never changed: `parameters`, `configured`, `active`, `latest.now`,
`source.selection`. Code that needs one several times reads it once. Only the counters of inputs and TF are
read while they change. Scenes, answers and maps go out under the output lock, `~/status` from any thread.
"""

from __future__ import annotations

import functools
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from gsemsplat_msgs.msg import Status
from gsemsplat_msgs.srv import Query
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from gsemsplat_ros.device import NoGpuMemory
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.ros import diagnostics
from gsemsplat_ros.ros.arguments import mistake
from gsemsplat_ros.ros.changes import ChangesService
from gsemsplat_ros.ros.inputs import Subscriptions, input_topics
from gsemsplat_ros.ros.log import NodeLog
from gsemsplat_ros.ros.map_keeper import MapKeeper
from gsemsplat_ros.ros.map_services import MapServices
from gsemsplat_ros.ros.parameters import changed, declare, differing
from gsemsplat_ros.ros.perception import Perception
from gsemsplat_ros.ros.publishers import Results
from gsemsplat_ros.ros.qos import LATCHED, QUERIES
from gsemsplat_ros.ros.relocalize import RelocalizeService
from gsemsplat_ros.ros.services import answered
from gsemsplat_ros.ros.sources import make_source
from gsemsplat_ros.ros.state import Active, Configured
from gsemsplat_ros.ros.status import status_of
from gsemsplat_ros.ros.synchronize import JUMP_BACK_NS
from gsemsplat_ros.ros.tf_listener import TfListener
from gsemsplat_ros.ros.worker import Worker

JUMP_BACK = JumpThreshold(
    min_forward=None, min_backward=Duration(nanoseconds=-JUMP_BACK_NS), on_clock_change=False
)
REPEAT_S = 5.0  # the same complaint is logged at most this often
# Parameters that change what is published of a scene, of the map, and of the standing queries.
OF_THE_CLOUD = {'max_points', 'publish_codes'}
OF_THE_MAP = {'max_points'}
OF_THE_ANSWERS = {'queries', 'threshold', 'max_objects'}

Transition = Callable[[Any, LifecycleState], TransitionCallbackReturn]


def _logged(transition: Transition) -> Transition:
    """Log an exception in a transition, which rclpy only turns into ERROR; on_error then cleans up."""

    @functools.wraps(transition)
    def logged(self: GsemsplatNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(self, state)
        except Exception as error:
            if self.context.ok():  # or else the process is being stopped
                words = mistake(error) or f'\n{traceback.format_exc()}'
                self.log.error(f'{transition.__name__} failed: {words}')
            return TransitionCallbackReturn.ERROR

    return logged


class GsemsplatNode(LifecycleNode):
    """Two images in, semantic Gaussians and answers out. Parameters: ros/parameters.py; topics: README."""

    def __init__(self, load_pipeline: Callable[..., Pipeline] = Pipeline.load):
        """Raises ValueError or rclpy's InvalidParameter*Exception for a parameter that is not allowed."""
        super().__init__('gsemsplat')
        self.log = NodeLog(self.get_logger())
        self.parameters = declare(self)
        self.add_on_set_parameters_callback(self._check_change)
        self.add_post_set_parameters_callback(self._adopt_change)
        self._load_pipeline = load_pipeline
        self._configured: Configured | None = None
        self._active: Active | None = None
        self._said: dict[str, float] = {}  # words -> when [s, time.monotonic]
        self._say_lock = threading.Lock()
        self._report = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._status = self.create_publisher(Status, '~/status', LATCHED)
        self.create_timer(1.0, self._on_timer, clock=Clock(clock_type=ClockType.STEADY_TIME))

    # Lifecycle

    @_logged
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the network, create topics and services. FAILURE (logged with the reason) changes nothing."""
        p, start = self.parameters, time.monotonic()
        load = functools.partial(
            self._load_pipeline,
            p.weights or None,
            square=p.square,
            text_checkpoint=p.text_checkpoint or None,
            canonical=p.canonical,
            geometry=p.geometry or None,
        )
        load_on_cpu = functools.partial(load, device='cpu')
        try:
            try:
                pipeline = load(device=p.device)
            except NoGpuMemory as error:
                self.log.warning(f'{error}: this node goes on on the CPU')
                pipeline = load_on_cpu()
        except (ValueError, OSError) as error:
            self.log.error(f'cannot load the network: {error}')
            return TransitionCallbackReturn.FAILURE
        except Exception:
            self.log.error(f'cannot load the network:\n{traceback.format_exc()}')
            return TransitionCallbackReturn.FAILURE
        self.log.info(
            f'loaded {pipeline.weights}{pipeline.geometry and f", geometry by {pipeline.geometry}"} '
            f'with text encoder {pipeline.text_encoder.name} '
            f'on {pipeline.device} in {time.monotonic() - start:.1f} s'
        )
        keeper = MapKeeper(p, pipeline.code_space, self.get_namespace())
        with ExitStack() as made:
            results = made.enter_context(closing(Results(self, self._say)))
            perception = Perception(
                pipeline,
                keeper,
                results,
                lambda: self.parameters,
                self._say,
                self._publish_status,
                load_on_cpu,
            )
            made.enter_context(closing(MapServices(self, self.log, keeper, self._map_replaced)))
            made.enter_context(closing(ChangesService(self, self.log, keeper)))
            made.enter_context(
                closing(RelocalizeService(self, self.log, keeper, lambda: self.parameters, self._say))
            )
            group = MutuallyExclusiveCallbackGroup()
            query = self.create_service(
                Query, 'query', self._on_query, qos_profile=QUERIES, callback_group=group
            )
            made.callback(self.destroy_service, query)
            worker = Worker(perception.build, perception.refuse)
            self._configured = Configured(perception, worker, made.pop_all())
        return super().on_configure(state)

    @_logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the inputs."""
        p, configured = self.parameters, self._configured
        assert configured is not None  # a node is activated after it was configured
        done = super().on_activate(state)
        topics = input_topics(self, p)
        mailbox = configured.worker.mailbox
        with ExitStack() as made:
            made.callback(mailbox.clear)
            tf = None
            if p.map_frame:
                tf = made.enter_context(closing(TfListener(self, p.map_frame, self._say)))
                clock = self.get_clock()
                made.callback(
                    clock.create_jump_callback(JUMP_BACK, post_callback=lambda _: tf.clear()).unregister
                )
            source = make_source(p, topics, self._say, tf)
            inputs = Subscriptions(self, p, lambda raw: mailbox.put((source, raw)))
            made.enter_context(closing(inputs))
            self._active = Active(inputs, source, tf, made.pop_all())
        self.log.info('waiting for ' + ', '.join(t for camera in topics for t in camera))
        return done

    @_logged
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe; the newest scene stays."""
        self._unsubscribe()
        return super().on_deactivate(state)

    @_logged
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the network and the scene."""
        self.release()
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything, from whatever state."""
        self.release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A transition failed: release everything, back to unconfigured."""
        self.release()
        return TransitionCallbackReturn.SUCCESS

    def _unsubscribe(self) -> None:
        active, self._active = self._active, None
        if active:
            active.made.close()

    def release(self, timeout_s: float | None = None) -> bool:
        """Destroy what on_configure and on_activate made. Returns whether the worker ended in time."""
        self._unsubscribe()
        configured, self._configured = self._configured, None
        if configured is None:
            return True
        ended = configured.worker.stop(timeout_s)
        configured.made.close()
        return ended

    # Queries and the map

    def _on_query(self, request: Query.Request, response: Query.Response) -> Query.Response:
        return answered('query', lambda: self._answer(request, response), response, self.log.error)

    def _answer(self, request: Query.Request, response: Query.Response) -> None:
        """Fill `response`; raises ValueError when the question cannot be answered."""
        configured, active = self._configured, self._active
        now = configured.perception.latest.now if configured else None
        if configured is None or now is None or (now.scene is None and not now.kept.answers):
            inputs = diagnostics.inputs_line(self._status_now())
            reason = '' if inputs.level == diagnostics.OK else inputs.message
            if now is not None and inputs.level != diagnostics.ERROR:
                reason = now.last_error or reason
            raise ValueError(f'no scene yet: {reason or "waiting for the first pair of images"}')
        tf = active.tf if active else None
        configured.perception.answer(now, request, response, tf, active is not None)

    def _map_replaced(self) -> None:
        """A service cleared the map or loaded another: the current view is new to this map."""
        if active := self._active:
            active.source.forget()
        if configured := self._configured:
            configured.perception.map_replaced()

    # Parameters, status and diagnostics

    def _check_change(self, wanted: Iterable[Parameter]) -> SetParametersResult:
        try:
            changed(self.parameters, wanted, running=self._configured is not None)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _adopt_change(self, wanted: Iterable[Parameter]) -> None:
        before, self.parameters = self.parameters, changed(self.parameters, wanted, running=False)
        if configured := self._configured:
            names, perception = differing(before, self.parameters), configured.perception
            for some, job in (
                (OF_THE_CLOUD, perception.publish_cloud_again),
                (OF_THE_MAP, perception.publish_map_again),
                (OF_THE_ANSWERS, perception.answer_again),
            ):
                if names & some:
                    configured.worker.mailbox.request(job)

    def _on_timer(self) -> None:
        if configured := self._configured:
            configured.perception.serve()
        status = self._publish_status()
        self._report.publish(diagnostics.report(self.get_fully_qualified_name(), status))

    def _publish_status(self) -> Status:
        status = self._status_now()
        if self.context.ok():  # else the process was told to stop, and the worker is at its last scene
            self._status.publish(status)
        return status

    def _status_now(self) -> Status:
        return status_of(self.get_clock().now().to_msg(), self._configured, self._active)

    def _say(self, message: str) -> None:
        """Log a warning, from any thread. Messages that differ only in their numbers are logged once in
        REPEAT_S (rclpy's throttle would also suppress other messages), and none after the end of ROS, when
        every publisher fails.
        """
        if not self.context.ok():
            return
        now, words = time.monotonic(), re.sub(r'\d+', '0', message)
        with self._say_lock:
            if now - self._said.get(words, float('-inf')) < REPEAT_S:
                return
            if len(self._said) > 100:
                self._said.clear()
            self._said[words] = now
        self.log.warning(message)
