"""The answer of a map whose Gaussians are all decoded and compared: the plain twin of mapping/ask_map.py."""

import numpy as np
import torch

from gsemsplat_ros.mapping.ask_map import CONFIRMED, MIN_IN_OBJECT, TOUCHING
from gsemsplat_ros.mapping.map_cells import CELL, MIN_IN_CELL
from gsemsplat_ros.mapping.voxels import SIDE, tiles_of, voxel_cells
from gsemsplat_ros.scene.ask import enough
from gsemsplat_ros.semantics.answer import Answer, GaussianArrays
from gsemsplat_ros.semantics.objects import grouped, level_around
from gsemsplat_ros.semantics.relevancy import decide, relevancy


class PlainMap:
    """A map of N Gaussians with everything decoded. cells (N,): number of the cell of each, by place; support
    (N,): the number of Gaussians there."""

    def __init__(self, map_, decoders, canonical):
        self.map, self.mixture = map_, decoders.mixture
        self.decoded = decoders.prepare(map_.gaussians.codes[:, None], canonical)
        keys = map_.keys.numpy()
        place = np.column_stack((tiles_of(keys), voxel_cells(keys) % SIDE // CELL))
        self.cells = np.unique(place, axis=0, return_inverse=True)[1].ravel()
        self.support = np.bincount(self.cells)[self.cells]

    def smooth(self, values):
        """Half the values (..., N) plus half their mean, weighted by opacity, over the Gaussian's cell."""
        weights = self.map.gaussians.opacities.numpy()
        total = np.bincount(self.cells, weights)
        rows = values.flatten(0, -2).numpy()
        means = np.stack([(np.bincount(self.cells, weights * row) / total)[self.cells] for row in rows])
        return ((values + torch.from_numpy(means).reshape(values.shape)) / 2).float()

    def relevancy(self, phrases):
        """Embeddings (K, C) -> smoothed relevancy (2 or 1, K, N)."""
        contrasts = self.decoded.contrasts(phrases)[..., 0]
        return relevancy(contrasts, self.mixture, self.smooth, torch.from_numpy(self.support >= MIN_IN_CELL))

    def answer(self, question, phrase):
        """To a question with a threshold; phrase (1, C)."""
        values = self.relevancy(phrase)[:, 0].numpy()
        decision = decide(values, self.support, question.threshold, MIN_IN_CELL)
        lit = decision.mask & enough(decision.relevancy, values, question)
        means, objects = self.map.gaussians.means.numpy(), ()
        if decision.found:
            opacities, counts = self.map.gaussians.opacities.numpy(), self.map.whole.counts.numpy()
            of_it = lit | (decision.relevancy >= level_around(decision.relevancy))  # false for NaN
            for fewest in CONFIRMED:
                keep = of_it & (counts >= fewest)
                objects = objects or grouped(
                    means[keep],
                    decision.relevancy[keep],
                    lit[keep],
                    opacities[keep],
                    voxel=TOUCHING * self.map.voxel,
                    min_points=MIN_IN_OBJECT,
                    max_objects=question.max_objects,
                )
        peak = tuple(means[decision.peak[0]].tolist()) if decision.peak else None
        return Answer(
            question.text,
            question.threshold,
            decision.found,
            decision.score,
            peak,
            None,
            objects,
            decision.branch,
            GaussianArrays(decision.relevancy, lit),
        )
