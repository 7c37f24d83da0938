"""The map in the node: it grows, answers in its own frame, is saved, cleared and loaded, and refuses what is
none.
"""

import os
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('tf2_msgs', reason='`make setup` or a ROS distribution brings tf2_msgs')
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from gsemsplat_msgs.msg import PackedSplats, Relevancy
from gsemsplat_msgs.srv import LoadMap, SaveMap
from sensor_msgs.msg import Image, PointCloud2
from std_srvs.srv import Trigger
from support.ros_client import EVERY_PAIR, LATCHED, Stereo, ask, set_parameter
from support.ros_messages import LEFT, picture, table
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from gsemsplat_ros.ros import object_messages
from gsemsplat_ros.ros.client import drive
from gsemsplat_ros.ros.client.client import Client as ScriptClient
from gsemsplat_ros.ros.conversions import make_header, stamp_ns
from gsemsplat_ros.ros.map_keeper import MapKeeper
from gsemsplat_ros.ros.parameters import Parameters
from gsemsplat_ros.ros.tf_buffer import matrix, sample_of
from gsemsplat_ros.scene.coded_file import CodeSpace
from gsemsplat_ros.semantics.objects import Object

# Gaussians that a scene of the fake leaves in the map, at least: 100 on a line of 2 m, in voxels of 3 cm
ONE = 50
DEFAULTS = Parameters()
ROBOT = (-3.0, 0.5, 0.0)


class Mapping:
    """A node that maps in `odom`, its stereo camera, and TF that says where camera and robot are."""

    def __init__(self, client, name, process, folder):
        self.client, self.name, self.process, self.folder = client, name, process, folder
        self.stereo, self.places = Stereo(client, name), []
        for kind, topic in (
            (PointCloud2, 'gaussians'),
            (PointCloud2, 'map'),
            (PackedSplats, 'map/packed'),
            (MarkerArray, 'objects/markers'),
        ):
            client.listen(kind, f'{name}/gsemsplat/{topic}')
        self._tf = client.node.create_publisher(TFMessage, '/tf_static', LATCHED)

    def stand(self, x):
        """The camera is at (x, 0, 1) in odom, the robot at ROBOT."""
        self._tf.publish(
            TFMessage(
                transforms=[
                    TransformStamped(
                        header=make_header('odom', 1),
                        child_frame_id=child,
                        transform=Transform(
                            translation=Vector3(**dict(zip('xyz', map(float, at)))),
                            rotation=Quaternion(w=1.0),
                        ),
                    )
                    for child, at in (('left_optical', (x, 0, 1)), ('base', ROBOT))
                ]
            )
        )

    def status(self, condition=lambda values: True):
        """The values of the next diagnostics of the map that fulfil `condition`, and the status."""
        found = []

        def holds(report):
            for status in report.status:
                values = {v.key: v.value for v in status.values}
                if status.name == f'{self.name}/gsemsplat: map' and condition(values):
                    found[:] = [values, status]
                    return True

        self.client.next('/diagnostics', holds)
        return found

    def scenes(self, count):
        """Send pairs until `count` scenes are in the map, as the diagnostics say; how many Gaussians it has
        then.
        """
        end = time.monotonic() + 60
        while time.monotonic() < end:
            values, _ = self.status()
            if int(values['scenes in it']) >= count:
                return int(values['gaussians'])
            self.stereo.scene()
        raise AssertionError(self.process.output[-3000:])

    def from_places(self, *places):
        """A map of a scene from each place (x in odom [m]), the newest scene from the last."""
        if self.places != list(places):
            assert self.clear().success
            for i, x in enumerate(places):
                self.stand(x)
                self.scenes(i + 1)
            self.places = list(places)

    def leave_out(self):
        """A scene of a camera that TF does not know: it is the newest, and not in the map."""
        self.places.clear()
        return self.stereo.scene(left=picture(LEFT, frame='elsewhere'))

    def map_of(self, width):
        """The newest cloud of the map, once it has `width` points."""
        heard = self.client.heard[self.name + '/gsemsplat/map']
        packed = self.client.heard[self.name + '/gsemsplat/map/packed']
        self.client.until(lambda: packed and len(packed[-1].data) == 28 * width, f'{width} packed splats')
        return self.client.until(
            lambda: heard and heard[-1].width == width and heard[-1], f'a map of {width}'
        )

    def save(self, path):
        return self.client.call(SaveMap, self.name + '/gsemsplat/save_map', SaveMap.Request(path=path))

    def load(self, path):
        self.places.clear()
        return self.client.call(LoadMap, self.name + '/gsemsplat/load_map', LoadMap.Request(path=path))

    def clear(self):
        self.places.clear()
        return self.client.call(Trigger, self.name + '/gsemsplat/clear_map', Trigger.Request())

    def ask(self, text, **more):
        return ask(self.client, text, node=self.name, **more)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('maps')


@pytest.fixture(scope='module')
def make(client, start, folder):
    """Function: a Mapping node of this name and parameters."""
    client.listen(DiagnosticArray, '/diagnostics', 10)

    def started(name, *parameters):
        process = start(
            '-r',
            f'__ns:={name}',
            '-p',
            f'map_directory:={folder}',
            '-p',
            'base_frame:=base',
            *EVERY_PAIR,
            *parameters,
        )
        process.wait_for('waiting for')
        return Mapping(client, name, process, folder)

    return started


@pytest.fixture(scope='module')
def odom(make):
    return make('/m', '-p', 'map_frame:=odom')


@pytest.fixture
def mapped(odom):
    """The node with a map from two places 10 m apart; the robot is at the second."""
    odom.from_places(0, 10)
    return odom


@pytest.fixture
def parameters(odom):
    """Function that sets a parameter of `odom`; afterwards all have their values again."""
    yield lambda name, value: set_parameter(odom.client, name, value, node='/m/gsemsplat')
    for name, value in (
        ('approach_distance_m', DEFAULTS.approach_distance_m),
        ('queries', ['']),
        ('map_max_gaussians', DEFAULTS.map_max_gaussians),
    ):
        assert set_parameter(odom.client, name, value, node='/m/gsemsplat').successful


def test_before_tf_speaks_nothing_enters_the_map(odom):
    assert odom.clear().success
    odom.leave_out()
    values, status = odom.status(lambda values: 'the map begins when TF says' in values['last scene'])
    assert status.level == b'\x01' and "map_frame 'odom'" in status.message
    assert (values['gaussians'], values['frame']) == ('0', 'odom')
    odom.process.wait_for('a scene was left out of the map')
    assert not odom.save('nothing').success and not list(odom.folder.glob('nothing*'))
    assert odom.ask('chair').header.frame_id == 'elsewhere'  # the scene answers by itself


def test_the_map_grows_and_a_standing_robot_adds_nothing(odom):
    assert odom.clear().success
    odom.stand(0)
    count = odom.scenes(1)
    assert ONE <= count < 100
    cloud = odom.map_of(count)
    assert cloud.header.frame_id == 'odom' and len(cloud.fields) == 12
    line = table(cloud)
    line = line[np.abs(line['z'] - 3) < 1e-3]  # 2 m before the camera, which is 1 m high
    assert len(line) > ONE and np.ptp(line['x']) > 1.9
    assert odom.scenes(3) == count
    odom.stand(10)
    grown = odom.scenes(4)
    assert abs(grown - 2 * count) <= 5  # by where the edges of the voxels lie
    assert np.ptp(table(odom.map_of(grown))['x']) > 11
    assert odom.status()[1].level == b'\x00'


def test_a_query_answers_in_the_frame_of_the_map(odom, mapped):
    odom.client.heard['/m/gsemsplat/objects/markers'].clear()
    answer = odom.ask('chair', with_image=True, with_cloud=True)
    assert answer.success and answer.found and answer.score == 0.875
    assert answer.header.frame_id == 'odom' and answer.cloud[0].header.frame_id == 'odom'
    middle = answer.objects[0].pose.position
    assert 5 < middle.x < 7 and middle.z > 4.5
    assert (answer.peak.x, answer.peak.z) == (middle.x, middle.z)
    assert (answer.peak_u, answer.peak_v) == (17.0, 13.0)  # the newest image shows it too
    assert (answer.image[0].width, answer.image[0].header.frame_id) == (64, 'left_optical')
    markers = odom.client.until(
        lambda: [
            a.markers
            for a in odom.client.heard['/m/gsemsplat/objects/markers']
            if any(m.ns == 'chair' for m in a.markers)
        ],
        'its marker',
    )[-1]
    assert markers[1].header.frame_id == 'odom' and markers[1].pose.position.x == middle.x
    missing = odom.ask('unicorn')
    assert (
        missing.success
        and not missing.found
        and not missing.approach_found
        and 'approach' not in missing.message
    )
    assert 'internal error' in odom.ask('boom').message and odom.ask('chair').success


def test_a_query_returns_a_pose_in_front_of_the_object_that_faces_it(
    odom, mapped, parameters, domain, monkeypatch
):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(domain))  # for the script
    answer = odom.ask('chair')
    assert answer.approach_found, answer.message
    thing, at, turn = answer.objects[0], answer.approach.position, answer.approach.orientation
    away = np.maximum(
        np.abs([at.x - thing.pose.position.x, at.y - thing.pose.position.y])
        - [thing.size.x / 2, thing.size.y / 2],
        0,
    )
    assert 0.5 < np.linalg.norm(away) < 0.75  # approach_distance_m is 0.6
    assert at.x < thing.pose.position.x and at.z <= ROBOT[2]  # on the robot's side, on the floor
    yaw = np.arctan2(thing.pose.position.y - at.y, thing.pose.position.x - at.x)
    np.testing.assert_allclose(
        [turn.x, turn.y, turn.z, turn.w], [0, 0, np.sin(yaw / 2), np.cos(yaw / 2)], atol=1e-6
    )
    with ScriptClient() as script:
        assert drive.find(script, 'chair', '/m/query').pose.position == at
        with pytest.raises(ValueError, match="'unicorn' not found"):
            drive.find(script, 'unicorn', '/m/query')
    assert parameters('approach_distance_m', 1.5).successful
    farther = odom.ask('chair').approach.position
    assert 0.7 < np.hypot(farther.x - at.x, farther.y - at.y) < 1.1


def test_standing_queries_ask_the_whole_map_and_show_the_keyframe(odom, mapped, parameters):
    client, topic = odom.client, f'{odom.name}/gsemsplat/relevancy'
    for kind, name in ((Relevancy, topic), (Image, topic + '/image')):
        client.listen(kind, name)
    assert parameters('queries', ['chair', 'door']).successful
    client.until(lambda: {'chair', 'door'} <= {m.text for m in client.heard[topic]}, 'answers at once')
    stamp = stamp_ns(odom.stereo.scene().header)
    chair, door = (
        client.until(lambda: [m for m in client.of(topic, stamp) if m.text == text], text)[-1]
        for text in ('chair', 'door')
    )
    assert chair.header.frame_id == door.header.frame_id == 'odom'
    asked = odom.ask('chair')
    assert (
        chair.found and chair.peak == asked.peak and chair.peak.z > 2.5
    )  # the fake's: 2 m above the middle of the map
    assert (chair.peak_u, chair.peak_v) == (17.0, 13.0)  # where this image shows it
    assert (
        not door.found and door.score == 0.25 and np.isnan(door.peak.x) == np.isnan(odom.ask('door').peak.x)
    )
    image = client.until(lambda: client.of(topic + '/image', stamp), 'the image of the keyframe')[-1]
    assert (image.header.frame_id, image.width, image.height) == ('left_optical', 64, 48)
    markers = client.heard[f'{odom.name}/gsemsplat/objects/markers']
    client.until(
        lambda: [
            m
            for a in markers[-4:]
            for m in a.markers
            if m.ns == 'chair' and m.header.frame_id == 'odom' and stamp_ns(m.header) == stamp
        ],
        'objects in the map',
    )


def test_the_first_scene_answers_in_the_frame_of_the_map_where_tf_places_it(odom, domain, monkeypatch):
    odom.from_places(7)
    answer = odom.ask('chair', with_cloud=True)
    assert answer.header.frame_id == answer.cloud[0].header.frame_id == 'odom', answer.message
    box = answer.objects[0]
    # of the fake: what is relevant lies at 0 < x < 1, 2 m before the camera, which stands at (7, 0, 1)
    assert stamp_ns(answer.header) == odom.stereo.stamp
    assert abs(box.pose.position.x - 7.5) < 0.1 and abs(box.size.x - 1) < 0.1
    assert abs(box.pose.position.z - 3) < 1e-3 and box.size.z < 1e-3
    assert (answer.peak.x, answer.peak.y, answer.peak.z) == (7.5, 0.25, 3.0)
    assert answer.approach_found, answer.message
    assert answer.approach.position.z <= ROBOT[2] and answer.approach.orientation.x == 0
    monkeypatch.setenv('ROS_DOMAIN_ID', str(domain))  # for the script
    with ScriptClient() as script:
        goal = drive.find(script, 'chair', '/m/query')
    assert (goal.header.frame_id, goal.header.stamp.sec) == ('odom', 0)
    odom.leave_out()
    assert odom.ask('door').header.frame_id == 'elsewhere'  # nothing places this one


def test_what_the_map_does_not_know_is_answered_by_a_scene_that_was_left_out(odom, mapped):
    door = odom.ask('door')
    assert door.success and not door.found and door.header.frame_id == 'odom'
    odom.leave_out()
    odom.status(lambda values: 'shares too little' in values['last scene'])
    door, chair = odom.ask('door'), odom.ask('chair')
    assert door.found and door.header.frame_id == 'elsewhere' and door.objects[0].pose.position.x == -1.0
    assert chair.found and chair.header.frame_id == 'odom'


def test_save_clear_load_gives_the_same_answer(odom, mapped, make):
    count = int(odom.status()[0]['gaussians'])
    before = odom.ask('chair')
    saved = odom.save('home/kitchen')
    assert saved.success and str(count) in saved.message, saved.message
    assert sorted(p.name for p in (odom.folder / 'home').iterdir()) == ['kitchen.ply', 'kitchen.safetensors']
    assert odom.clear().success
    odom.map_of(0)
    assert odom.ask('chair').header.frame_id == 'odom'  # the newest scene, which TF places; the map is empty
    loaded = odom.load('home/kitchen')
    assert loaded.success and f'{count} Gaussians' in loaded.message, loaded.message
    odom.map_of(count)
    after = odom.ask('chair')
    assert (after.header.frame_id, after.objects, after.peak) == ('odom', before.objects, before.peak)
    # a node that never saw an image
    blind = make('/n', '-p', 'map_frame:=odom')
    odom.stand(10)
    assert 'no scene yet' in blind.ask('chair').message
    assert blind.load('home/kitchen.safetensors').success
    answer = blind.ask('chair', with_image=True)
    assert (answer.objects, answer.peak) == (before.objects, before.peak)
    assert np.isnan(answer.peak_u) and not answer.image
    assert answer.approach_found or 'where the robot is' in answer.message


def test_what_is_no_map_is_refused_and_the_node_lives_on(odom, mapped):
    before = odom.ask('chair')
    assert odom.save('whole').success
    data = (odom.folder / 'whole.safetensors').read_bytes()
    (odom.folder / 'half.safetensors').write_bytes(data[: len(data) // 2])
    (odom.folder / 'foreign.safetensors').write_bytes(b'PK\x03\x04 a pickle in a zip')
    for name, words in (
        ('half', 'is no map, or only a part of one'),
        ('foreign', 'is no map'),
        ('none', 'no map at'),
    ):
        answer = odom.load(name)
        assert not answer.success and words in answer.message, answer.message
    outside = odom.folder.parent / 'outside'
    os.symlink(odom.folder.parent, odom.folder / 'link')
    os.symlink('/etc/passwd', odom.folder / 'passwd.safetensors')
    for name in ('../outside', str(outside), 'link/outside', 'passwd', '', '.', 'x' * 300, 'a/../../outside'):
        for answer in (odom.save(name), odom.load(name)):
            assert not answer.success and answer.message and 'internal' not in answer.message, (
                name,
                answer.message,
            )
    assert not list(odom.folder.parent.glob('outside*'))
    assert odom.ask('chair').objects == before.objects
    assert 'a service of the map failed' not in odom.process.output


def test_the_map_keeps_its_budget(odom, parameters):
    assert odom.clear().success
    odom.stand(10)
    assert odom.scenes(1) > 20
    assert parameters('map_max_gaussians', 20).successful
    assert odom.scenes(2) == 19  # a sixteenth is made free for what comes
    assert parameters('map_max_gaussians', 0).successful
    before = odom.status()[0]['scenes in it']
    odom.stereo.scene()
    odom.stereo.scene()
    assert odom.status()[0]['scenes in it'] == before
    assert not parameters('map_max_gaussians', -1).successful
    assert 'cannot change' in parameters('map_directory', '/tmp').reason


def test_without_tf_a_scene_that_nothing_ties_to_the_map_is_left_out_and_counted(make):
    lone = make('/lone')
    lone.client.listen(TFMessage, '/tf', 10)
    moving = lone.client.heard['/tf']
    lone.stereo.scene()
    lone.stereo.scene()
    values, status = lone.status(lambda values: int(values['scenes left out']) >= 1)
    assert (values['scenes in it'], values['frame']) == ('1', 'lone/gsemsplat_map')
    # RViz in the camera's frame shows such a map too: it hangs on the camera, which looks along x of the map
    tied = lone.client.until(lambda: moving and moving[0].transforms[0], 'the place of the map')
    assert (tied.header.frame_id, tied.child_frame_id) == ('left_optical', 'lone/gsemsplat_map')
    _, sample = sample_of(tied)
    camera_from_map = matrix(sample.translation, sample.quat)
    np.testing.assert_allclose(
        camera_from_map, [[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], atol=1e-6
    )
    assert status.level == b'\x01' and 'shares too little with the last scene' in status.message
    answer = lone.ask('chair')
    assert answer.success and answer.header.frame_id == 'left_optical'


@pytest.mark.parametrize(
    'name',
    [
        '',
        ' ',
        '.',
        '..',
        '../x',
        '/etc/passwd',
        'a/../../x',
        'a\0b',
        'y' * 5000,
        'a\n[INFO]',
        '\x1b[31mred',
        '\ud800',
    ],
)
def test_names_outside_the_folder(tmp_path, name):
    keeper = MapKeeper(Parameters(map_directory=str(tmp_path / 'maps')), CodeSpace('', '', '', 32))
    with pytest.raises(ValueError, match='wanted a file below map_directory'):
        keeper.path(name)
    assert keeper.path('a/b.v2') == (tmp_path / 'maps/a/b.v2.safetensors').resolve()


def test_objects_as_detections():
    vision_msgs = pytest.importorskip('vision_msgs.msg', reason='vision_msgs comes with a ROS distribution')
    answer = SimpleNamespace(text='chair', objects=(Object((1.0, 2.0, 3.0), (0.5, 0.25, 1.0), 0.75),))
    header = make_header('odom', 5)
    array = object_messages.object_detections([(answer, header)], header)
    assert isinstance(array, vision_msgs.Detection3DArray) and array.header == header
    (detection,) = array.detections
    assert (detection.bbox.center.position.z, detection.bbox.size.x) == (3.0, 0.5)
    assert (
        detection.results[0].hypothesis.class_id == 'chair' and detection.results[0].hypothesis.score == 0.75
    )
