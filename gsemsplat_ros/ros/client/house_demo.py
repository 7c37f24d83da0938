"""`demo --house`: the node maps a simulated house, is asked for words, and sends the robot to one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sensor_msgs.msg import PointCloud2

from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.pictures.top_view import TopView
from gsemsplat_ros.report.house_result import Drive, HouseResult, WordResult
from gsemsplat_ros.rooms.furniture import credits
from gsemsplat_ros.ros.client import player
from gsemsplat_ros.ros.client.bag_writer import BagWriter
from gsemsplat_ros.ros.client.client import Client
from gsemsplat_ros.ros.client.drive import find
from gsemsplat_ros.ros.client.node_process import NodeProcess
from gsemsplat_ros.ros.client.simulated_robot import PARAMETERS, VOXEL, SimulatedRobot, yaw_of
from gsemsplat_ros.ros.clouds import cloud_to_gaussians
from gsemsplat_ros.ros.qos import LATCHED
from gsemsplat_ros.simulation.film import FOUND, WRONG, Mark, Shot, film, marked, seen_from_above
from gsemsplat_ros.simulation.robot import LEFT, base_from, parent_from_base
from gsemsplat_ros.simulation.world import World
from gsemsplat_ros.terminal.console import Console

ANSWER_WITHIN_S = 60.0
WIDTH, HEIGHT = 512, 384  # px: of the images
TOUR = 32  # keyframes of the round through the house
# what stands in the house, and one thing that does not; the robot drives to the first one that it can
QUERIES = 'plant', 'television', 'basketball', 'fridge', 'armchair', 'bicycle'
MARGIN, SCALE = 0.15, 50.0  # m around the house, and pixels a metre, of the map's picture
ROUND_S, WORD_S, DRIVE_S, END_S = 0.08, 0.6, 0.1, 2.0  # for which the film shows a picture
IN_VIEW = 0.15  # of the image's width: so far from its border shows the picture for a word its thing


@dataclass(frozen=True)
class _Seen:
    """A keyframe: pose (x, y, yaw) and left image."""

    pose: np.ndarray
    image: np.ndarray


class HouseDemo:
    """The run of the demo. `world`: its house; the rest is gathered as it goes."""

    def __init__(self, world: World, robot: SimulatedRobot, client: Client):
        self.world, self.robot, self.client = world, robot, client
        low, high = world.plan.bounds
        self.view = TopView(low - MARGIN, high + MARGIN, SCALE)
        self.keyframes: list[_Seen] = []
        self.timings: list[dict[str, float]] = []
        self.weights = ''
        self.shots: list[Shot] = []
        self._cloud: PointCloud2 | None = None
        client.node.create_subscription(PointCloud2, '/gsemsplat/map', self._on_map, LATCHED)

    def _on_map(self, cloud: PointCloud2) -> None:
        self._cloud = cloud

    def look(self) -> np.ndarray:
        """A keyframe from where the robot stands; its left image."""
        pair, received = self.robot.look()
        self.timings.append(received.timings)
        self.weights = received.weights
        self.keyframes.append(_Seen(self.robot.pose, pair.first.image))
        return pair.first.image

    def top(self, marks: Sequence[Mark] = (), way: np.ndarray | None = None) -> np.ndarray:
        """The newest map from above."""
        points, colors = np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)
        if self._cloud is not None:
            gaussians = cloud_to_gaussians(self._cloud)
            points, colors = gaussians.means.numpy(), gaussians.colors.numpy()
        path = np.array(self.robot.path)
        return seen_from_above(self.view, points, colors, VOXEL, path, marks, way)

    def shoot(
        self,
        seen: np.ndarray,
        title: str,
        detail: str,
        seconds: float,
        marks: Sequence[Mark] = (),
        way: np.ndarray | None = None,
    ) -> None:
        """Add a picture to the film."""
        self.shots.append(Shot(seen, self.top(marks, way), title, detail, seconds))

    def ask(self, text: str) -> tuple[WordResult, Mark | None]:
        """Ask the node for a word, and compare its answer with the house; what it found."""
        reported, _ = self.client.ask(text, ANSWER_WITHIN_S)
        answer, things = reported.answer, self.world.things(text)
        if not answer.objects:
            return WordResult(text, answer.score, reported.seconds, None, len(things)), None
        best = answer.objects[0]
        place = np.array(best.center)
        result = WordResult(text, answer.score, reported.seconds, best.center, len(things))
        if things:
            nearest = min(things, key=lambda thing: thing.distance(place[:2]))
            result = replace(result, true=tuple(nearest.center), beside=nearest.distance(place[:2]))
        mark = Mark(best, text, FOUND if result.verdict == 'right' else WRONG)
        return replace(result, shown=self.shown(mark)), mark

    def shown(self, mark: Mark) -> np.ndarray | None:
        """The nearest keyframe that shows a thing, with its box; None where none shows it."""
        camera, center = self.world.camera, np.array(mark.thing.center)
        found: list[tuple[float, _Seen]] = []
        for keyframe in self.keyframes:
            uv, away = seen_at(keyframe.pose, camera, center)
            whole = away > 0.8 + max(mark.thing.size) / 2 and camera.in_image(uv, IN_VIEW * camera.width)
            if whole and self.world.plan.sees(keyframe.pose[:2], center[:2]):
                found.append((away, keyframe))
        if not found:
            return None
        best = min(found, key=lambda item: item[0])[1]
        return marked(best.image, camera, best.pose, mark)

    def tour(self, poses: np.ndarray, tick: Callable[[], object]) -> None:
        """Drive along poses (N, 3), a keyframe at each."""
        for number, pose in enumerate(poses, 1):
            self.robot.go(pose)
            image = self.look()
            held = self.robot.status.map_gaussians
            self.shoot(image, 'Looking around', f'picture {number} · {held:,} Gaussians in the map', ROUND_S)
            tick()

    def words(self, texts: Sequence[str]) -> dict[str, tuple[WordResult, Mark | None]]:
        """The answers to words."""
        answers = {}
        for text in texts:
            answers[text] = result, mark = self.ask(text)
            image = self.keyframes[-1].image if result.shown is None else result.shown
            self.shoot(image, f'"{text}"', in_words(result), WORD_S, [mark] if mark else [])
        return answers

    def drive(self, text: str, mark: Mark, tick: Callable[[], object]) -> Drive:
        """Send the robot to a thing that was found. Raises ValueError where the node, or the stand-in for
        Nav2, knows no way to it."""
        goal = find(self.client, text)
        poses = self.robot.navigate_to_pose(goal)
        path = np.vstack((self.robot.pose, poses))
        for number, pose in enumerate(poses, 1):
            self.robot.go(pose)
            image = self.look()
            left = np.linalg.norm(np.diff(path[number:, :2], axis=0), axis=1).sum()
            self.shoot(
                image, f'Driving to the {text}', f'{left:.1f} m to go', DRIVE_S, [mark], path[number:, :2]
            )
            tick()
        things = self.world.things(text)
        beside = min((thing.distance(path[-1, :2]) for thing in things), default=None)
        shown = marked(self.keyframes[-1].image, self.world.camera, self.robot.pose, mark)
        at = np.array([goal.pose.position.x, goal.pose.position.y, yaw_of(goal)])
        driven = Drive(text, path, at, beside, shown)
        before = '' if beside is None else f', {beside:.2f} m before the {text}'
        self.shoot(shown, 'Arrived', f'{driven.off:.2f} m from the goal{before}', END_S, [mark])
        return driven


def seen_at(pose: np.ndarray, camera: Camera, place: np.ndarray) -> tuple[np.ndarray, float]:
    """Pixel (2,) and depth [m] of a place (3,) of the map in the left image from a robot's pose."""
    map_from_camera = parent_from_base(pose) @ base_from(LEFT)
    point = map_from_camera[:3, :3].T @ (place - map_from_camera[:3, 3])
    return camera.project(point)[0], float(point[2])


def in_words(result: WordResult) -> str:
    """The answer to a word beside the truth, in a few words."""
    return {
        'right': f'found, {result.off or 0:.2f} m from its middle',
        'elsewhere': f'found elsewhere, {result.off or 0:.1f} m off',
        'wrong': 'found, but there is none in this house',
        'missed': 'not found, though one stands here',
        'rightly not found': 'not found: there is none in this house',
    }[result.verdict]


def run_house(
    out: Path,
    console: Console,
    command: Sequence[str],
    queries: Sequence[str] = QUERIES,
    keyframes: int = TOUR,
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> HouseResult:
    """Start the node by `command`, drive the robot through the house with `keyframes` images of `size` [px],
    ask for `queries`, and send it to the first of them that it can drive to. Writes out/house.mcap and
    out/node.log. Raises ValueError where furniture or OpenGL are missing, Failure where the node fails."""
    began = time.perf_counter()
    world = World(*size)
    poses = world.tour(keyframes)
    console.note(f'starting the node; its log is {out / "node.log"}')
    with (
        BagWriter(out / 'house.mcap') as bag,
        NodeProcess({**player.PARAMETERS, **PARAMETERS}, out / 'node.log', command) as node,
        Client() as client,
        console.progress(keyframes, 'keyframe', 'round') as bar,
    ):
        eyes = player.Player(client, lambda: node.alive, node.last_words, compressed=True)
        robot = SimulatedRobot(world, client, eyes, bag, poses[0])
        demo = HouseDemo(world, robot, client)
        robot.wait_for_node()
        console.note('the node is ready: a round through four rooms')
        demo.tour(poses, bar.update)
        answers = demo.words(queries)
        drive, refused = None, []
        for text, (_, mark) in answers.items():
            if mark and drive is None:
                console.note(f'driving to the {text}')
                try:
                    drive = demo.drive(text, mark, bar.update)
                except ValueError as error:
                    refused.append(f'{text}: {error}')
        status = robot.status
    stages = {stage for timings in demo.timings for stage in timings}
    return HouseResult(
        floors=world.plan.floors,
        walls=world.plan.walls,
        pieces=tuple((piece.name, piece.corners) for piece in world.plan.pieces),
        tour=poses,
        words=tuple(result for result, _ in answers.values()),
        drive=drive,
        refused='; '.join(refused),
        gaussians=status.map_gaussians,
        keyframes=status.scenes_fused,
        left_out=status.scenes_left_out,
        simulated=robot.seconds,
        seconds=time.perf_counter() - began,
        weights=demo.weights,
        timings={
            stage: float(np.median([t[stage] for t in demo.timings if stage in t]))
            for stage in sorted(stages)
        },
        film=film(demo.shots),
        credits=credits(world.furniture, [piece.model for piece in world.room.pieces]),
    )
