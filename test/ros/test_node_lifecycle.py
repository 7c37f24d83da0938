"""The node under a lifecycle manager, with start parameters that are wrong, and stopped in the middle of its
work.
"""

import time

from gsemsplat_msgs.msg import Status
from gsemsplat_msgs.srv import LoadMap, Query, SaveMap
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import GetState
from rclpy.qos import DurabilityPolicy
from sensor_msgs.msg import Image, PointCloud2
from support.node_process import DEADLINE_S
from support.ros_client import EVERY_PAIR, Stereo, ask, change_state, set_parameter
from support.ros_messages import LEFT, camera_info, picture

from gsemsplat_ros.ros.qos import LATCHED

S = 10**9


def test_lifecycle_by_a_manager(client, start):
    node, name = start('-r', '__ns:=/c', '-p', 'autostart:=false', '-p', 'weights:=missing'), '/c/gsemsplat'

    def state():
        return client.call(GetState, name + '/get_state', GetState.Request(), again_s=5.0).current_state.label

    assert state() == 'unconfigured'
    assert not change_state(client, name, Transition.TRANSITION_CONFIGURE)
    node.wait_for('cannot load the network: no checkpoint at missing')
    assert set_parameter(client, 'weights', 'broken', node=name).successful  # unconfigured: may change
    assert not change_state(client, name, Transition.TRANSITION_CONFIGURE)
    node.wait_for('RuntimeError: a fault of ours')
    assert state() == 'unconfigured'
    assert set_parameter(client, 'weights', 'slow', node=name).successful
    for _ in range(2):
        assert change_state(client, name, Transition.TRANSITION_CONFIGURE) and state() == 'inactive'
        assert 'not active' in ask(client, 'chair', node='/c').message
        assert not client.node.get_subscriptions_info_by_topic('/c/left/image_raw')
        assert not set_parameter(client, 'weights', 'fake', node=name).successful
        assert change_state(client, name, Transition.TRANSITION_ACTIVATE) and state() == 'active'
        client.until(
            lambda: client.node.get_subscriptions_info_by_topic('/c/left/image_raw'), 'the subscription'
        )
        assert change_state(client, name, Transition.TRANSITION_DEACTIVATE) and state() == 'inactive'
        assert change_state(client, name, Transition.TRANSITION_CLEANUP) and state() == 'unconfigured'
    assert change_state(client, name, Transition.TRANSITION_CONFIGURE)
    assert change_state(client, name, Transition.TRANSITION_ACTIVATE)
    stamp = 5 * S  # stop it in the middle of a forward pass
    end = time.monotonic() + DEADLINE_S
    while 'building' not in node.output:
        assert time.monotonic() < end, node.output
        stamp += S
        for topic, message in (
            ('left/camera_info', camera_info()),
            ('right/camera_info', camera_info(tx=-6.0)),
        ):
            client.publish(
                '/c/' + topic, message
            )  # each time: the node may have met our publisher later than we it
        for side in ('left', 'right'):
            client.publish(f'/c/{side}/image_raw', picture(LEFT, stamp_ns=stamp))
        client.spin()
    start_s = time.monotonic()
    node.interrupt()
    assert node.wait() == 0, node.output
    assert time.monotonic() - start_s < 30  # not after the minute that the forward pass takes


def test_an_interrupt_while_the_worker_works_is_no_fault(start, client):
    """Ctrl-C comes before the scene is done: that it cannot be published any more is no fault of anybody."""
    node = start('-r', '__ns:=/stopped', '-p', 'weights:=busy', '-p', 'queries:=[chair]', *EVERY_PAIR)
    node.wait_for('waiting for')
    for kind, topic in ((PointCloud2, 'gaussians'), (PointCloud2, 'map'), (Image, 'relevancy/image')):
        client.listen(kind, f'/stopped/gsemsplat/{topic}')
    stereo = Stereo(client, '/stopped')
    stereo.scene()
    count, end = node.output.count('building'), time.monotonic() + DEADLINE_S
    while node.output.count('building') == count:
        assert time.monotonic() < end, node.output
        stereo.send()
        client.spin()
    node.stop()
    for words in ('Traceback', 'Error', 'rosout', 'failed'):
        assert words not in node.output, node.output[-3000:]


def test_a_deactivated_node_answers_of_what_it_saw_and_says_so(start, client):
    node, name = start('-r', '__ns:=/off', *EVERY_PAIR), '/off/gsemsplat'
    node.wait_for('waiting for')
    client.listen(PointCloud2, '/off/gsemsplat/gaussians')
    Stereo(client, '/off').scene()
    assert 'not active' not in ask(client, 'chair', node='/off').message
    assert change_state(client, name, Transition.TRANSITION_DEACTIVATE)
    answer = ask(client, 'chair', node='/off')
    assert answer.success and answer.found and answer.objects
    assert answer.message.endswith('; the node is not active: this is of what it saw before')
    noted = ask(client, 'chair 🪑', node='/off').message
    assert 'not active' in noted and noted.endswith("left out, as not understood: '🪑'")


def test_the_durability_of_a_result_may_be_overridden(start, client):
    topic = '/volatile/gsemsplat/gaussians'
    node = start('-r', '__ns:=/volatile', '-p', f'qos_overrides.{topic}.publisher.durability:=volatile')
    node.wait_for('waiting for')
    infos = client.until(lambda: client.node.get_publishers_info_by_topic(topic), 'the topic')
    assert infos[0].qos_profile.durability == DurabilityPolicy.VOLATILE


def test_interrupts_among_callbacks(start, client):
    """A SIGINT may come at any point of a callback, and several at once: no hang, no crash, no thread
    left.
    """
    names = [f'/interrupted_{number}' for number in range(2)]
    nodes = [start('-r', f'__ns:={name}') for name in names]
    for delay_s, (name, node) in enumerate(zip(names, nodes)):
        node.wait_for('waiting for')
        service = client.node.create_client(Query, name + '/query')
        client.until(service.service_is_ready, 'the query service')
        for _ in range(20):
            service.call_async(Query.Request(text='chair'))
        client.spin()
        for _ in range(6):
            node.interrupt()
            time.sleep(0.001 * delay_s)
        node.stop(times=0)
        client.node.destroy_client(service)


def test_a_query_in_hand_outlives_a_shutdown(start, client):
    node, name = start('-r', '__ns:=/e', *EVERY_PAIR), '/e/gsemsplat'
    node.wait_for('waiting for')
    client.listen(PointCloud2, name + '/gaussians')
    Stereo(client, '/e').scene()
    service = client.node.create_client(Query, '/e/query')
    client.until(service.service_is_ready, 'the query service')
    service.call_async(Query.Request(text='slow'))
    client.spin()
    node.wait_for('asking')
    assert change_state(client, name, Transition.TRANSITION_ACTIVE_SHUTDOWN)
    node.wait_for('asked')
    node.stop()
    assert 'query failed' not in node.output, node.output


def test_requests_in_hand_outlive_a_cleanup(start, client, tmp_path):
    node, name = start('-r', '__ns:=/f', '-p', f'map_directory:={tmp_path}', *EVERY_PAIR), '/f/gsemsplat'
    node.wait_for('waiting for')
    client.listen(PointCloud2, name + '/gaussians')
    Stereo(client, '/f').scene()
    query = client.node.create_client(Query, '/f/query')
    load = client.node.create_client(LoadMap, name + '/load_map')
    client.until(
        lambda: client.call(SaveMap, name + '/save_map', SaveMap.Request(path='kitchen')).success, 'a map'
    )
    for service in (query, load):
        client.until(service.service_is_ready, service.srv_name)
    query.call_async(Query.Request(text='slow'))
    client.spin()
    node.wait_for('asking')
    for _ in range(20):  # some in hand, others waiting
        load.call_async(LoadMap.Request(path='kitchen'))
    client.spin()
    assert change_state(client, name, Transition.TRANSITION_DEACTIVATE)
    assert change_state(client, name, Transition.TRANSITION_CLEANUP)
    node.wait_for('asked')
    assert change_state(client, name, Transition.TRANSITION_CONFIGURE)  # the node lives
    node.stop()
    assert 'Traceback' not in node.output and 'internal error' not in node.output, node.output


def test_shutdown_transition_and_bad_start(start, client):
    node = start('-r', '__ns:=/d')
    bad = start('-p', 'sync_slop_s:=7.0')
    missing = start('-p', 'weights:=missing')
    node.wait_for('waiting for')
    assert change_state(client, '/d/gsemsplat', Transition.TRANSITION_ACTIVE_SHUTDOWN)
    node.stop()
    assert bad.wait() == 2
    assert 'sync_slop_s' in bad.output and '0.0' in bad.output and '1.0' in bad.output and '7.0' in bad.output
    assert 'Traceback' not in bad.output, bad.output
    assert missing.wait() == 2 and 'no checkpoint at missing' in missing.output


def test_a_node_whose_gpu_is_full_goes_on_on_the_cpu(start, client):
    loading = start('-r', '__ns:=/g', '-p', 'weights:=large', '-p', 'device:=cuda')
    building = start('-r', '__ns:=/h', '-p', 'weights:=filling', '-p', 'device:=cuda')
    loading.wait_for('the GPU has no memory for the network: this node goes on on the CPU')
    loading.wait_for('on cpu in')
    building.wait_for('on cuda in')
    building.wait_for('waiting for')
    client.listen(PointCloud2, '/h/gsemsplat/gaussians')
    client.listen(Status, '/h/gsemsplat/status', LATCHED)
    Stereo(client, '/h').scene()
    building.wait_for('the GPU has no memory for a pair: this node goes on on the CPU')
    statuses = client.heard['/h/gsemsplat/status']
    client.until(
        lambda: statuses and statuses[-1].device == 'cpu' and statuses[-1].scenes, 'a scene of the CPU'
    )
    assert statuses[-1].last_error == ''
