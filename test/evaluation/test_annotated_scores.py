"""`eval scannetpp`: the table against numbers by hand, the command from images and from saved features, the
page.
"""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.annotated_views import NAMES, SCENE, SIDE, ids_of, write_annotation, write_eval
from support.page_reader import Reader

from gsemsplat_ros.checkpoints import checkpoint as weights
from gsemsplat_ros.cli import main
from gsemsplat_ros.evaluation.annotated_scores import (
    CHANCE,
    FrameResult,
    MethodResult,
    chance,
    evaluate_frames,
    score,
    summarise,
)
from gsemsplat_ros.evaluation.annotated_views import AnnotatedView, read_cameras, read_view
from gsemsplat_ros.evaluation.methods import Shown
from gsemsplat_ros.evaluation.published import evaluate_frame, majority
from gsemsplat_ros.report.evaluation_page import (
    EvaluationPage,
    PhrasePictures,
    composite,
    heat_map,
    mask_picture,
    page,
    peak_picture,
    section,
)
from gsemsplat_ros.semantics.text import MiniLM

NAME = 'frame_00003'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """eval_datasets with one scene, and ScanNet++ beside it."""
    folder = tmp_path_factory.mktemp('data')
    write_eval(folder / 'eval', folder / 'scannetpp')
    return folder


class Knowing:
    """Knows the annotations: right about every phrase but the last, where it points at the first."""

    name = 'knowing'

    def show(self, frame, inputs, folder, phrases):
        from gsemsplat_ros.evaluation.published import fill

        maps = []
        for text in phrases:
            told = frame.phrases[0] if text == frame.phrases[-1] else text
            maps.append(np.where(fill(frame.polygons.get(told, ()), SIDE, SIDE), 0.9, 0.1))
        return Shown(frame.image / 255, np.stack([maps, np.full_like(maps, 0.05)]).astype(np.float32))


def test_rows_of_one_view(data):
    [result] = evaluate_frames(data / 'eval', [Knowing()], lambda folder, frame: None)
    knowing, luck = result.methods
    assert [row['text'] for row in knowing.words] == ['wall', 'storage box', 'floor']
    first, second, last = knowing.words
    assert first['iou'] > 0.85 and first['localised'] and first['head'] == 0 and first['found']
    assert second['corrected_iou'] > 0.6 and second['corrected_localised']
    assert last['iou'] < 0.1 and not last['localised'] and not last['corrected_localised']
    assert knowing.colors['psnr'] == 100 and knowing.colors['ssim'] == pytest.approx(1)
    frame = result.frame
    floor = frame.visible & majority(evaluate_truth(frame, 'floor'))
    assert luck.name == CHANCE and luck.words[2]['iou'] == pytest.approx(floor.sum() / frame.visible.sum())
    assert luck.words[2]['localised'] == luck.words[2]['iou']
    flat = frame.image[frame.visible].mean(0) / 255
    wanted = -10 * np.log10(np.square(frame.image[frame.visible] / 255 - flat).mean())
    assert luck.colors['psnr'] == pytest.approx(wanted)


def evaluate_truth(frame, text):
    from gsemsplat_ros.evaluation.published import fill

    return fill(frame.polygons[text], SIDE, SIDE)


def a_frame(scene, name, phrases):
    visible = np.ones((SIDE, SIDE), bool)
    return AnnotatedView(
        scene,
        name,
        np.zeros((SIDE, SIDE, 3), np.uint8),
        dict.fromkeys(phrases, ()),
        visible,
        (*phrases, 'piano'),
        None,
        None,
    )


def row(text, iou, localised, corrected=None):
    corrected = iou if corrected is None else None if corrected == 'no' else corrected
    return {
        'text': text,
        'iou': iou,
        'localised': localised,
        'head': 0,
        'corrected_iou': corrected,
        'corrected_localised': localised,
        'found': True,
    }


def test_the_table_is_the_mean_of_the_scenes():
    """Scene a: (0.2 + 0.4) / 2; b: (0.8 + 0.6 + 1.0) / 3 of two views; NaN and what is missing do not
    count.
    """
    results = [
        FrameResult(
            a_frame('a', 'frame_1', 'xy'),
            None,
            [
                MethodResult(
                    'm',
                    [row('x', 0.2, True), row('y', 0.4, False, 'no')],
                    {'psnr': 10.0, 'ssim': float('nan')},
                    {'miou': 0.5, 'accuracy': 0.25},
                ),
                MethodResult('silent', None, {'psnr': 7.0}),
            ],
        ),
        FrameResult(
            a_frame('b', 'frame_1', 'xy'),
            None,
            [
                MethodResult(
                    'm',
                    [row('x', 0.8, True), row('y', None, None, 0.3)],
                    {'psnr': 20.0},
                    {'miou': None, 'accuracy': None},
                )
            ],
        ),
        FrameResult(
            a_frame('b', 'frame_2', 'xy'),
            None,
            [
                MethodResult(
                    'm',
                    [row('x', 0.6, False), row('y', 1.0, True)],
                    {'psnr': 24.0},
                    {'miou': 0.1, 'accuracy': 0.75},
                )
            ],
        ),
    ]
    summary = summarise(results)
    mine, silent = summary['methods']
    assert (summary['scenes'], summary['frames'], mine['phrases']) == (2, 3, 5)
    assert mine['miou'] == pytest.approx((0.3 + 0.8) / 2)
    assert mine['corrected_miou'] == pytest.approx((0.2 + (0.8 + 0.3 + 0.6 + 1.0) / 4) / 2)
    assert (
        mine['psnr'] == pytest.approx(18.0)
        and mine['ssim'] is None
        and mine['eight_miou'] == pytest.approx(0.3)
    )
    assert mine['intervals']['miou'] == pytest.approx((0.3, 0.8)), 'two scenes: from one to the other'
    assert silent['miou'] is None and silent['phrases'] == 0 and silent['psnr'] == 7.0
    assert silent['intervals']['psnr'] is None
    assert [(r['scene'], r['frame'], r['method'], r['text']) for r in summary['phrases']][:2] == [
        ('a', 'frame_1', 'm', 'x'),
        ('a', 'frame_1', 'm', 'y'),
    ]
    assert {r['text'] for r in summary['dropped']} == {'piano'} and len(summary['dropped']) == 3


def test_localisation_counts_what_the_iou_counts():
    """The published filter wipes out what is two pixels wide: it does not count there, and its peak
    neither.
    """
    spot = np.array([[8, 8], [9, 8], [9, 9], [8, 9.0]])
    frame = AnnotatedView(
        'a',
        'frame_1',
        np.zeros((SIDE, SIDE, 3), np.uint8),
        {'box': (spot,), 'wall': (20 * spot - 130,)},
        np.ones((SIDE, SIDE), bool),
        ('box', 'wall'),
        None,
        None,
    )
    relevancy = np.full((1, 2, SIDE, SIDE), 0.1, np.float32)
    relevancy[0, :, 8:10, 8:10] = 0.99
    result = score('m', frame, Shown(None, relevancy), 0.5, False, None)
    box, wall = result.words
    assert (
        (box['iou'], box['localised']) == (None, None)
        and box['corrected_localised']
        and box['corrected_iou'] == 1
    )
    assert wall['iou'] == 0 and wall['localised'] is False
    [mine] = summarise([FrameResult(frame, None, [result])])['methods']
    assert (
        mine['phrases'] == 1
        and mine['localisation_accuracy'] == 0
        and mine['corrected_localisation_accuracy'] == 0.5
    )


def test_chance_of_a_view_without_a_visible_pixel():
    frame = AnnotatedView(
        'a',
        'frame_1',
        np.zeros((SIDE, SIDE, 3), np.uint8),
        {'x': (np.array([[0, 0], [9, 0], [9, 9.0]]),)},
        np.zeros((SIDE, SIDE), bool),
        ('x',),
        None,
        None,
    )
    result = chance(frame)
    assert result.words == [] and result.colors is None


@pytest.fixture(scope='module')
def featured(data, tmp_path_factory):
    """The scene with decoded features that name what each pixel shows: head 0 is right, head 1 is noise."""
    folder = tmp_path_factory.mktemp('featured')
    scene = Path(shutil.copytree(data / 'eval' / SCENE, folder / SCENE))
    (scene / 'cameras.json').unlink()
    shipped = weights.load(None)
    words = MiniLM(shipped.text_mean.numpy()).encode([NAMES[row] for row in (1, 2, 3)])
    ids = true_ids(data)
    rng = np.random.default_rng(0)
    features = np.stack(
        [words[ids - 1] * rng.uniform(0.5, 2, (SIDE, SIDE, 1)), 0.1 * rng.normal(size=(SIDE, SIDE, 384))]
    )
    np.save(scene / 'restored_feat.npy', features.astype(np.float16))
    cv2.imwrite(str(scene / f'render_{NAME}.jpg'), np.full((SIDE, SIDE, 3), 120, np.uint8))
    return folder


def true_ids(data):
    from gsemsplat_ros.datasets.scannetpp import ScanNetPP

    source = ScanNetPP(data / 'scannetpp', 'val', SIDE, SIDE)
    return ids_of(source.frame(SCENE, source.frames(SCENE)[2]))


def run(capsys, *argv):
    status = main(['eval', 'scannetpp', *map(str, argv)])
    out = capsys.readouterr()
    return status, out.out, out.err


def test_saved_features_by_the_command(featured, capsys):
    status, out, err = run(capsys, featured, '--features', '--eight', '--json')
    assert status == 0, err
    result = json.loads(out.splitlines()[-1])
    mine, luck = result['methods']
    assert (mine['name'], luck['name'], result['source']) == ('saved features', 'chance', 'features')
    assert mine['miou'] > 0.9 > 2 * luck['miou'] and mine['localisation_accuracy'] == 1.0
    assert mine['corrected_miou'] > 0.6 and mine['corrected_localisation_accuracy'] == 1.0
    assert {r['text']: r['head'] for r in result['phrases'] if r['method'] == 'saved features'} == {
        'wall': 0,
        'storage box': 0,
        'floor': 0,
    }
    assert 5 < mine['psnr'] < 30 and mine['psnr_masked'] == pytest.approx(mine['psnr'] - 4.771, abs=0.01)
    assert mine['eight_accuracy'] > 0.5 and [r['text'] for r in result['dropped']] == ['piano']
    assert any('LPIPS' in note for note in result['notes']) or mine['lpips'] is not None


def test_the_command_is_the_scorer(featured, capsys):
    """Row by row what `evaluate_frame`, which repeats the public script, gives for these features."""
    import torch

    from gsemsplat_ros.semantics.relevancy import CANONICAL, relevancy_of_features

    _, out, _ = run(capsys, featured, '--features', '--threshold', '0.4', '--json')
    rows = [r for r in json.loads(out.splitlines()[-1])['phrases'] if r['method'] == 'saved features']
    frame = read_view(featured / SCENE / f'{NAME}.json')
    encoder = MiniLM(weights.load(None).text_mean.numpy())
    features = torch.from_numpy(np.load(featured / SCENE / 'restored_feat.npy').astype(np.float32))
    texts = (torch.from_numpy(encoder.encode(list(phrases))) for phrases in (frame.phrases, CANONICAL))
    relevancy = relevancy_of_features(features, *texts)
    scores = evaluate_frame(
        relevancy.numpy(), [frame.polygons[text] for text in frame.phrases], frame.visible, 0.4
    )
    assert [r['iou'] for r in rows] == pytest.approx(scores.iou.tolist(), abs=1e-6)
    assert [r['localised'] for r in rows] == scores.localised.tolist()


def test_features_of_another_text_space(featured, capsys, tmp_path):
    scene = Path(shutil.copytree(featured / SCENE, tmp_path / SCENE))
    np.save(scene / 'restored_feat.npy', np.ones((2, SIDE, SIDE, 512), np.float16))
    status, _, err = run(capsys, tmp_path, '--features')
    assert (
        status == 2
        and 'has 512 channels, the text encoder minilm-l6 384: give' in err
        and len(err.splitlines()) == 1
    )


def test_tables_for_people(featured, capsys):
    status, out, _ = run(capsys, featured, '--features')
    assert status == 0 and '1 view of 1 scene,' in out and 'saved features' in out and 'chance' in out
    assert re.search(rf'{SCENE} +{NAME} +storage box +[\d.]+ +yes +[\d.]+ +yes', out)
    assert 'not annotated, so not asked: aaaa000001/frame_00003 piano' in out


class Errors(HTMLParser):
    """Texts of a page."""

    def __init__(self, html):
        super().__init__()
        self.texts = []
        self.feed(html)

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.heavy
def test_from_images_with_the_shipped_network(data, tmp_path, capsys):
    """The network and its peers, from cameras.json and from ScanNet++ on disk: the same numbers."""
    status, out, err = run(
        capsys, data / 'eval', '--calibrated', '--device', 'cpu', '--out', tmp_path / 'out', '--json'
    )
    assert status == 0, err
    told = json.loads(out.splitlines()[-1])
    assert [method['name'] for method in told['methods']] == [
        'this network',
        'Splatt3R path',
        '2D features on points',
        'chance',
    ]
    ours, plain, points, luck = told['methods']
    assert plain['miou'] is None and all(0 <= method['miou'] <= 1 for method in (ours, points, luck))
    assert ours['psnr'] > luck['psnr'], 'a calibrated new view is better than its mean colour'
    html = (tmp_path / 'out' / 'report.html').read_text()
    assert f'Scene {SCENE}, view {NAME}' in Errors(html).texts
    assert json.loads((tmp_path / 'out' / 'scores.json').read_text())['methods'][0]['miou'] == ours['miou']
    (
        scene := Path(shutil.copytree(data / 'eval' / SCENE, tmp_path / 'eval' / SCENE)) / 'cameras.json'
    ).unlink()
    status, out, err = run(
        capsys, scene.parent, '--calibrated', '--device', 'cpu', '--scannetpp', data / 'scannetpp', '--json'
    )
    assert status == 0, err
    found = json.loads(out.splitlines()[-1])['methods'][0]
    assert found['psnr'] == pytest.approx(ours['psnr'], abs=3), 'the order of the two inputs is free'


@pytest.mark.parametrize(
    'argv, words',
    [
        (['no/where'], 'no folder no/where'),
        (['DATA', '--scannetpp', 'nowhere'], 'no list of scenes at nowhere'),
        (
            ['DATA'],
            'has no cameras.json, which names the two input images of its views: give --scannetpp ROOT',
        ),
        (['DATA', '--features', '--weights', 'no.safetensors'], 'no checkpoint at no.safetensors'),
        (['EVAL', '--splatt3r', 'no.safetensors'], 'no checkpoint at no.safetensors'),
        (['DATA', '--features', '--lpips', 'no.ckpt'], 'no.ckpt'),
        (['DATA', '--threshold', '1.5'], 'argument --threshold: 1.5 is not from 0 to below 1'),
    ],
)
def test_mistakes_are_one_line(data, featured, capsys, argv, words):
    folders = {'DATA': featured, 'EVAL': data / 'eval'}
    status, _, err = run(capsys, *(folders.get(word, word) for word in argv), '--quiet')
    assert status == 2 and words in err and len(err.splitlines()) == 1, err


def test_pictures():
    relevancy = np.linspace(0.2, 1.0, 40 * 50).reshape(40, 50)
    image = np.full((40, 50, 3), 100, np.uint8)
    heat = heat_map(relevancy)
    assert tuple(heat[0, 0]) == tuple(heat[15, 0]) and tuple(heat[-1, -1]) == (122, 4, 3), (
        "the lower half is turbo's zero"
    )
    shown = composite(image, relevancy)
    np.testing.assert_array_equal(shown[relevancy < 0.5], 100)
    assert tuple(shown[-1, -1]) == (122, 4, 3)
    truth = np.zeros((40, 50), bool)
    truth[10:20, 10:30] = True
    mask = mask_picture(image, relevancy > 0.6, truth)
    assert (
        tuple(mask[-1, -1]) == (100,) * 3
        and tuple(mask[0, 0]) == (30,) * 3
        and tuple(mask[10, 15]) != (30,) * 3
    )
    for peak, right, colour in (((15, 14), True, 1), ((40, 30), False, 0)):
        drawn = peak_picture(image, truth, np.array([peak]), right)
        ring = drawn[peak[1], peak[0] + 5].astype(int)
        assert ring.argmax() == colour, 'green where it is right, red where not'
    assert (image == 100).all(), 'nothing is drawn into the input'
    np.testing.assert_array_equal(heat_map(np.zeros((3, 3))), heat_map(np.ones((3, 3))))


def some_page(text='<script>alert(1)</script>'):
    image = np.full((48, 64, 3), 90, np.uint8)
    truth = np.zeros((48, 64), bool)
    truth[5:20, 5:20] = True
    phrase = PhrasePictures(
        text,
        np.random.default_rng(0).random((48, 64)),
        truth,
        truth,
        np.array([[8, 8]]),
        text,
        0.5,
        True,
        None,
        None,
    )
    return page(
        EvaluationPage(
            text,
            text,
            [(text, (text,), [(text, (text,))])],
            [text],
            [section(text, image, [(text, image)], [phrase])],
            [(text, text)],
            text,
        )
    )


def test_nothing_gets_onto_the_page_unescaped():
    html = some_page()
    reader = Reader(html)
    assert (
        '<script' not in html
        and not reader.all('script')
        and reader.texts.count('<script>alert(1)</script>') > 5
    )
    for name, attributes in reader.elements:
        assert name not in ('link', 'iframe', 'object', 'base', 'form')
        assert attributes.get('src', 'data:').startswith('data:')
    assert len(reader.all('img')) == 6


@pytest.mark.skipif(not shutil.which('chromium'), reason='needs chromium')
def test_the_page_in_a_browser(tmp_path):
    (tmp_path / 'page.html').write_text(some_page('storage box'))
    shot = tmp_path / 'page.png'
    done = subprocess.run(
        [
            'chromium',
            '--headless=new',
            '--no-sandbox',
            '--disable-gpu',
            '--disable-quic',
            '--no-first-run',
            '--disable-background-networking',
            '--disable-component-update',
            '--disable-sync',
            '--enable-logging=stderr',
            '--v=0',
            f'--user-data-dir={tmp_path / "profile"}',
            '--hide-scrollbars',
            '--window-size=900,1400',
            f'--screenshot={shot}',
            f'file://{tmp_path / "page.html"}',
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert 'CONSOLE' not in done.stderr, done.stderr
    drawn = cv2.imread(str(shot))
    assert drawn.shape[:2] == (1400, 900)
    red = (drawn[..., 2].astype(int) - drawn[..., 0] > 60).sum()
    assert red > 2000, 'heat maps are shown'


def test_two_views_of_a_scene_are_read_from_one_pair(data, tmp_path):
    """A second annotated view of the same scene: its own mask and annotation, the same two inputs."""
    scene = Path(shutil.copytree(data / 'eval' / SCENE, tmp_path / SCENE))
    content = json.loads((scene / f'{NAME}.json').read_text())
    write_annotation(scene, 'frame_00009', content['objects'], read_view(scene / f'{NAME}.json').image)
    np.save(scene / 'mask_00009.npy', np.ones((SIDE, SIDE), bool))
    cameras = json.loads((scene / 'cameras.json').read_text())
    cameras['frames']['frame_00009'] = cameras['frames'][NAME]
    (scene / 'cameras.json').write_text(json.dumps(cameras))
    results = list(evaluate_frames(tmp_path, [Knowing()], lambda folder, frame: None))
    assert [result.frame.name for result in results] == [NAME, 'frame_00009']
    np.testing.assert_array_equal(results[0].inputs.first.image, results[1].inputs.first.image)
    assert read_cameras(scene, results[1].frame).camera == results[0].inputs.camera
    [mine, _] = summarise(results)['methods']
    assert mine['intervals']['miou'] is not None, 'views of a single scene are drawn again'
