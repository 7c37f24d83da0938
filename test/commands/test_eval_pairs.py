"""`gsemsplat eval pairs`: table, card and report, with given answers."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from support.evaluated_rooms import FakePipeline
from support.labelled_pairs import write_labels
from support.page_reader import Reader

from gsemsplat_ros.cli import main
from gsemsplat_ros.commands.eval import pairs as command
from gsemsplat_ros.evaluation.dense_classifier import ClassifierPeer
from gsemsplat_ros.pipeline import Pipeline

LEFT = np.zeros((8, 16), np.float32)
LEFT[2:5, 2:5] = 0.9  # around pixel 7, 7 of the image
FAINT = LEFT / 3


@pytest.fixture
def pipeline(monkeypatch):
    """The chair is found, the door elsewhere, the lamp missed; of the absent ones the bed is found."""
    found = dict.fromkeys(('chair', 'door', 'bed'), (LEFT, True))
    fake = FakePipeline(answers={**found, **dict.fromkeys(('lamp', 'sink', 'tree'), (FAINT, False))})
    fake.weights, fake.model = 'fake.safetensors', None
    monkeypatch.setattr(ClassifierPeer, 'of', lambda model: None)
    monkeypatch.setattr(Pipeline, 'load', lambda *args, **kwargs: fake)
    return fake


def test_the_table(pipeline, tmp_path, capsys):
    assert main(['eval', 'pairs', str(write_labels(tmp_path))]) == 0
    out = capsys.readouterr().out
    assert re.search(r'^localisation_accuracy +0\.333 +0\.000 to 0\.500 +0\.229 +-$', out, re.MULTILINE)
    assert re.search(r'^presence_auc +0\.667 +0\.500 to \S+ +0\.500 +-$', out, re.MULTILINE)
    assert re.search(r'^rotation_deg +- +- +- +-$', out, re.MULTILINE)
    assert re.search(r'^pairs +2$', out, re.MULTILINE) and re.search(
        r'^labels +labels.json$', out, re.MULTILINE
    )
    assert main(['eval', 'pairs', str(write_labels(tmp_path)), '--json']) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row['text'] for row in result['phrases']] == ['chair', 'door', 'bed', 'sink', 'lamp', 'tree']
    assert main(['eval', 'pairs', 'no.json']) == 2
    assert capsys.readouterr().err.count('no labels at no.json') == 1


def test_what_is_not_understood_is_said(pipeline, tmp_path):
    """A phrase that is read as another keeps its boxes; one that is not read is missed."""
    nothing = np.full((8, 16), np.nan, np.float32)

    def odd(content):
        content['pairs'][0]['objects'] = [
            {'text': 'ｃｈａｉｒ', 'boxes': [[4, 2, 12, 10]]},
            {'text': '椅子', 'boxes': [[4, 2, 12, 10]]},
        ]

    query = pipeline.query

    def answer(scene, text):
        if text == '椅子':
            pipeline.answers[text] = (nothing, False)
            return replace(query(scene, text), note='not understood: it')
        return replace(query(scene, 'chair'), text='chair')

    pipeline.query = answer
    assert main(['eval', 'pairs', str(write_labels(tmp_path, odd)), '--out', str(tmp_path)]) == 0
    page = Reader((tmp_path / 'report.html').read_text())
    assert [element['class'] for element in page.all('article')][:2] == ['answer found', 'answer missed']
    assert 'not understood: it, outside the boxes' in page.texts
    rows = json.loads((tmp_path / 'scores.json').read_text())['phrases']
    assert [row['note'] for row in rows[:2]] == ['', 'not understood: it']


def test_the_card(pipeline, tmp_path, monkeypatch):
    written = {}
    monkeypatch.setattr(command, 'write_card', lambda name, result, weights: written.update({name: result}))
    path = str(write_labels(tmp_path))
    mine = ['--weights', 'mine.safetensors']
    assert main(['eval', 'pairs', path, '--card', *mine]) == 0
    assert main(['eval', 'pairs', path, '--card', '--uncalibrated', *mine]) == 0
    assert set(written) == {'pairs', 'pairs_uncalibrated'}
    assert [written[name]['calibrated'] for name in written] == [True, False]


def test_only_a_named_checkpoint_is_changed(tmp_path, capsys):
    for arguments, words in (
        (['pairs', str(write_labels(tmp_path)), '--card'], 'give --weights FILE'),
        (['rooms', '--card'], 'give --weights FILE'),
        (['calibrate', str(write_labels(tmp_path))], '--weights'),
    ):
        assert main(['eval', *arguments]) == 2
        assert words in capsys.readouterr().err


def test_the_report(pipeline, tmp_path, capsys):
    path = str(write_labels(tmp_path))
    assert main(['eval', 'pairs', path, '--out', str(tmp_path / 'out')]) == 0
    assert capsys.readouterr().out.rstrip().endswith('report.html')
    page = Reader((tmp_path / 'out' / 'report.html').read_text())
    cards = [element['class'] for element in page.all('article')]
    assert cards == ['answer found', 'answer found wrong', 'answer found wrong', 'answer absent',
                     'answer missed', 'answer absent']  # fmt: skip
    text = ' '.join(page.texts)
    assert 'False alarms: bed (a_left.png, 0.90)' in text and 'Missed: lamp (b_left.png, 0.30)' in text
    assert 'Found elsewhere: door (a_left.png, 0.90)' in text
    # the chair's box dark and light, then the peak's ring in it
    first = [attributes for attributes in page.all('path') if attributes['d'].startswith('M4.0 2.0')]
    assert [path['d'] for path in first] == ['M4.0 2.0H12.0V10.0H4.0Z'] * 2
    ring = page.all('circle')[0]
    assert 4 <= float(ring['cx']) <= 12 and 2 <= float(ring['cy']) <= 10
    assert page.all('svg')[0]['viewbox'] == '-0.5 -0.5 32 16'
    scores = json.loads((tmp_path / 'out' / 'scores.json').read_text())
    assert scores['found_and_right'] == pytest.approx(1 / 3)
