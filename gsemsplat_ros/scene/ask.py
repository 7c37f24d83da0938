"""Answers of a scene: relevancy to a decision, and relevant Gaussians to objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from gsemsplat_ros.device import download
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.scene.scene import Scene
from gsemsplat_ros.semantics.answer import Answer, AnswerPicture, GaussianArrays, Question
from gsemsplat_ros.semantics.objects import Object, find_objects
from gsemsplat_ros.semantics.relevancy import MIN_ALPHA, box_size, decide, smooth


@torch.inference_mode()
def ask_scene(scene: Scene, questions: Sequence[Question], phrases: np.ndarray) -> list[Answer]:
    """Answers of one scene in the order of `questions`; `phrases` (K, C): their unit embeddings."""
    rendering = scene.keyframe.rendering
    inside, box = rendering.alpha >= MIN_ALPHA, box_size(*rendering.alpha.shape)
    relevancy = scene.keyframe.hidden_codes.relevancy(phrases, partial(smooth, box=box, inside=inside))
    (smoothed,) = download([relevancy])  # (2 or 1, K, h, w)
    return [_answer_of_scene(scene, question, smoothed[:, k]) for k, question in enumerate(questions)]


def _answer_of_scene(scene: Scene, question: Question, smoothed: np.ndarray) -> Answer:
    """smoothed (2 or 1, h, w): relevancy."""
    means, opacities, alpha, depth, _ = scene.on_host
    decision = decide(smoothed, alpha, threshold_of(question))
    pixels, seen = scene.pixels, scene.pixels >= 0
    relevancy = np.where(seen, decision.relevancy.ravel()[pixels], np.float32(np.nan))
    lit = seen & decision.mask.ravel()[pixels] & enough(relevancy, smoothed, question)
    point = pixel = None
    if decision.peak:
        v, u = decision.peak
        uv = np.array([u, v])
        point = tuple((depth[v, u] * scene.keyframe.camera.rays(uv)).tolist())
        pixel = tuple(scene.keyframe.to_input_pixel(uv).tolist())
    objects: tuple[Object, ...] = ()
    if decision.found:
        objects = find_objects(means, relevancy, lit, opacities, max_objects=question.max_objects)
    return Answer(
        question.text,
        question.threshold,
        decision.found,
        decision.score,
        point,
        pixel,
        objects,
        decision.branch,
        GaussianArrays(relevancy, lit),
        AnswerPicture(decision.relevancy, decision.mask),
        measured=_measured(scene, decision.mask),
    )


def moved(answer: Answer, map_from_camera: np.ndarray, gaussians: Gaussians, question: Question) -> Answer:
    """The answer of a scene in another frame: `map_from_camera` (4, 4) rigid; `gaussians`: those of the scene
    in that frame, to whose axes the boxes are aligned anew."""
    point, objects = answer.peak_point, answer.objects
    if point is not None:
        point = tuple((map_from_camera[:3, :3] @ point + map_from_camera[:3, 3]).tolist())
    if objects:
        assert answer.relevancy is not None and answer.lit is not None  # of a scene
        objects = find_objects(
            gaussians.means.cpu().numpy(),
            answer.relevancy,
            answer.lit,
            gaussians.opacities.cpu().numpy(),
            max_objects=question.max_objects,
        )
    return replace(answer, peak_point=point, objects=objects)


def _measured(scene: Scene, mask: np.ndarray) -> float | None:
    """Share of the pixels in the mask (h, w) whose depth was measured, None where unknown."""
    return float(scene.measured[mask].mean()) if scene.measured is not None and mask.any() else None


def threshold_of(question: Question) -> float:
    """The threshold, which the pipeline has filled in where the question left it open."""
    assert question.threshold is not None, question
    return question.threshold


def enough(relevancy: np.ndarray, smoothed: np.ndarray, question: Question) -> np.ndarray:
    """(N,) bool: which relevancy may light a Gaussian. That of a branch is absolute, so it must reach the
    threshold; a mixture's falls from the score, so that its range alone says where the phrase is.

    smoothed (2 or 1, ...): relevancy of both branches or of their mixture.
    """
    level = threshold_of(question) if len(smoothed) == 2 else 0.0
    return relevancy >= level  # false for NaN


def not_asked(question: Question, count: int, size: tuple[int, ...] | None = None) -> Answer:
    """The answer to a question of which nothing is understood: not found, with no relevancy anywhere.

    count: Gaussians of what was asked; size (h, w): of its picture, None for a map.
    """
    picture = None
    if size is not None:
        picture = AnswerPicture(np.full(size, np.nan, np.float32), np.zeros(size, bool))
    return Answer(
        question.text,
        question.threshold,
        found=False,
        score=0.0,
        peak_point=None,
        peak_pixel=None,
        objects=(),
        gaussians=GaussianArrays(np.full(count, np.nan, np.float32), np.zeros(count, bool)),
        picture=picture,
    )
