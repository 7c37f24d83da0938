"""The live page in headless Chromium: it draws, a typed word changes the picture and lists objects. Software WebGL."""
import base64
import shutil
import time

import cv2
import numpy as np
import pytest

pytest.importorskip('viser')
webdriver = pytest.importorskip('selenium.webdriver')

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from test_view import EVIL, some  # noqa: E402
from test_view_server import Served  # noqa: E402

from gsemsplat_ros.viewer import view_world as worlds  # noqa: E402

CHROMIUM, DRIVER = shutil.which('chromium') or shutil.which('google-chrome'), shutil.which('chromedriver')
DEADLINE_S = 120.0
ARGUMENTS = ('--headless=new', '--no-sandbox', '--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader',
             '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
             '--disable-sync', '--window-size=800,600')


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
    page = Served(count=1500)      # few: software draws them
    yield page
    page.close()


def until(condition, what):
    """Its first true value."""
    end = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < end, f'no {what}'
        time.sleep(0.1)
    return value


def text(driver):
    return driver.execute_script('return document.body.innerText')


def picture(driver):
    """(H, W, 3) of what the left two thirds show, where no panel lies."""
    data = base64.b64decode(driver.execute_cdp_cmd('Page.captureScreenshot', {'format': 'png'})['data'])
    whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    return whole[200:, :whole.shape[1] // 2].astype(int)


def find(driver, word):
    """Type it and press Enter."""
    box = next(b for b in driver.find_elements(By.CSS_SELECTOR, 'form input') if b.is_displayed())
    box.send_keys(Keys.CONTROL, 'a')
    box.send_keys(word, Keys.ENTER)


def test_a_typed_word_changes_the_picture_and_lists_objects(browser, served):
    browser.get(served.server.url + '?fixedDpr=0.5')
    until(lambda: '1,500 Gaussians' in text(browser), 'panel')
    shots = []
    until(lambda: shots.append(picture(browser)) or shots[-1].std() > 5, 'splats')
    before = shots[-1]
    find(browser, 'door')
    until(lambda: 'door: found, score 0.90, 2 objects' in text(browser), 'answer')
    assert '3.04 m away' in text(browser).replace('\u00a0', ' ')

    def changed():
        shot = picture(browser)
        orange = (shot[..., 0] > 120) & (shot[..., 0] > shot[..., 2] + 60) & (shot[..., 1] > shot[..., 2] + 20)
        return (np.abs(shot - before).max(-1) > 25).mean() > 0.1 and orange.sum() > 50
    until(changed, 'highlighted objects in the picture')
    find(browser, EVIL)
    until(lambda: '<script>' in text(browser), 'the words as they were typed')       # as text
    assert browser.title != 'broken' and not browser.find_elements(By.CSS_SELECTOR, 'img[onerror]')
    severe = [entry['message'] for entry in browser.get_log('browser') if entry['level'] == 'SEVERE']
    assert all('computeBoundingSphere' in message or 'favicon' in message for message in severe), severe
    served.board.write(world=worlds.seen_by_camera('after a restart', some(900, seed=7), 10_000, True))
    until(lambda: '900 Gaussians' in text(browser) and 'after a restart' in text(browser), 'the new world')


def test_the_page_comes_back_when_the_server_does(browser, served):
    browser.get(served.server.url + '?fixedDpr=0.5')
    until(lambda: '1,500 Gaussians' in text(browser), 'panel')
    served.server._viser._websock_server.disconnect_all_clients()
    until(lambda: served.server.visitors == 1 and len(served.server._viser.get_clients()) == 1, 'the browser again')
    until(lambda: '1,500 Gaussians' in text(browser), 'panel again')
    find(browser, 'chair')
    until(lambda: 'chair: found' in text(browser), 'answer')
