"""The node as others see it: a second process, real rclpy, a domain of its own, deadlines; values, not only
arrival.
"""

import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from gsemsplat_msgs.msg import PackedSplats, Relevancy, Status
from gsemsplat_msgs.srv import Query
from lifecycle_msgs.msg import Transition
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Float32
from support.ros_client import EVERY_PAIR, LATCHED, Client, Stereo, ask, change_state, set_parameter
from support.ros_messages import LEFT, RIGHT, camera_info, picture, raw_image, table
from visualization_msgs.msg import MarkerArray

from gsemsplat_ros.gaussians.packed import covariances_of
from gsemsplat_ros.ros.conversions import image_message, image_to_rgb, make_header, stamp_ns
from gsemsplat_ros.ros.packed_splats import splats_of

S = 10**9


@pytest.fixture(scope='module')
def nodes(start, client):
    """Two nodes side by side: /a sees stereo, /b one moving camera."""
    a = start(
        '-r',
        '__ns:=/a',
        *EVERY_PAIR,
        '-p',
        'queries:=[chair, unicorn]',
        '-p',
        'qos_overrides./a/left/image_raw.subscription.reliability:=reliable',
    )
    b = start('-r', '__ns:=/b', '-p', 'mode:=sequential', '-p', 'min_interval_s:=0.5')
    out = '/a/gsemsplat/'
    for kind, topic in (
        (PointCloud2, 'gaussians'),
        (PackedSplats, 'gaussians/packed'),
        (Image, 'relevancy/image'),
        (Image, 'relevancy/map'),
        (Relevancy, 'relevancy'),
        (MarkerArray, 'objects/markers'),
        (PoseStamped, 'pose'),
        (Float32, 'scale'),
    ):
        client.listen(kind, out + topic)
    client.listen(PointCloud2, '/b/gsemsplat/gaussians')
    client.listen(DiagnosticArray, '/diagnostics', 10)
    for process in a, b:
        process.wait_for('waiting for')
    return a, b


@pytest.fixture(scope='module')
def stereo(client, nodes):
    return Stereo(client)


@pytest.fixture
def no_scene(client, nodes):
    """/a as after its start: nothing received, no scene."""
    for transition in (
        Transition.TRANSITION_DEACTIVATE,
        Transition.TRANSITION_CLEANUP,
        Transition.TRANSITION_CONFIGURE,
        Transition.TRANSITION_ACTIVATE,
    ):
        assert change_state(client, '/a/gsemsplat', transition)


def test_query_before_the_first_scene(client, no_scene):
    answer = ask(client, 'chair')
    assert not answer.success
    assert 'no scene yet' in answer.message and '/a/left/image_raw' in answer.message, answer.message


def test_diagnostics_name_the_missing_topics(client, no_scene):
    report = client.next('/diagnostics', lambda m: any(s.name == '/a/gsemsplat: inputs' for s in m.status))
    inputs = next(s for s in report.status if s.name == '/a/gsemsplat: inputs')
    assert inputs.level == b'\x02'
    assert inputs.message == (
        'nothing received yet on /a/left/image_raw, /a/left/camera_info, '
        '/a/right/image_raw, /a/right/camera_info'
    )


def test_quality_of_service(client, nodes):

    def known(of_topic, topic):
        return client.until(lambda: of_topic(topic), f'the end of {topic} at the node')[0].qos_profile

    reliability = {
        side: known(client.node.get_subscriptions_info_by_topic, f'/a/{side}/image_raw').reliability
        for side in ('left', 'right')
    }
    assert reliability == {
        'left': ReliabilityPolicy.RELIABLE,  # overridden
        'right': ReliabilityPolicy.BEST_EFFORT,
    }  # sensor data: hears every camera
    for topic in (
        'gaussians',
        'gaussians/packed',
        'relevancy',
        'relevancy/image',
        'relevancy/map',
        'objects/markers',
        'pose',
        'scale',
    ):
        qos = known(client.node.get_publishers_info_by_topic, '/a/gsemsplat/' + topic)
        assert (qos.reliability, qos.durability) == (
            ReliabilityPolicy.RELIABLE,
            DurabilityPolicy.TRANSIENT_LOCAL,
        )


def test_a_stereo_pair_becomes_a_scene(client, stereo):
    cloud = stereo.scene()
    stamp = stamp_ns(cloud.header)
    assert cloud.header.frame_id == 'left_optical'
    assert [f.name for f in cloud.fields] == [
        'x',
        'y',
        'z',
        'rgb',
        'opacity',
        'scale_0',
        'scale_1',
        'scale_2',
        'rot_0',
        'rot_1',
        'rot_2',
        'rot_3',
    ]
    points = table(cloud)
    assert len(points) == 100
    np.testing.assert_allclose(
        [points['x'][0], points['y'][0], points['z'][0]], [50.0, 31.5, 0.12], rtol=1e-6
    )
    packed = np.ascontiguousarray(points['rgb']).view('<u4')
    assert [int(packed[0]), int(packed[1])] == [
        200 << 16 | 100 << 8 | 50,
        10 << 16 | 20 << 8 | 30,
    ]  # left, right
    np.testing.assert_allclose(points['x'][1:], np.linspace(-1, 1, 100)[1:], atol=1e-6)
    np.testing.assert_allclose(points['opacity'], np.linspace(0.1, 0.9, 100), atol=1e-6)
    assert (points['rot_0'] == 1).all() and np.allclose(points['scale_2'], 0.01)
    pose = client.until(lambda: client.of('/a/gsemsplat/pose', stamp), 'the pose')[0]
    assert pose.header.frame_id == 'left_optical'
    assert (pose.pose.position.x, pose.pose.position.y) == (0.125, 0.0)
    np.testing.assert_allclose([pose.pose.orientation.z, pose.pose.orientation.w], [0.5**0.5] * 2, atol=1e-9)
    assert client.until(lambda: client.heard['/a/gsemsplat/scale'], 'scale')[-1].data == 0.5


def test_the_packed_splats_are_those_of_the_cloud(client, stereo):
    cloud = stereo.scene()
    topic, stamp = '/a/gsemsplat/gaussians/packed', stamp_ns(cloud.header)
    packed = client.until(lambda: client.of(topic, stamp), 'the packed splats')[0]
    assert packed.header == cloud.header and len(packed.data) == 28 * 100
    splats, points = splats_of(packed), table(cloud)
    for i, name in enumerate('xyz'):
        np.testing.assert_array_equal(splats['position'][:, i], points[name])
    assert splats['rgba'][0].tolist()[:3] == [200, 100, 50]
    np.testing.assert_allclose(covariances_of(splats)[:, 2, 2], 0.01**2, rtol=1e-3)


def test_standing_queries_are_answered_on_every_scene(client, stereo):
    client.heard['/a/gsemsplat/relevancy'].clear()
    stamp = stamp_ns(stereo.scene().header)
    client.until(lambda: len(client.of('/a/gsemsplat/relevancy', stamp)) == 2, 'both answers')
    chair, unicorn = client.of('/a/gsemsplat/relevancy', stamp)
    assert (chair.text, unicorn.text) == ('chair', 'unicorn')
    assert (chair.found, chair.score, chair.peak_u, chair.peak_v) == (True, 0.875, 17.0, 13.0)
    assert (chair.peak.x, chair.peak.y, chair.peak.z) == (0.5, 0.25, 2.0)
    assert chair.header.frame_id == 'left_optical'
    assert (unicorn.found, unicorn.score) == (False, 0.25) and np.isnan(unicorn.peak.x)
    markers = client.until(
        lambda: [
            m.markers
            for m in client.heard['/a/gsemsplat/objects/markers']
            if stamp_ns(m.markers[0].header) == stamp and len(m.markers) == 5
        ],
        'markers',
    )[-1]
    assert [(m.ns, m.type, m.action) for m in markers[1:]] == [('chair', 1, 0), ('chair', 9, 0)] * 2
    assert markers[1].scale.y == pytest.approx(0.6)


def test_relevancy_images_have_the_size_of_the_input(client, stereo):
    stamp = stamp_ns(stereo.scene().header)
    image, values = (
        client.until(lambda: client.of(topic, stamp), topic)[-1]
        for topic in ('/a/gsemsplat/relevancy/image', '/a/gsemsplat/relevancy/map')
    )
    assert (image.encoding, image.width, image.height, image.header.frame_id) == (
        'rgb8',
        64,
        48,
        'left_optical',
    )
    assert (values.encoding, values.width, values.height) == ('32FC1', 64, 48)
    relevancy = np.frombuffer(values.data, '<f4').reshape(48, 64)
    assert np.isnan(relevancy[:, 34:]).all() and np.isfinite(relevancy[:, :30]).all()
    peak = np.unravel_index(np.nanargmax(relevancy), relevancy.shape)
    assert abs(peak[0] - 12.5) <= 0.5 and abs(peak[1] - 16.5) <= 0.5  # map pixel (8, 6) is input (16.5, 12.5)
    pixels = image_to_rgb(image)
    assert (pixels[:, 34:] == LEFT).all() and (pixels[:, :30] != LEFT).any(axis=2).all()


def test_query_answers(client, stereo):
    cloud = stereo.scene()
    answer = ask(client, 'chair')
    assert answer.success and answer.found and answer.score == 0.875
    assert answer.message == "'chair' found, 2 object(s): score 0.875, threshold 0.500"
    assert answer.header == cloud.header
    assert (answer.peak_u, answer.peak_v, answer.peak.z) == (17.0, 13.0, 2.0)
    thing = answer.objects[0]
    assert (thing.label, thing.score, thing.size.x) == ('chair', 0.875, 0.4)
    assert (thing.pose.position.x, thing.pose.position.y, thing.pose.position.z) == (0.5, 0.25, 2.0)
    assert not answer.image and not answer.cloud
    assert len(ask(client, 'chair', max_objects=1).objects) == 1
    strict = ask(client, 'chair', threshold=0.95)
    assert strict.success and not strict.found and 'not found' in strict.message and not strict.objects
    absent = ask(client, 'unicorn')
    assert absent.success and not absent.found and np.isnan(absent.peak.z)


def test_query_with_image_and_cloud(client, stereo):
    stereo.scene()
    answer = ask(client, 'chair', with_image=True, with_cloud=True)
    assert (answer.image[0].width, answer.image[0].height, answer.image[0].encoding) == (64, 48, 'rgb8')
    points = table(answer.cloud[0])  # the box spans x 0.3 to 0.7, y -0.05 to 0.55
    x = np.linspace(-1, 1, 100)[1:]
    np.testing.assert_allclose(points['x'], x[(x >= 0.3) & (x <= 0.7)], atol=1e-6)


def test_a_service_query_is_published_too(client, stereo):
    stereo.scene()
    client.heard['/a/gsemsplat/relevancy'].clear()
    client.heard['/a/gsemsplat/objects/markers'].clear()
    ask(client, 'door')
    client.until(
        lambda: any(r.text == 'door' for r in client.heard['/a/gsemsplat/relevancy']), 'the answer as a topic'
    )
    client.until(
        lambda: any(
            {'chair', 'door'} <= {m.ns for m in a.markers}
            for a in client.heard['/a/gsemsplat/objects/markers']
        ),
        'markers of both',
    )


@pytest.mark.parametrize(
    'request_fields, words',
    [
        (dict(text=''), 'empty query'),
        (dict(text='x' * 201), '201 characters'),
        (dict(text='boom'), 'internal error'),
    ],
)
def test_a_question_without_answer_says_why(client, stereo, request_fields, words):
    stereo.scene()
    answer = ask(client, **request_fields)
    assert not answer.success and words in answer.message
    assert ask(client, 'chair').success


WRONG = {
    'unknown encoding': (
        dict(left=raw_image('jpeg', (48, 64, 3))),
        "/a/left/image_raw: image encoding 'jpeg' is unknown",
    ),
    'NaN pixels': (
        dict(left=image_message(np.full((48, 64), np.nan, np.float32), make_header('left_optical', 0))),
        "encoding '32FC1' holds measurements",
    ),
    'short data': (dict(left=raw_image('rgb8', (48, 64, 3), data=b'12345')), 'has 5 bytes of data'),
    'wrong step': (dict(left=raw_image('rgb8', (48, 64, 3), step=10)), 'step 10'),
    'zero size': (
        dict(left=raw_image('rgb8', (48, 64, 3), width=0, height=0, step=0, data=b'')),
        'image of 0x0 px',
    ),
    'zero K': (dict(left_info=camera_info(fx=0.0)), '/a/left/camera_info is uncalibrated (K[0] = 0'),
    'another size': (dict(left=picture(LEFT, 48, 40)), '/a/left/camera_info describes images of 64x48 px'),
    'two sizes': (
        dict(left=picture(LEFT, 48, 40), left_info=camera_info(width=48, height=40)),
        'wanted one size',
    ),
    'no baseline': (dict(right_info=camera_info(frame='right_optical')), 'stereo baseline of 0 m'),
    'exchanged': (dict(right_info=camera_info(tx=6.0, frame='right_optical')), 'stereo baseline of -0.12 m'),
    'fault of ours': (dict(left=picture((0, 0, 0))), 'the fake fails on black corners'),
    'another frame': (
        dict(left_info=camera_info(frame='lidar')),
        "in frame 'left_optical' but /a/left/camera_info in 'lidar'",
    ),
    'raw, not rectified': (dict(left_info=camera_info(d=(-0.2, 0, 0, 0, 0))), 'set rectified: false'),
}


@pytest.mark.parametrize('case', WRONG)
def test_wrong_input_is_named_and_the_node_lives_on(client, nodes, stereo, case):
    messages, words = WRONG[case]
    stereo.scene()
    end = time.monotonic() + 30.0
    while words not in nodes[0].output:
        assert time.monotonic() < end, nodes[0].output[-3000:]
        stereo.send(**messages)
        client.spin()
    stereo.scene()


def test_the_image_size_may_change_with_its_camera_info(client, stereo):
    stereo.scene()
    stereo.scene(
        left=picture(LEFT, 128, 96),
        right=picture(RIGHT, 128, 96, frame='right_optical'),
        left_info=camera_info(width=128, height=96),
        right_info=camera_info(tx=-6.0, frame='right_optical', width=128, height=96),
    )
    stereo.scene()


def test_unmatched_stamps_make_no_pair_and_are_reported(client, stereo):
    stereo.scene()
    heard = client.heard['/a/gsemsplat/gaussians']
    before = len(heard)
    stereo.stamp += S
    for i in range(10):
        client.publish('/a/left/image_raw', picture(LEFT, stamp_ns=stereo.stamp + i * S // 10))
        client.publish(
            '/a/right/image_raw', picture(RIGHT, stamp_ns=stereo.stamp + i * S // 10 + S // 20)
        )  # 50 ms
    stereo.stamp += S

    def skew(report):
        return [
            v.value
            for s in report.status
            if s.name == '/a/gsemsplat: inputs'
            for v in s.values
            if v.key == 'right minus left, newest stamps [ms]'
        ]

    report = client.next('/diagnostics', lambda m: skew(m) == ['50'])
    values = {v.key: v.value for s in report.status if s.name == '/a/gsemsplat: inputs' for v in s.values}
    assert values['slop [ms]'] == '20' and values['skew of the last pair [ms]'] == '0'
    assert len(heard) == before


def test_diagnostics_of_a_running_node(client, stereo):
    def scene_of(report, message='scene ready'):
        """The part of the scene, if it says so."""
        named = [s for s in report.status if s.name == '/a/gsemsplat: scene']
        return named[0] if named and message in named[0].message else None

    def refused():
        stereo.send(left=raw_image('jpeg', (48, 64, 3)))
        return any(scene_of(report, "'jpeg' is unknown") for report in client.heard['/diagnostics'][-2:])

    client.until(refused, 'an input that is refused')
    stereo.scene()
    scene = scene_of(client.next('/diagnostics', scene_of))
    values = {v.key: v.value for v in scene.values}
    assert scene.level == b'\x00'
    assert (values['weights'], values['text encoder'], values['gaussians']) == ('fake', 'fake text', '100')
    assert (values['scale source'], values['inliers'], values['frame']) == (
        'stereo baseline',
        '70 of 90',
        'left_optical',
    )
    assert values['build: predict [ms]'] == '1' and int(values['refused inputs']) > 0
    assert 0 < float(values['convert [ms]']) < float(values['total [ms]'])


@pytest.fixture
def parameters(client, nodes):
    """Function that sets a parameter of /a; afterwards all have their values again."""
    yield lambda name, value: set_parameter(client, name, value)
    for name, value in (
        ('queries', ['chair', 'unicorn']),
        ('threshold', 0.0),
        ('publish_codes', False),
        ('max_points', 0),
    ):
        assert set_parameter(client, name, value).successful


def test_live_parameters_act_on_the_scene_at_once(client, stereo, parameters):
    stereo.scene()
    client.heard['/a/gsemsplat/relevancy'].clear()
    assert parameters('queries', ['door']).successful
    client.until(lambda: any(r.text == 'door' for r in client.heard['/a/gsemsplat/relevancy']), 'its answer')
    assert parameters('threshold', 0.9).successful
    assert not ask(client, 'chair').found
    client.heard['/a/gsemsplat/gaussians'].clear()
    assert parameters('publish_codes', True).successful
    cloud = client.until(
        lambda: [c for c in client.heard['/a/gsemsplat/gaussians'] if len(c.fields) == 44], 'codes'
    )[0]
    np.testing.assert_array_equal(table(cloud)['code_31'], np.arange(100) * 32 + 31)
    assert parameters('max_points', 10).successful
    client.until(lambda: client.heard['/a/gsemsplat/gaussians'][-1].width == 10, 'a thinned cloud')


@pytest.mark.parametrize(
    'name, value, words',
    [
        ('threshold', 3.0, 'out of range'),
        ('mode', 'sequential', 'cannot change while'),
        ('max_objects', 2.5, 'Wrong parameter type'),
        ('queries', ['x'] * 40, 'at most 32'),
    ],
)
def test_a_parameter_that_cannot_be_set_says_why(client, nodes, name, value, words):
    result = set_parameter(client, name, value)
    assert not result.successful and words in result.reason, result.reason


def markers_of(client):
    """Texts in the newest markers."""
    newest = client.heard['/a/gsemsplat/objects/markers'][-1:]
    return {m.ns for array in newest for m in array.markers[1:]}


def test_answers_to_services_do_not_pile_up_while_the_robot_stands(client, stereo):
    stereo.scene()
    for number in range(40):  # 'chair 7' is found as 'chair'
        ask(client, f'chair {number}')
    newest = {f'chair {number}' for number in range(40 - 32, 40)}
    client.until(lambda: 'chair 39' in markers_of(client), 'the markers of the last answer')
    assert newest <= markers_of(client) and 'chair 7' not in markers_of(client)
    assert len(client.heard['/a/gsemsplat/objects/markers'][-1].markers) == 1 + 4 * (32 + 1)  # and standing


def test_a_live_parameter_does_only_what_it_changes(client, stereo):
    stereo.scene()
    ask(client, 'chair 1')
    client.until(lambda: 'chair 1' in markers_of(client), 'its markers')
    topics = [f'/a/gsemsplat/{name}' for name in ('gaussians', 'relevancy', 'pose', 'objects/markers')]

    def heard_after(name, value, last):
        """Messages by topic, until those of the topic `last` came, or, without, of what came of a query."""
        before = [len(client.heard[topic]) for topic in topics]
        assert set_parameter(client, name, value).successful
        if last:
            client.until(lambda: len(client.heard[last]) > before[topics.index(last)], last)
        assert client.call(Query, '/a/query', Query.Request(text='')).message  # one round more
        return [len(client.heard[topic]) - count for topic, count in zip(topics, before)]

    cloud, _, _, markers = topics
    assert heard_after('robot_radius_m', 0.4, None) == [0, 0, 0, 0]
    assert heard_after('robot_radius_m', 0.3, None) == [0, 0, 0, 0]
    assert heard_after('max_points', 50, cloud) == [1, 0, 0, 0]
    assert heard_after('max_points', 0, cloud) == [1, 0, 0, 0]
    standing = len(markers_of(client) - {'chair 1'})
    again = heard_after('max_objects', 7, markers)
    assert again[0] == again[2] == 0 and again[3] == 1 and again[1] >= standing
    assert heard_after('max_objects', 8, markers)[0] == 0
    assert 'chair 1' in markers_of(client)  # the answer to the service stays


def test_the_status_says_what_the_diagnostics_say(client, stereo):
    stamp = stamp_ns(stereo.scene().header)
    client.listen(Status, '/a/gsemsplat/status', LATCHED)
    heard = client.heard['/a/gsemsplat/status']
    status = client.until(lambda: heard and heard[-1].scenes and heard[-1], 'a status with a scene')
    assert (status.configured, status.active, status.stereo) == (True, True, True)
    assert status.header.frame_id == 'left_optical' and stamp_ns(status.header) > stamp
    assert (status.weights, status.text_encoder, status.device) == ('fake', 'fake text', 'cpu')
    assert (status.gaussians, status.scale, status.scale_source) == (100, 0.5, 'stereo baseline')
    assert (status.inliers, status.points) == (70, 90)
    assert [topic.name for topic in status.inputs if topic.is_image] == [
        '/a/left/image_raw',
        '/a/right/image_raw',
    ]
    seconds = {latency.stage: latency.seconds for latency in status.latencies}
    assert seconds['build: predict'] == 0.001 and 0 < seconds['convert'] < seconds['total']
    assert status.map_frame == 'a/gsemsplat_map' and status.tf_frame == ''
    done = status.scenes
    stereo.scene()
    client.until(lambda: heard[-1].scenes > done, 'the status of the next scene')


def test_a_late_subscriber_gets_the_newest_scene(client, stereo, domain):
    stamp = stamp_ns(stereo.scene().header)
    late = Client(domain)
    try:
        late.listen(PointCloud2, '/a/gsemsplat/gaussians')
        late.until(lambda: late.heard['/a/gsemsplat/gaussians'], 'the cloud sent before')
        assert stamp_ns(late.heard['/a/gsemsplat/gaussians'][0].header) == stamp
    finally:
        late.close()


TEXTURE = np.kron(np.random.default_rng(7).integers(0, 256, (24, 48, 3)), np.ones((10, 10, 1))).astype(
    np.uint8
)


def test_sequential_mode_pairs_what_moved_and_waits_for_a_standing_robot(client, nodes):
    topic, sent = '/b/gsemsplat/gaussians', 1000 * S

    def send(x, stamp, info=False):
        client.publish('/b/image', image_message(TEXTURE[:, x : x + 320], make_header('head', stamp)))

    # standing frames come fast: a keyframe that grew too old would be replaced by the first frame that moved
    stamps = iter(range(sent, sent + 10**6 * S, S // 100))

    def standing():
        send(0, next(stamps))
        return any(
            v.value == 'the image stands still'
            for report in client.heard['/diagnostics'][-4:]
            for s in report.status
            if s.name == '/b/gsemsplat: inputs'
            for v in s.values
        )

    client.until(standing, 'frames that the node heard')  # it may meet our publisher later than we it
    for _ in range(15):  # stands: no scene, though frames keep coming
        send(0, next(stamps))
        client.spin()
    assert not client.heard[topic]
    answer = ask(client, 'chair', node='/b')
    assert not answer.success and 'no scene yet' in answer.message
    for x in range(20, 160, 20):  # 6 % of the width a step, without camera_info
        stamp = next(stamps) + x // 20 * S
        send(x, stamp)
        cloud = client.until(lambda: client.of(topic, stamp), f'the scene at {x}')[0]
        assert cloud.header.frame_id == 'head'
        color = table(cloud)['rgb'][:1].tobytes()[2::-1]
        assert tuple(color) == tuple(TEXTURE[0, x])
        assert table(cloud)['x'][0] == 1.0  # the fake's word for: camera unknown
    assert ask(client, 'chair', node='/b').success
