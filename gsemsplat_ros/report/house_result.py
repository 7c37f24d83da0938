"""What came of a drive through the simulated house, for its report and summary.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

RIGHT_M = 0.5  # what was found is right within so much of the sides of a thing of that name


@dataclass(frozen=True, eq=False)
class WordResult:
    """A word, and where it was found in the map against where it stands. seconds: from word to answer.

    place (x, y, z) m: the middle of the best object, None when not found. standing: number of things of that
    name in the house; true (x, y, z) m: the middle of the nearest; beside: metres from its sides, seen from
    above; None where none stands or nothing was found. shown (H, W, 3) uint8 RGB: a picture that the
    robot took with what was found, None where it took none.
    """

    text: str
    score: float
    seconds: float
    place: tuple[float, float, float] | None
    standing: int
    true: tuple[float, float, float] | None = None
    beside: float | None = None
    shown: np.ndarray | None = None

    @property
    def off(self) -> float | None:
        """Metres between the middles of what was found and of what stands."""
        if self.place is None or self.true is None:
            return None
        return float(np.linalg.norm(np.subtract(self.place, self.true)))

    @property
    def verdict(self) -> str:
        """One of 'right', 'elsewhere', 'wrong' (no such thing), 'missed', 'rightly not found'."""
        if self.place is None:
            return 'missed' if self.standing else 'rightly not found'
        if self.beside is None:
            return 'wrong'
        return 'right' if self.beside <= RIGHT_M else 'elsewhere'

    def summary(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            'text': self.text,
            'verdict': self.verdict,
            'score': self.score,
            'place': self.place,
            'true': self.true,
            'off_m': self.off,
            'beside_m': self.beside,
            'standing': self.standing,
            'seconds': self.seconds,
        }


@dataclass(frozen=True, eq=False)
class Drive:
    """The drive to a thing. path (N, 3): poses; goal: pose (x, y, yaw) that the node gave; asked: the word;
    beside: metres of the robot at its end from the sides of the nearest thing of that name, None: no such
    thing; shown (H, W, 3) uint8 RGB: what it sees there."""

    asked: str
    path: np.ndarray
    goal: np.ndarray
    beside: float | None
    shown: np.ndarray

    @property
    def off(self) -> float:
        """Metres of the robot from the goal at the end."""
        return float(np.linalg.norm(self.path[-1, :2] - self.goal[:2]))

    @property
    def turn_off(self) -> float:
        """Degrees between where it looks and where the goal looks."""
        angle = (self.path[-1, 2] - self.goal[2] + np.pi) % (2 * np.pi) - np.pi
        return float(abs(np.degrees(angle)))

    @property
    def length(self) -> float:
        """Metres driven."""
        return float(np.linalg.norm(np.diff(self.path[:, :2], axis=0), axis=1).sum())

    def summary(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            'asked': self.asked,
            'goal': self.goal.tolist(),
            'arrived': self.path[-1].tolist(),
            'off_m': self.off,
            'off_deg': self.turn_off,
            'beside_m': self.beside,
            'length_m': self.length,
        }


@dataclass(frozen=True, eq=False)
class HouseResult:
    """floors, walls (N, 2, 2) m and pieces, (name, corners (4, 2) m) each: the floor plan. tour (N, 3): poses
    of the round. drive: None where no place to go was found, `refused` then says why. gaussians, keyframes:
    of the map; simulated, seconds: of the robot's time and of ours; timings: median of each stage of the
    node; film: an animated WebP; credits: library, creators, licence of the furniture that stands there."""

    floors: np.ndarray
    walls: np.ndarray
    pieces: tuple[tuple[str, np.ndarray], ...]
    tour: np.ndarray
    words: tuple[WordResult, ...]
    drive: Drive | None
    refused: str
    gaussians: int
    keyframes: int
    left_out: int
    simulated: float
    seconds: float
    weights: str
    timings: dict[str, float]
    film: bytes
    credits: tuple[tuple[str, str, str], ...]

    def summary(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            'words': [word.summary() for word in self.words],
            'drive': self.drive.summary() if self.drive else None,
            'refused': self.refused,
            'gaussians': self.gaussians,
            'keyframes': self.keyframes,
            'left_out': self.left_out,
            'simulated_seconds': self.simulated,
            'seconds': self.seconds,
            'weights': self.weights,
            'timings': self.timings,
        }
