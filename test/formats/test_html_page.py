"""The page of `gsemsplat export`: its bytes, its words, and its picture in Chromium (software WebGL)."""

import json
import re
import time
import zlib
from html.parser import HTMLParser

import numpy as np
import torch
from support.browser import screenshot, text
from support.live_page import some
from support.random_gaussians import random_gaussians

from gsemsplat_ros.formats import html_page
from gsemsplat_ros.formats.axes import Axes
from gsemsplat_ros.formats.splats import Splats
from gsemsplat_ros.formats.writers import write
from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.gaussians.rotations import quats_to_rotations
from gsemsplat_ros.images.camera import Camera

EVIL = '</script><script>document.title="broken"<!-- & "q" $about'
CAMERA = Camera(320, 240, 300.0, 300.0, 150.0, 125.0)
DEADLINE_S = 60.0


class Elements(HTMLParser):
    """The names and attributes of elements, and the text in each."""

    def __init__(self, page):
        super().__init__()
        self.found, self.texts = [], {}
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        name = (self.found[-1][1].get('id') or self.found[-1][0]) if self.found else ''
        self.texts[name] = self.texts.get(name, '') + data


def test_the_bytes_hold_the_gaussians():
    gaussians, rotations = random_gaussians(1000, seed=2)
    data, ranges = html_page.packed(gaussians)
    planes = np.frombuffer(zlib.decompress(data), np.uint8).reshape(17, 1000).T.astype(np.int64)
    low, high = np.array(ranges['low']), np.array(ranges['high'])
    means = low + (planes[:, 0:6:2] + 256 * planes[:, 1:6:2]) / 65535 * (high - low)
    np.testing.assert_allclose(means, gaussians.means.numpy(), atol=(high - low).max() / 65535)
    least, most = ranges['logs']
    logs = least + planes[:, 6:9] / 255 * (most - least)
    np.testing.assert_allclose(logs, gaussians.scales.log().numpy(), atol=(most - least) / 500)
    bits = planes[:, 9:13] @ 256 ** np.arange(4)
    quats = np.zeros((1000, 4))
    for row, word in zip(quats, bits):
        largest = word >> 30
        for i in (1, 2, 3):
            row[(largest + i) % 4] = ((word >> 10 * (3 - i) & 1023) / 1023 * 2 - 1) / np.sqrt(2)
        row[largest] = np.sqrt(1 - row @ row)
    np.testing.assert_allclose(quats_to_rotations(quats), rotations, atol=0.005)
    np.testing.assert_allclose(planes[:, 13:16] / 255, gaussians.colors.numpy(), atol=0.501 / 255)
    np.testing.assert_allclose(planes[:, 16] / 255, gaussians.opacities.numpy(), atol=0.501 / 255)


def test_names_are_text_and_the_page_runs_its_own_script_alone(tmp_path):
    path = tmp_path / (EVIL.replace('/', '') + '.html')
    write(path, Splats((some(50),), Axes.OPTICAL, True, CAMERA))
    page = path.read_text()
    elements = Elements(page)
    assert elements.texts['h1'] == path.stem == elements.texts['title'].strip()
    assert [attributes.get('id') for tag, attributes in elements.found if tag == 'script'] == [
        'about',
        'data',
        None,
    ]
    policy = next(a['content'] for tag, a in elements.found if tag == 'meta' and 'http-equiv' in a)
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and 'unsafe' not in policy
    assert not re.search(r'(src|href|url)\s*[=(]|https?://', page.replace(policy, ''))


def test_gaussians_that_nothing_shows_are_left_out_and_nothing_is_a_page_too(tmp_path):
    gaussians = some(100)
    gaussians.means[3], gaussians.scales[4], gaussians.opacities[5] = torch.nan, torch.inf, 0.001
    write(tmp_path / 'a.html', Splats((gaussians,), Axes.OPTICAL, True, CAMERA))
    about = json.loads(Elements((tmp_path / 'a.html').read_text()).texts['about'])
    assert (about['count'], about['of']) == (97, 100)
    write(tmp_path / 'b.html', Splats((gaussians.select(slice(0, 0)),), Axes.Z_UP))
    assert json.loads(Elements((tmp_path / 'b.html').read_text()).texts['about'])['count'] == 0


def test_a_page_holds_no_more_than_it_can_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(html_page, 'MOST', 25)
    write(tmp_path / 'a.html', Splats((some(100),), Axes.OPTICAL))
    about = json.loads(Elements((tmp_path / 'a.html').read_text()).texts['about'])
    assert (about['count'], about['of']) == (25, 100)
    np.testing.assert_allclose(html_page.fewer(some(100)).scales.amax(), 0.06, atol=0.002)  # twice as wide


def test_a_map_is_seen_from_above_and_ahead():
    gaussians = some(200)
    view = html_page.first_view(gaussians, Splats((gaussians,), Axes.Z_UP))
    assert view['up'] == [0, 0, 1] and view['forward'] == [1, 0, 0] and view['tilt'] < 0
    assert view['camera'] is None and view['distance'] > 0


def test_a_browser_draws_what_we_draw(tmp_path, browse):
    gaussians = some(4000, codes=0)
    path = tmp_path / 'room.html'
    write(path, Splats((gaussians,), Axes.OPTICAL, True, CAMERA))
    browser = browse(320, 240)
    browser.get(path.as_uri())
    end = time.monotonic() + DEADLINE_S
    while browser.execute_script('return document.documentElement.dataset.drawn') != 'sharp':
        assert time.monotonic() < end, text(browser)
        time.sleep(0.05)
    assert '4,000 Gaussians' in text(browser)
    browser.execute_script("document.querySelectorAll('header, footer').forEach((e) => e.remove())")
    picture = screenshot(browser) / 255
    log = browser.get_log('browser')
    asked = browser.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
    ours = render(gaussians, CAMERA, np.eye(4)).rgb.numpy().clip(0, 1)
    psnr = -10 * np.log10(np.square(picture - ours).mean())
    assert psnr > 40, psnr  # 8 bits, rounded at each Gaussian
    assert not log and all(name.startswith(('blob:', 'data:')) for name in asked), (log, asked)
