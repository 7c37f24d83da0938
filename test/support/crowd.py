"""Many clients of /query at once, as a process of their own: `python -m support.crowd SERVICE CLIENTS
REQUESTS SECONDS`.

Each client asks its next question when the last one was answered. Prints how many requests were answered,
with the right text and success, and the longest wait.
"""

import sys
import time

import rclpy
from gsemsplat_msgs.srv import Query
from rclpy.executors import SingleThreadedExecutor

from gsemsplat_ros.ros.qos import QUERIES


def main(service, clients, requests, deadline_s):
    rclpy.init()
    node = rclpy.create_node('crowd')
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    end = time.monotonic() + deadline_s
    # a client hears the answers to all: with ROS's own queue of 10 a busy machine lost some
    services = [node.create_client(Query, service, qos_profile=QUERIES) for _ in range(clients)]
    while not all(client.service_is_ready() for client in services):
        assert time.monotonic() < end, 'no service'
        executor.spin_once(timeout_sec=0.1)
    for client in services:  # both sides know each other once it was answered; before, answers are lost
        first: list = []
        while not any(future.done() for future in first):
            assert time.monotonic() < end, 'no answer'
            first.append(client.call_async(Query.Request(text='door')))
            until = time.monotonic() + 2.0
            while time.monotonic() < until and not any(future.done() for future in first):
                executor.spin_once(timeout_sec=0.1)
    right, waits = [0], [0.0]

    def ask(client, number, left):
        start, text = time.monotonic(), f'chair {number} {left}'

        def answered(future):
            response = future.result()
            right[0] += response.success and response.message.startswith(f"'{text}' found")
            waits.append(time.monotonic() - start)
            if left > 1:
                ask(client, number, left - 1)

        client.call_async(Query.Request(text=text)).add_done_callback(answered)

    for number, client in enumerate(services):
        ask(client, number, requests)
    while right[0] < clients * requests and time.monotonic() < end:
        executor.spin_once(timeout_sec=0.1)
    print(f'{right[0]} answered, longest {max(waits):.2f} s', flush=True)
    rclpy.shutdown()


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
