"""Navigation to an object with Nav2: find an approach pose, and go there (docs/nav2.md)."""

from __future__ import annotations

from geometry_msgs.msg import PoseStamped
from gsemsplat_msgs.srv import Query

from gsemsplat_ros.ros.client.client import Client
from gsemsplat_ros.terminal.console import Failure

ANSWER_WITHIN_S = 30.0


def check_nav2() -> None:
    """Raises Failure where Nav2's messages are not installed."""
    try:
        import nav2_msgs.action  # noqa: F401
    except ImportError:
        raise Failure('nav2_msgs is not installed: sudo apt install ros-$ROS_DISTRO-nav2-msgs') from None


def find(client: Client, text: str, service: str = '/query') -> PoseStamped:
    """Ask the node where to stand before `text` (`NodeReply.approach`).

    Raises ValueError with the node's words when there is no such place, Failure when it says nothing.
    """
    if not client.wait_for_service(service, ANSWER_WITHIN_S):
        raise Failure(f'no service {service} within {ANSWER_WITHIN_S:g} s: is the node running?')
    reply = client.query(Query.Request(text=text), ANSWER_WITHIN_S, service)
    if reply.approach is None:
        raise ValueError(reply.message)
    return reply.approach


def drive(client: Client, goal: PoseStamped, action: str, timeout_s: float) -> str:
    """Send the robot there. Returns '' when it has arrived within `timeout_s`, else why not, in the words of
    Nav2 where it has any. Ctrl-C cancels the drive. Raises Failure when Nav2 takes no goal.
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
    in_time = False
    try:
        in_time = client.until(arrived.done, timeout_s)
    finally:
        if not in_time:
            client.until(sent.result().cancel_goal_async().done, 5.0)
    if not in_time:
        return f'it was still on its way after {timeout_s:g} s (--timeout), and the goal was cancelled'
    if arrived.result().status == GoalStatus.STATUS_SUCCEEDED:
        return ''
    result = arrived.result().result  # before Jazzy it was empty
    code, words = getattr(result, 'error_code', 0), getattr(result, 'error_msg', '')
    if not code and not words:
        return 'the log of Nav2 says why'
    return f'Nav2 says {words or "no more than its log"} (error_code {code})'
