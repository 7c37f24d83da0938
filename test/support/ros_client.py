"""What the node's tests stand on: a ROS domain of their own, the node as a process, and a client with
deadlines.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from gsemsplat_msgs.msg import Relevancy
from gsemsplat_msgs.srv import Query
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Float32
from visualization_msgs.msg import MarkerArray

from gsemsplat_ros.ros.conversions import image_message, make_header, stamp_ns

LATCHED = QoSProfile(
    depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
LEFT, RIGHT = (200, 100, 50), (10, 20, 30)  # colours of the two cameras
EVERY_PAIR = '-p', 'keyframe_min_motion:=0.0'  # also one that shows what the last one did
DEADLINE_S = 60.0  # a busy machine may be slow; a test that waits this long fails


def own_domain():
    """A ROS domain that no other test run on this machine holds, and the socket that keeps it ours."""
    for domain in range(1, 101):
        guard = socket.socket()
        try:
            guard.bind(('127.0.0.1', 22119 + domain))
            return domain, guard
        except OSError:
            guard.close()
    raise RuntimeError('all ROS domains from 1 to 100 are taken by tests')


class NodeProcess:
    """fake_node.py with ROS arguments; its output is collected as it comes."""

    def __init__(self, *ros_args, domain):
        environment = dict(
            os.environ,
            ROS_DOMAIN_ID=str(domain),
            ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST',
            PYTHONUNBUFFERED='1',
        )
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name('fake_node.py')), '--ros-args', *ros_args],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        self.output = ''
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            self.output += line

    def wait_for(self, text, deadline_s=3 * DEADLINE_S):  # to start is what takes longest
        """Until the process has printed `text`."""
        end = time.monotonic() + deadline_s
        while text not in self.output:
            assert time.monotonic() < end and self._process.poll() is None, f'no {text!r} in:\n{self.output}'
            time.sleep(0.01)

    def interrupt(self):
        """One SIGINT."""
        self._process.send_signal(signal.SIGINT)

    def stop(self, *, times=1):
        """SIGINT; exit status, and seconds until the node had cleaned up.

        What Python needs to unload its libraries after that (half a second of CPU time) is not counted.
        """
        start = time.monotonic()
        for _ in range(times):
            self.interrupt()
        while 'left over' not in self.output and self._process.poll() is None:
            assert time.monotonic() < start + DEADLINE_S, 'the node did not stop'
            time.sleep(0.005)
        seconds = time.monotonic() - start
        return self.wait(), seconds

    def wait(self):
        """Exit status."""
        status = self._process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        return status

    def kill(self):
        """Leave nothing behind."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join(DEADLINE_S)
        self._process.stdout.close()


class Client:
    """Publishes images to nodes and collects what they say, by topic."""

    def __init__(self, domain):
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node('client', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._publishers, self._clients, self.heard = {}, {}, {}

    def listen(self, kind, topic, qos=LATCHED):
        """Keep every message of `topic` in heard[topic]."""
        self.heard[topic] = []
        return self.node.create_subscription(kind, topic, self.heard[topic].append, qos)

    def publish(self, topic, message):
        """Send; waits for a subscriber first."""
        if topic not in self._publishers:
            publisher = self._publishers[topic] = self.node.create_publisher(type(message), topic, RELIABLE)
            self.until(publisher.get_subscription_count, f'a subscriber of {topic}')
        self._publishers[topic].publish(message)

    def call(self, kind, name, request):
        """The answer of a service."""
        client = self._clients.setdefault(name, None) or self.node.create_client(kind, name)
        self._clients[name] = client
        self.until(client.service_is_ready, f'the service {name}')
        future = client.call_async(request)
        self.until(future.done, f'an answer of {name}')
        return future.result()

    def until(self, condition, what, deadline_s=DEADLINE_S):
        """Spin until `condition()` is true; returns its value."""
        end = time.monotonic() + deadline_s
        while not (value := condition()):
            assert time.monotonic() < end, f'waited {deadline_s} s in vain for {what}'
            self.spin()
        return value

    def spin(self):
        """Take in what came, for at most 20 ms."""
        self._executor.spin_once(timeout_sec=0.02)

    def of(self, topic, stamp):
        """The messages of a topic with this stamp [ns]."""
        return [message for message in self.heard[topic] if stamp_ns(message.header) == stamp]

    def next(self, topic, condition=lambda message: True):
        """The next message of a topic that fulfils `condition`, after what is in heard now."""
        seen = len(self.heard[topic])
        self.until(lambda: any(map(condition, self.heard[topic][seen:])), f'a message on {topic}')
        return next(m for m in self.heard[topic][seen:] if condition(m))

    def close(self):
        """Leave the domain."""
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)


def picture(color, width=64, height=48, frame='left_optical', stamp_ns=0) -> Image:
    """One colour everywhere, rgb8."""
    return image_message(np.full((height, width, 3), color, np.uint8), make_header(frame, stamp_ns))


def raw_image(encoding, shape, **changes) -> Image:
    """An image of ones with whatever is wrong about it in `changes`."""
    pixels = np.ones(shape, np.uint8)
    message = picture(LEFT, width=shape[1], height=shape[0])
    message.encoding, message.step, message.data = encoding, pixels.nbytes // shape[0], pixels.tobytes()
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def camera_info(
    tx=0.0, frame='left_optical', stamp_ns=0, width=64, height=48, fx=50.0, d=(0.0,) * 5
) -> CameraInfo:
    """A rectified camera; tx = -fx x baseline for the right one."""
    cx, cy = (width - 1) / 2, (height - 1) / 2
    return CameraInfo(
        header=make_header(frame, stamp_ns),
        width=width,
        height=height,
        distortion_model='plumb_bob',
        d=list(d),
        k=[fx, 0.0, cx, 0.0, fx, cy, 0.0, 0.0, 1.0],
        r=[1.0, 0, 0, 0, 1, 0, 0, 0, 1],
        p=[fx, 0.0, cx, float(tx), 0.0, fx, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )


class Stereo:
    """Sends stereo pairs with ever later stamps to the node of one namespace."""

    def __init__(self, client, node='/a'):
        self.client, self.stamp, self.name = client, 1000 * 10**9, node

    def send(self, left=None, right=None, left_info=None, right_info=None, stamp=None):
        self.stamp = (self.stamp if stamp is None else stamp) + 10**9
        messages = {
            'right/camera_info': right_info
            or camera_info(tx=-6.0, frame='right_optical', stamp_ns=self.stamp),
            'left/camera_info': left_info or camera_info(stamp_ns=self.stamp),
            'left/image_raw': left or picture(LEFT, stamp_ns=self.stamp),
            'right/image_raw': right or picture(RIGHT, frame='right_optical', stamp_ns=self.stamp),
        }
        for topic, message in messages.items():
            message.header.stamp = make_header('', self.stamp).stamp
            self.client.publish(f'{self.name}/{topic}', message)
        return self.stamp

    def scene(self, **messages):
        """Send until the cloud of that pair arrives; pairs may meet a busy worker or new subscriptions."""
        topic = self.name + '/gsemsplat/gaussians'
        for _ in range(20):
            stamp = self.send(**messages)
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                self.client.spin()
                if clouds := self.client.of(topic, stamp):
                    return clouds[0]
        raise AssertionError('no cloud of any of 20 pairs')


def ask(client, text, node='/a', **more):
    """The answer to a query."""
    return client.call(Query, node + '/query', Query.Request(text=text, **more))


def set_parameter(client, name, value, node='/a/gsemsplat'):
    """The result: successful, reason."""
    request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    return client.call(SetParameters, node + '/set_parameters', request).results[0]


@pytest.fixture(scope='module')
def domain():
    """Number of our ROS domain."""
    domain, guard = own_domain()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
        yield domain
    guard.close()


@pytest.fixture(scope='module')
def client(domain):
    """A Client in our domain."""
    client = Client(domain)
    yield client
    client.close()


@pytest.fixture(scope='module')
def start(domain):
    """Function that starts a node process; what still runs at the end is killed."""
    nodes = []

    def make(*ros_args):
        nodes.append(NodeProcess(*ros_args, domain=domain))
        return nodes[-1]

    yield make
    for node in nodes:
        node.kill()


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
