"""The live page in headless Chromium: it draws, a typed word changes the picture and lists objects. Software
WebGL.
"""

import base64
import shutil
import time

import cv2
import numpy as np
import pytest

pytest.importorskip('viser')
pytest.importorskip('selenium')

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from support.live_page import EVIL, Served, some

from gsemsplat_ros.live import shown_scene as scenes
from gsemsplat_ros.live.server import ViewServer

CHROMIUM, DRIVER = shutil.which('chromium') or shutil.which('google-chrome'), shutil.which('chromedriver')
DEADLINE_S = 50.0
ARGUMENTS = (
    '--headless=new',
    '--no-sandbox',
    '--use-gl=angle',
    '--use-angle=swiftshader',
    '--enable-unsafe-swiftshader',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--window-size=800,600',
)


@pytest.fixture
def browser(tmp_path):
    if not (CHROMIUM and DRIVER):
        pytest.skip('chromium and chromedriver are not installed')
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*ARGUMENTS, f'--user-data-dir={tmp_path / "profile"}'):
        options.add_argument(argument)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(DEADLINE_S)
    driver.set_script_timeout(DEADLINE_S)
    yield driver
    driver.quit()


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


def text(driver):
    return driver.execute_script('return document.body.innerText')


def picture(driver):
    """(H, W, 3) of where neither the panel nor a notification lies."""
    data = base64.b64decode(driver.execute_cdp_cmd('Page.captureScreenshot', {'format': 'png'})['data'])
    whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    return whole[200:, :450].astype(int)


def glowing(shot):
    """How many pixels are bright, and the share of them that is orange."""
    red, green, blue = np.moveaxis(shot, -1, 0)
    bright = shot.max(-1) > 110
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
