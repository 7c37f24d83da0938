"""Questions to a map that the shipped network made of a house, against the plain twin."""

import numpy as np
import pytest
from support.plain_map import PlainMap

from gsemsplat_ros.evaluation.boxes import box_scores, boxes_of
from gsemsplat_ros.evaluation.map_houses import walkers
from gsemsplat_ros.evaluation.map_walk import stereo_pair
from gsemsplat_ros.mapping import ask_map
from gsemsplat_ros.mapping.fusion import Mapper
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.semantics.answer import Question

KEYFRAMES = 24  # of one round
# in this house or in others, of parts of rooms, and of what is in none
WORDS = [
    'armchair',
    'bottle',
    'ceiling',
    'chair',
    'clothes hanger',
    'comb',
    'cooker',
    'cup',
    'desk lamp',
    'dog',
    'door',
    'elephant',
    'fire hydrant',
    'floor',
    'fridge',
    'guitar',
    'hanging light',
    'laptop',
    'person',
    'picture frame',
    'pillow',
    'radiator',
    'round table',
    'sink cabinet',
    'sofa',
    'table',
    'toilet',
    'vase',
    'wall',
    'window',
]


@pytest.fixture(scope='module')
def house():
    """The pipeline and its map of a house, of some hundred thousand Gaussians."""
    pytest.importorskip('moderngl')
    from gsemsplat_ros.rooms.furniture import load_furniture
    from gsemsplat_ros.rooms.renderer import RoomRenderer

    walker, _ = walkers(RoomRenderer(load_furniture(), 384, 512), 0)
    pipeline, mapper = Pipeline.load(), Mapper(Map.empty('map', 0.03), 10**7)
    for keyframe in walker.rounds(2 * KEYFRAMES):
        if keyframe.round == 1:
            pair = stereo_pair(keyframe, walker.camera, keyframe.world_from_camera)
            assert mapper.add(pipeline.build(pair), pair).fused
    assert len(mapper.map) > 3e5
    return pipeline, mapper.map


@pytest.mark.heavy
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(('share', 'same_boxes'), [(1.0, 0.85), (0.1, 0.7)])
def test_the_answers_are_nearly_those_of_all_gaussians(monkeypatch, house, share, same_boxes):
    """Also with a tenth of the Gaussians compared, as in a map ten times as large."""
    for name in ('FIRST', 'MOST', 'MANY'):
        monkeypatch.setattr(ask_map, name, int(share * getattr(ask_map, name)))
    pipeline, map_ = house
    index, plain = pipeline.index(map_), PlainMap(map_, pipeline.decoders, pipeline.canonical)
    agree, errors, recall = [], [], []
    for word in WORDS:
        question, phrase = Question(word, pipeline.threshold), pipeline.text_encoder.encode([word])
        got, wanted = ask_map.ask_map(index, question, phrase), plain.answer(question, phrase)
        agree.append(got.found == wanted.found)
        if got.found and wanted.found:
            errors.append(abs(got.score - wanted.score))
            recall += box_scores(boxes_of(got.objects), boxes_of(wanted.objects)).get('box_recall', [])
    assert np.mean(agree) >= 0.95 and len(errors) > 10
    assert max(errors) < 0.1 and np.mean(errors) < 0.01
    assert np.mean(recall) >= same_boxes
