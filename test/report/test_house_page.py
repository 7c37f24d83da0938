"""The report of `demo --house`: verdicts, and what the page says of them."""

import re

import numpy as np
import pytest

from gsemsplat_ros.report.house_page import MARGIN, SCALE, house_page
from gsemsplat_ros.report.house_result import Drive, HouseResult, WordResult

IMAGE = np.zeros((6, 8, 3), np.uint8)
WORDS = (
    WordResult('cup', 0.9, 0.1, (1.0, 1.0, 1.0), 2, (1.0, 1.3, 1.4), 0.1, IMAGE),
    WordResult('<b>bed</b>', 0.8, 0.1, (3.0, 1.0, 0.5), 1, (1.0, 1.0, 0.5), 1.5, IMAGE),
    WordResult('piano', 0.7, 0.1, (3.5, 1.5, 0.5), 0),
    WordResult('lamp', 0.3, 0.1, None, 1),
    WordResult('boat', 0.2, 0.1, None, 0),
)


def result(drive=None, refused=''):
    return HouseResult(
        floors=np.array([[(0, 0), (4, 3)]], float),
        walls=np.array([[(0, 0), (4, 0)]], float),
        pieces=(('cup', np.array([(1, 1), (2, 1), (2, 2), (1, 2)], float)),),
        tour=np.array([(1, 1, 0), (2, 1, 0.5)], float),
        words=WORDS,
        drive=drive,
        refused=refused,
        gaussians=1234,
        keyframes=9,
        left_out=1,
        simulated=12.0,
        seconds=34.0,
        weights='small.safetensors',
        timings={'build': 1.5},
        film=b'film',
        credits=(('Scopia', 'Some & One', 'CC-BY-3.0'),),
    )


def test_verdicts():
    assert [word.verdict for word in WORDS] == ['right', 'elsewhere', 'wrong', 'missed', 'rightly not found']
    assert WORDS[0].off == pytest.approx(0.5) and WORDS[2].off is None
    summary = result().summary()
    assert summary['drive'] is None and summary['words'][0]['off_m'] == pytest.approx(0.5)


def test_the_page_shows_words_way_and_arrival():
    path = np.array([(2, 1, 0), (2, 2, np.pi / 2), (2, 2, np.pi)])
    drive = Drive('cup', path, np.array([2.0, 2.1, -np.pi + 0.1]), 0.6, IMAGE)
    assert drive.length == pytest.approx(1) and drive.off == pytest.approx(0.1)
    assert drive.turn_off == pytest.approx(np.degrees(0.1))
    page = house_page(result(drive), {}, {'numpy': '2'}, 'gsemsplat demo --house')
    assert '<b>bed' not in page and '&lt;b&gt;bed' in page and 'Some &amp; One' in page
    assert '2 of 5' in page and '1,234' in page and '1 keyframes were left out' in page
    assert '0.10 m, 6°' in page and '0.60 m from its sides' in page
    for words in ('Found elsewhere', 'Found, but there is none', 'Missed', 'Not found: there is none'):
        assert words in page
    # the wall along y = 0 m lies at the lower edge of the drawing, y up
    low, high = -MARGIN * -SCALE, (4 + MARGIN) * SCALE
    assert f'd="M{low:.1f} {(3 + MARGIN) * SCALE:.1f}L{high:.1f} {(3 + MARGIN) * SCALE:.1f}"' in page
    assert len(re.findall('<text', page)) == 3 and 'The robot was sent nowhere' not in page


def test_a_drive_that_was_refused_is_told():
    assert 'The robot was sent nowhere: cup: no approach' in house_page(
        result(None, 'cup: no approach'), {}, {}, 'x'
    )
