"""The lifecycle node `gsemsplat`: wires inputs, worker, map, results, services and diagnostics.

Threads: the executor's callbacks only store and hand on; one worker thread converts, builds the scene and
publishes; a query runs in a callback group of its own and reads the newest scene and map, which never change.
"""

from __future__ import annotations

import functools
import re
import threading
import time
import traceback
from collections.abc import Callable

from gsemsplat_msgs.srv import Query
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.ros import answers, diagnostics, messages, publishers
from gsemsplat_ros.ros.conversions import stamp_ns
from gsemsplat_ros.ros.inputs import Input, Subscriptions, input_topics, make_source
from gsemsplat_ros.ros.map_keeper import MapKeeper
from gsemsplat_ros.ros.map_services import MapServices
from gsemsplat_ros.ros.parameters import changed, declare
from gsemsplat_ros.ros.transforms import Transforms
from gsemsplat_ros.ros.worker import Worker

REPEAT_S = 5.0  # the same complaint is logged at most this often


def _logged(transition):
    """rclpy turns an exception in a transition into ERROR and says nothing: say it, then let on_error clean
    up.
    """

    @functools.wraps(transition)
    def logged(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(self, state)
        except Exception:
            self.get_logger().error(f'{transition.__name__} failed:\n{traceback.format_exc()}')
            return TransitionCallbackReturn.ERROR

    return logged


class GsemsplatNode(LifecycleNode):
    """Two images in, semantic Gaussians and answers out. Parameters: ros/parameters.py; topics: README."""

    def __init__(self, load_pipeline: Callable[..., Pipeline] = Pipeline.load):
        """Raises ValueError or rclpy's InvalidParameter*Exception for a parameter that is not allowed."""
        super().__init__('gsemsplat')
        self.parameters = declare(self)
        self.add_on_set_parameters_callback(self._check_change)
        self.add_post_set_parameters_callback(self._adopt_change)
        self._load_pipeline = load_pipeline
        # these and the next: between configure and cleanup
        self._pipeline = self._worker = self._results = None
        self._keeper = self._service = self._map_services = None
        self._inputs = self._source = self._transforms = None  # while active
        self._scene = None
        self._answers = {}  # text -> (answer, its header) since the newest scene, for the markers
        self._output_lock = threading.Lock()  # one scene or answer at a time goes out
        self._figures = diagnostics.Figures()
        self._last_stamp_ns: int | None = None
        self._said: dict[str, float] = {}
        self._report = self.create_publisher(diagnostics.DiagnosticArray, '/diagnostics', 10)
        self.create_timer(1.0, self._on_timer, clock=Clock(clock_type=ClockType.STEADY_TIME))

    # Lifecycle

    @_logged
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the network, open topics and service. FAILURE (with the reason on the log) leaves all as it
        was.
        """
        p, start = self.parameters, time.monotonic()
        try:
            self._pipeline = self._load_pipeline(
                p.weights or None,
                device=p.device,
                square=p.square,
                text_checkpoint=p.text_checkpoint or None,
                canonical=p.canonical,
            )
        except (ValueError, OSError) as error:
            self.get_logger().error(f'cannot load the network: {error}')
            return TransitionCallbackReturn.FAILURE
        except Exception:
            self.get_logger().error(f'cannot load the network:\n{traceback.format_exc()}')
            return TransitionCallbackReturn.FAILURE
        self.get_logger().info(
            f'loaded {self._pipeline.weights} with text encoder {self._pipeline.text_encoder.name} '
            f'on {self._pipeline.device} in {time.monotonic() - start:.1f} s'
        )
        self._results = publishers.Results(self)
        self._worker = Worker(self._build, self._failed)
        self._service = self.create_service(
            Query, 'query', self._on_query, callback_group=MutuallyExclusiveCallbackGroup()
        )
        self._keeper = MapKeeper(p, self._pipeline.code_space, self.get_namespace())
        self._map_services = MapServices(self, self._keeper, self._map_replaced)
        return super().on_configure(state)

    @_logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the inputs."""
        done = super().on_activate(state)
        topics = input_topics(self, self.parameters)
        if self.parameters.map_frame:
            self._transforms = Transforms(self, self.parameters.map_frame, self._say)
        self._source = make_source(self.parameters, topics, self._say, self._transforms)
        self._inputs = Subscriptions(self, self.parameters, self._worker.mailbox.put)
        self.get_logger().info('waiting for ' + ', '.join(t for camera in topics for t in camera))
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
        """A transition failed on the way: back to unconfigured."""
        self.release()
        return TransitionCallbackReturn.SUCCESS

    def _unsubscribe(self) -> None:
        if self._inputs:
            self._inputs.close()
            self._inputs = None
            self._worker.mailbox.clear()
        if self._transforms:
            self._transforms.close()
            self._transforms = None

    def release(self, timeout_s: float | None = None) -> bool:
        """Take down what on_configure and on_activate made. False: the worker is still busy after
        `timeout_s`.
        """
        self._unsubscribe()
        ended = self._worker.stop(timeout_s) if self._worker else True
        if self._results:
            self._results.close()
            self.destroy_service(self._service)
        if self._map_services:
            self._map_services.close()
        self._pipeline = self._worker = self._results = self._service = self._source = self._scene = None
        self._keeper = self._map_services = None
        self._answers, self._last_stamp_ns, self._figures = {}, None, diagnostics.Figures()
        return ended

    # Worker thread

    def _build(self, raw: Input) -> None:
        p, stamp = self.parameters, stamp_ns(raw.images[0].header)
        if self._last_stamp_ns is not None and 0 <= stamp - self._last_stamp_ns < p.min_interval_s * 1e9:
            return
        pipeline, source = self._pipeline, self._source
        times = [time.perf_counter()]
        pair = source.pair(raw)
        times.append(time.perf_counter())
        if pair is None:
            return
        self._last_stamp_ns = stamp
        scene = pipeline.build(pair)
        source.built(pair)
        if pair.first_from_second is not None and scene.scale_source == 'network':
            self._say(
                'TF and the images do not tell of one motion, or the camera moved less than 5 cm: the scale '
                "of this scene is the network's"
            )
        times.append(time.perf_counter())
        with self._output_lock:
            self._scene = scene
            self._publish(scene)
        times.append(time.perf_counter())
        self._fuse(scene, pair)
        times.append(time.perf_counter())
        with self._output_lock:
            self._answer_standing(pipeline, scene)
        times.append(time.perf_counter())
        stages = 'convert', 'build', 'publish', 'fuse', 'standing queries'
        self._figures.latency_s = {
            **{stage: b - a for stage, a, b in zip(stages, times, times[1:])},
            'total': times[-1] - times[0],
            **{f'build: {stage}': s for stage, s in scene.timings.items()},
        }
        self._figures.scenes += 1
        self._figures.last_error = ''

    def _fuse(self, scene, pair) -> None:
        if not self.parameters.map_max_gaussians:
            return
        fusion = self._keeper.add(scene, pair, self.parameters.map_max_gaussians)
        if fusion.fused:
            self._show_map()
            if not self._keeper.tied:
                self._results.place(self._keeper.kept, messages.scene_header(scene))
        else:
            self._say(f'a scene was left out of the map: {fusion.reason}')

    def _map_replaced(self) -> None:
        """A service cleared the map or loaded another: what stands before a standing robot belongs into
        it.
        """
        if source := self._source:
            source.forget()
        self._show_map()

    def _show_map(self) -> None:
        kept = self._keeper.kept
        self._results.map(kept.map, answers.map_header(kept), self.parameters.max_points)

    def _failed(self, error: Exception) -> None:
        """An input that could not be used, or a fault of ours: said, counted, and the node lives on."""
        self._figures.refused += 1
        self._figures.last_error = str(error) or type(error).__name__
        fault = [] if isinstance(error, ValueError) else traceback.format_tb(error.__traceback__)
        self._say(''.join(fault) + self._figures.last_error)

    def _say(self, message: str) -> None:
        """Warn, the same message, whatever its numbers, at most every REPEAT_S (rclpy's own throttle would
        hide a second, other message)."""
        now, words = time.monotonic(), re.sub(r'\d+', '0', message)
        if now - self._said.get(words, float('-inf')) < REPEAT_S:
            return
        if len(self._said) > 100:
            self._said.clear()
        self._said[words] = now
        self.get_logger().warning(message)

    # Queries

    def _ask(self, query: Callable, scene_or_map, text: str, threshold: float = 0.0, max_objects: int = 0):
        """Pipeline.query or query_map with the node's parameters where a number is 0."""
        return query(
            scene_or_map,
            text,
            threshold=threshold or self.parameters.threshold or None,
            max_objects=max_objects or self.parameters.max_objects,
        )

    def _publish(self, scene) -> None:
        """Publish `scene`; the caller holds the output lock."""
        self._results.scene(scene, self.parameters.max_points, self.parameters.publish_codes)
        self._answers = {}

    def _answer_standing(self, pipeline: Pipeline, scene) -> None:
        """Publish the standing queries' answers of the map and of `scene`; the caller holds the output
        lock.
        """
        for text in self.parameters.queries:
            try:
                found = answers.find(functools.partial(self._ask, text=text), pipeline, self._keeper, scene)
            except ValueError as error:
                self._say(f"standing query '{text}': {error}")
                continue
            self._answers[text] = found.answer, found.header
            self._results.answer(scene, found.seen, found.shown, found.header)
        header = messages.scene_header(scene)
        self._results.objects(list(self._answers.values()), header)

    def _on_query(self, request: Query.Request, response: Query.Response) -> Query.Response:
        try:
            self._answer(request, response)
        except ValueError as error:
            response.message = str(error)
        except Exception as error:
            self.get_logger().error(f'query failed:\n{traceback.format_exc()}')
            response.message = f'internal error ({type(error).__name__}: {error}): see the log of the node'
        return response

    def _answer(self, request: Query.Request, response: Query.Response) -> None:
        """Fill `response`; raises ValueError when the question cannot be answered."""
        pipeline, scene, results, keeper = self._pipeline, self._scene, self._results, self._keeper
        if scene is None and not (keeper and keeper.kept.answers):
            status = self._input_status()
            reason = '' if status.level == diagnostics.OK else status.message
            if status.level != diagnostics.ERROR:
                reason = self._figures.last_error or reason
            raise ValueError(f'no scene yet: {reason or "waiting for the first pair of images"}')
        ask = functools.partial(
            self._ask, text=request.text, threshold=request.threshold, max_objects=request.max_objects
        )
        found = answers.find(ask, pipeline, keeper, scene)
        answers.fill(found, request, response, self.parameters, self._transforms)
        with self._output_lock:
            if scene is self._scene:  # else a newer scene has gone out meanwhile
                self._answers[found.answer.text] = found.answer, found.header
                if found.seen:
                    results.answer(scene, found.seen, found.shown, found.header)
                results.objects(list(self._answers.values()), found.header)

    # Parameters and diagnostics

    def _check_change(self, wanted) -> SetParametersResult:
        try:
            changed(self.parameters, wanted, running=self._pipeline is not None)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _adopt_change(self, wanted) -> None:
        before, self.parameters = self.parameters, changed(self.parameters, wanted, running=False)
        try:
            with self._output_lock:
                if self._scene is not None and before != self.parameters:
                    self._publish(self._scene)
                    self._answer_standing(self._pipeline, self._scene)
        except Exception as error:
            self._failed(error)

    def _input_status(self) -> diagnostics.Status:
        worker, source = self._worker, self._source
        return diagnostics.input_status(self._inputs, source, worker.mailbox.dropped if worker else 0)

    def _on_timer(self) -> None:
        if self._results:
            self._results.serve()
        statuses = dict(
            inputs=self._input_status(),
            scene=diagnostics.scene_status(self._pipeline, self._scene, self._figures),
        )
        if keeper := self._keeper:
            statuses['map'] = diagnostics.map_status(keeper)
        if transforms := self._transforms:
            statuses['transforms'] = diagnostics.transform_status(transforms)
        self._report.publish(
            diagnostics.report(self.get_fully_qualified_name(), self.get_clock().now().to_msg(), **statuses)
        )
