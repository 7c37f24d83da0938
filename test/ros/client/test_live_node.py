"""`gsemsplat view --live` beside a real node process: it follows, asks, says when the node has gone, and
comes back.
"""

import json
import math
import os
import subprocess
import sys
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip('viser')

from geometry_msgs.msg import PoseStamped
from gsemsplat_msgs.msg import Object as ObjectMessage
from gsemsplat_msgs.msg import Status
from gsemsplat_msgs.srv import Changes, Query
from sensor_msgs.msg import Image, PointCloud2, PointField
from support.live_page import some
from support.node_process import NodeProcess
from support.page_visitor import Visitor
from support.ros_client import EVERY_PAIR, Stereo

from gsemsplat_ros.live.visitor_overlay import SPLATS
from gsemsplat_ros.ros.client.live_node import PendingQuestion, page_answer
from gsemsplat_ros.ros.client.node_scenes import NodeScenes, NodeState
from gsemsplat_ros.ros.client.reply import reply_of
from gsemsplat_ros.ros.clouds import cloud_to_gaussians, gaussian_cloud
from gsemsplat_ros.ros.conversions import make_header
from gsemsplat_ros.ros.qos import LATCHED

CLOUD = '/a/gsemsplat/gaussians'


@pytest.fixture
def page(domain):
    """The command as a process in the domain of the test."""
    process = subprocess.Popen(
        [
            sys.executable,
            '-m',
            'gsemsplat_ros.cli',
            'view',
            '--live',
            '--node',
            '/a/gsemsplat',
            '--service',
            '/a/query',
            '--port',
            '0',
            '--json',
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(
            os.environ,
            ROS_DOMAIN_ID=str(domain),
            OMP_NUM_THREADS='1',
            ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST',
        ),
    )
    yield json.loads(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()


def started(domain, *parameters):
    """A node whose answers are known (node_program.py)."""
    node = NodeProcess('-r', '__ns:=/a', *EVERY_PAIR, *parameters, domain=domain)
    node.wait_for('waiting for')
    return node


def test_it_follows_the_node_asks_it_and_survives_its_restart(page, domain, client):
    client.listen(PointCloud2, CLOUD)
    visitor, other = Visitor(page['port']), Visitor(page['port'])
    stereo = Stereo(client)  # one, whose stamps go on: a cloud of the first node is none of the second
    visitor.reads('waiting for the node /a/gsemsplat')
    visitor.find('chair')
    visitor.reads('no node is running')
    node = started(domain, '-p', 'map_max_gaussians:=0')
    try:
        visitor.reads('following /a/gsemsplat')
        stereo.scene()
        for one in (visitor, other):
            one.reads('100 Gaussians in left_optical')
            one.until(lambda: SPLATS in one.names() and 'position' in one.camera, 'splats')
            one.move(position=(1.0, 0.0, -3.0))  # out of the first camera, where it began
            one.until(lambda: {'/cameras/0', '/cameras/1'} <= one.names(), 'two cameras')
        visitor.find('chair')
        visitor.reads('<b>chair</b>: found, score 0.88')
        visitor.until(lambda: {'/answer/box1', '/answer/label1'} <= visitor.names(), 'a box')
        visitor.until(
            lambda: any(m['type'] == 'GuiImageMessage' for m in visitor.gui.values()), 'the newest image'
        )
        assert '/answer/box1' not in other.names()  # that was the other's question
        visitor.find('unicorn')
        visitor.reads('<b>unicorn</b>: not found')
    finally:
        node.stop()
        node.kill()
    visitor.reads('the node /a/gsemsplat has gone')
    assert '100 Gaussians' in visitor.text() and SPLATS in visitor.names()  # what it showed last stays
    visitor.find('door')
    visitor.reads('the node is not running')
    node = started(domain, '-p', 'map_max_gaussians:=0')
    try:
        visitor.reads('following /a/gsemsplat')
        stereo.scene()
        visitor.find('door')
        visitor.reads('<b>door</b>: found, score 0.75')
        Visitor(page['port']).reads('100 Gaussians in left_optical')
    finally:
        node.kill()


def foreign_clouds():
    """Clouds that are none of gsemsplat, and what is said of each."""
    good = gaussian_cloud(some(50, frame='left_optical'), make_header('left_optical', 5))

    def but(**changes):
        cloud = gaussian_cloud(some(50, frame='left_optical'), make_header('left_optical', 5))
        for name, value in changes.items():
            setattr(cloud, name, value)
        return cloud

    not_finite = gaussian_cloud(some(50, frame='left_optical'), make_header('left_optical', 5))
    cloud_points_of(not_finite)['scale_1'][7] = np.nan
    kinds = [PointField(name=f.name, offset=f.offset, datatype=f.datatype, count=1) for f in good.fields]
    kinds[0].datatype = PointField.FLOAT64
    return {
        'x y z only': (but(fields=good.fields[:3], point_step=12), 'no field rgb'),
        'too little data': (but(width=60), 'wanted points of at least'),
        'no data': (but(data=b''), 'wanted points of at least'),
        'point_step 0': (but(point_step=0), 'wanted points of at least'),
        'big-endian': (but(is_bigendian=True), 'big-endian'),
        'many': (but(width=2**32 - 1, height=2**32 - 1), 'wanted points of at least'),
        'float64': (but(fields=kinds), 'no field x of float32'),
        'NaN': (not_finite, 'not finite'),
    }


def cloud_points_of(cloud):
    """The points of a cloud of ours, to be written."""
    names = [field.name for field in cloud.fields]
    return np.frombuffer(cloud.data, [(name, '<f4') for name in names])


@pytest.mark.parametrize('kind', foreign_clouds())
def test_a_foreign_cloud_is_refused_in_one_line(kind):
    cloud, words = foreign_clouds()[kind]
    with pytest.raises(ValueError, match=words) as refused:
        cloud_to_gaussians(cloud)
    assert '\n' not in str(refused.value)


def test_foreign_clouds_are_passed_over_and_questions_go_on(page, domain, client):
    client.listen(PointCloud2, CLOUD)
    node = started(domain, '-p', 'map_max_gaussians:=0')
    visitor = Visitor(page['port'])
    try:
        visitor.reads('following /a/gsemsplat')
        Stereo(client).scene()
        visitor.reads('100 Gaussians in left_optical')
        foreign = client.node.create_publisher(PointCloud2, CLOUD, LATCHED)
        client.until(lambda: foreign.get_subscription_count() >= 1, 'the page to listen')
        for number, (cloud, words) in enumerate(foreign_clouds().values()):
            foreign.publish(cloud)
            visitor.reads(words)
            assert '100 Gaussians in left_optical' in visitor.text()  # what it showed last stays
            visitor.find(f'chair {number}')
            visitor.reads(f'<b>chair {number}</b>: found')
        foreign.publish(gaussian_cloud(some(70, frame='left_optical'), make_header('left_optical', 9)))
        visitor.reads('70 Gaussians in left_optical')
        visitor.until(lambda: 'not shown' not in visitor.text(), 'no trouble')
    finally:
        visitor.close()
        node.kill()


def test_a_foreign_service_is_said_and_the_page_lives_on(page, client):
    asked = []

    def answer(request, response):
        asked.append(request.text)
        response.success = True
        response.image = [Image(width=5, height=7, encoding='rgb8', step=15, data=b'abc')]
        return response

    service = client.node.create_service(Query, '/a/query', answer)
    status = client.node.create_publisher(Status, '/a/gsemsplat/status', LATCHED)
    visitor = Visitor(page['port'])
    try:

        def reads(words):
            status.publish(Status())
            client.spin()
            return words in visitor.text()

        client.until(lambda: reads('following /a/gsemsplat'), 'the page to follow')
        for word in ('chair', 'door'):
            visitor.find(word)
            client.until(
                lambda word=word: reads('has 3 bytes of data') and word in asked, f'{word} to be asked'
            )
    finally:
        visitor.close()
        client.node.destroy_service(service)
        client.node.destroy_publisher(status)


def test_a_pose_that_is_none_is_not_shown():
    cloud = gaussian_cloud(some(500, frame='left_optical'), make_header('left_optical', 1))
    for numbers in ((math.nan, 1.0), (0.5, 0.0), (0.5, math.inf)):
        pose = PoseStamped(header=cloud.header)
        pose.pose.position.x, pose.pose.orientation.w = numbers
        shown = NodeScenes('/gsemsplat', 1000).of(NodeState(scene=cloud, second_pose=pose))
        assert [camera.name for camera in shown.cameras] == ['first camera']


def test_a_map_takes_the_place_of_the_scene_once_queries_search_it():
    scenes = NodeScenes('/gsemsplat', 1000)
    state = NodeState(
        scene=gaussian_cloud(some(100, frame='left_optical'), make_header('left_optical', 1)),
        map=gaussian_cloud(some(200, frame='odom'), make_header('odom', 1)),
        status=Status(map_scenes=1),
    )
    shown = scenes.of(state)
    assert (shown.frame, len(shown.rows), shown.unit) == ('left_optical', 100, 'm')
    assert scenes.of(replace(state)) is shown
    state = replace(state, status=Status(map_scenes=2, map_scale_source='network'))
    shown = scenes.of(state)
    assert (shown.frame, len(shown.rows), shown.unit) == ('odom', 200, 'units')
    assert shown.up == (0.0, 0.0, 1.0)
    answered = replace(state, answer_frame='left_optical')  # the node answered by the newest scene
    assert scenes.of(answered).frame == 'left_optical'
    loaded = replace(state, status=Status(map_from_file=True))
    assert scenes.of(loaded).frame == 'odom'
    assert scenes.of(NodeState()) is None


def test_the_second_camera_is_shown_where_its_pose_belongs_to_the_cloud():
    cloud = gaussian_cloud(some(500, frame='left_optical'), make_header('left_optical', 1))
    pose = PoseStamped(header=cloud.header)
    pose.pose.position.x, pose.pose.orientation.w = 0.5, 1.0
    shown = NodeScenes('/gsemsplat', 1000).of(NodeState(scene=cloud, second_pose=pose))
    assert [camera.name for camera in shown.cameras] == ['first camera', 'second camera']
    assert shown.cameras[1].world_from_camera[:3, 3].tolist() == [0.5, 0.0, 0.0]
    late = PoseStamped(header=make_header('left_optical', 2), pose=pose.pose)
    shown = NodeScenes('/gsemsplat', 1000).of(NodeState(scene=cloud, second_pose=late))
    assert [camera.name for camera in shown.cameras] == ['first camera']


def test_what_has_gone_comes_from_the_changes_and_is_that_of_the_text():
    pending = PendingQuestion(Query.Request(text='chair'), Future())
    assert not pending.answered and pending.gone == ()
    pending.response, pending.changes = Future(), Future()
    pending.response.set_result(Query.Response())
    assert not pending.answered
    things = [
        ObjectMessage(id=number, state=ObjectMessage.GONE, texts=texts, scores=[0.5] * len(texts))
        for number, texts in ((4, ['chair']), (5, ['lamp']), (9, ['office chair', 'chair']))
    ]
    pending.changes.set_result(Changes.Response(success=True, gone=things))
    assert pending.answered and [thing.id for thing in pending.gone] == [9, 4]  # newest first


def test_an_answer_in_another_frame_is_said_and_draws_no_boxes():
    cloud = gaussian_cloud(some(100, frame='left_optical'), make_header('left_optical', 1))
    shown = NodeScenes('/gsemsplat', 1000).of(NodeState(scene=cloud))
    response = Query.Response(success=True, found=True, score=0.75, header=make_header('left_optical', 1))
    response.objects = [ObjectMessage(score=0.75)]
    request = Query.Request(text='chair')
    answer = page_answer(reply_of(request, response), shown, 0.1)
    assert len(answer.answer.objects) == 1 and not answer.note
    response.header.frame_id = 'odom'
    answer = page_answer(reply_of(request, response), shown, 0.1)
    assert answer.answer.objects == () and answer.note == 'this answer is in odom, which is not shown yet'
    with pytest.raises(ValueError, match='have not come yet'):
        page_answer(reply_of(request, response), None, 0.1)
