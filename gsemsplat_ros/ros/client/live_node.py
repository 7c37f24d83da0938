"""A followed node as a source of the live page: its clouds become scenes, its service answers.

One thread owns the ROS side: it spins, makes scenes of the newest clouds, and sends questions to the service,
several at once. It alone writes the state of the node. The page's threads hand it questions and wait. A
cloud that is none of gsemsplat is dropped with one line, and questions go on whatever is shown.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import traceback
from concurrent.futures import Future
from dataclasses import dataclass, replace

from geometry_msgs.msg import PoseStamped
from gsemsplat_msgs.msg import Status
from gsemsplat_msgs.srv import Changes, Query
from rclpy.client import Client as ServiceClient
from rclpy.task import Future as RosFuture
from sensor_msgs.msg import PointCloud2

from gsemsplat_ros.live.page_answer import PageAnswer, answered_by_boxes
from gsemsplat_ros.live.shared_state import SharedState
from gsemsplat_ros.live.shown_scene import ShownScene
from gsemsplat_ros.ros.client.client import Client
from gsemsplat_ros.ros.client.node_scenes import NodeScenes, NodeState
from gsemsplat_ros.ros.client.reply import NodeReply, reply_of
from gsemsplat_ros.ros.clouds import cloud_points
from gsemsplat_ros.ros.conversions import stamp_ns
from gsemsplat_ros.ros.object_messages import object_of
from gsemsplat_ros.ros.qos import LATCHED
from gsemsplat_ros.semantics.answer import MAX_OBJECTS
from gsemsplat_ros.semantics.objects import Object

log = logging.getLogger(__name__)

PASS_S = 0.2  # how long a question or the end waits at most
SILENT_S = 5.0  # a node that lives publishes its status each second
ANSWER_WITHIN_S = 30.0
REPEAT_S = 5.0  # at most one warning on the terminal within
WORKERS = 4  # questions on their way at once


@dataclass(eq=False)
class PendingQuestion:
    """A question on its way. reply: what the node answers and how long it took [s], for who waits; sent_at
    [s, time.monotonic], response and changes (what has gone): once it is sent."""

    request: Query.Request
    reply: Future[tuple[NodeReply, float]]
    sent_at: float = 0.0
    response: RosFuture | None = None
    changes: RosFuture | None = None

    @property
    def answered(self) -> bool:
        """Whether all is there that will come."""
        asked = [future for future in (self.response, self.changes) if future is not None]
        return bool(asked) and all(future.done() for future in asked)

    @property
    def gone(self) -> tuple[Object, ...]:
        """What the text found before and has gone since, newest first."""
        response = self.changes.result() if self.changes else None
        of_text = (
            [message for message in response.gone if self.request.text in message.texts] if response else []
        )
        return tuple(object_of(message) for message in reversed(of_text))


class LiveNode:
    """Feeds `shared` from `with` to its end. node: the node's full name; service: its query service; budget:
    Gaussians that a page draws at most."""

    def __init__(self, shared: SharedState, node: str, service: str, budget: int):
        self._shared, self._node, self._service_name = shared, '/' + node.strip('/'), service
        self._questions: queue.Queue[PendingQuestion] = queue.Queue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name='live', daemon=True)
        # of the ROS thread alone
        self._state = NodeState()
        self._scenes = NodeScenes(self._node, budget)
        self._pending: list[PendingQuestion] = []
        self._next_warning = 0.0  # when the next may be printed [s, time.monotonic]
        self._dropped = ''  # why the newest cloud is not shown, '' if it is
        self._was_present = self._is_present = False

    def __enter__(self) -> LiveNode:
        self._shared.write(
            status=f'waiting for the node {self._node}', is_trouble=True, no_query_reason='no node is running'
        )
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.set()
        self._thread.join(10.0)

    # the ROS thread

    def _run(self) -> None:
        with Client() as client:
            node = client.node
            node.create_subscription(PointCloud2, f'{self._node}/gaussians', self._on_scene, LATCHED)
            node.create_subscription(PointCloud2, f'{self._node}/map', self._on_map, LATCHED)
            node.create_subscription(PoseStamped, f'{self._node}/pose', self._on_pose, LATCHED)
            node.create_subscription(Status, f'{self._node}/status', self._on_status, LATCHED)
            service = node.create_client(Query, self._service_name)
            changes = node.create_client(Changes, f'{self._node}/changes')
            while not self._closing.is_set():
                try:
                    client.until(self._has_work, PASS_S)
                    self._watch(service.service_is_ready())
                    self._send_questions(service, changes)
                    self._deliver_replies(service, changes)
                    self._show()
                except Exception:
                    traceback.print_exc()  # the page lives on
                    self._closing.wait(PASS_S)  # what fails each time fails seldom
            for pending in self._pending:
                pending.reply.set_exception(ValueError('the live view has ended'))

    def _on_scene(self, cloud: PointCloud2) -> None:
        if self._is_known('gaussians', cloud):
            self._state = replace(self._state, scene=cloud)

    def _on_map(self, cloud: PointCloud2) -> None:
        if self._is_known('map', cloud):
            self._state = replace(self._state, map=cloud)

    def _on_pose(self, pose: PoseStamped) -> None:
        self._state = replace(self._state, second_pose=pose)

    def _on_status(self, status: Status) -> None:
        self._state = replace(self._state, status=status, status_at=time.monotonic())

    def _is_known(self, topic: str, cloud: PointCloud2) -> bool:
        try:
            cloud_points(cloud)
        except ValueError as error:
            self._drop(f'a message on {self._node}/{topic} is not shown: {error}')
            return False
        self._dropped = ''
        return True

    def _drop(self, why: str) -> None:
        if why != self._dropped and time.monotonic() >= self._next_warning:  # many may come in a second
            log.warning('%s', why)
            self._next_warning = time.monotonic() + REPEAT_S
        self._dropped = why

    def _has_work(self) -> bool:
        return (
            self._closing.is_set()
            or not self._questions.empty()
            or any(pending.answered for pending in self._pending)
        )

    def _watch(self, service_is_ready: bool) -> None:
        """Say whether the node is here, and what troubles it."""
        status_at = self._state.status_at
        silent = status_at is not None and time.monotonic() - status_at > SILENT_S
        present = service_is_ready and not silent
        if present:
            trouble = self._dropped or self._state.trouble
            text, is_trouble = f'following {self._node}' + (f'; {trouble}' if trouble else ''), bool(trouble)
        elif self._was_present:
            text = f'the node {self._node} has gone: this is what it showed last; waiting for it to come back'
            is_trouble = True
        else:
            text = f'waiting for the node {self._node}: is it running, with this ROS_DOMAIN_ID?'
            is_trouble = True
        self._was_present = self._was_present or present
        if present != self._is_present:
            self._is_present = present
            self._shared.write(
                status=text,
                is_trouble=is_trouble,
                ask=self.ask if present else None,
                no_query_reason='the node is not running',
            )
        elif (text, is_trouble) != (self._shared.state.status, self._shared.state.is_trouble):
            self._shared.write(status=text, is_trouble=is_trouble)

    def _show(self) -> None:
        state = self._state
        try:
            shown = self._scenes.of(state)
        except Exception as error:  # of a cloud, once: it is forgotten
            bad = state.searched_cloud
            self._state = replace(
                state,
                scene=None if state.scene is bad else state.scene,
                map=None if state.map is bad else state.map,
            )
            self._drop(f'a cloud of {self._node} is not shown: {error}')
            return
        if shown is not None and shown is not self._shared.state.shown:
            self._shared.write(shown=shown)

    def _send_questions(self, service: ServiceClient, changes: ServiceClient) -> None:
        while not self._questions.empty():
            pending = self._questions.get()
            pending.sent_at = time.monotonic()
            pending.response = service.call_async(pending.request)
            if changes.service_is_ready():
                pending.changes = changes.call_async(Changes.Request())
            self._pending.append(pending)

    def _deliver_replies(self, service: ServiceClient, changes: ServiceClient) -> None:
        """Hand back what is answered, and give up what will not be."""
        for pending in tuple(self._pending):
            assert pending.response is not None
            waited = time.monotonic() - pending.sent_at
            if pending.answered:
                try:
                    reply = reply_of(pending.request, pending.response.result())
                    reply = replace(reply, answer=replace(reply.answer, gone=pending.gone))
                except ValueError as refusal:
                    pending.reply.set_exception(refusal)
                except Exception as error:
                    pending.reply.set_exception(
                        ValueError(f'{self._service_name} gave no answer of gsemsplat ({error})')
                    )
                else:
                    self._state = replace(self._state, answer_frame=reply.header.frame_id)
                    pending.reply.set_result((reply, waited))
            elif not self._is_present:
                pending.reply.set_exception(ValueError('the node has gone before it answered'))
            elif waited > ANSWER_WITHIN_S:
                pending.reply.set_exception(
                    ValueError(
                        f'no answer from {self._service_name} within {ANSWER_WITHIN_S:g} s: '
                        "look at the node's log"
                    )
                )
            else:
                continue
            self._pending.remove(pending)
            for client, future in (service, pending.response), (changes, pending.changes):
                if future is not None and not future.done():
                    client.remove_pending_request(future)

    # the page's threads

    def ask(self, text: str, threshold: float | None) -> PageAnswer:
        """The node's answer; threshold None: the node's own. Raises ValueError, in one line, without one."""
        request = Query.Request(
            text=text, threshold=float(threshold or 0.0), max_objects=MAX_OBJECTS, with_image=True
        )
        pending = PendingQuestion(request, Future())
        self._questions.put(pending)
        reply, seconds = pending.reply.result(ANSWER_WITHIN_S + 10)
        return page_answer(reply, self._shared.state.shown, seconds)


def page_answer(reply: NodeReply, shown: ShownScene | None, seconds: float) -> PageAnswer:
    """A reply as a page shows it on the scene `shown`, without boxes where it lies in another frame: the
    scene of that frame comes next, and the page asks again. Raises ValueError where nothing is shown yet."""
    if shown is None:
        raise ValueError('the node answered, but its Gaussians have not come yet: try again in a moment')
    answer, frame, note = reply.answer, reply.header.frame_id, ''
    if shown.frame != frame:
        note, answer = (
            f'this answer is in {frame}, which is not shown yet',
            replace(answer, objects=(), gone=()),
        )
    return answered_by_boxes(answer, shown, seconds, reply.picture, note, stamp_ns(reply.header))
