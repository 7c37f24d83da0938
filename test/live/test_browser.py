"""The live page in headless Chromium: it draws, a typed word changes the picture and lists objects. Software
WebGL.
"""

import time

import numpy as np
import pytest

pytest.importorskip('viser')
pytest.importorskip('selenium')

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from support.browser import screenshot, text
from support.live_page import EVIL, Served, some

from gsemsplat_ros.live import shown_scene as scenes
from gsemsplat_ros.live import visitor_camera
from gsemsplat_ros.live.server import ViewServer

DEADLINE_S = 50.0


@pytest.fixture
def browser(browse):
    return browse(800, 600)


@pytest.fixture
def served():
    page = Served(count=1500)  # few: software draws them
    yield page
    page.close()


def until(condition, what):
    """Wait for it."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f'no {what}'
        time.sleep(0.1)


def picture(driver):
    """(H, W, 3) of where neither the panel nor a notification lies."""
    return screenshot(driver)[200:, :450].astype(int)


def glowing(shot):
    """How many pixels are bright and coloured, as no label is, and the share of them that is orange."""
    red, green, blue = np.moveaxis(shot, -1, 0)
    bright = (shot.max(-1) > 110) & (np.ptp(shot, -1) > 25)
    return bright.sum(), (bright & (red > green + 10) & (green > blue + 20)).sum() / max(bright.sum(), 1)


def find(driver, word):
    """Type it, as fast as a browser takes it, and press Enter as people do."""
    box = driver.find_element(By.XPATH, '//label[.="Find"]/following::input[1]')
    box.send_keys(Keys.CONTROL, 'a')
    box.send_keys(word, Keys.ENTER)


def test_a_typed_word_changes_the_picture_and_lists_objects(served, browser):
    browser.get(served.server.url + '?fixedDpr=0.5')
    until(lambda: '1,500 Gaussians' in text(browser), 'panel')
    until(lambda: glowing(picture(browser))[0] > 8000, 'splats')
    before = picture(browser)
    find(browser, 'door')
    until(lambda: 'door: found, score 0.90, 2 objects' in text(browser), 'answer')
    assert '3.04 m away' in text(browser).replace('\u00a0', ' ')

    def changed():
        shot = picture(browser)
        return glowing(shot)[0] < glowing(before)[0] / 3 and glowing(shot)[1] > 3 * glowing(before)[1]

    until(changed, 'highlighted objects in the picture')
    assert (np.abs(picture(browser) - before).max(-1) > 25).mean() > 0.2
    find(browser, EVIL)
    until(lambda: '<script>' in text(browser), 'the words as they were typed')  # as text
    assert browser.title != 'broken' and not browser.find_elements(By.CSS_SELECTOR, 'img[onerror]')
    severe = [entry['message'] for entry in browser.get_log('browser') if entry['level'] == 'SEVERE']
    assert all('computeBoundingSphere' in message or 'favicon' in message for message in severe), severe
    served.shared.write(shown=scenes.shown_from_camera('another room', some(900, seed=7), 10_000, True))
    until(lambda: '900 Gaussians' in text(browser) and 'another room' in text(browser), 'the new scene')


@pytest.mark.heavy  # viser's own client does it
def test_the_page_comes_back_when_the_server_does(served, browser):
    browser.get(served.server.url + '?fixedDpr=0.5')
    until(lambda: '1,500 Gaussians' in text(browser), 'panel')
    port = served.server.port
    served.server.close()
    served.shared.write(shown=scenes.shown_from_camera('after a restart', some(900, seed=7), 10_000, True))
    served.server = ViewServer(served.shared, port=port)
    until(lambda: served.server.visitors == 1 and '900 Gaussians' in text(browser), 'panel again')
    find(browser, 'chair')
    until(lambda: 'chair: found' in text(browser), 'answer')


@pytest.mark.heavy  # pictures of software take their time
@pytest.mark.parametrize('size, mobile', [((1280, 800), False), ((390, 844), True)])
def test_the_scene_is_seen_whole_and_sharp_and_nothing_lies_on_it(browse, monkeypatch, size, mobile):
    monkeypatch.setattr(scenes, 'LIGHT', 500)
    monkeypatch.setattr(visitor_camera, 'PROBE_AFTER_S', 0.0)
    served = Served(count=4000)
    try:
        driver = browse(*size, mobile=mobile)
        driver.get(served.server.url)
        until(lambda: '4,000 Gaussians are drawn as 500' in text(driver), 'panel')
        page = next(iter(served.server._pages.values()))
        until(lambda: page._still._is_shown, 'picture of all')
        until(lambda: 'Software WebGL' not in text(driver), 'free view')
        frame = driver.find_elements(By.TAG_NAME, 'canvas')[0].rect
        width, height = int(frame['width']), int(frame['height'])
        full = page._still._draw(page._camera.view).rgb.astype(int)

        def alike():
            shot = screenshot(driver)[: height if not mobile else height // 2, :width].astype(int)
            return np.abs(shot - full[: len(shot), :width]).mean() < 4

        until(alike, 'full detail on the screen')
        middle = full[height // 2 - width // 4 : height // 2 + width // 4 : 7, ::7]
        assert (np.abs(middle - visitor_camera.BACKGROUND).max(-1) > 20).mean() > 0.8  # the scene fills it
        label = driver.find_element(By.XPATH, '//label[.="Find"]/following::input[1]').rect
        assert 0 < label['y'] < size[1] - label['height'] and label['x'] + label['width'] <= size[0]
        assert label['x'] > width or label['y'] > height / 2 + width / 2.6  # beside the scene or below it
    finally:
        served.close()
