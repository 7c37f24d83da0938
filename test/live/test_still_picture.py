"""The picture of a visitor who stands still: what it shows, when it comes and when it goes."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.live_page import DEADLINE_S, some

from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.live import colors, still_picture
from gsemsplat_ros.live import shown_scene as scenes
from gsemsplat_ros.live.pause import Pause
from gsemsplat_ros.live.still_picture import StillImage, StillPicture, still_image
from gsemsplat_ros.live.visitor_camera import BACKGROUND, VisitorView

VIEW = VisitorView((0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0), 0.8, 160, 120)
IMAGE = StillImage(np.zeros((2, 2, 3), np.uint8), np.ones((1, 1), np.float32))


def until(condition):
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


class Overlay:
    """Notes what it is told: 'picture', 'no splats', 'splats'."""

    def __init__(self):
        self.told = []

    def show_picture(self, rgb):
        self.told.append('picture')

    def hide_splats(self, rgb, depth):
        self.told.append('no splats')

    def hide_picture(self):
        self.told.append('splats')


class Page:
    """A still picture whose pool runs when the test says so: `run`. drawn: the views drawn."""

    def __init__(self):
        self.view, self.overlay, self.jobs, self.drawn, self.rests = VIEW, Overlay(), [], [], 0
        self.still = StillPicture(self, self.overlay, self.jobs.append, lambda work: work(), self.rest)

    def rest(self):
        self.rests += 1

    def stand(self, *position):
        """Move there, and pass the time of the pause."""
        self.view = replace(VIEW, position=position)
        self.still.moved()
        self.still._rest()

    def draw(self, view):
        self.drawn.append(view)
        return IMAGE

    def run(self):
        while self.jobs:
            self.jobs.pop(0)()


@pytest.fixture
def page(monkeypatch):
    monkeypatch.setattr(still_picture, 'DECODED_S', 0.0)
    monkeypatch.setattr(still_picture, 'STILL_S', 3600.0)  # the tests say when
    made = Page()
    yield made
    made.still.close()


def test_it_comes_when_the_visitor_stands_still_and_goes_when_it_moves(page):
    page.still.want('a', page.draw)
    page.run()
    assert page.drawn == [] and page.overlay.told == []  # it has not stood still yet
    page.stand(0, 0, 1)
    assert page.rests == 1
    page.still.want('a', page.draw)
    page.run()
    assert page.drawn == [page.view] and page.overlay.told == ['picture', 'no splats']
    page.still.want('a', page.draw)
    page.still.moved()  # the browser repeats itself
    page.run()
    assert len(page.drawn) == 1 and len(page.overlay.told) == 2
    page.view = replace(VIEW, position=(0, 0, 2))
    page.still.moved()
    assert page.overlay.told[2:] == ['splats']  # at once
    page.still.want('a', page.draw)
    page.run()
    assert len(page.drawn) == 1  # on its way


def test_it_follows_what_is_to_be_seen(page):
    page.stand(0, 0, 1)
    page.still.want('a', page.draw)
    page.run()
    page.still.want('b', page.draw)
    assert page.overlay.told[2:] == ['splats']
    page.run()
    assert len(page.drawn) == 2 and page.overlay.told[3:] == ['picture', 'no splats']
    page.still.want(None, page.draw)  # the browser draws full detail
    page.run()
    assert len(page.drawn) == 2 and page.overlay.told[5:] == ['splats']


def test_a_picture_of_where_the_visitor_no_longer_stands_is_not_shown(page):
    def leaving(view):
        page.drawn.append(view)
        if len(page.drawn) == 1:
            page.view = replace(VIEW, position=(0, 0, 5))
            page.still.moved()
        return IMAGE

    page.stand(0, 0, 1)
    page.still.want('a', leaving)
    page.run()
    assert len(page.drawn) == 1 and page.overlay.told == []
    page.still._rest()
    page.still.want('a', leaving)
    page.run()
    assert page.drawn[1].position == (0, 0, 5) and page.overlay.told == ['picture', 'no splats']


def test_while_one_is_drawn_the_newest_pose_waits_alone(page):
    for step in range(5):  # nothing is drawn yet: the pool is busy with another visitor
        page.stand(0, 0, step)
        page.still.want('a', page.draw)
    assert len(page.jobs) == 1
    page.run()
    assert [view.position for view in page.drawn] == [(0, 0, 4)]
    page.stand(0, 0, 9)
    page.still.want('a', page.draw)
    page.still.close()
    page.run()
    assert len(page.drawn) == 1  # the browser has left


def test_the_picture_is_full_detail_at_the_visitors_camera(monkeypatch):
    shown = scenes.shown_from_camera('a', some(500), 300, True)
    view = replace(VIEW, position=(0.1, 0.0, -0.5), width=1000, height=500)
    monkeypatch.setattr(still_picture, 'LONG_SIDE', 200)
    image = still_image(shown, colors.own_colors(shown), view)
    pose = np.eye(4)
    pose[:3, 3] = -0.1, 0, 0.5
    background = [channel / 255 for channel in BACKGROUND]
    drawn = render(shown.drawn, Camera.from_fov_y(200, 100, 0.8), pose, background)
    assert image.rgb.shape == (100, 200, 3) and image.depth.shape == (25, 50)
    assert np.abs(image.rgb / 255 - drawn.rgb.clamp(0, 1).numpy()).max() <= 0.5 / 255 + 1e-6
    seen = torch.isfinite(drawn.depth[::4, ::4]).numpy()
    assert image.depth[seen] == pytest.approx(1.02 * drawn.depth[::4, ::4].numpy()[seen], rel=1e-5)
    assert np.isinf(image.depth[~seen]).all() and (image.rgb[drawn.alpha.numpy() == 0] == BACKGROUND).all()


def test_a_pause_ends_once_nothing_has_happened_for_its_time():
    ended, began = threading.Event(), time.monotonic()
    pause = Pause(0.2, ended.set)
    for _ in range(4):
        pause.restart()
        last = time.monotonic()
        time.sleep(0.02)
    assert ended.wait(DEADLINE_S) and time.monotonic() - last >= 0.2 and last > began
    ended.clear()
    pause.restart()  # and again
    assert ended.wait(DEADLINE_S)
    ended.clear()
    pause.restart()
    pause.close()
    assert pause._timer is not None
    pause._timer.join(DEADLINE_S)
    assert not ended.is_set()
