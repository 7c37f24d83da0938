"""The node's results on their topics.

Results are reliable, transient local, depth 1, so an RViz that is started later still sees the newest scene;
only ~/relevancy, which carries one message for each standing query, keeps as many as there may be queries.
The big ones (clouds, packed splats, relevancy image and map) are built only when somebody listens: without
subscribers the newest result stays unbuilt, and the 1 Hz timer of the node builds it for the first one who
comes. The map is built by that timer alone, at most once a second, however fast it grows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from gsemsplat_msgs.msg import PackedSplats
from gsemsplat_msgs.msg import Relevancy as RelevancyMessage
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import DurabilityPolicy
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Float32, Header
from visualization_msgs.msg import MarkerArray

from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.map_parts import sample
from gsemsplat_ros.pictures.heat import answer_overlay
from gsemsplat_ros.ros import messages, object_messages
from gsemsplat_ros.ros.clouds import gaussian_cloud
from gsemsplat_ros.ros.conversions import image_message, make_header, stamp_ns
from gsemsplat_ros.ros.packed_splats import ENDING, packed_splats
from gsemsplat_ros.ros.parameters import MAX_QUERIES
from gsemsplat_ros.ros.qos import latched, overridable
from gsemsplat_ros.ros.snapshot import Kept
from gsemsplat_ros.ros.tf_listener import TFMessage
from gsemsplat_ros.scene.scene import Scene
from gsemsplat_ros.semantics.answer import Answer


class OnDemand:
    """A publisher whose newest message is built when there is a subscriber, and again for each later one that
    DDS gives nothing of before (volatile, as Nav2's costmaps are).
    """

    def __init__(self, node: LifecycleNode, publisher: LifecyclePublisher):
        self._node, self.publisher = node, publisher
        self._lock = threading.Lock()
        self._build: Callable[[], Any] | None = None
        self._is_new = False
        self._met: set[bytes] = set()  # volatile subscribers of the last `serve`: by now they listen
        self._served: set[bytes] = set()

    def hold(self, build: Callable[[], Any]) -> None:
        """Publish `build()` with the next `serve`."""
        with self._lock:
            self._build, self._is_new = build, True

    def offer(self, build: Callable[[], Any]) -> None:
        """Publish `build()` now if there is a subscriber, else when there is one."""
        self.hold(build)
        with self._lock:
            self._publish()

    def serve(self) -> None:
        """Publish the newest message if there is a subscriber who has not got it. Call it once a second."""
        with self._lock:
            infos = self._node.get_subscriptions_info_by_topic(self.publisher.topic_name)
            volatile = {
                bytes(info.endpoint_gid)
                for info in infos
                if info.qos_profile.durability == DurabilityPolicy.VOLATILE
            }
            listening, self._met = volatile & self._met, volatile
            if self._is_new or listening - self._served:
                self._publish()
            self._served = listening

    def _publish(self) -> None:
        if self._build and self.publisher.is_activated and self.publisher.get_subscription_count():
            self.publisher.publish(self._build())
            self._is_new = False


class Results:
    """The publishers of scenes and answers. Created on configure, closed on cleanup. say: logs a warning."""

    def __init__(self, node: LifecycleNode, say: Callable[[str], None]):
        self._made, self._clock, self._say = ExitStack(), node.get_clock(), say
        self._map_since = 0, 0  # stamp of the map, and the clock when it was first shown [ns]

        def create(kind: type, topic: str, depth: int = 1) -> LifecyclePublisher:
            publisher = node.create_lifecycle_publisher(
                kind, '~/' + topic, latched(depth), qos_overriding_options=overridable()
            )
            self._made.callback(node.destroy_lifecycle_publisher, publisher)
            self._made.callback(publisher.on_deactivate, None)  # of a query in hand: nothing more goes out
            return publisher

        def on_demand(kind: type, topic: str) -> OnDemand:
            self._on_demand.append(OnDemand(node, create(kind, topic)))
            return self._on_demand[-1]

        self._on_demand: list[OnDemand] = []
        self._cloud = on_demand(PointCloud2, 'gaussians')
        self._packed = on_demand(PackedSplats, 'gaussians' + ENDING)
        self._image = on_demand(Image, 'relevancy/image')
        self._relevancy_map = on_demand(Image, 'relevancy/map')
        self._map = on_demand(PointCloud2, 'map')
        self._packed_map = on_demand(PackedSplats, 'map' + ENDING)
        self._relevancy = create(RelevancyMessage, 'relevancy', depth=MAX_QUERIES)
        self._markers = create(MarkerArray, 'objects/markers')
        self._objects = (
            create(object_messages.vision_msgs.Detection3DArray, 'objects')
            if object_messages.vision_msgs
            else None
        )
        self._pose = create(PoseStamped, 'pose')
        self._scale = create(Float32, 'scale')
        self._tf = None
        if TFMessage:
            self._tf = node.create_lifecycle_publisher(TFMessage, '/tf', 100)
            self._made.callback(node.destroy_lifecycle_publisher, self._tf)

    def cloud(self, scene: Scene, max_points: int, codes: bool) -> None:
        """~/gaussians and ~/gaussians/packed; not without a frame, in which nobody could place them."""
        header = messages.scene_header(scene)
        if header.frame_id:
            self._cloud.offer(
                lambda: gaussian_cloud(scene.gaussians, header, max_points, codes, say=self._say)
            )
            self._packed.offer(lambda: packed_splats(scene.gaussians, header, max_points))

    def pose(self, scene: Scene) -> None:
        """~/pose (when it was found, and the first camera has a frame) and ~/scale. Raises ValueError where
        one is not finite.
        """
        first = make_header(scene.keyframe.frame, scene.keyframe.stamp_ns)
        scale = Float32(data=messages.finite(scene.scale)[0])
        if scene.first_from_second is not None and first.frame_id:
            self._pose.publish(messages.pose_message(scene.first_from_second, first))
        self._scale.publish(scale)

    def answer(self, scene: Scene, seen: Answer, answer: Answer, header: Header) -> None:
        """~/relevancy says `answer`, in the frame of `header`; ~/relevancy/image and ~/relevancy/map
        show what `scene` itself answers, `seen`.
        """
        keyframe, picture = scene.keyframe, seen.picture
        assert picture is not None  # of a scene
        of_image = make_header(keyframe.frame, keyframe.stamp_ns)
        self._relevancy.publish(messages.relevancy_message(answer, header))
        self._image.offer(lambda: relevancy_image(scene, seen))
        self._relevancy_map.offer(lambda: image_message(keyframe.window.expand(picture.relevancy), of_image))

    def objects(self, answers: Sequence[tuple[Answer, Header]], newest: Header) -> None:
        """~/objects (if vision_msgs is installed) and ~/objects/markers, of all (answer, header) that have a
        frame."""
        answers = [(answer, header) for answer, header in answers if header.frame_id]
        if not newest.frame_id:
            if not answers:
                return
            newest = answers[-1][1]
        markers = object_messages.object_markers([answer for answer, _ in answers], newest)
        frames = {
            answer.text: header for answer, header in answers
        }  # the map's and the newest scene's stand together
        for marker in markers.markers[1:]:
            marker.header = frames[marker.ns]
        self._markers.publish(markers)
        if self._objects:
            self._objects.publish(object_messages.object_detections(answers, newest))

    def map(self, map_: Map, header: Header, max_points: int, fixed: bool) -> None:
        """~/map and ~/map/packed, within a second. `fixed`: their frame is one of TF's, in which they stay:
        so who gets them later gets them with a later stamp, of which TF still knows the robot's place."""
        stamp, now = stamp_ns(header), self._clock.now().nanoseconds
        if stamp != self._map_since[0]:
            self._map_since = stamp, now
        since = self._map_since[1]

        def later() -> Header:
            passed = max(self._clock.now().nanoseconds - since, 0) if fixed else 0
            return make_header(header.frame_id, stamp + passed)

        self._map.hold(lambda: gaussian_cloud(sample(map_, max_points), later(), say=self._say))
        self._packed_map.hold(lambda: packed_splats(sample(map_, max_points), later()))

    def place(self, kept: Kept) -> None:
        """/tf: a map in a frame of its own, seen from the camera of the last fused keyframe. So the map is
        the child: the camera may have a parent already, and a frame has one only (REP 105)."""
        if self._tf and kept.map_from_camera is not None and kept.camera_frame:
            header = make_header(kept.camera_frame, kept.stamp_ns)
            camera_from_map = np.linalg.inv(kept.map_from_camera)
            message = messages.transform_message(camera_from_map, kept.map.frame, header)
            self._tf.publish(TFMessage(transforms=[message]))

    def serve(self) -> None:
        """Publish what waited for a subscriber."""
        for output in self._on_demand:
            output.serve()

    def close(self) -> None:
        """Take the topics down."""
        self._made.close()


def relevancy_image(scene: Scene, answer: Answer) -> Image:
    """The input image under the relevancy that `scene` answers, rgb8, in its size, frame and time."""
    keyframe = scene.keyframe
    return image_message(answer_overlay(keyframe, answer), make_header(keyframe.frame, keyframe.stamp_ns))
