"""The pose graph of a map as tensors of its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from gsemsplat_ros.geometry.pose import all_rigid
from gsemsplat_ros.mapping.pose_graph import MAP, GraphLink, PoseGraph
from gsemsplat_ros.scene.gaussian_columns import LARGEST

# of a scene: number, stamp_ns; pose, row by row, scale. Of a link: first, second, whether it is doubtful;
# first_from_second, row by row, ratio, sigmas
SCENE_WHOLE, SCENE_REAL, LINK_WHOLE, LINK_REAL = 2, 17, 3, 20
MOST_LINKS = 16  # of a scene, on average
DTYPES = {
    'graph_scene_whole': torch.int64,
    'graph_scene_real': torch.float64,
    'graph_link_whole': torch.int64,
    'graph_link_real': torch.float64,
}


def tensors_of(graph: PoseGraph) -> dict[str, Tensor]:
    """The tensors of a file."""
    links = graph.links
    values = {
        'scene_whole': np.stack((graph.numbers, graph.stamps_ns), 1),
        'scene_real': np.concatenate((graph.poses.reshape(-1, 16), graph.scales[:, None]), 1),
        'link_whole': np.array([(link.first, link.second, link.doubtful) for link in links]),
        'link_real': np.array(
            [(*link.first_from_second.ravel(), link.ratio, *link.sigmas) for link in links]
        ),
    }
    return {
        f'graph_{name}': torch.from_numpy(rows.ravel()).to(DTYPES[f'graph_{name}'])
        for name, rows in values.items()
    }


def graph_of(tensors: Mapping[str, Tensor]) -> PoseGraph:
    """The graph of a checked file; an empty one for a file of an earlier version."""
    if 'graph_scene_whole' not in tensors:
        return PoseGraph.empty()
    scene_whole, scene_real, link_whole, link_real = rows_of(tensors)
    return PoseGraph(
        scene_whole[:, 0].copy(),
        scene_real[:, :16].reshape(-1, 4, 4).copy(),
        scene_real[:, 16].copy(),
        scene_whole[:, 1].copy(),
        tuple(link_of(whole, real) for whole, real in zip(link_whole.tolist(), link_real)),
    )


def link_of(whole: Sequence[int], real: np.ndarray) -> GraphLink:
    """The link of one row of both."""
    turn, way, ratio = real[17:].tolist()
    first_from_second = real[:16].reshape(4, 4).copy()
    return GraphLink(
        whole[0], whole[1], first_from_second, float(real[16]), (turn, way, ratio), bool(whole[2])
    )


def rows_of(tensors: Mapping[str, Tensor]) -> list[np.ndarray]:
    """The four tensors, a row for each scene or link."""
    widths = SCENE_WHOLE, SCENE_REAL, LINK_WHOLE, LINK_REAL
    return [tensors[name].numpy().reshape(-1, width) for name, width in zip(DTYPES, widths)]


def defect(tensors: Mapping[str, Tensor], scenes: int) -> str:
    """What is wrong with the graph of a map of so many scenes, in words; '' when nothing is."""
    count, links = (
        len(tensors['graph_scene_whole']) // SCENE_WHOLE,
        len(tensors['graph_link_whole']) // LINK_WHOLE,
    )
    sizes = [len(tensors[name]) for name in DTYPES]
    if sizes != [count * SCENE_WHOLE, count * SCENE_REAL, links * LINK_WHOLE, links * LINK_REAL]:
        return 'its pose graph is cut off'
    if links > MOST_LINKS * count:
        return f'its pose graph has {links} links of {count} scenes'
    scene_whole, scene_real, link_whole, link_real = rows_of(tensors)
    numbers = scene_whole[:, 0]
    if not ((numbers >= 1) & (numbers <= scenes)).all() or not (np.diff(numbers) > 0).all():
        return f'numbers of its pose graph are not in order or out of their range, 1 to {scenes}'
    first, second, doubtful = link_whole.T
    if not (
        np.isin(first, (MAP, *numbers)).all()
        and np.isin(second, numbers).all()
        and (first < second).all()
        and np.isin(doubtful, (0, 1)).all()
    ):
        return 'links of its pose graph are not of its scenes'
    for real, rows in (scene_real, count), (link_real, links):
        if not (np.abs(real) <= LARGEST).all() or not (real[:, 16:] > 0).all():
            return f'numbers of its pose graph are out of their range, {LARGEST:g}'
        if not all_rigid(real[:, :16].reshape(rows, 4, 4)):
            return 'poses of its pose graph are not rigid'
    return ''
