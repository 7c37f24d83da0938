"""Where the live page gets its Gaussians and answers from, and the board on which it finds them. Free of ROS
and of viser.

A source writes on the board: the worlds that there are, its state in words, and how to ask. Pages read it,
each in its own time; what they ask goes through the board too, so that twenty pages that ask the same word
ask once.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch

from gsemsplat_ros.flight.flight import semantic_colours
from gsemsplat_ros.live.shown import World, inside
from gsemsplat_ros.pipeline import MAX_TEXT, Pipeline
from gsemsplat_ros.scene.map import Map
from gsemsplat_ros.scene.scene import Scene
from gsemsplat_ros.semantics.objects import Object
from gsemsplat_ros.semantics.relevancy import relative_mask

REMEMBERED = 64  # answers that the board keeps
MAX_OBJECTS = 8


@dataclass(frozen=True, eq=False)
class Found:
    """The answer to one phrase, for a page.

    objects: best first, in the frame of `world`. relevancy (M,) float32 of what the world shows, NaN where
    unknown, or None when the source cannot tell; lit (M,) bool: what the phrase names. picture (H, W, 3)
    uint8 RGB: relevancy over the newest image, or None. note: what a person should know besides.
    """

    text: str
    found: bool
    score: float
    threshold: float
    objects: tuple[Object, ...]
    world: World
    relevancy: np.ndarray | None
    lit: np.ndarray
    seconds: float
    picture: np.ndarray | None = None
    note: str = ''


Ask = Callable[[str, float | None], Found]  # phrase, threshold (None: the source's own)


@dataclass(frozen=True, eq=False)
class State:
    """What the board shows at one time. world: the one to show unless an answer says otherwise, None: nothing
    came yet. status: in words, '' when there is nothing to say; bad: it is a trouble. ask: None while words
    cannot be asked, because of `mute`. meanings: semantic colours (M, 3) of a world, None where it has no
    codes. version: counts the worlds."""

    world: World | None = None
    status: str = ''
    bad: bool = False
    ask: Ask | None = None
    mute: str = 'still loading'
    meanings: Callable[[World], np.ndarray | None] = lambda world: None
    version: int = 0


class Board:
    """The newest State, for any thread; `listeners` are called, without arguments, after each change."""

    def __init__(self, workers: int = 1):
        self._state, self._lock = State(), threading.Lock()
        self._pool = ThreadPoolExecutor(workers, 'ask')
        self._answers: OrderedDict[tuple, Future] = OrderedDict()
        self.listeners: list[Callable[[], None]] = []

    @property
    def state(self) -> State:
        return self._state

    def write(self, **changes) -> None:
        """Change parts of the state; a new `world` counts a version up, and what was answered before it is
        forgotten.
        """
        with self._lock:
            newer = ('world' in changes and changes['world'] is not self._state.world) or 'ask' in changes
            self._state = replace(self._state, **changes, version=self._state.version + newer)
            if newer:
                self._answers.clear()
        for listener in tuple(self.listeners):
            listener()

    def ask(self, text: str, threshold: float | None = None) -> Found:
        """The answer to a phrase; the same question to the same world is asked once, whoever asks. Raises
        ValueError.
        """
        with self._lock:
            state = self._state
            if state.ask is None:
                raise ValueError(f'words cannot be asked: {state.mute}')
            key = state.version, text, threshold
            future = self._answers.get(key)
            if future is None:
                future = self._answers[key] = self._pool.submit(state.ask, text, threshold)
                while len(self._answers) > REMEMBERED:
                    self._answers.popitem(last=False)
        try:
            return future.result()
        except BaseException:
            with self._lock:
                if self._answers.get(key) is future:  # what failed may be asked again
                    del self._answers[key]
            raise

    def close(self) -> None:
        """Answer no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def question(text: object) -> str:
    """What a visitor typed as one line of plain text. Raises ValueError when it is none that can be asked."""
    words = ' '.join(''.join(c if c.isprintable() else ' ' for c in str(text)).split())
    if not words:
        raise ValueError("type a word first, such as 'chair'")
    if len(words) > MAX_TEXT:
        raise ValueError(f'{len(words)} characters: at most {MAX_TEXT}; name one thing')
    return words


def asks_scene(pipeline: Pipeline, scene: Scene, world: World) -> Ask:
    """The way to ask the scene of one pair, of which `world` is made."""
    depth = scene.keyframe.rendering.depth.cpu().numpy()

    def ask(text: str, threshold: float | None) -> Found:
        start = time.perf_counter()
        answer = pipeline.query(scene, text, threshold, MAX_OBJECTS)
        everywhere = np.isfinite(answer.map)
        relevancy = pipeline.scored(scene, answer.map, everywhere, depth)[1][world.shown].astype(np.float32)
        lit = np.zeros(len(world.shown), bool)
        if answer.found:
            mask = everywhere & relative_mask(answer.map)
            named = pipeline.scored(scene, answer.map, mask, depth)[1][world.shown]
            lit = named >= answer.threshold  # false for NaN
        return Found(
            answer.text,
            answer.found,
            answer.score,
            answer.threshold,
            answer.objects,
            world,
            relevancy,
            lit,
            time.perf_counter() - start,
        )

    return ask


def asks_map(pipeline: Pipeline, map_: Map, world: World) -> Ask:
    """The way to ask a map, of which `world` is made."""

    def ask(text: str, threshold: float | None) -> Found:
        start = time.perf_counter()
        answer = pipeline.query_map(map_, text, threshold, MAX_OBJECTS)
        lit = np.zeros(len(map_), bool)
        if answer.found:
            with np.errstate(invalid='ignore'):
                lit = relative_mask(answer.relevancy) & (answer.relevancy >= answer.threshold)
        return Found(
            answer.text,
            answer.found,
            answer.score,
            answer.threshold,
            answer.objects,
            world,
            answer.relevancy[world.shown],
            lit[world.shown],
            time.perf_counter() - start,
        )

    return ask


def answered_by_boxes(
    text: str,
    found: bool,
    score: float,
    threshold: float,
    objects: tuple[Object, ...],
    world: World,
    seconds: float,
    picture: np.ndarray | None = None,
    note: str = '',
) -> Found:
    """The answer of somebody who only tells boxes: what lies in one of them lights up."""
    return Found(
        text,
        found,
        score,
        threshold,
        objects,
        world,
        None,
        inside(world.means, objects),
        seconds,
        picture,
        note,
    )


def moved(answer: Found, world: World) -> Found | None:
    """The answer for a newer world of the same frame, where its boxes still hold; None for any other."""
    if answer.relevancy is not None or answer.world.frame != world.frame:
        return None
    return replace(answer, world=world, lit=inside(world.means, answer.objects))


def meanings_by(pipeline: Pipeline) -> Callable[[World], np.ndarray | None]:
    """Semantic colours as the videos have them: of what the pipeline's decoder reads from the codes."""

    def meanings(world: World) -> np.ndarray | None:
        gaussians = world.gaussians.select(torch.from_numpy(world.shown)).to(pipeline.device)
        return semantic_colours(gaussians, pipeline.codec).cpu().numpy()

    return meanings
