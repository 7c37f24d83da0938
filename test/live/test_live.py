"""The live page without a browser: its values, its files, its words, and many visitors at once."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.live_page import CHAIR, DEADLINE_S, EVIL, some

from gsemsplat_ros.commands import view
from gsemsplat_ros.formats.ply import read_ply, write_ply
from gsemsplat_ros.images.camera import UP_OF_CAMERA, Camera
from gsemsplat_ros.live import colors, file_source, panel_text
from gsemsplat_ros.live import shown_scene as scenes
from gsemsplat_ros.live.page_answer import PageAnswer, answered_by_boxes, carried_over
from gsemsplat_ros.live.shared_state import SharedState, question
from gsemsplat_ros.live.splat_cache import SplatCache
from gsemsplat_ros.mapping.map_keyframe import MapKeyframe
from gsemsplat_ros.pictures.heat import heat
from gsemsplat_ros.pictures.overlay import turbo
from gsemsplat_ros.semantics.answer import Answer
from gsemsplat_ros.semantics.object_history import History, State, duration
from gsemsplat_ros.semantics.objects import Object


def a_scene(count=300, budget=10_000, **changes):
    return scenes.shown_from_camera('a room', some(count, **changes), budget, metric=True)


def found(shown, text='chair', lit=None, relevancy=None, objects=(CHAIR,), found=True, score=0.9, **changes):
    lit = np.zeros(len(shown.rows), bool) if lit is None else lit
    answer = Answer(text, 0.5, found, score, (0.0, 0.0, 1.0), None, objects)
    return replace(PageAnswer(answer, shown, relevancy, lit, 0.01), **changes)


# what is shown


def test_the_box_that_a_click_hits():
    far = Object((0.0, 0.25, 4.0), (1.0, 1.0, 1.0), 0.5)
    assert scenes.object_hit((0, 0.25, 0), (0, 0, 1), [far, CHAIR]) == 1  # the nearer one
    assert scenes.object_hit((0.4, 0.25, 0), (0, 0, 1), [far, CHAIR]) == 0  # past the chair
    assert scenes.object_hit((0, 0.25, 0), (0, 0, -1), [far, CHAIR]) is None  # behind
    assert scenes.object_hit((0, 0.25, 4.0), (0, 1, 0), [far, CHAIR]) == 0  # from within


def test_what_cannot_be_drawn_is_left_out_and_thinning_is_even_and_the_same_each_time():
    gaussians = some(4000)
    gaussians.opacities[:100] = 0.001
    gaussians.means[100] = float('nan')
    everything, rows, factor = scenes.thin(gaussians, 10_000)
    assert factor == 1.0 and rows.tolist() == list(range(101, 4000)) and everything is not None
    _, few, factor = scenes.thin(gaussians, 975)
    assert len(few) == 975 and np.isin(few, rows).all() and (np.diff(few) > 0).all()
    assert factor == pytest.approx(np.sqrt(3899 / 975))
    assert (few == scenes.thin(gaussians, 975)[1]).all()
    assert abs(np.median(few) - np.median(rows)) < 150
    shown = scenes.shown_from_camera('x', gaussians, 975, True)
    assert shown.thinned.startswith('975 of 4,000')


def test_the_light_level_is_merged_from_what_is_drawn(monkeypatch):
    monkeypatch.setattr(scenes, 'LIGHT', 50)
    shown = a_scene(400, budget=300)
    assert shown.light is not None and len(shown.light.gaussians) == 50 and len(shown.light.group) == 300
    assert shown.drawn.codes.shape[1] == 0
    assert torch.equal(shown.drawn.scales, shown.gaussians.scales[shown.rows] * shown.scale_factor)
    assert a_scene(50).light is None  # as light as it is
    assert '300 Gaussians are drawn as 50' in panel_text.level(shown, full=False)
    assert panel_text.level(shown, full=True) == panel_text.level(a_scene(50), full=False) == ''


def test_a_file_tells_by_its_content_whether_a_camera_or_a_map_made_it():
    assert scenes.shown_from_file('a', some(), 1000).up == UP_OF_CAMERA
    around = some()
    around.means[:, 2] -= 2.5
    assert scenes.shown_from_file('a', around, 1000).up == scenes.UP_OF_MAP
    assert scenes.shown_from_file('a', around, 1000).unit == 'units'


def test_a_visitor_starts_as_the_first_camera():
    seen = scenes.ShownCamera('first camera', np.eye(4), 0.8, 1.5)
    view = scenes.shown_from_camera('a', some(), 1000, True, (seen,)).first_view
    assert view.position.tolist() == [0, 0, 0] and view.look_at[:2].tolist() == [0, 0] and view.reach > 1
    assert (view.fov, view.aspect) == (0.8, 1.5)
    for aspect in (0.46, 1.0, 1.5, 2.2):  # the whole picture is in the window, and fills it along one side
        up = np.tan(view.fov_in(aspect) / 2)
        room = up / np.tan(0.4), aspect * up / (1.5 * np.tan(0.4))
        assert min(room) == pytest.approx(1) and max(room) == pytest.approx(max(1.5 / aspect, aspect / 1.5))
    told = scenes.shown_from_file('a', some(5000), 10_000).first_view  # by what the camera saw
    assert told.fov == pytest.approx(2 * np.arctan(0.49), abs=0.01)


def test_a_visitor_of_a_map_starts_as_its_first_keyframe():
    pose = np.array([[0, 0, 1.0, 2], [-1, 0, 0, 3], [0, -1, 0, 1.2], [0, 0, 0, 1]])  # looks along +x
    keyframe = MapKeyframe(
        number=1,
        map_from_camera=pose,
        scale=1.0,
        frame='cam',
        stamp_ns=0,
        camera=Camera.from_fov_y(40, 30, 0.7),
        gray=np.zeros((30, 40), np.uint8),
        depth=np.zeros((30, 40), np.float16),
        points=np.array([[0, 0, 1.5], [0, 0, 2.5]], np.float32),
        descriptors=np.zeros((2, 128), np.uint8),
        vector=np.zeros(8, np.float16),
    )
    view = scenes.shown_from_above('a', some(), 1000, True, keyframe=keyframe).first_view
    assert view.position.tolist() == [2, 3, 1.2] and view.look_at == pytest.approx([4, 3, 1.2])
    assert view.fov == pytest.approx(0.7) and view.aspect == pytest.approx(4 / 3)


def test_the_visitor_stands_where_it_sees_the_scene():
    camera = a_scene()
    above = scenes.shown_from_above('map', some(), 1000, True)
    assert above.first_view.position[2] > above.gaussians.means[:, 2].max()
    position, at = scenes.viewpoint_before(camera, CHAIR, (0.5, -0.5, -0.5))
    assert at.tolist() == list(CHAIR.center)
    assert np.linalg.norm(position - at) == pytest.approx(1.6 * np.linalg.norm(CHAIR.size))
    assert position[1] < at[1] and position[2] < at[2]
    assert np.isfinite(scenes.viewpoint_before(camera, CHAIR, CHAIR.center)[0]).all()
    assert camera.distance((3, 0, 4)) == 5


def test_the_first_camera_is_told_by_what_it_saw():
    gaussians = some(5000)  # x / z and y / z within 0.5
    seen = scenes.first_camera_of(gaussians.means.numpy())
    assert seen.fov == pytest.approx(2 * np.arctan(0.49), abs=0.01) and seen.aspect == pytest.approx(
        1, abs=0.02
    )
    assert scenes.first_camera_of(-gaussians.means.numpy()) is None


# colours


def test_splats_hold_positions_covariances_and_colours():
    shown = a_scene(50, budget=20)
    buffer = colors.painted(colors.packed(shown.drawn), colors.own_colors(shown))
    gaussians = shown.gaussians.select(torch.from_numpy(shown.rows))
    assert (buffer[:, :3].copy().view(np.float32) == gaussians.means.numpy()).all() and not buffer[:, 3].any()
    spread = gaussians.covariances().numpy().reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]] * shown.scale_factor**2
    assert buffer[:, 4:7].copy().view(np.float16) == pytest.approx(spread, rel=2e-3, abs=1e-6)
    rgba = buffer[:, 7:].copy().view(np.uint8)
    assert (rgba[:, :3] == np.rint(gaussians.colors.numpy() * 255)).all()
    assert (rgba[:, 3] == np.rint(gaussians.opacities.numpy() * 255)).all()


def test_what_is_lit_glows_and_the_rest_steps_back():
    own = np.array([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [1, 0, 0]], np.float32)
    painted = colors.highlighted(own, np.array([True, False, False]))
    assert painted[0, 0] > painted[0, 1] > painted[0, 2] and painted[0].max() > 0.6
    assert painted[1] == pytest.approx([colors.REST / 2] * 3)
    assert (
        painted[2, 0] == pytest.approx(colors.REST * (0.55 * 0.299 + 0.45))
        and painted[2, 1] == painted[2, 2] < 0.1
    )


def test_colours_of_relevancy():
    own = np.full((4, 3), 0.5, np.float32)
    relevancy = np.array([0.0, 0.75, 1.0, np.nan], np.float32)
    assert heat(relevancy, True)[:3].tolist() == [0, 0.5, 1] and np.isnan(heat(relevancy, True)[3])
    assert heat(relevancy, False)[2] == pytest.approx(0.4)
    painted = colors.relevancy_colors(own, relevancy, True)
    hot = turbo(np.array([[0.92]]))[0, 0] / 255
    assert painted[2] == pytest.approx(0.15 + 0.95 * (hot - 0.15), abs=1e-5)
    assert painted[3] == pytest.approx([0.15] * 3)  # unknown: dark gray
    assert np.isnan(heat(np.full(2, np.nan), True)).all()


def test_semantic_colours_are_the_same_each_time_and_tell_meanings_apart():
    rng = np.random.default_rng(1)
    meanings = rng.normal(size=(3, 32)).astype(np.float32)
    which = np.arange(300) % 3
    codes = meanings[which] + 0.01 * rng.normal(size=(300, 32)).astype(np.float32)
    opacities = np.ones(300, np.float32)
    painted = colors.code_colors(codes, opacities)
    assert (painted == colors.code_colors(codes.copy(), opacities)).all()
    assert painted.shape == (300, 3) and painted.min() >= 0 and painted.max() <= 1
    means = np.stack([painted[which == k].mean(0) for k in range(3)])
    within = max(np.abs(painted[which == k, :2] - means[k, :2]).max() for k in range(3))
    between = min(np.linalg.norm(means[i] - means[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert between > 0.5 and within < 0.15
    assert colors.code_colors(np.zeros((0, 4)), np.zeros(0)).shape == (0, 3)


def test_depth_is_the_distance_from_the_eye():
    painted, near, far = colors.depth_colors(a_scene(2000))
    distance = np.linalg.norm(a_scene(2000).means, axis=1)
    assert (near, far) == pytest.approx(np.quantile(distance, (0.02, 0.98)), rel=1e-4)
    assert painted[distance.argmin(), 0] > painted[distance.argmin(), 2]  # near is red
    assert painted[distance.argmax(), 2] > painted[distance.argmax(), 0]


def test_pictures_are_made_once_and_shared(monkeypatch):
    monkeypatch.setattr(scenes, 'LIGHT', 100)
    pictures, shown = SplatCache(), a_scene()

    def none(shown):
        return None

    lit = np.arange(300) < 30
    answer = found(shown, lit=lit, relevancy=np.linspace(0, 1, 300, dtype=np.float32))
    assert pictures.of(shown, 'Colour', None, none, False) is None  # the shared ones
    full = pictures.of(shown, 'Colour', None, none, True)
    light = pictures.plain(shown)
    assert len(full) == 300 and len(light) == 100
    own = light[:, 7:].copy().view(np.uint8)[:, :3] / 255  # of each mode the mean of the parts
    assert own == pytest.approx(shown.light.mean(colors.own_colors(shown)), abs=0.5 / 255 + 1e-6)
    assert pictures.of(shown, 'Colour', found(shown), none, True) is full  # nothing is lit
    assert pictures.of(shown, 'Colour', answer, none, False) is pictures.of(
        shown, 'Colour', answer, none, False
    )
    made = [
        pictures.of(shown, mode, answer, none, True) for mode in ('Colour', 'Relevancy', 'Semantics', 'Depth')
    ]
    assert all((a[:, :7] == full[:, :7]).all() for a in made)
    assert len({a[:, 7].tobytes() for a in [*made, full]}) == 5
    meant = pictures.of(a_scene(seed=2), 'Semantics', None, lambda shown: np.ones((300, 3)), True)
    assert (meant[:, 7] & 0xFFFFFF == 0xFFFFFF).all()
    with pytest.raises(ValueError, match='no codes'):
        pictures.of(a_scene(codes=0), 'Semantics', None, none, True)
    with pytest.raises(ValueError, match='no such mode'):
        pictures.of(shown, EVIL, None, none, True)


def test_the_download_is_a_ply_of_all_gaussians(tmp_path):
    shown = a_scene(50, budget=20)
    (tmp_path / 'a.ply').write_bytes(SplatCache().ply(shown))
    back = read_ply(tmp_path / 'a.ply', 'cam')
    assert len(back) == 50 and back.codes.shape[1] == 0
    assert torch.allclose(back.means, shown.gaussians.means)
    assert torch.allclose(back.colors, shown.gaussians.colors, atol=1e-5)


# the shared


def test_twenty_who_ask_the_same_ask_once_and_nobody_waits_for_another():
    shared, calls, shown, release = SharedState(2), [], a_scene(), threading.Event()

    def ask(text, threshold):
        calls.append(text)
        if text == 'slow':
            release.wait(DEADLINE_S)
        return found(shown, text)

    shared.write(shown=shown, ask=ask)
    slow = threading.Thread(target=shared.ask, args=('slow', None))
    slow.start()
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(shared.ask('chair', 0.5))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert len(answers) == 20 and len({id(a) for a in answers}) == 1 and slow.is_alive()
    release.set()
    slow.join(DEADLINE_S)
    assert sorted(calls) == ['chair', 'slow']
    shared.ask('chair', 0.6)
    shared.write(shown=a_scene(seed=1))  # another scene: asked anew
    shared.ask('chair', 0.6)
    assert calls.count('chair') == 3
    shared.close()


def test_a_board_that_cannot_be_asked_says_why_and_a_failure_is_not_kept():
    shared, fail = SharedState(), [True]
    with pytest.raises(ValueError, match='still loading'):
        shared.ask('chair')

    def ask(text, threshold):
        if fail[0]:
            raise ValueError('the node has gone')
        return found(a_scene(), text)

    seen = []
    shared.listeners.append(lambda: seen.append(shared.state.version))
    shared.write(shown=a_scene(), ask=ask)
    with pytest.raises(ValueError, match='has gone'):
        shared.ask('chair')
    fail[0] = False
    assert shared.ask('chair').answer.text == 'chair' and seen == [1]
    shared.close()


def test_questions_are_one_line_of_plain_text():
    assert question('  red\n\tchair\x00 ') == 'red chair'
    for text in ('', ' \n', '\x00'):
        with pytest.raises(ValueError, match='empty query'):
            question(text)
    with pytest.raises(ValueError, match='at most 200'):
        question('x' * 201)


def test_boxes_light_up_what_lies_in_them_and_move_along_with_a_new_scene():
    shown = a_scene(3000)
    answer = answered_by_boxes(found(shown).answer, shown, 0.1)
    assert (answer.lit == CHAIR.contains(shown.means)).all() and answer.lit.any()
    newer = a_scene(3000, seed=3)
    again = carried_over(answer, newer)
    assert again.shown is newer and (again.lit == CHAIR.contains(newer.means)).all()
    assert carried_over(answer, a_scene(frame='elsewhere')) is None
    assert carried_over(found(shown, relevancy=np.zeros(3000, np.float32)), newer) is None


# words of the panel


def test_nothing_reaches_the_panel_unescaped():
    gaussians = some(30, frame=EVIL)
    shown = scenes.shown_from_camera(EVIL, gaussians, 100, False)
    shared = SharedState()
    shared.write(shown=shown, status=EVIL, is_trouble=True)
    answer = found(shown, EVIL, note=EVIL)
    pages = [
        panel_text.head(shared.state),
        panel_text.verdict(answer, '', 'Relevancy', None),
        panel_text.verdict(None, EVIL, 'Colour', None),
        panel_text.waiting(EVIL, EVIL),
        panel_text.verdict(found(shown, EVIL, found=False), '', 'Depth', (1.0, 2.0)),
    ]
    for page in pages:
        assert '<script' not in page and '<img' not in page and '&lt;script&gt;' in page
        assert '"q"' not in page
    assert len(panel_text.label(1, EVIL, CHAIR, shown)) < 80


def test_the_panel_says_what_was_found():
    shown = a_scene()
    page = panel_text.verdict(found(shown), '', 'Colour', None)
    assert '<b>chair</b>: found, score 0.90, 1 object in 10 ms' in page and 'first camera' in page
    assert panel_text.object_line(1, CHAIR, shown) == '1   2.02 m away   0.50 × 1.00 × 0.25'
    assert panel_text.label(1, 'chair', CHAIR, shown) == 'chair  2.02 m  0.50 × 1.00 × 0.25'
    assert 'not found (score 0.90, threshold 0.50)' in panel_text.verdict(
        found(shown, found=False), '', 'Colour', None
    )
    partly = found(shown)
    partly = replace(partly, answer=replace(partly.answer, note="left out, as not understood: '🪑'"))
    page = panel_text.verdict(partly, '', 'Colour', None)
    assert ': found, score' in page and 'left out, as not understood: &#x27;🪑&#x27;' in page
    nothing = found(shown, '椅子', found=False)
    nothing = replace(nothing, answer=replace(nothing.answer, note='not understood: 椅子'))
    page = panel_text.verdict(nothing, '', 'Colour', None)
    assert (
        '<b>椅子</b>: not understood' in page and 'not found' not in page and 'not understood: 椅子' in page
    )
    loose = scenes.shown_from_file('x', some(), 100)
    shared = SharedState()
    shared.write(shown=loose)
    assert 'not metres' in panel_text.head(shared.state) and '100 of 300' in panel_text.head(shared.state)


# files


def history(number, state=State.THERE, last_s=100, text='chair'):
    gone_ns = 200 * 10**9 if state == State.GONE else 0
    return History(number, state, ((text, 0.5),), 10**9, last_s * 10**9, 12, gone_ns)


def test_the_panel_tells_objects_by_their_ids_and_what_has_gone():
    shown, now = a_scene(), 161 * 10**9
    known = replace(CHAIR, history=history(7))
    assert panel_text.object_line(1, known, shown) == '#7   2.02 m away   0.50 × 1.00 × 0.25'
    assert panel_text.label(1, 'chair', known, shown) == 'chair #7  2.02 m  0.50 × 1.00 × 0.25'
    assert panel_text.object_hint(CHAIR, now) == 'Fly there'
    assert panel_text.object_hint(known, now) == 'Fly there; last seen 1 min ago'
    doubtful = replace(CHAIR, history=history(7, State.NOT_SEEN_LATELY))
    assert 'last seen 1 min ago, and not at the last look there' in panel_text.object_hint(doubtful, now)
    gone = [replace(CHAIR, history=history(k, State.GONE, 40 - k)) for k in range(1, 6)]
    answer = found(shown, found=False, objects=())
    assert panel_text.gone(answer) == panel_text.gone(None) == ''
    answer = replace(answer, answer=replace(answer.answer, gone=tuple(gone)), stamp_ns=now)
    page = panel_text.gone(answer)
    assert '<s>#1   2.02 m away</s> gone, last seen 2 min ago' in page
    assert page.count('<s>') == panel_text.GONE


@pytest.mark.parametrize(
    'seconds, words',
    [
        (-3, '0 s'),
        (0.4, '0 s'),
        (59, '59 s'),
        (60, '1 min'),
        (3599, '59 min'),
        (7200, '2 h'),
        (172_800, '2 days'),
    ],
)
def test_time_spans_in_words(seconds, words):
    assert duration(int(seconds * 1e9)) == words


def test_a_ply_is_shown_and_says_why_it_cannot_be_asked(tmp_path):
    path = tmp_path / 'a.ply'
    write_ply(path, some())
    shared = SharedState()
    file_source.open_any(path, shared, 1000, None)()
    assert len(shared.state.shown.rows) == 300
    with pytest.raises(ValueError, match='no codes'):
        shared.ask('chair')


@pytest.mark.parametrize(
    'name, content, words',
    [
        ('a.safetensors', b'', 'no scene and no map'),
        ('a.safetensors', b'\x08\0\0\0\0\0\0\0{}      ', 'no map'),
        ('a.splat', bytes(32), 'another format than PLY or GLB: export it as .ply'),
        ('a.ply', b'ply', 'PLY'),
        ('a.txt', b'x', 'wanted a .safetensors'),
    ],
)
def test_files_of_another_kind_are_refused_in_one_line(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        file_source.open_any(view.file_of(str(tmp_path / name)), SharedState(), 1000, None)
    assert '\n' not in str(error.value)


def test_the_file_of_a_folder(tmp_path):
    with pytest.raises(ValueError, match='holds neither'):
        view.file_of(str(tmp_path))
    with pytest.raises(ValueError, match='no scene at'):
        view.file_of(str(tmp_path / 'missing'))
    (tmp_path / 'scene.ply').write_bytes(b'')
    assert view.file_of(str(tmp_path)).name == 'scene.ply'
    (tmp_path / 'scene.safetensors').write_bytes(b'')
    assert view.file_of(str(tmp_path)).name == 'scene.safetensors'
