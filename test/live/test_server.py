"""The live page's server, seen by visitors that speak its protocol: many at once, each with a question of its
own.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip('viser')

from support.live_page import DEADLINE_S, EVIL, THRESHOLD, Served, some
from support.page_visitor import Visitor

from gsemsplat_ros.formats.ply import write_ply
from gsemsplat_ros.live import film, still_picture, visitor_camera, visitor_page
from gsemsplat_ros.live import shown_scene as scenes
from gsemsplat_ros.live.visitor_overlay import ROOT, SPLATS


@pytest.fixture
def served():
    page = Served()
    yield page
    page.close()


def test_a_visitor_takes_a_video_and_a_ply(served, tmp_path):
    av = pytest.importorskip('av')
    visitor = served.visitor()
    visitor.reads('2,000 Gaussians')
    visitor.press('Download PLY')
    visitor.until(lambda: 'gsemsplat.ply' in visitor.files, 'a PLY file')
    assert visitor.files['gsemsplat.ply'].startswith(b'ply')
    means = {}
    for mode in ('Colour', 'Depth'):
        visitor.set('Show', mode)
        visitor.set('Video path', 'dolly')
        visitor.files.clear()
        visitor.press('Download video')
        visitor.until(lambda: 'gsemsplat.mp4' in visitor.files, f'a video of {mode}: {visitor.notes}')
        path = tmp_path / f'{mode}.mp4'
        path.write_bytes(visitor.files['gsemsplat.mp4'])
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray(format='rgb24').astype(int) for frame in container.decode(video=0)]
        assert len(frames) == 48 and frames[0].shape == (384, 512, 3)  # as the visitor's window, 640 x 480
        assert (
            np.abs(frames[24] - frames[0]).mean() > 2 * np.abs(frames[47] - frames[0]).mean()
        )  # there and back
        means[mode] = frames[0][100:300, 150:350].mean((0, 1))
    assert np.abs(means['Colour'] - means['Depth']).max() > 10
    assert any('drawing 48 pictures along the path dolly' in note for note in visitor.notes)


def test_one_film_is_drawn_at_a_time_and_it_ends_when_its_visitor_leaves(served, monkeypatch):
    pytest.importorskip('av')
    drawn, go_on, fly = [], threading.Event(), film.fly

    def slow(*arguments):
        for pictures in fly(*arguments):
            drawn.append(1)
            go_on.wait(DEADLINE_S)
            yield pictures

    monkeypatch.setattr(film, 'fly', slow)
    visitor, other = served.visitor(), served.visitor()
    for one in (visitor, other):
        one.reads('2,000 Gaussians')
    visitor.press('Download video')
    visitor.until(lambda: drawn, 'the first picture')
    for _ in range(40):
        other.press('Download video')
    other.until(lambda: len(other.notes) == 40, '40 answers')
    assert set(other.notes) == {'a film is being drawn already: try again when it is done'}
    visitor.close()
    other.until(lambda: served.server.visitors == 1, 'the visitor to leave')
    go_on.set()
    other.until(lambda: not served.shared.filming.locked(), 'the end of the film')
    assert len(drawn) < 5  # of 48
    other.notes.clear()
    other.press('Download video')
    other.until(lambda: 'gsemsplat.mp4' in other.files, f'a video: {other.notes}')


def test_one_visitor_takes_a_ply_again_only_after_a_while(served, monkeypatch):
    monkeypatch.setattr(visitor_page, 'PLY_EVERY_S', 3600.0)
    visitor = served.visitor()
    visitor.reads('2,000 Gaussians')
    for _ in range(3):
        visitor.press('Download PLY')
    visitor.until(lambda: len(visitor.notes) == 2, 'two refusals')
    assert set(visitor.notes) == {'this file was sent less than 3600 s ago: wait a little'}
    visitor.until(lambda: 'gsemsplat.ply' in visitor.files, 'a PLY file')


def test_of_a_visitors_many_words_the_newest_waits_alone(served):
    visitor = served.visitor()
    visitor.reads('2,000 Gaussians')
    page = next(iter(served.server._pages.values()))
    page.ask('slow')
    visitor.until(lambda: served.asked, 'the first question')
    for number in range(100):
        page.ask(f'word {number}')
    served.release.set()
    visitor.reads('<b>word 99</b>')
    assert [text for text, _ in served.asked] == ['slow', 'word 99']


def test_a_visitor_asks_and_sees_boxes_labels_and_history(served):
    visitor = served.visitor()
    visitor.reads('2,000 Gaussians')
    visitor.until(lambda: SPLATS in visitor.names(), 'splats')
    visitor.find('door')
    visitor.reads('<b>door</b>: found, score 0.90, 2 objects')
    visitor.until(lambda: {'/answer/box1', '/answer/box2', '/answer/label1'} <= visitor.names(), 'boxes')
    visitor.reads('1   3.04 m away   0.30 × 0.60 × 0.30')
    label = next(node for (name, _), node in visitor.nodes.items() if name == '/answer/label1')
    assert label['text'] == 'door  3.04 m  0.30 × 0.60 × 0.30'
    slider = visitor.gui[visitor.element('Threshold')]
    visitor.until(lambda: slider['value'] == THRESHOLD, "the source's threshold on the slider")
    visitor.find('unicorn')
    visitor.reads('<b>unicorn</b>: not found')
    visitor.until(lambda: '/answer/box1' not in visitor.names(), 'boxes gone')
    assert all(threshold is None for _, threshold in served.asked)
    history = visitor.gui[visitor.element('Asked')]
    visitor.until(lambda: history['props']['options'] == ['unicorn', 'door'], 'history')
    visitor.set('Asked', 'door')  # a click in the history
    visitor.reads('<b>door</b>: found')
    visitor.set('Threshold', 0.8)
    visitor.until(lambda: ('door', 0.8) in served.asked, 'the threshold')
    visitor.set('Boxes', False)
    visitor.until(lambda: '/answer/box1' not in visitor.names(), 'boxes gone')
    visitor.set('Clear', True)
    visitor.until(lambda: 'door</b>' not in visitor.text(), 'a clear page')


def test_a_visitor_sees_the_ids_of_a_map_and_what_has_gone(served):
    visitor = served.visitor()
    visitor.reads('2,000 Gaussians')
    visitor.find('stool')
    visitor.reads('#7   2.02 m away')
    visitor.reads('<s>#4   2.02 m away</s> gone, last seen 30 s ago')
    visitor.until(lambda: {'/answer/box1', '/answer/gone1'} <= visitor.names(), 'both boxes')
    visitor.find('door')
    visitor.reads('<b>door</b>: found')
    visitor.until(lambda: '/answer/gone1' not in visitor.names() and '<s>' not in visitor.text(), 'no rest')


def test_a_word_is_asked_when_its_writer_pauses(served):
    visitor = served.visitor()
    for part in ('c', 'ch', 'cha', 'chair'):
        visitor.set('Find', part)
    visitor.reads('<b>chair</b>: found')
    assert served.asked == [('chair', None)]
    visitor.find('do')  # a pause within a word
    visitor.reads('<b>do</b>: not found')
    visitor.find('door')
    visitor.reads('<b>door</b>: found')
    history = visitor.gui[visitor.element('Asked')]
    visitor.until(lambda: history['props']['options'] == ['door', 'chair'], 'history of whole words')
    visitor.set('Asked', 'chair')
    visitor.until(lambda: visitor.gui[visitor.element('Find')]['value'] == 'chair', 'the word in the box')
    visitor.reads('<b>chair</b>: found')
    visitor.set('Find', '')
    visitor.until(
        lambda: 'chair</b>' not in visitor.text() and '/answer/box1' not in visitor.names(), 'a clear page'
    )


def test_modes_change_the_visitors_own_splats_only(served):
    one, other = served.visitor(), served.visitor()
    for visitor in (one, other):
        visitor.until(lambda: SPLATS in visitor.names(), 'splats')
        visitor.reads('Threshold')
    before = other.buffers
    for mode in ('Depth', 'Semantics'):
        had = one.buffers
        one.set('Show', mode)
        one.until(lambda: one.buffers >= had + 2000 * 32, f'splats of {mode}')
    had = one.buffers
    one.find('chair')
    one.set('Show', 'Relevancy')
    one.until(lambda: one.buffers >= had + 2000 * 32, 'splats of Relevancy')
    one.set('Show', EVIL)
    one.until(lambda: any('no such mode' in note for note in one.notes), 'a complaint')
    assert other.buffers == before


def test_nobody_waits_for_another_and_a_fault_is_said(served):
    slow, quick = served.visitor(), served.visitor()
    slow.find('slow')
    slow.until(lambda: ('slow', None) in served.asked, 'the slow question')
    quick.find('chair')
    quick.reads('<b>chair</b>: found')
    quick.find('boom')
    quick.until(lambda: any('a fault of ours' in note for note in quick.notes), 'the fault')
    assert 'slow</b>' not in slow.text()
    slow.find('chair')  # the newest question wins; the old answer is not shown
    served.release.set()
    slow.reads('<b>chair</b>: found')
    served.shared.write(shown=scenes.shown_from_camera('another room', some(1500, seed=4), 10_000, True))
    slow.reads('another room')
    slow.reads('1,500 Gaussians')


def test_twenty_visitors(served):
    visitors = [served.visitor() for _ in range(20)]
    for number, visitor in enumerate(visitors):
        visitor.find(('chair', 'door')[number % 2])
    for number, visitor in enumerate(visitors):
        visitor.reads(f'<b>{("chair", "door")[number % 2]}</b>: found')
        visitor.until(lambda: SPLATS in visitor.names() and '/answer/box1' in visitor.names(), 'its picture')
    assert served.server.visitors == 20
    assert len(served.asked) == 2  # what all ask is asked once
    for visitor in visitors[:15]:
        visitor.close()
    visitors[-1].until(lambda: served.server.visitors == 5, 'five visitors')


def test_what_is_typed_cannot_break_out(served):
    visitor = served.visitor()
    visitor.reads('Threshold')
    visitor.find(EVIL)
    visitor.reads('&lt;script&gt;')
    page = '\n'.join(str(m['props'].get('content') or '') for m in visitor.gui.values())
    assert '<script' not in page and '<img' not in page
    visitor.find('x' * 300)
    visitor.reads('at most 200')
    visitor.find('   ')
    visitor.reads('empty query')


def test_no_visitor_can_open_a_tunnel_to_the_internet(served, monkeypatch):
    import viser._viser

    monkeypatch.setattr(viser._viser, 'ViserTunnel', lambda *args: pytest.fail('a tunnel'))
    assert served.server._viser.request_share_url() is None
    visitor = served.visitor()
    visitor.send('ShareUrlRequest')
    visitor.find('chair')
    visitor.reads('<b>chair</b>: found')
    assert served.server._viser._share_tunnel is None


def test_a_visitor_starts_as_the_first_camera_in_a_window_of_any_shape(served):
    first = served.shown.first_view
    for width, height in ((1280, 800), (390, 844)):
        visitor = served.visitor(image_width=width, image_height=height)
        visitor.until(lambda: {'fov', 'position', 'look_at'} <= visitor.camera.keys(), 'a camera')
        assert visitor.camera['fov'] == pytest.approx(first.fov_in(width / height))
        assert visitor.camera['position'] == [0, 0, 0]  # where the first camera stood
        assert visitor.camera['look_at'] == pytest.approx(first.look_at)
        assert served.server._viser.initial_camera.fov == pytest.approx(first.fov)
        visitor.until(lambda: 'webgl-software-rendering' in visitor.removed, 'an unhindered view')


def test_without_a_gpu_the_picture_of_who_stands_still_is_drawn_here(monkeypatch):
    monkeypatch.setattr(scenes, 'LIGHT', 300)
    monkeypatch.setattr(visitor_camera.VisitorCamera, 'draws_fast', lambda self: False)
    monkeypatch.setattr(still_picture, 'STILL_S', 0.05)
    served = Served()
    try:
        visitor = served.visitor()
        visitor.until(lambda: visitor.background and not visitor.shows(ROOT), 'a sharp picture')
        visitor.move(position=(0.0, 0.1, -1.2))
        visitor.until(lambda: visitor.background is None and visitor.shows(ROOT), 'splats on the way')
        visitor.until(lambda: visitor.background and not visitor.shows(ROOT), 'a picture of the new place')
        visitor.set('Detail', 'Full')
        visitor.until(lambda: visitor.background is None and visitor.shows(ROOT), 'all splats')
    finally:
        served.close()


def test_controls_listen_as_soon_as_the_visitor_sees_them(served, monkeypatch):
    """Typed at once, while the page is made slowly."""
    import viser._gui_handles as handles

    listen = handles.GuiInputHandle.on_update

    def slow(handle, call):
        time.sleep(0.3)
        return listen(handle, call)

    monkeypatch.setattr(handles.GuiInputHandle, 'on_update', slow)
    visitor = served.visitor()
    visitor.find('chair')
    visitor.reads('<b>chair</b>: found')


# the command


@pytest.fixture
def start(tmp_path):
    write_ply(tmp_path / 'room <b>.ply', some())
    processes = []

    def started(*arguments):
        process = subprocess.Popen(
            [
                sys.executable,
                '-m',
                'gsemsplat_ros.cli',
                'view',
                str(tmp_path / 'room <b>.ply'),
                '--json',
                *arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ, OMP_NUM_THREADS='1'),
        )
        processes.append(process)
        return process

    yield started
    for process in processes:
        process.kill()
        process.wait()


def test_the_command_serves_this_machine_alone_and_ends_with_ctrl_c(start):
    process = start('--port', '0')
    result = json.loads(process.stdout.readline())
    assert result['host'] == '127.0.0.1' and result['gaussians'] == 300
    visitor = Visitor(result['port'])
    visitor.reads('room &lt;b&gt;.ply')
    visitor.find('chair')
    visitor.reads('a PLY file holds no codes')
    with pytest.raises(OSError):
        socket.create_connection((_own_address(), result['port']), timeout=5)
    again = start('--port', str(result['port']))
    assert again.wait(DEADLINE_S) == 2 and 'give another --port' in again.stderr.read()
    visitor.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_S) == 130
    assert process.stdout.read() == '' and 'WARNING' not in process.stderr.read()


def test_a_public_bind_warns_also_who_wants_no_notes(start):
    process = start('--port', '0', '--host', '0.0.0.0', '--quiet')
    result = json.loads(process.stdout.readline())
    assert 'WARNING: 0.0.0.0 is open to the network' in process.stderr.readline()
    socket.create_connection((_own_address(), result['port']), timeout=DEADLINE_S).close()


def _own_address():
    """An address of this machine that 127.0.0.1 does not cover."""
    return '127.0.0.2'


def test_mistakes_take_one_line(capsys):
    from gsemsplat_ros.cli import main

    for arguments, words in (
        (['view', 'missing.ply'], 'no scene at'),
        (['view', 'a', '--live'], 'give one of them'),
        (['view', '--port', '70000'], 'no port'),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert words in error and error.count('\n') == 1
