"""Pictures and the report: right values, nothing from outside, nothing unescaped."""

import base64
import math
import re
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from support.page_reader import Reader

from gsemsplat_ros.flight.flight import BACKGROUND, Film, NewView, draw
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.pictures.overlay import UNKNOWN, depth_picture, overlay, turbo
from gsemsplat_ros.report.checkpoint_card import leaf
from gsemsplat_ros.report.markup import picture, tag
from gsemsplat_ros.report.pair_page import PairReport, box_mark, number_mark, page
from gsemsplat_ros.report.pair_result import PairResult, ReportedAnswer
from gsemsplat_ros.semantics.answer import Answer
from gsemsplat_ros.semantics.objects import Object

CAMERA = Camera(64, 48, 50.0, 50.0, 31.5, 23.5)
EVIL = '<script>alert("1")</script>\'"&'


def ramp(shade):
    """A smooth picture: JPEG keeps it nearly as it is."""
    picture = np.full((48, 64, 3), shade, np.uint8)
    picture[..., 1] = np.linspace(20, 220, 64).astype(np.uint8)
    return picture


def result(name='a_room', text='door', **changes):
    thing = Object((0.0, 0.0, 2.0), (0.4, 0.4, 0.4), 0.9)
    answers = (
        ReportedAnswer(
            Answer(text, 0.5, True, 0.875, (0.5, -0.25, 2.0), (20.0, 17.0), (thing,)), ramp(90), 0.04
        ),
        ReportedAnswer(Answer('sofa', 0.5, False, 0.2, None, None, ()), ramp(110), 0.05),
    )
    values = dict(
        name=name,
        first=ramp(60),
        second=ramp(180),
        camera=CAMERA,
        depth=np.full((24, 32), 2.0, np.float32),
        views=(NewView('6° to the left', ramp(200)),),
        answers=answers,
        gaussians=1234,
        pair_seconds=0.5,
        weights='w.safetensors',
        scale_source='stereo baseline',
        scale=1.0,
        timings={'predict': 0.25},
    )
    return PairResult(**{**values, **changes})


FILM = Film('orbit', 48, 3.0, (ramp(60), ramp(180)), (b'first video', b'second video'))


def report(*results, title='A page', **changes):
    return page(
        PairReport(
            title,
            results or (result(),),
            changes.get('card', {'licence': 'Apache-2.0'}),
            {'Python': '3.11'},
            changes.get('command', 'gsemsplat infer a b --out o'),
        )
    )


def decode(attributes):
    kind, _, data = attributes['src'].partition(',')
    assert kind == 'data:image/webp;base64'
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def test_overlay():
    image = np.full((2, 2, 3), 100, np.uint8)
    relevancy = np.array([[0.0, 1.0], [0.5, np.nan]], np.float32)
    drawn = overlay(image, relevancy)
    for (v, u), alpha in {(0, 0): 0.15, (0, 1): 0.75, (1, 0): 0.45}.items():
        wanted = 100 + alpha * (turbo(relevancy[v : v + 1, u : u + 1])[0, 0].astype(float) - 100)
        assert np.abs(drawn[v, u] - wanted).max() <= 0.51
    assert (drawn[1, 1] == 100).all() and drawn.dtype == np.uint8
    assert tuple(turbo(np.ones((1, 1)))[0, 0]) == (122, 4, 3), 'turbo ends in dark red'


def test_depth_picture():
    depth = np.linspace(1, 4, 400).reshape(20, 20)
    depth[0, 0], depth[0, 1] = np.nan, -1
    drawn, near, far = depth_picture(depth)
    assert tuple(drawn[0, 0]) == tuple(drawn[0, 1]) == UNKNOWN
    assert near == pytest.approx(1.07, abs=0.02) and far == pytest.approx(3.94, abs=0.02)
    red, blue = drawn[0, 5].astype(int), drawn[19, 15].astype(int)
    assert red[0] > red[2] + 100 and blue[2] > blue[0] + 100, 'near is red, far is blue'
    nothing, near, far = depth_picture(np.full((2, 2), np.nan))
    assert (nothing == UNKNOWN).all() and math.isnan(near) and math.isnan(far)


def wall(distance=2.0, n=40):
    """A grid of Gaussians, left half red, right half blue, that fills the middle of the picture."""
    x, y = np.meshgrid(np.linspace(-0.6, 0.6, n), np.linspace(-0.4, 0.4, n))
    means = torch.tensor(np.stack([x, y, np.full_like(x, distance)], -1).reshape(-1, 3), dtype=torch.float32)
    colors = torch.zeros(n * n, 3)
    colors[:, 0], colors[:, 2] = (means[:, 0] < 0).float(), (means[:, 0] >= 0).float()
    return Gaussians(
        means,
        torch.tensor([[1.0, 0, 0, 0]]).repeat(n * n, 1),
        torch.full((n * n, 3), 0.03),
        torch.full((n * n,), 0.9),
        colors,
        torch.zeros(n * n, 0),
        'camera',
    )


def test_draw():
    depth, views = draw(wall(), CAMERA)
    assert depth.shape == (300, 400) and [v.picture.shape for v in views] == [(300, 400, 3)] * 5
    assert depth[150, 200] == pytest.approx(2.0, abs=0.02) and np.isnan(depth[2, 2])
    assert [view.title for view in views] == [
        '12° to the left',
        '6° to the left',
        'from the first camera',
        '6° to the right',
        '12° to the right',
    ]
    for view in views:
        assert np.abs(view.picture[2, 2] / 255 - BACKGROUND).max() < 0.003
        assert view.picture[150, 150, 0] > 200 > 50 > view.picture[150, 150, 2], 'red stays on the left'
        assert view.picture[150, 250, 2] > 200 > 50 > view.picture[150, 250, 0]

    def width(view, column):
        return np.count_nonzero(view.picture[:, column].max(-1) > 100)

    # from the right, the right end of the wall is closer and so taller than the left one
    assert (
        width(views[4], 300) > width(views[4], 100) + 10 and width(views[0], 300) < width(views[0], 100) - 10
    )


def test_draw_nothing():
    depth, views = draw(wall(distance=-2.0), CAMERA)
    assert np.isnan(depth).all() and len(views) == 5


def test_nothing_gets_onto_the_page_unescaped():
    evil = result(
        name=EVIL,
        text=EVIL,
        weights=EVIL,
        timings={EVIL: 0.1},
        scale_source=EVIL,
        film=replace(FILM, path=EVIL),
    )
    html = report(
        evil,
        result(),
        title=EVIL,
        card={EVIL: EVIL, 'training': {EVIL: [EVIL]}, f'a{EVIL}': {'b': {EVIL: 1}}},
        command=EVIL,
    )
    assert '<script' not in html.lower()
    reader = Reader(html)
    assert not reader.all('script')
    assert all(not key.startswith('on') for _, attributes in reader.elements for key in attributes)
    assert reader.texts.count(EVIL) >= 5, 'a person still reads what was asked'
    assert any(image['alt'] == f'relevancy of {EVIL}' for image in reader.all('img'))


def test_page_needs_nothing_but_itself():
    html = report(result(), result('other', film=FILM))
    reader = Reader(html)
    for name, attributes in reader.elements:
        assert name not in ('link', 'iframe', 'object', 'base', 'form')
        for key in ('src', 'href', 'action', 'srcset', 'poster'):
            assert attributes.get(key, '#').startswith(('data:', '#')), (name, key)
    style = html[html.index('<style>') : html.index('</style>')]
    assert 'url(' not in style and '@import' not in style
    targets = {attributes['id'] for _, attributes in reader.elements if 'id' in attributes}
    assert {a['href'][1:] for a in reader.all('a')} == {'pair-1', 'pair-2'} <= targets


def test_images_decode_back():
    shown = result()
    reader = Reader(report(shown))
    by_alt = {attributes['alt']: decode(attributes) for attributes in reader.all('img')}
    pictures = {
        'first image': shown.first,
        'second image': shown.second,
        'relevancy of door': shown.answers[0].picture,
        'relevancy of sofa': shown.answers[1].picture,
        'the scene 6° to the left': shown.views[0].picture,
    }
    for alt, wanted in pictures.items():
        assert by_alt[alt].shape == wanted.shape
        assert np.abs(by_alt[alt].astype(int) - wanted).mean() < 3, alt
    assert by_alt['depth of the first image'].shape == (24, 32, 3)
    for attributes in reader.all('img'):
        assert (int(attributes['height']), int(attributes['width'])) == decode(attributes).shape[:2]


def test_found_and_not_found():
    reader = Reader(report())
    assert [a['class'] for a in reader.all('article')] == ['answer found', 'answer absent']
    text = ''.join(reader.texts)
    assert text.count('Not found') == 1 and '1 of 2' in text
    assert 'Peak 2.08 m away, at x 0.50, y −0.25, z 2.00' in text
    assert 'Nothing was rendered where it could be.' in text
    assert '0.40 × 0.40 × 0.40 m' in text
    assert len(reader.all('circle')) == 2, 'a ring with its outline, on the found one only'


def test_lengths_without_a_scale_are_no_metres():
    text = ''.join(Reader(report(result(scale_source='network'))).texts)
    assert 'scale unknown' in text and '2.08 units away' in text and '0.40 m' not in text


def test_single_pair_and_several():
    one, two = (Reader(report(*[result()] * count)) for count in (1, 2))
    assert not one.all('nav') and len(two.all('nav')) == 1
    assert 'slowest [ms]' in two.texts and 'slowest [ms]' not in one.texts
    assert '250.0' in one.texts, 'predict took 0.25 s'


def test_no_queries_and_no_depth():
    empty = result(answers=(), depth=np.full((24, 32), np.nan))
    text = ''.join(Reader(report(empty)).texts)
    assert 'unknown' in text and 'Words' not in text


def test_box_is_drawn_where_it_is():
    lines = box_mark(Object((0.1, 0.2, 2.0), (0.4, 0.2, 1.0), 0.9), CAMERA)
    numbers = np.array(re.findall(r'-?\d+\.\d', lines[0].split('d="')[1].split('"')[0]), float).reshape(
        -1, 2, 2
    )
    assert len(numbers) == 12 and len(lines) == 2
    near, far = 1.5, 2.5
    corners = {
        (round(50 * x / z + 31.5, 1), round(50 * y / z + 23.5, 1))
        for x in (-0.1, 0.3)
        for y in (0.1, 0.3)
        for z in (near, far)
    }
    drawn = {tuple(point) for point in numbers.reshape(-1, 2)}
    assert len(drawn) == 8
    assert all(min(math.dist(a, b) for b in corners) < 0.11 for a in drawn)
    assert box_mark(Object((0.0, 0.0, 0.3), (0.4, 0.4, 0.6), 0.9), CAMERA) == [], (
        'behind the camera nothing projects'
    )


def test_objects_are_numbered_where_they_are():
    things = Object((0.5, -0.25, 2.0), (0.4, 0.4, 0.4), 0.9), Object((0.0, 0.0, 2.0), (0.2, 0.2, 0.2), 0.8)
    assert number_mark(2, things[0], CAMERA) == ['<text x="44.0" y="17.2">2</text>']
    assert number_mark(1, Object((0.0, 0.0, 0.01), (0.1, 0.1, 0.1), 0.9), CAMERA) == []
    shown = result()
    first = shown.answers[0]
    two = replace(first, answer=replace(first.answer, objects=things))
    reader = Reader(report(replace(shown, answers=(two,))))
    assert [float(a['x']) for a in reader.all('text')] == [44.0, 31.5] and not Reader(report()).all('text')


def test_film_plays_from_the_page():
    reader = Reader(report(result(film=FILM)))
    videos = reader.all('video')
    assert [base64.b64decode(v['src'].removeprefix('data:video/mp4;base64,')) for v in videos] == list(
        FILM.files
    )
    assert all({'controls', 'muted', 'playsinline'} <= v.keys() and 'autoplay' not in v for v in videos)
    for shown, poster in zip(videos, FILM.posters):
        assert np.abs(decode({'src': shown['poster']}).astype(int) - poster).mean() < 3
    assert 'Flight along the path orbit, 3.0 s' in reader.texts
    policy = next(
        a['content'] for a in reader.all('meta') if a.get('http-equiv') == 'Content-Security-Policy'
    )
    assert 'media-src data:' in policy and "default-src 'none'" in policy
    assert not Reader(report()).all('video')


def test_card_is_folded_by_chapter():
    card = {
        'licence': 'Apache-2.0',
        'config': {'name': 'small', 'depth': 12},
        'mixture': {'weights': [1.0, 0.5]},
        'scores': {'rooms': {'abs_rel': 0.16194, 'calibrated': True, 'delta1': None}},
        'training': {'steps': 1650, 'stages': [{'steps': 1200, 'batch': 4}, {'steps': 450, 'batch': 2}]},
    }
    reader = Reader(report(card=card))
    assert len(reader.all('details')) == 3
    text = '|'.join(reader.texts)
    for part in (
        'network|small',
        'Mixture|weights|1, 0.5',
        'Scores, rooms|abs rel|0.1619|calibrated|yes|delta1|–',
        'stages 1|steps 1200, batch 4|stages 2|steps 450, batch 2',
    ):
        assert part in text, part
    assert 'depth' not in text.partition('Checkpoint')[2], 'sizes of layers stay out'
    assert len(leaf('x' * 999)) == 200


def test_markup_escapes_content_and_attributes():
    assert (
        tag('p', '<b>', tag('i', 'x & y'), None, title='"><', class_='c')
        == '<p title="&quot;&gt;&lt;" class="c">&lt;b&gt;<i>x &amp; y</i></p>'
    )
    assert 'width="20" height="15"' in picture(ramp(60), '', width=20)


def test_summary_is_json_with_nulls():
    summary = result().summary()
    assert summary['queries'][1] == {
        'text': 'sofa',
        'found': False,
        'score': 0.2,
        'note': '',
        'measured': None,
        'peak_pixel': None,
        'peak_point': None,
        'objects': [],
        'seconds': 0.05,
    }
    assert summary['queries'][0]['objects'] == [
        {'id': 0, 'center': [0.0, 0.0, 2.0], 'size': [0.4, 0.4, 0.4], 'score': 0.9}
    ]


def browser(width, folder):
    """Headless Chromium that shows pages `width` pixels wide as a phone does; skips where there is none."""
    webdriver = pytest.importorskip('selenium.webdriver')
    chromium, driver = (shutil.which(name) for name in ('chromium', 'chromedriver'))
    if not (chromium and driver):
        pytest.skip('no chromium and chromedriver')
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        'headless=new',
        'no-sandbox',
        'disable-gpu',
        'disable-quic',
        'no-first-run',
        'disable-sync',
        'disable-background-networking',
        'disable-component-update',
        f'user-data-dir={folder}',
    ):
        options.add_argument(f'--{argument}')
    chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
    chrome.execute_cdp_cmd(
        'Emulation.setDeviceMetricsOverride',
        {'width': width, 'height': 844, 'deviceScaleFactor': 1, 'mobile': True},
    )
    return chrome


def test_a_phone_shows_all_of_the_page(tmp_path):
    video = pytest.importorskip('gsemsplat_ros.flight.video')
    pytest.importorskip('av')
    video.write_video(tmp_path / 'f.mp4', [ramp(shade) for shade in range(60, 160, 10)], 16.0)
    mp4 = (tmp_path / 'f.mp4').read_bytes()
    long = 'the large green armchair_beside_the_window_and_under_the_lamp' * 2
    first = result(text=long, weights='w' * 90, film=replace(FILM, files=(mp4, mp4)))
    (tmp_path / 'page.html').write_text(
        report(
            first,
            result('other'),
            command='gsemsplat infer ' + '/long/way' * 40,
            card={'training': {'stages': [{'rate': 0.5}], 'data': 'rooms ' * 50}},
        )
    )
    chrome = browser(390, tmp_path / 'profile')
    try:
        chrome.get((tmp_path / 'page.html').as_uri())
        chrome.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
        wide = chrome.execute_script("""return [...document.querySelectorAll('main *')].filter(e =>
            !e.closest('.strip, pre, .wide') && e.getBoundingClientRect().right > 391)
            .map(e => e.outerHTML.slice(0, 80))""")
        assert not wide and chrome.execute_script('return document.documentElement.scrollWidth') <= 390
        assert chrome.execute_script(
            'return [...document.images].every(i => i.complete && i.naturalWidth > 0)'
        )
        small = chrome.execute_script("""return [...document.querySelectorAll('main *')].filter(e =>
            e.childElementCount === 0 && e.textContent.trim() &&
            parseFloat(getComputedStyle(e).fontSize) < 12)
            .map(e => e.outerHTML)""")
        assert not small, 'letters too small for a phone'
        played = chrome.execute_async_script("""const [done] = arguments, v = document.querySelector('video');
            v.onended = () => done([v.currentTime, v.videoWidth, v.videoHeight]);
            v.onerror = () => done(v.error.message); v.loop = false; v.play().catch(e => done(String(e)));""")
        assert played == [pytest.approx(10 / 16, abs=0.07), 64, 48]
        assert chrome.get_log('browser') == [], 'nothing that the page forbids itself'
    finally:
        chrome.quit()
