"""The real node with the shipped network starts again, without TF: the map that it loads grows on, and knows
its objects by their ids."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from gsemsplat_msgs.srv import LoadMap, SaveMap
from support.shipped_robot import Robot

from gsemsplat_ros.datasets import demo_pairs
from gsemsplat_ros.ros.client import node_process
from gsemsplat_ros.ros.client.client import Client
from gsemsplat_ros.ros.client.player import PARAMETERS

pytestmark = pytest.mark.skipif(find_spec('stereodemo') is None, reason='the demo images are missing')


def room(name):
    """The pair of a demo scene, from one camera."""
    pair = demo_pairs.load_scene(name).pair
    return replace(pair, first=replace(pair.first, frame='left'), second=replace(pair.second, frame='left'))


def darker(pair):
    """The same on another day."""
    rng = np.random.default_rng(0)
    images = [0.8 * view.image + rng.normal(0, 2, view.image.shape) for view in (pair.first, pair.second)]
    first, second = (image.clip(0, 255).astype(np.uint8) for image in images)
    return replace(pair, first=replace(pair.first, image=first), second=replace(pair.second, image=second))


@pytest.mark.heavy
def test_after_a_restart_the_loaded_map_goes_on_without_tf(tmp_path, monkeypatch):
    for name in ('ROS_DOMAIN_ID', *node_process.PROFILES):
        monkeypatch.delenv(name, raising=False)
    here = room('bedroom_chair')

    def start(log):
        return node_process.NodeProcess(
            {**PARAMETERS, 'map_max_gaussians': 100_000, 'map_directory': str(tmp_path)}, tmp_path / log
        )

    with start('first.log') as node, Client() as client:
        robot = Robot(client, node, here)
        robot.sees(here, 10)
        scenes = robot.sees(darker(here), 11).map_scenes
        assert scenes >= 2  # a pair is sent again where the answer is late
        chair = robot.finds('chair')
        assert chair.id == 1 and 0 < chair.first_seen.sec <= chair.last_seen.sec, chair
        robot.call(SaveMap, '/gsemsplat/save_map', SaveMap.Request(path='home'))
    with start('second.log') as node, Client() as client:
        robot = Robot(client, node, here)
        robot.call(LoadMap, '/gsemsplat/load_map', LoadMap.Request(path='home'))
        robot.until(lambda: robot.status.map_scenes == scenes, 'the loaded map')
        again = robot.finds('chair')
        assert (again.id, again.first_seen, again.last_seen) == (1, chair.first_seen, chair.last_seen)
        elsewhere = robot.sees(room('corridor'), 20)
        assert elsewhere.map_scenes == scenes and elsewhere.scenes_left_out >= 1
        assert 'nothing ties this scene to the map that was loaded, and' in elsewhere.fusion_reason
        here_again = robot.sees(darker(here), 30)
        assert here_again.map_scenes > scenes, here_again.fusion_reason
        assert here_again.fusion_reason in ('place of scene 1', 'features of both images')
        later = robot.finds('chair')
        assert later.id == 1 and later.times_seen > chair.times_seen and later.first_seen == chair.first_seen
        assert later.last_seen.sec > chair.last_seen.sec
