"""The published evaluation: its stored results, its parts against plain loops, and foreign files."""

from pathlib import Path

import numpy as np
import pytest
from support.plain_majority import plain_majority

from gsemsplat_ros.evaluation.published import check_protocol, evaluate_frame, fill, majority

FIXTURE = Path(__file__).parents[1] / 'data' / 'protocol.npz'


def arrays():
    with np.load(FIXTURE, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def test_stored_results_are_met():
    result = check_protocol(FIXTURE)
    assert result['passed'] and result['heads_equal'] and result['localisation_equal']
    assert result['max_relevancy_error'] <= 1e-5 and result['max_iou_error'] <= 1e-6


@pytest.mark.parametrize(
    'name, change, key',
    [
        ('iou', lambda value: value + 2e-6, 'max_iou_error'),
        ('relevancy', lambda value: value + 2e-5, 'max_relevancy_error'),
        ('level', lambda value: 1 - value, 'heads_equal'),
        ('loc_acc', lambda value: value + 0.0001, 'localisation_equal'),
        ('iou', lambda value: value * np.nan, 'max_iou_error'),
    ],
)
def test_another_result_fails(tmp_path, name, change, key):
    fixture = arrays()
    fixture[name] = change(fixture[name])
    np.savez(tmp_path / 'changed.npz', **fixture)
    result = check_protocol(tmp_path / 'changed.npz')
    assert result['passed'] is False
    if key.startswith('max'):
        assert not result[key] <= 1e-6
    else:
        assert result[key] is False


@pytest.mark.parametrize('seed, shape, share', [(0, (23, 31), 0.5), (1, (40, 17), 0.45), (2, (8, 5), 0.55)])
def test_majority_is_the_plain_loop(seed, shape, share):
    mask = np.random.default_rng(seed).random(shape) < share
    np.testing.assert_array_equal(majority(mask), plain_majority(mask))


def test_majority_never_reads_the_last_row_and_column():
    mask = np.zeros((20, 20), bool)
    mask[-1], mask[:, -1] = True, True
    assert not majority(mask).any()
    np.testing.assert_array_equal(majority(~mask), np.ones((20, 20), bool))


def test_majority_ties_are_false():
    mask = np.zeros((9, 9), bool)
    mask[:4, :2] = True  # the corner's window is 4 x 4: half of it
    assert not majority(mask)[0, 0] and plain_majority(mask)[0, 0] == majority(mask)[0, 0]


def test_fill_unites_and_cuts_to_whole_pixels():
    square = np.array([[2.9, 3.9], [6.9, 3.9], [6.9, 5.9], [2.9, 5.9]])
    mask = fill([square, square + [10, 0]], 12, 20)
    rows, columns = np.nonzero(mask)
    assert sorted(set(rows)) == [3, 4, 5] and sorted(set(columns)) == [*range(2, 7), *range(12, 17)]
    assert len(rows) == 30


def frame():
    """Head 0 has its peak in the left square, head 1 a lower one in the right square."""
    relevancy = np.full((2, 1, 64, 64), 0.3, np.float32)
    relevancy[0, 0, 20:40, 5:25] = 0.9
    relevancy[1, 0, 20:40, 40:60] = 0.6
    left = np.array([[5, 20], [24, 20], [24, 39], [5, 39]])
    return relevancy, left, np.ones((64, 64), bool)


def test_frame_scores_the_chosen_head():
    relevancy, left, visible = frame()
    scores = evaluate_frame(relevancy, [[left]], visible)
    assert scores.branch.tolist() == [0] and scores.localised.tolist() == [True] and scores.iou[0] > 0.9
    right = evaluate_frame(relevancy, [[left + [35, 0]]], visible)
    assert right.branch.tolist() == [0] and right.localised.tolist() == [False] and right.iou[0] == 0


def test_the_head_of_the_localisation_is_chosen_on_the_visible_part():
    relevancy, left, visible = frame()
    visible[:, :30] = False
    scores = evaluate_frame(relevancy, [[left + [35, 0]]], visible)
    assert scores.branch.tolist() == [0] and scores.iou[0] == 0  # IoU: head 0, on the whole map
    assert scores.localised.tolist() == [True]  # peak: head 1, on what is visible


def test_phrases_without_visible_truth_do_not_count():
    relevancy, left, visible = frame()
    both = np.concatenate([relevancy, relevancy], 1)
    scores = evaluate_frame(both, [[left], [left + [0, 100]]], visible)
    assert np.isnan(scores.iou).tolist() == [False, True]
    assert scores.localisation_accuracy == 1.0
    nothing = evaluate_frame(relevancy, [[left]], np.zeros((64, 64), bool))
    assert np.isnan(nothing.localisation_accuracy)


def foreign_files(folder):
    """Files that are no fixture, by what is wrong with them."""
    whole = FIXTURE.read_bytes()
    (folder / 'cut.npz').write_bytes(whole[: len(whole) // 2])
    (folder / 'text.npz').write_text('no archive')
    (folder / 'empty.npz').write_bytes(b'')
    np.save(folder / 'array.npz.npy', np.zeros(3))
    (folder / 'array.npz.npy').rename(folder / 'array.npz')
    np.savez(folder / 'other.npz', images=np.zeros(3))
    np.savez(folder / 'pickled.npz', **{**arrays(), 'pos': np.array([{}, {}, {}], object)})
    np.savez(folder / 'prompt.npz', **{**arrays(), 'prompts': np.array(['chair', 'table', 'piano'])})
    np.savez(folder / 'json.npz', **{**arrays(), 'polygons': np.array('[')})
    np.savez(folder / 'shape.npz', **{**arrays(), 'vis': np.ones((96, 127))})
    np.savez(folder / 'words.npz', **{**arrays(), 'neg': np.full((4, 48), 'x')})
    np.savez(folder / 'small.npz', **{**arrays(), 'feat': np.zeros((2, 16, 16, 48))})
    return sorted(path.name for path in folder.iterdir()) + ['missing.npz']


def test_foreign_files_are_refused_in_one_line(tmp_path):
    names = foreign_files(tmp_path)
    assert len(names) == 12
    for name in names:
        with pytest.raises(ValueError) as error:
            check_protocol(tmp_path / name)
        assert name in str(error.value) and '\n' not in str(error.value), error.value
