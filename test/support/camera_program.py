"""A stereo camera as a process of its own: `python -m support.camera_program /namespace`.

Publishes ten pairs per second, with a moving bar.

Commands on stdin, one per line: `right 0` or `right 1` (right camera off or on), `dark 1` or `dark 0` (a
black corner, on which the fake pipeline fails), `clock S` (move the clock by S seconds), `step S` (seconds
between stamps; may be negative).
"""

import sys
import threading
import time

import numpy as np
import rclpy
from sensor_msgs.msg import CameraInfo, Image
from support.ros_client import RELIABLE
from support.ros_messages import camera_info

from gsemsplat_ros.ros.conversions import image_message, make_header

S = 10**9


def main(namespace):
    rclpy.init()
    node = rclpy.create_node('camera', namespace=namespace)
    publishers = {
        name: node.create_publisher(kind, name, RELIABLE)
        for name, kind in (
            ('left/camera_info', CameraInfo),
            ('right/camera_info', CameraInfo),
            ('left/image_raw', Image),
            ('right/image_raw', Image),
        )
    }
    state = {'right': 1.0, 'dark': 0.0, 'step': 0.1, 'stamp': 5000.0}

    def listen():
        for line in sys.stdin:
            name, value = line.split()
            if name == 'clock':
                state['stamp'] += float(value)
            else:
                state[name] = float(value)

    threading.Thread(target=listen, daemon=True).start()
    number = 0
    while True:
        number, state['stamp'] = number + 1, state['stamp'] + state['step']
        stamp, bar = round(state['stamp'] * S), number * 20 % 48
        pixels = np.full((48, 64, 3), 200, np.uint8)
        pixels[:, bar : bar + 16] = 30
        if state['dark']:
            pixels[:, :4] = 0
        messages = {
            'left/camera_info': camera_info(stamp_ns=stamp),
            'left/image_raw': image_message(pixels, make_header('left_optical', stamp)),
        }
        if state['right']:
            messages |= {
                'right/camera_info': camera_info(tx=-6.0, frame='right_optical', stamp_ns=stamp),
                'right/image_raw': image_message(pixels, make_header('right_optical', stamp)),
            }
        for name, message in messages.items():
            publishers[name].publish(message)
        time.sleep(0.1)


if __name__ == '__main__':
    main(sys.argv[1])
