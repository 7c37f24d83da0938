"""The fit of the score: a known curve is found again, and one absent phrase in ten passes the threshold."""

from types import SimpleNamespace

import numpy as np
import pytest
from support.evaluated_rooms import make_sample

from gsemsplat_ros.evaluation import mixture_fit
from gsemsplat_ros.evaluation.mixture_fit import CONTEXT, PLAIN, calibrate, logistic, sigmoid


class Speaker:
    """Answers a phrase by its own number: 'peak 0.25' has the peak 0.25."""

    def build(self, pair):
        return SimpleNamespace()

    def query(self, scene, text):
        assert scene.mixture == PLAIN
        return SimpleNamespace(score=float(sigmoid(np.array(float(text.split()[1])))))


@pytest.fixture(autouse=True)
def plain_scenes(monkeypatch):
    monkeypatch.setattr(mixture_fit, 'mixed_by', lambda mixture, scene: SimpleNamespace(mixture=mixture))


def labelled(present, absent):
    things = tuple(SimpleNamespace(text=f'peak {x:.6f}') for x in present)
    return SimpleNamespace(pair=None, objects=things, absent=tuple(f'peak {x:.6f}' for x in absent))


def drawn(slope, offset, count, seed=0):
    """Peaks, and which are of things that are there, by a known curve."""
    rng = np.random.default_rng(seed)
    peaks = rng.normal(0.5, 0.4, count)
    return peaks, rng.random(count) < sigmoid(slope * peaks + offset)


def test_a_known_curve_is_found_again():
    peaks, present = drawn(6.0, -3.0, 20_000)
    slope, offset = logistic(peaks, present.astype(float), np.ones(len(peaks)))
    assert slope == pytest.approx(6.0, rel=0.05) and offset == pytest.approx(-3.0, rel=0.05)


def test_scores_become_probabilities_and_one_absent_phrase_in_ten_passes():
    peaks, present = drawn(6.0, -3.0, 3000)
    pairs = [labelled(peaks[i::30][present[i::30]], peaks[i::30][~present[i::30]]) for i in range(30)]
    result = calibrate(Speaker(), pairs)
    mixture = result['mixture']
    assert mixture['context'] == CONTEXT
    assert mixture['slope'] == pytest.approx(6.0, rel=0.1) and mixture['offset'] == pytest.approx(
        -3.0, rel=0.1
    )
    assert (result['pairs_present'], result['pairs_absent']) == (present.sum(), (~present).sum())
    assert result['pairs_calibration_error'] < 0.03 and 0.8 < result['pairs_presence_auc'] < 1
    assert result['pairs_false_alarm_rate'] <= 0.1 + 1e-9
    absent = sigmoid(mixture['slope'] * peaks[~present] + mixture['offset'])
    assert (absent >= mixture['threshold'] - 0.011).mean() > 0.1 or mixture['threshold'] == 0.5


def test_pairs_and_rooms_weigh_the_same(monkeypatch):
    """Rooms in which everything scores higher move the curve as much as pairs, however many there are."""
    peaks, present = drawn(6.0, -3.0, 1500)
    pair = labelled(peaks[present], peaks[~present])
    rooms = [(float(x) + 1.0, bool(there)) for x, there in zip(peaks[:150], present[:150])]
    monkeypatch.setattr(mixture_fit, 'names_of_room', lambda *arguments: rooms)
    both = calibrate(Speaker(), [pair], [make_sample(names=('void', 'cup'))])
    many = calibrate(Speaker(), [pair], [make_sample(names=('void', 'cup'))] * 5)
    alone = calibrate(Speaker(), [pair])
    assert both['rooms_present'] + both['rooms_absent'] == 150
    assert both['mixture'] == many['mixture']
    assert abs(both['mixture']['offset'] - alone['mixture']['offset']) > 0.3


def test_too_few_phrases_are_refused():
    with pytest.raises(
        ValueError, match='3 present and 2 absent phrases: wanted 40 of each; give more labelled'
    ):
        calibrate(Speaker(), [labelled((1, 2, 3), (0, 0.5))])
