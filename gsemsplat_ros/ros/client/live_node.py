"""Follows a running node for the live page: its clouds become worlds, its service answers, and its absence is
said.

One thread owns the ROS side: it spins, builds worlds of the newest clouds, and carries questions to the
service, several at once. The page's threads only wait for answers.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import PoseStamped
from gsemsplat_msgs.msg import Status
from gsemsplat_msgs.srv import Query
from sensor_msgs.msg import PointCloud2

from gsemsplat_ros.gaussians.rotations import quats_to_rotations
from gsemsplat_ros.live.shared_state import MAX_OBJECTS, PageAnswer, SharedState, answered_by_boxes
from gsemsplat_ros.live.shown_scene import (
    ShownCamera,
    ShownScene,
    first_camera_of,
    shown_from_above,
    shown_from_camera,
)
from gsemsplat_ros.ros.client.client import Client, gaussians_of
from gsemsplat_ros.ros import diagnostics
from gsemsplat_ros.ros.conversions import image_to_rgb
from gsemsplat_ros.ros.qos import LATCHED
from gsemsplat_ros.semantics.objects import Object

PASS_S = 0.2  # how long a question or the end waits at most
SILENT_S = 5.0  # a node that lives reports each second
ANSWER_WITHIN_S = 30.0
WORKERS = 4  # questions on their way at once


@dataclass(eq=False)
class Question:
    """A question on its way: the phrase, its threshold (0: the node's), and who waits for the response."""

    text: str
    threshold: float
    answer: Future
    sent_at: float = 0.0
    response: object = None


class LiveNode:
    """Feeds `shared` from `with` to its end. node: the node's full name; service: its query service; budget:
    Gaussians that a page draws at most."""

    def __init__(self, shared: SharedState, node: str, service: str, budget: int):
        self.shared, self._node, self._service_name, self._budget = (
            shared,
            '/' + node.strip('/'),
            service,
            budget,
        )
        self._questions: queue.Queue[Question] = queue.Queue()
        self._clouds: dict[str, PointCloud2] = {}  # 'gaussians' and 'map'
        self._pose: PoseStamped | None = None
        self._status: Status | None = None  # the newest of the node
        self._heard_at = 0.0
        self._scenes: dict[str, tuple[tuple, ShownScene]] = {}
        self._answers_from = ''  # the frame that the last response was in
        self._seen = self._here = self._closing = False
        self._thread = threading.Thread(target=self._run, name='live', daemon=True)

    def __enter__(self) -> LiveNode:
        self.shared.write(
            status=f'waiting for the node {self._node}', is_trouble=True, no_query_reason='no node is running'
        )
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._closing = True
        self._thread.join(10.0)

    # the ROS thread

    def _run(self) -> None:
        with Client() as client:
            node = client.node
            node.create_subscription(
                PointCloud2, f'{self._node}/gaussians', lambda m: self._keep('gaussians', m), LATCHED
            )
            node.create_subscription(
                PointCloud2, f'{self._node}/map', lambda m: self._keep('map', m), LATCHED
            )
            node.create_subscription(PoseStamped, f'{self._node}/pose', self._keep_pose, LATCHED)
            node.create_subscription(Status, f'{self._node}/status', self._on_status, LATCHED)
            service = node.create_client(Query, self._service_name)
            on_way: list[Question] = []
            while not self._closing:
                try:
                    client.until(
                        lambda: (
                            self._closing
                            or not self._questions.empty()
                            or any(q.response.done() for q in on_way)
                        ),
                        PASS_S,
                    )
                    self._watch(service.service_is_ready())
                    self._show()
                    self._carry(service, on_way)
                except Exception:
                    traceback.print_exc()  # the page lives on
            for asked in on_way:
                asked.answer.set_exception(ValueError('the live view has ended'))

    def _keep(self, name: str, cloud: PointCloud2) -> None:
        self._clouds[name] = cloud

    def _keep_pose(self, pose: PoseStamped) -> None:
        self._pose = pose

    def _on_status(self, status: Status) -> None:
        self._heard_at, self._status = time.monotonic(), status

    def _watch(self, ready: bool) -> None:
        """Say whether the node is here, and what troubles it."""
        silent = self._heard_at and time.monotonic() - self._heard_at > SILENT_S
        here = bool(ready and not silent)
        if here:
            again = self._seen and not self._here
            trouble = first_trouble(self._status) if self._status else ''
            text, bad = f'following {self._node}' + (f'; {trouble}' if trouble else ''), bool(trouble)
            if again:
                self._status = None
            self._seen = True
        else:
            text = (
                f'the node {self._node} has gone: this is what it showed last; waiting for it to come back'
                if self._seen
                else f'waiting for the node {self._node}: is it running, with this ROS_DOMAIN_ID?'
            )
            bad = True
        changes = {}
        if here != self._here:
            self._here = here
            changes = {'ask': self._ask if here else None, 'no_query_reason': 'the node is not running'}
        if changes or (text, bad) != (self.shared.state.status, self.shared.state.is_trouble):
            self.shared.write(status=text, is_trouble=bad, **changes)

    def _show(self) -> None:
        """Show the newest scene: the map once queries search it, else the newest scene."""
        status, map_cloud, frame = self._status or Status(), self._clouds.get('map'), self._answers_from
        by_map = (
            map_cloud is not None
            and map_cloud.width > 0
            and (
                frame == map_cloud.header.frame_id
                if frame
                else 'gaussians' not in self._clouds or status.map_from_file or status.map_scenes > 1
            )
        )
        name = 'map' if by_map else 'gaussians'
        cloud = self._clouds.get(name)
        if cloud is None or not cloud.width:
            return
        metric = (status.map_scale_source if by_map else status.scale_source) != 'network'
        pose = self._pose if self._pose and self._pose.header.stamp == cloud.header.stamp else None
        key = id(cloud), metric, id(pose)
        if self._scenes.get(name, ((),))[0] != key:
            gaussians = gaussians_of(cloud)
            if by_map:
                shown = shown_from_above(f'Map of {self._node}', gaussians, self._budget, metric)
            else:
                shown = shown_from_camera(
                    f'Newest scene of {self._node}',
                    gaussians,
                    self._budget,
                    metric,
                    _cameras(gaussians.means.numpy(), pose),
                )
            self._scenes[name] = key, shown
        shown = self._scenes[name][1]
        if shown is not self.shared.state.shown:
            self.shared.write(shown=shown)

    def _carry(self, service, on_way: list[Question]) -> None:
        """Send what is asked, hand back what is answered."""
        while not self._questions.empty():
            asked = self._questions.get()
            asked.sent_at = time.monotonic()
            asked.response = service.call_async(
                Query.Request(
                    text=asked.text, threshold=asked.threshold, max_objects=MAX_OBJECTS, with_image=True
                )
            )
            on_way.append(asked)
        for asked in tuple(on_way):
            waited = time.monotonic() - asked.sent_at
            if asked.response.done():
                asked.answer.set_result((asked.response.result(), waited))
            elif not self._here:
                asked.answer.set_exception(ValueError('the node has gone before it answered'))
            elif waited > ANSWER_WITHIN_S:
                asked.answer.set_exception(
                    ValueError(
                        f'no answer from {self._service_name} within {ANSWER_WITHIN_S:g} s: '
                        "look at the node's log"
                    )
                )
            else:
                continue
            on_way.remove(asked)
            if not asked.response.done():
                service.remove_pending_request(asked.response)

    # the page's threads

    def _ask(self, text: str, threshold: float | None) -> PageAnswer:
        asked = Question(text, float(threshold or 0.0), Future())
        self._questions.put(asked)
        response, seconds = asked.answer.result(ANSWER_WITHIN_S + 10)
        if not response.success:
            raise ValueError(response.message)
        objects = tuple(
            Object(
                (o.pose.position.x, o.pose.position.y, o.pose.position.z),
                (o.size.x, o.size.y, o.size.z),
                float(o.score),
            )
            for o in response.objects
        )
        picture = image_to_rgb(response.image[0]) if response.image else None
        shown, note, frame = self.shared.state.shown, '', response.header.frame_id
        self._answers_from = frame
        if shown is None or shown.frame != frame:
            # the thread of ROS will show the scene of that frame next, and the page asks again
            note, objects = f'this answer is in {frame}, which is not shown yet', ()
            if shown is None:
                raise ValueError(
                    'the node answered, but its Gaussians have not come yet: try again in a moment'
                )
        return answered_by_boxes(
            text,
            bool(response.found),
            float(response.score),
            threshold or 0.0,
            objects,
            shown,
            seconds,
            picture,
            note,
        )


def first_trouble(status: Status) -> str:
    """What troubles the node first, in words, or ''."""
    for part, line in diagnostics.lines(status).items():
        if line.level != diagnostics.OK:
            return f'{part}: {line.message}'
    return ''


def _cameras(means: np.ndarray, pose: PoseStamped | None) -> tuple[ShownCamera, ...]:
    """The two cameras of a scene whose Gaussians (N, 3) lie in the first's frame; the second where its pose
    is known.
    """
    first = first_camera_of(means)
    if first is None or pose is None:
        return () if first is None else (first,)
    q, p = pose.pose.orientation, pose.pose.position
    world_from_camera = np.eye(4)
    world_from_camera[:3, :3] = quats_to_rotations(np.array([q.w, q.x, q.y, q.z]))
    world_from_camera[:3, 3] = p.x, p.y, p.z
    return first, ShownCamera('second camera', world_from_camera, first.fov, first.aspect)
