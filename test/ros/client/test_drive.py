"""`gsemsplat drive` and the one reader of /query's response, without a node and without Nav2."""

import math
import sys
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion, Vector3
from gsemsplat_msgs.msg import Object as ObjectMessage
from gsemsplat_msgs.srv import Query
from std_msgs.msg import Header

from gsemsplat_ros.cli import main
from gsemsplat_ros.ros.client.drive import drive, find
from gsemsplat_ros.ros.client.reply import reply_of
from gsemsplat_ros.ros.conversions import image_message, make_header
from gsemsplat_ros.semantics.objects import Object


def response(**changes):
    values = dict(
        success=True,
        found=True,
        score=0.75,
        header=Header(frame_id='map'),
        peak=Point(x=1.0, y=2.0, z=3.0),
        peak_u=4.0,
        peak_v=5.0,
        objects=[
            ObjectMessage(
                label='chair',
                score=0.875,
                pose=Pose(position=Point(x=1.0, y=2.0, z=3.5)),
                size=Vector3(x=0.5, y=0.25, z=1.0),
            )
        ],
        approach_found=True,
        approach=Pose(position=Point(x=-1.0)),
        message="'chair' found",
    )
    return Query.Response(**{**values, **changes})


def test_a_response_is_read_whole():
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    shown = image_message(picture, Header(frame_id='left'))
    reply = reply_of(Query.Request(text='chair', threshold=0.25), response(image=[shown]))
    answer = reply.answer
    assert (answer.text, answer.threshold, answer.found, answer.score) == ('chair', 0.25, True, 0.75)
    assert answer.peak_point == (1.0, 2.0, 3.0) and answer.peak_pixel == (4.0, 5.0)
    assert answer.objects == (Object((1.0, 2.0, 3.5), (0.5, 0.25, 1.0), 0.875),)
    assert answer.relevancy is None and answer.lit is None and answer.picture is None
    assert (reply.picture == picture).all() and reply.header.frame_id == 'map'
    goal = reply.approach
    assert (goal.header.frame_id, goal.header.stamp.sec, goal.pose.position.x) == ('map', 0, -1.0)


def test_a_goal_in_a_cameras_frame_is_of_its_image_and_one_in_the_map_of_now():
    """A frame in which what is upright is turned about x or y is no map: it moves on with the robot."""
    for frame, turn, stamp in (
        ('map', Quaternion(z=0.6, w=0.8), 0),
        ('left_optical', Quaternion(x=0.5, y=-0.5, z=0.5, w=0.5), 7),
    ):
        header = make_header(frame, 7 * 10**9)
        goal = reply_of(
            Query.Request(text='chair'), response(header=header, approach=Pose(orientation=turn))
        ).approach
        assert (goal.header.frame_id, goal.header.stamp.sec) == (frame, stamp)


def test_what_a_response_does_not_know_is_none():
    nan = math.nan
    empty = response(
        peak=Point(x=nan, y=nan, z=nan), peak_u=nan, peak_v=nan, objects=[], approach_found=False
    )
    reply = reply_of(Query.Request(text='chair'), empty)
    assert reply.answer.threshold is None and reply.answer.peak_point is None
    assert reply.answer.peak_pixel is None and reply.answer.objects == ()
    assert reply.picture is None and reply.approach is None


def test_a_refusal_keeps_the_words_of_the_node():
    with pytest.raises(ValueError, match='^no scene yet$'):
        reply_of(Query.Request(text='chair'), response(success=False, message='no scene yet'))


@pytest.mark.parametrize(
    'success, message, note, state',
    [
        (True, "'chair' found, 1 object(s): score 0.9, threshold 0.5", '', 'found'),
        (
            True,
            "'chair 🪑' found; no approach: a wall; left out, as not understood: '🪑'",
            "left out, as not understood: '🪑'",
            'found',
        ),
        (False, "not understood: '椅子; x'; ask", "not understood: '椅子; x'; ask", 'not understood'),
    ],
)
def test_a_reply_says_what_was_not_understood(success, message, note, state):
    answer = reply_of(
        Query.Request(text='?'), response(success=success, found=success, message=message)
    ).answer
    assert (answer.note, answer.state) == (note, state)


class FakeClient:
    def __init__(self, answer):
        self.answer = answer

    def wait_for_service(self, service, deadline_s):
        return True

    def query(self, request, deadline_s, service):
        return reply_of(request, self.answer)


def test_without_a_place_to_stand_the_robot_stays():
    assert find(FakeClient(response()), 'chair').pose.position.x == -1.0
    with pytest.raises(ValueError, match='no approach: '):
        find(FakeClient(response(approach_found=False, message='found; no approach: too dark')), 'chair')


class FakeNavigator:
    """In the place of an ActionClient of Nav2: takes every goal, and ends it so (None: never)."""

    outcome = None

    def __init__(self, *arguments):
        self.cancelled = []
        FakeNavigator.last = self

    def server_is_ready(self):
        return True

    def send_goal_async(self, goal):
        return done(self)

    accepted = True

    def get_result_async(self):
        return done(self.outcome) if self.outcome else Future()

    def cancel_goal_async(self):
        self.cancelled.append(True)
        return done(None)


def done(value):
    future = Future()
    future.set_result(value)
    return future


class Spinning:
    """In the place of a Client: there is nothing to take in."""

    node = None

    def until(self, condition, deadline_s):
        return bool(condition())


@pytest.mark.parametrize(
    'outcome, reason',
    [
        (SimpleNamespace(status=4, result=SimpleNamespace(error_code=0, error_msg='')), ''),
        (
            SimpleNamespace(status=6, result=SimpleNamespace(error_code=204, error_msg='goal is occupied')),
            'Nav2 says goal is occupied (error_code 204)',
        ),
        (SimpleNamespace(status=6, result=SimpleNamespace()), 'the log of Nav2 says why'),  # of Humble
        (None, 'it was still on its way after 7 s (--timeout), and the goal was cancelled'),
    ],
)
def test_why_the_robot_did_not_arrive_is_said_by_who_knows(monkeypatch, outcome, reason):
    nav2 = SimpleNamespace(NavigateToPose=SimpleNamespace(Goal=SimpleNamespace))
    monkeypatch.setitem(sys.modules, 'nav2_msgs', SimpleNamespace(action=nav2))
    monkeypatch.setitem(sys.modules, 'nav2_msgs.action', nav2)
    monkeypatch.setattr('rclpy.action.ActionClient', FakeNavigator)
    monkeypatch.setattr(FakeNavigator, 'outcome', outcome)
    assert drive(Spinning(), PoseStamped(), 'navigate_to_pose', 7.0) == reason
    assert bool(FakeNavigator.last.cancelled) == (outcome is None)


def test_without_nav2_the_command_says_what_to_install(capsys):
    try:
        import nav2_msgs  # noqa: F401
    except ImportError:
        assert main(['drive', 'red chair']) == 1
        assert 'ros-$ROS_DISTRO-nav2-msgs' in capsys.readouterr().err
    else:
        pytest.skip('nav2_msgs is installed')
