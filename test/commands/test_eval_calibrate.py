"""`gsemsplat eval calibrate` writes the mixture, and what it was fitted to into the licence list."""

from support.tiny_network import TINY

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.checkpoints.licences import licence_list, stated, united
from gsemsplat_ros.cli import main
from gsemsplat_ros.evaluation import mixture_fit, pair_labels
from gsemsplat_ros.network.model import GSemSplat
from gsemsplat_ros.pipeline import Pipeline

MIXTURE = {'context': 0.2, 'slope': 5.0, 'offset': -3.0, 'threshold': 0.6}


def test_the_card_says_what_the_score_was_fitted_to(tmp_path, monkeypatch):
    path = tmp_path / 'mine.safetensors'
    before = united(stated('nanodet', 'open-images-score'))
    weights.save(path, GSemSplat(TINY).state_dict(), {'config': TINY.to_json(), 'licences': before})
    monkeypatch.setattr(pair_labels, 'read_labels', lambda path: ())
    monkeypatch.setattr(mixture_fit, 'calibrate', lambda pipeline, pairs, samples: {'mixture': MIXTURE})
    monkeypatch.setattr(Pipeline, 'load', lambda weights: None)
    assert main(['eval', 'calibrate', 'kitchen.json', '--weights', str(path), '--quiet']) == 0
    card = weights.read_card(path)
    network, labels = licence_list(card['licences'])
    assert card['mixture'] == MIXTURE and network.name == 'NanoDet'
    assert (labels.name, labels.role, labels.licence) == ('kitchen.json', 'calibration', None)
