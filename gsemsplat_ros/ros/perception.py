"""From inputs to scenes, the map and answers, and their publication."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gsemsplat_msgs.srv import Query
from std_msgs.msg import Header

from gsemsplat_ros.device import NoGpuMemory
from gsemsplat_ros.images.view import Pair
from gsemsplat_ros.mapping.map_index import IndexCache
from gsemsplat_ros.pipeline import Clock, Pipeline
from gsemsplat_ros.ros import answers, messages
from gsemsplat_ros.ros.conversions import stamp_ns
from gsemsplat_ros.ros.inputs import Input
from gsemsplat_ros.ros.map_keeper import MapKeeper
from gsemsplat_ros.ros.parameters import Parameters
from gsemsplat_ros.ros.publishers import Results
from gsemsplat_ros.ros.shown import Shown
from gsemsplat_ros.ros.snapshot import Done, Kept, Snapshot
from gsemsplat_ros.ros.sources import Source
from gsemsplat_ros.ros.tf_listener import TfListener
from gsemsplat_ros.scene.scene import Scene
from gsemsplat_ros.semantics.answer import Answer


class Perception:
    """Makes scenes in the worker and answers queries in any thread; its results are in `latest`.

    parameters: returns the current ones. say: logs a warning. changed: called after each new result.
    load_on_cpu: makes the pipeline that takes over when a GPU has no memory for a pair.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        keeper: MapKeeper,
        results: Results,
        parameters: Callable[[], Parameters],
        say: Callable[[str], None],
        changed: Callable[[], None],
        load_on_cpu: Callable[[], Pipeline],
    ):
        self.pipeline, self.keeper, self.latest = pipeline, keeper, keeper.latest
        self._results, self._parameters, self._say, self._changed = results, parameters, say, changed
        self._load_on_cpu = load_on_cpu
        self._shown: Shown[tuple[Answer, Header]] = Shown()  # (answer, its header)
        self._indexes = IndexCache(pipeline.index)
        self._noted: set[str] = set()  # standing queries whose note was logged
        self._output_lock = threading.Lock()  # one scene or answer at a time goes out

    # The worker thread

    def build(self, task: tuple[Source, Input]) -> None:
        """Make a scene of an input that shows anything new. Raises if the input cannot be used."""
        (source, raw), p, now = task, self._parameters(), self.latest.now
        stamp = stamp_ns(raw.images[0].header)
        if now.used_ns is not None and 0 <= stamp - now.used_ns < p.min_interval_s * 1e9:
            return
        clock = Clock()
        pair = source.pair(raw)
        clock.lap('convert')
        if pair is None:
            return
        self.latest.change(used_ns=stamp)
        try:
            scene = self.pipeline.build(pair)
        except NoGpuMemory as error:
            self._go_on_the_cpu(error)
            scene = self.pipeline.build(pair)
        source.built(pair)
        if scene.focal_source != 'calibration':
            focal = scene.keyframe.input_camera.fx
            self._say(
                f'no camera_info: the focal length, {focal:.0f} px, is by the '
                f'{scene.focal_source}, within {100 * scene.focal_spread:.0f} %; publish it to be sure'
            )
        if scene.first_from_second is None:
            self._say(
                'the second view could not be placed: the scene is what the network guesses of one image; '
                'do both show the same things?'
            )
        if pair.first_from_second is not None and not scene.metric:
            self._say(
                'TF and visual motion disagree, or the camera moved less than 5 cm: the scale of this scene '
                "is the network's"
            )
        clock.lap('build')
        with self._output_lock:
            self._results.pose(scene)  # first: a scene whose numbers are not finite is refused here
            self.latest.change(
                scene=scene, map_from_camera=pair.first.map_from_camera if scene.metric else None
            )
            self._shown.clear()
            self._results.cloud(scene, p.max_points, p.publish_codes)
        clock.lap('publish')
        self._fuse(scene, pair)
        clock.lap('fuse')
        self._answer_standing(scene)
        clock.lap('standing queries')
        latencies = {
            **clock.laps,
            'total': sum(clock.laps.values()),
            **{f'build: {stage}': seconds for stage, seconds in scene.timings.items()},
        }
        scenes = self.latest.now.scenes + 1
        self.latest.change(done=Done(scene, latencies), scenes=scenes, last_error='')
        self._changed()

    def _go_on_the_cpu(self, error: NoGpuMemory) -> None:
        """Load the network anew there. Scene and map stay as they are; questions in other threads that began
        with the old pipeline end with it."""
        self._say(f'{error}: this node goes on on the CPU')
        self.pipeline = self._load_on_cpu()
        self._indexes = IndexCache(self.pipeline.index)

    def refuse(self, error: BaseException) -> None:
        """Log and count an input that could not be used, or a fault of ours; the node lives on."""
        self.latest.change(refused=self.latest.now.refused + 1, last_error=self._complain(error))
        self._changed()

    def publish_cloud_again(self) -> None:
        """Publish the newest scene with the current parameters."""
        p, scene = self._parameters(), self.latest.now.scene
        with self._complaining():
            if scene is not None:
                with self._output_lock:
                    self._results.cloud(scene, p.max_points, p.publish_codes)

    def publish_map_again(self) -> None:
        """Publish the map with the current parameters."""
        with self._complaining():
            if len(self.latest.now.kept.map):
                self._show_map()

    def answer_again(self) -> None:
        """Answer the standing queries with the current parameters."""
        scene = self.latest.now.scene
        with self._complaining():
            if scene is not None:
                self._answer_standing(scene)

    def _fuse(self, scene: Scene, pair: Pair) -> None:
        budget = self._parameters().map_max_gaussians
        if not budget:
            return
        kept = self.keeper.add(scene, pair, budget)
        if kept.last_fused:
            self._show_map()
            self._place(kept)
        else:
            self._say(f'a scene was left out of the map: {kept.reason}')

    def _answer_standing(self, scene: Scene) -> None:
        """Publish the answers of the map and of `scene` to the standing queries."""
        with self._output_lock:
            p, now, standing = self._parameters(), self.latest.now, {}
            self._noted &= set(p.queries)
            for text in p.queries:
                try:
                    question = answers.question(text, p)
                    reply = answers.find(question, self.pipeline, self._indexes, now, self.keeper)
                except ValueError as error:
                    self._say(f"standing query '{text}': {error}")
                    continue
                if reply.answer.note and text not in self._noted:
                    self._noted.add(text)
                    self._say(f"standing query '{text}': {reply.answer.note}")
                standing[reply.answer.text] = reply.answer, reply.header
                if reply.seen is not None:  # as there is a scene
                    self._results.answer(scene, reply.seen, reply.answer, reply.header)
            self._shown.stand(standing)
            self._results.objects(self._shown.all, messages.scene_header(scene))

    @contextmanager
    def _complaining(self) -> Iterator[None]:
        """Log an error of a job, which is not counted as a refused input."""
        try:
            yield
        except Exception as error:
            self._complain(error)

    def _complain(self, error: BaseException) -> str:
        """Log an error, with its traceback if it is a fault of ours; returns its words."""
        words = str(error) or type(error).__name__
        fault = [] if isinstance(error, ValueError) else traceback.format_tb(error.__traceback__)
        self._say(''.join(fault) + words)
        return words

    # Any thread

    def serve(self) -> None:
        """Once a second: publish what waited for a subscriber, and again where the map lies, for who comes
        later."""
        self._results.serve()
        self._place(self.latest.now.kept)

    def _place(self, kept: Kept) -> None:
        if not self.keeper.tied:
            self._results.place(kept)

    def map_replaced(self) -> None:
        """A service cleared the map or loaded another."""
        self._show_map()
        self._changed()

    def answer(
        self,
        now: Snapshot,
        request: Query.Request,
        response: Query.Response,
        tf: TfListener | None,
        is_active: bool = True,
    ) -> None:
        """Fill `response` from `now`, which holds a scene or a map; without inputs (`is_active`) the response
        says that it is of what was seen before. Raises ValueError for a bad question."""
        p = self._parameters()
        question = answers.question(request.text, p, request.threshold, request.max_objects)
        reply = answers.find(question, self.pipeline, self._indexes, now, self.keeper)
        answers.fill(reply, request, response, p, tf, is_active, self._complain)
        with self._complaining(), self._output_lock:  # the answer stands, whatever becomes of the topics
            if now.scene is self.latest.now.scene:  # else a newer scene has gone out meanwhile
                self._shown.ask(reply.answer.text, (reply.answer, reply.header))
                if now.scene is not None and reply.seen is not None:
                    self._results.answer(now.scene, reply.seen, reply.answer, reply.header)
                self._results.objects(self._shown.all, reply.header)

    def _show_map(self) -> None:
        with self._output_lock:  # or an older map could be shown after the newest
            kept = self.latest.now.kept
            p, header = self._parameters(), answers.map_header(kept)
            self._results.map(kept.map, header, p.max_points, self.keeper.tied)
