"""Two robots and a map server in one domain: maps are saved, merged, loaded, and asked by one client."""

import json

import numpy as np
import pytest

pytest.importorskip('tf2_msgs', reason='`make setup` or a ROS distribution brings tf2_msgs')
from gsemsplat_msgs.msg import Status
from gsemsplat_msgs.srv import LoadMap, SaveMap
from sensor_msgs.msg import PointCloud2
from support.fleet_node import BOX, FIRST, map_from_room
from support.ros_client import EVERY_PAIR, LATCHED, Stereo, ask
from support.ros_messages import camera_info, picture
from tf2_msgs.msg import TFMessage

from gsemsplat_ros.cli import main

ROBOTS = {'a': range(0, 7), 'b': range(FIRST['b'], 15)}  # numbers of the poses along their ways


class Robot:
    """A node in a namespace, its stereo camera, and its newest status."""

    def __init__(self, client, start, folder, name):
        self.client, self.name = client, f'/{name}'
        arguments = '-r', f'__ns:={self.name}', '-r', '/tf:=tf', '-p', f'map_directory:={folder}', *EVERY_PAIR
        start(*arguments, program='fleet_node.py').wait_for('waiting for')
        client.listen(PointCloud2, f'{self.name}/gsemsplat/gaussians')
        client.listen(TFMessage, f'{self.name}/tf', 10)
        client.listen(Status, f'{self.name}/gsemsplat/status', LATCHED)
        self.stereo = Stereo(client, self.name)

    @property
    def status(self):
        heard = self.client.heard[f'{self.name}/gsemsplat/status']
        return heard[-1] if heard else Status()

    def sees(self, number):
        """The status after a scene at pose `number` was fused, or left out."""
        before = self.status.map_scenes + self.status.scenes_left_out
        frame = f'{self.name[1:]}/left_optical'
        self.stereo.scene(left=picture((40, number, 60), frame=frame), left_info=camera_info(frame=frame))
        self.client.until(lambda: self.status.map_scenes + self.status.scenes_left_out > before, 'the map')
        return self.status

    def save(self, name):
        request = SaveMap.Request(path=name)
        return self.client.call(SaveMap, f'{self.name}/gsemsplat/save_map', request)

    def load(self, name):
        request = LoadMap.Request(path=name)
        response = self.client.call(LoadMap, f'{self.name}/gsemsplat/load_map', request)
        assert response.success, response.message

    def chair(self, frame):
        """Where the robot's map has the chair, None: nowhere."""
        answer = ask(self.client, 'chair', node=self.name)
        assert answer.success and answer.header.frame_id == frame, (answer.message, answer.header)
        if not answer.found:
            return None
        at = answer.objects[0].pose.position
        return np.array([at.x, at.y, at.z])

    def placed(self):
        """The frames of the newest transform that the node publishes: (camera, map)."""
        transform = self.client.next(f'{self.name}/tf').transforms[0]
        return transform.header.frame_id, transform.child_frame_id


def box_in(frame):
    """Its centre."""
    move = map_from_room(frame)
    return move[:3, :3] @ BOX.mean(0) + move[:3, 3]


@pytest.mark.heavy
def test_what_one_robot_saw_the_other_finds_in_the_merged_map(
    client, domain, start, tmp_path, capsys, monkeypatch
):
    client.listen(TFMessage, '/tf', 10)
    a, b, server = (Robot(client, start, tmp_path, name) for name in ('a', 'b', 'server'))
    for robot, name in (a, 'a'), (b, 'b'):
        for number in ROBOTS[name]:
            status = robot.sees(number)
            assert not status.scenes_left_out, (name, number, status.fusion_reason)
    assert a.chair('a/gsemsplat_map') is None
    np.testing.assert_allclose(b.chair('b/gsemsplat_map'), box_in('b/gsemsplat_map'), atol=0.25)

    for robot, name in (a, 'a'), (b, 'b'):
        assert robot.save(name).success
    files = [str(tmp_path / f'{name}.safetensors') for name in ('a', 'b', 'both')]
    assert main(['map', 'merge', *files, '--json']) == 0
    place = json.loads(capsys.readouterr().out)['place']
    truth = map_from_room('a') @ np.linalg.inv(map_from_room('b'))
    np.testing.assert_allclose(place['a_from_b'], truth, atol=0.05)

    for robot in (a, b, server):
        robot.load('both')
        np.testing.assert_allclose(robot.chair('a/gsemsplat_map'), box_in('a'), atol=0.25)
    monkeypatch.setenv('ROS_DOMAIN_ID', str(domain))
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    assert main(['query', 'chair', '--service', '/server/query', '--timeout', '60', '--json']) == 0
    told = json.loads(capsys.readouterr().out)
    assert told['frame'] == 'a/gsemsplat_map' and told['queries'][0]['found']

    # both robots know where they are in it, and go on
    for robot, number in (a, 2), (b, 11):
        scenes = robot.status.map_scenes
        assert robot.sees(number).map_scenes == scenes + 1, robot.status.fusion_reason
        assert 'place of scene' in robot.status.fusion_reason
        # the map is a frame below each robot's camera: in one /tf it would have two parents
        assert robot.placed() == (f'{robot.name[1:]}/left_optical', 'a/gsemsplat_map')
    assert not client.heard['/tf']
