"""The known state of a followed node, and what the live page shows of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from geometry_msgs.msg import PoseStamped
from gsemsplat_msgs.msg import Status
from sensor_msgs.msg import PointCloud2

from gsemsplat_ros.gaussians.rotations import quats_to_rotations
from gsemsplat_ros.live.shown_scene import (
    ShownCamera,
    ShownScene,
    first_camera_of,
    shown_from_above,
    shown_from_camera,
)
from gsemsplat_ros.ros.clouds import cloud_to_gaussians
from gsemsplat_ros.ros.diagnostics import OK, lines
from gsemsplat_ros.scene.scene import is_metric


@dataclass(frozen=True, eq=False)
class NodeState:
    """The newest of what a node publishes; never changes.

    scene, map: the clouds of ~/gaussians and ~/map; second_pose: of the second camera in the frame of the
    first; None: nothing came yet. status_at: when the newest status came [s, time.monotonic], None: never.
    answer_frame: of the newest response, '' before one."""

    scene: PointCloud2 | None = None
    map: PointCloud2 | None = None
    second_pose: PoseStamped | None = None
    status: Status = field(default_factory=Status)
    status_at: float | None = None
    answer_frame: str = ''

    @property
    def searched_cloud(self) -> PointCloud2 | None:
        """The cloud that queries search: the map or the newest scene; None: nothing to show."""
        cloud = self.map if self._searches_map() else self.scene
        return cloud if cloud is not None and cloud.width else None

    @property
    def trouble(self) -> str:
        """What troubles the node first, in words, or ''."""
        if self.status_at is not None:
            for part, line in lines(self.status).items():
                if line.level != OK:
                    return f'{part}: {line.message}'
        return ''

    def _searches_map(self) -> bool:
        if self.map is None or not self.map.width:
            return False
        if self.answer_frame:
            return self.answer_frame == self.map.header.frame_id
        return self.scene is None or self.status.map_from_file or self.status.map_scenes > 1


class NodeScenes:
    """Makes the scene that a page shows, each cloud once. node: its full name; budget: Gaussians that a page
    draws at most."""

    def __init__(self, node: str, budget: int):
        self._node, self._budget = node, budget
        self._made: dict[
            str, tuple[tuple, ShownScene]
        ] = {}  # 'scene' and 'map': made of what, and the newest

    def of(self, state: NodeState) -> ShownScene | None:
        """The scene to show; None: nothing came yet. The same state gives the same scene. Raises ValueError
        for a cloud that is none of gsemsplat."""
        cloud = state.searched_cloud
        if cloud is None:
            return None
        name = 'map' if cloud is state.map else 'scene'
        scale_source = state.status.map_scale_source if name == 'map' else state.status.scale_source
        metric = is_metric(scale_source)
        pose = state.second_pose
        if pose is not None and (pose.header.stamp != cloud.header.stamp or not _is_rigid(pose)):
            pose = None
        made_of = cloud, metric, pose
        if name not in self._made or not _same(self._made[name][0], made_of):
            self._made[name] = made_of, self._make(name, cloud, metric, pose)
        return self._made[name][1]

    def _make(self, name: str, cloud: PointCloud2, metric: bool, pose: PoseStamped | None) -> ShownScene:
        gaussians = cloud_to_gaussians(cloud)
        if name == 'map':
            return shown_from_above(f'Map of {self._node}', gaussians, self._budget, metric)
        cameras = scene_cameras(gaussians.means.numpy(), pose)
        return shown_from_camera(f'Newest scene of {self._node}', gaussians, self._budget, metric, cameras)


def scene_cameras(means: np.ndarray, second_pose: PoseStamped | None) -> tuple[ShownCamera, ...]:
    """The cameras of a scene whose means (N, 3) lie in the first's frame; the second only with its pose."""
    first = first_camera_of(means)
    if first is None:
        return ()
    if second_pose is None:
        return (first,)
    q, p = second_pose.pose.orientation, second_pose.pose.position
    first_from_second = np.eye(4)
    first_from_second[:3, :3] = quats_to_rotations(np.array([q.w, q.x, q.y, q.z]))
    first_from_second[:3, 3] = p.x, p.y, p.z
    return first, ShownCamera('second camera', first_from_second, first.fov, first.aspect)


def _is_rigid(pose: PoseStamped) -> bool:
    """Whether the numbers are a pose at all."""
    q, p = pose.pose.orientation, pose.pose.position
    return bool(np.isfinite([p.x, p.y, p.z]).all() and 0.9 < np.linalg.norm([q.w, q.x, q.y, q.z]) < 1.1)


def _same(one: tuple, other: tuple) -> bool:
    """Whether two tuples hold the same objects: messages are compared by identity, not byte by byte."""
    return all(a is b for a, b in zip(one, other))
