"""Drive to a thing by its name, with Nav2: `python3 -m gsemsplat_ros.ros.client.drive 'red chair'`
(docs/nav2.md).
"""

from __future__ import annotations

import argparse
import sys

from geometry_msgs.msg import PoseStamped
from gsemsplat_msgs.srv import Query

from gsemsplat_ros.ros.client.client import Client
from gsemsplat_ros.terminal.console import Failure

ANSWER_WITHIN_S = 30.0


def goal_pose(response: Query.Response) -> PoseStamped:
    """Where to drive, with the stamp 0: by the newest TF. Raises ValueError when the answer has no such
    place.
    """
    if not (response.success and response.approach_found):
        raise ValueError(response.message)
    goal = PoseStamped(pose=response.approach)
    goal.header.frame_id = response.header.frame_id
    return goal


def find(client: Client, text: str, service: str = '/query') -> PoseStamped:
    """Ask the node where `text` is. Raises ValueError with its words, Failure when it says nothing."""
    query = client.node.create_client(Query, service)
    if not client.until(query.service_is_ready, ANSWER_WITHIN_S):
        raise Failure(f'no service {service} within {ANSWER_WITHIN_S:g} s: is the node running?')
    asked = query.call_async(Query.Request(text=text))
    if not client.until(asked.done, ANSWER_WITHIN_S):
        raise Failure(f'no answer from {service} within {ANSWER_WITHIN_S:g} s')
    return goal_pose(asked.result())


def drive(client: Client, goal: PoseStamped, action: str, timeout_s: float) -> bool:
    """Send the robot there; whether it arrived within `timeout_s`. What stops it on the way, as Ctrl-C,
    cancels it.
    """
    from action_msgs.msg import GoalStatus
    from nav2_msgs.action import NavigateToPose
    from rclpy.action import ActionClient

    navigator = ActionClient(client.node, NavigateToPose, action)
    if not client.until(navigator.server_is_ready, ANSWER_WITHIN_S):
        raise Failure(f'no action {action} within {ANSWER_WITHIN_S:g} s: is Nav2 running and active?')
    sent = navigator.send_goal_async(NavigateToPose.Goal(pose=goal))
    if not client.until(sent.done, ANSWER_WITHIN_S) or not sent.result().accepted:
        raise Failure('Nav2 did not accept the goal: its log says why')
    arrived = sent.result().get_result_async()
    try:
        client.until(arrived.done, timeout_s)
    finally:
        if not arrived.done():
            client.until(sent.result().cancel_goal_async().done, 5.0)
    return arrived.done() and arrived.result().status == GoalStatus.STATUS_SUCCEEDED


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 when the robot arrived."""
    parser = argparse.ArgumentParser(prog='drive', description='Drive to a thing by its name, with Nav2.')
    parser.add_argument('text', help="what to drive to, e.g. 'red chair'")
    parser.add_argument('--service', default='/query', help='of the node gsemsplat (default: %(default)s)')
    parser.add_argument('--action', default='navigate_to_pose', help='of Nav2 (default: %(default)s)')
    parser.add_argument(
        '--timeout', type=float, default=300.0, metavar='S', help='for the way [s] (%(default)g)'
    )
    args = parser.parse_args(argv)
    try:
        import nav2_msgs.action  # noqa: F401
    except ImportError:
        return _complain('nav2_msgs is not installed: sudo apt install ros-$ROS_DISTRO-nav2-msgs')
    try:
        with Client() as client:
            goal = find(client, args.text, args.service)
            at = goal.pose.position
            print(
                f"'{args.text}': driving to ({at.x:.2f}, {at.y:.2f}) m in {goal.header.frame_id}", flush=True
            )
            if not drive(client, goal, args.action, args.timeout):
                return _complain(f"the robot did not reach '{args.text}': the log of Nav2 says why")
    except KeyboardInterrupt:
        return 130
    except (ValueError, Failure) as error:
        return _complain(str(error))
    print('arrived')
    return 0


def _complain(message: str) -> int:
    print(f'drive: {message}', file=sys.stderr)
    return 1


if __name__ == '__main__':
    sys.exit(main())
