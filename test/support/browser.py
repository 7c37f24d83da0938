"""Headless Chromium that draws in software, as a browser without a GPU."""

import base64
import shutil

import cv2
import numpy as np

CHROMIUM, DRIVER = shutil.which('chromium') or shutil.which('google-chrome'), shutil.which('chromedriver')
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
)


def start_browser(profile, deadline_s, width, height, mobile=False):
    """A driver with a window of that size [px]; profile: an empty folder."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*ARGUMENTS, f'--window-size={width},{height}', f'--user-data-dir={profile}'):
        options.add_argument(argument)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(deadline_s)
    driver.set_script_timeout(deadline_s)
    metrics = {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': mobile}
    driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', metrics)
    return driver


def screenshot(driver):
    """(height, width, 3) uint8 RGB of the whole window."""
    data = base64.b64decode(driver.execute_cdp_cmd('Page.captureScreenshot', {'format': 'png'})['data'])
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def text(driver):
    """All that is to be read."""
    return driver.execute_script('return document.body.innerText')
