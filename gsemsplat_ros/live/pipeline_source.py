"""Answers and semantic colours for the live page from a pipeline in this process."""

from __future__ import annotations

import time

import numpy as np
import torch

from gsemsplat_ros.flight.flight import semantic_colors
from gsemsplat_ros.live.page_answer import PageAnswer
from gsemsplat_ros.live.shared_state import Ask, SemanticColors
from gsemsplat_ros.live.shown_scene import ShownScene
from gsemsplat_ros.mapping.map_index import MapIndex
from gsemsplat_ros.mapping.object_identity import recognised
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.scene.scene import Scene
from gsemsplat_ros.semantics.answer import Question


def asks(pipeline: Pipeline, target: Scene | MapIndex, shown: ShownScene) -> Ask:
    """A function that queries `target`, the scene or map that `shown` was made of."""

    def ask(text: str, threshold: float | None) -> PageAnswer:
        start = time.perf_counter()
        answer, stamp_ns = pipeline.query(target, Question(text, threshold or None)), 0
        if isinstance(target, MapIndex):
            answer = recognised(target.map, answer)
            stamp_ns = int(target.map.graph.stamps_ns.max(initial=0))
        assert answer.relevancy is not None and answer.lit is not None  # a pipeline gives both
        relevancy, lit = answer.relevancy[shown.rows], answer.lit[shown.rows]
        seconds = time.perf_counter() - start
        return PageAnswer(answer, shown, relevancy, lit, seconds, stamp_ns=stamp_ns)

    return ask


def semantic_colors_by(pipeline: Pipeline) -> SemanticColors:
    """A function that gives the semantic colours of the videos, from the codes decoded by the pipeline."""

    def colors(shown: ShownScene) -> np.ndarray | None:
        gaussians = shown.gaussians.select(torch.from_numpy(shown.rows)).to(pipeline.device)
        return semantic_colors(gaussians, pipeline.decoders).cpu().numpy()

    return colors
