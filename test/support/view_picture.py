"""Makes docs/images/view.jpg: the live page with a real pair and the answer to a word, without a GPU.

python test/support/view_picture.py FILE.jpg, with `test` in PYTHONPATH.
"""

import subprocess
import sys
import tempfile
import time

import cv2
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from support.browser import screenshot, start_browser, text

DEADLINE_S = 300.0
STANDS_S = 15.0  # until the picture of who stands still is there


def main(path):
    view = subprocess.Popen(
        [sys.executable, '-m', 'gsemsplat_ros.cli', 'view', '--port', '0'], stdout=subprocess.PIPE, text=True
    )
    with tempfile.TemporaryDirectory() as folder:
        address = view.stdout.readline().strip()
        driver = start_browser(folder, DEADLINE_S, 1280, 800)
        try:
            driver.get(address)
            until(lambda: 'are drawn as' in text(driver))
            box = driver.find_element(By.XPATH, '//label[.="Find"]/following::input[1]')
            box.send_keys('potted plant', Keys.ENTER)
            until(lambda: 'found, score' in text(driver))
            time.sleep(STANDS_S)
            picture = screenshot(driver)
        finally:
            driver.quit()
            view.terminate()
            view.wait()
    cv2.imwrite(path, picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


def until(condition):
    end = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > end:
            raise SystemExit('the page did not come so far in time')
        time.sleep(0.5)


if __name__ == '__main__':
    main(sys.argv[1])
