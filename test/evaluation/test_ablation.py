"""What each branch adds: the table by hand, from a pipeline whose branches know different things."""

import json
from dataclasses import replace

import numpy as np
import pytest
from support.evaluated_rooms import FakePipeline, make_sample
from support.labelled_pairs import write_labels

from gsemsplat_ros.cli import main
from gsemsplat_ros.commands.eval import ablation as ablation_command
from gsemsplat_ros.evaluation import ablation
from gsemsplat_ros.evaluation.ablation import ORDER, ablate_pairs, ablate_rooms, compare, told_apart
from gsemsplat_ros.pipeline import Pipeline

HALF = np.zeros((8, 16), np.float32)
HALF[:, :8] = 0.9  # the left half of the keyframe


class TwoBranches(FakePipeline):
    """The region-specific branch sees chairs (left half), the context-aware one tables (right half); both see
    both.
    """

    def query(self, scene, text):
        branch = scene.frame
        sees = {'region': ('chair',), 'context': ('table',), 'both': ('chair', 'table')}[branch]
        right = {'chair': HALF, 'table': HALF[:, ::-1]}
        known = text in sees
        map_ = (
            right[text]
            if known
            else np.where(right.get(text, HALF[:, ::-1]) > 0, 0.1, 0.3).astype(np.float32)
        )
        self.answers = {text: (map_, known)}
        return super().query(scene, text)


@pytest.fixture
def branches(monkeypatch):
    """Scenes that remember by which branch they are asked; counts how often a scene is built."""

    def only(scene, branch):
        keyframe = replace(scene.keyframe)
        tagged = replace(scene, keyframe=keyframe)
        object.__setattr__(tagged, 'frame', branch)
        return tagged

    monkeypatch.setattr(ablation, 'only_branch', only)
    return TwoBranches()


def sample(names, left, right):
    made = make_sample(names=names)
    made.instance[:, :, :16], made.instance[:, :, 16:] = left, right
    return made


def test_told_apart_counts_pairs():
    assert told_apart([0.9, 0.4], [0.4, 0.5, 0.1]) == [1, 1, 1, 0.5, 0, 1]
    assert told_apart([], [0.3]) == [] == told_apart([0.3], [])


def test_rooms_by_hand(branches):
    samples = [
        sample(('void', 'chair', 'table'), 1, 2),
        sample(('void', 'chair', 'wall'), 1, 2),
        sample(('void', 'lamp'), 1, 1),
    ]
    result = ablate_rooms(branches, samples, taught=frozenset({'chair'}))
    assert len(branches.pairs) == 3 == result['pairs'], 'a scene is built once for all three'
    rows = result['rows']
    # asked: chair, table; chair, wall; lamp. Unknown names peak in the wrong half, a lamp is everywhere
    assert rows['both']['localisation_accuracy'] == pytest.approx(4 / 5)
    assert rows['region']['localisation_accuracy'] == pytest.approx(3 / 5)
    assert rows['context']['localisation_accuracy'] == pytest.approx(2 / 5)
    assert [rows[branch]['taught_localisation'] for branch in ORDER] == [1, 0, 1]
    assert rows['both']['mask_iou'] == pytest.approx((1 + 1 + 1 + 0 + 0.5) / 5)
    # present names against those of the other samples: lamp, wall; lamp, table; chair, table, wall
    assert [rows[branch]['told_apart'] for branch in ORDER] == pytest.approx([7 / 11, 5 / 11, 6.5 / 11])
    added = result['added']
    assert added['context']['localisation_accuracy']['mean'] == pytest.approx(1 / 5)
    assert added['region']['localisation_accuracy']['mean'] == pytest.approx(2 / 5)
    low, high = added['region']['localisation_accuracy']['interval']
    assert low == 0 and high <= 1
    json.dumps(result, allow_nan=False)
    with pytest.raises(ValueError, match='at least one sample'):
        ablate_rooms(branches, [])


def test_differences_are_paired():
    """Branches that vary together: the interval of the difference is that of the difference, not of the
    rows.
    """
    noise = [0.0, 1.0, 0.0, 1.0, 1.0, 0.0]
    groups = {
        'both': [{'m': [x]} for x in noise],
        'region': [{'m': [x - 0.25]} for x in noise],
        'context': [{'m': []} for _ in noise],
    }
    groups['context'] = [{'m': [0.0]} for _ in noise]
    result = compare(groups, ('m',), 0)
    assert result['added']['context']['m']['mean'] == pytest.approx(0.25)
    assert result['added']['context']['m']['interval'] == pytest.approx((0.25, 0.25))
    low, high = result['intervals']['both']['m']
    assert high - low > 0.5


def test_real_pairs(branches, tmp_path):
    result = ablate_pairs(branches, write_labels(tmp_path))
    assert set(result['rows']) == set(ORDER) and result['pairs'] == 2
    assert all(0 <= result['rows'][branch]['localisation_accuracy'] <= 1 for branch in ORDER)


def test_the_command(branches, monkeypatch, capsys):
    monkeypatch.setattr(Pipeline, 'load', lambda *args, **kwargs: branches)
    samples = [sample(('void', 'chair', 'table'), 1, 2), sample(('void', 'lamp'), 1, 1)]
    monkeypatch.setattr(
        ablation_command, 'draw_held_out_rooms', lambda rooms, console: (samples[:rooms], frozenset())
    )
    assert main(['eval', 'ablation', '--rooms', '2']) == 0
    out = capsys.readouterr().out
    assert 'rooms, 2 pairs' in out and 'added by context' in out and 'told apart' in out
    assert main(['eval', 'ablation', '--rooms', '2', '--json']) == 0
    assert set(json.loads(capsys.readouterr().out.splitlines()[-1])['rooms']['rows']) == set(ORDER)
    assert main(['eval', 'ablation', '--labels', 'no.json']) == 2
    assert 'no labels at no.json' in capsys.readouterr().err
