"""A ROS client with deadlines: publishes camera messages to a node and collects its messages."""

import time

import rclpy
from gsemsplat_msgs.srv import Query
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from support.node_process import DEADLINE_S
from support.ros_messages import LEFT, RIGHT, camera_info, picture

from gsemsplat_ros.ros.conversions import make_header, stamp_ns

LATCHED = QoSProfile(
    depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
EVERY_PAIR = '-p', 'keyframe_min_motion:=0.0'  # process pairs without motion too


class Client:
    """Publishes to nodes and collects their messages; heard: by topic."""

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
        """Publish; waits for a subscriber on the first use of the topic."""
        if topic not in self._publishers:
            publisher = self._publishers[topic] = self.node.create_publisher(type(message), topic, RELIABLE)
            self.until(publisher.get_subscription_count, f'a subscriber of {topic}')
        self._publishers[topic].publish(message)

    def leave(self, namespace):
        """Destroy the publishers of this namespace; the next message makes new ones."""
        for topic in [topic for topic in self._publishers if topic.startswith(namespace)]:
            self.node.destroy_publisher(self._publishers.pop(topic))

    def call(self, kind, name, request, again_s=DEADLINE_S):
        """The response of a service. It is asked again after `again_s`: an answer may be lost while both
        sides still discover each other, so what only reads may be asked often."""
        client = self._clients.setdefault(name, None) or self.node.create_client(kind, name)
        self._clients[name] = client
        self.until(client.service_is_ready, f'the service {name}')
        futures = []

        def answered():
            if time.monotonic() >= start + again_s * len(futures):
                futures.append(client.call_async(request))
            return next((future for future in futures if future.done()), None)

        start = time.monotonic()
        return self.until(answered, f'an answer of {name}').result()

    def until(self, condition, what, deadline_s=DEADLINE_S):
        """Spin until `condition()` is true; returns its value."""
        end = time.monotonic() + deadline_s
        while not (value := condition()):
            assert time.monotonic() < end, f'waited {deadline_s} s in vain for {what}'
            self.spin()
        return value

    def spin(self):
        """Receive messages for at most 20 ms."""
        self._executor.spin_once(timeout_sec=0.02)

    def of(self, topic, stamp):
        """The messages of a topic with this stamp [ns]."""
        return [message for message in self.heard[topic] if stamp_ns(message.header) == stamp]

    def next(self, topic, condition=lambda message: True):
        """The next message of a topic that fulfils `condition`, after those already in `heard`."""
        seen = len(self.heard[topic])
        self.until(lambda: any(map(condition, self.heard[topic][seen:])), f'a message on {topic}')
        return next(m for m in self.heard[topic][seen:] if condition(m))

    def close(self):
        """Leave the domain."""
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)


class Stereo:
    """Sends stereo pairs with increasing stamps to the node of one namespace."""

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
        """Send pairs until the cloud of one arrives; some may be dropped by a busy or starting node."""
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
    """The node's response to a query."""
    return client.call(Query, node + '/query', Query.Request(text=text, **more), again_s=20.0)


def set_parameter(client, name, value, node='/a/gsemsplat'):
    """Set a parameter of a node; returns the result (successful, reason)."""
    request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    return client.call(SetParameters, node + '/set_parameters', request).results[0]


def change_state(client, node, transition):
    """Request a transition of a lifecycle node; returns whether it succeeded."""
    return client.call(
        ChangeState, node + '/change_state', ChangeState.Request(transition=Transition(id=transition))
    ).success
