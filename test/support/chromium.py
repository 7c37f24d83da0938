"""Headless Chromium that draws WebGL without a GPU, for files that are opened by a double click."""

import shutil
from contextlib import contextmanager

import pytest

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
    '--hide-scrollbars',
)


@contextmanager
def chromium(folder, width, height):
    """A browser with a page of this size [px]; its profile goes into `folder`. Skips where there is none."""
    webdriver = pytest.importorskip('selenium.webdriver')
    binary = shutil.which('chromium') or shutil.which('google-chrome')
    driver = shutil.which('chromedriver')
    if not (binary and driver):
        pytest.skip('chromium and chromedriver are not installed')
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in (*ARGUMENTS, f'--user-data-dir={folder / "profile"}'):
        options.add_argument(argument)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        browser.set_page_load_timeout(DEADLINE_S)
        browser.set_script_timeout(DEADLINE_S)
        size = {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': False}
        browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)
        yield browser
    finally:
        browser.quit()
