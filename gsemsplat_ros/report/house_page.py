"""The report of `demo --house`: floor plan, path, words and arrival, on one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from string import Template

import numpy as np

from gsemsplat_ros.report.checkpoint_card import checkpoint_card
from gsemsplat_ros.report.house_result import RIGHT_M, Drive, HouseResult, WordResult
from gsemsplat_ros.report.markup import Markup, data_url, figure, pairs_table, picture, table, tag
from gsemsplat_ros.report.pair_page import TEMPLATE, seconds

SCALE = 100.0  # units of the drawing a metre
MARGIN = 0.2  # m around the floor plan
# verdict -> class of its card, and what it says
SAID = {
    'right': ('found', 'Found'),
    'elsewhere': ('found wrong', 'Found elsewhere'),
    'wrong': ('found wrong', 'Found, but there is none'),
    'missed': ('absent missed', 'Missed'),
    'rightly not found': ('absent', 'Not found: there is none'),
}


def house_page(result: HouseResult, card: dict, versions: dict[str, str], command: str) -> str:
    """The page as self-contained HTML. card: of the checkpoint; versions: by name; command: that makes the
    page again."""
    body = [
        opening(result),
        drive_section(result),
        words_section(result),
        making(result, card, versions, command),
    ]
    title = 'A robot in a furnished house'
    return Template(TEMPLATE.read_text(encoding='utf-8')).substitute(
        title=title, body=Markup('\n').join(body)
    )


def opening(result: HouseResult) -> Markup:
    """Title, the figures that sum it up, and the film."""
    right = sum(word.verdict in ('right', 'rightly not found') for word in result.words)
    figures: list[tuple[str, str]] = [
        ('keyframes in the map', f'{result.keyframes}'),
        ('Gaussians in the map', f'{result.gaussians:,}'),
        ('words answered rightly', f'{right} of {len(result.words)}'),
    ]
    if result.drive:
        figures.append(('from the goal at arrival', metres(result.drive.off)))
    figures += [
        ('driven by the clock of the robot', f'{result.simulated:.0f} s'),
        ('taken by the demo', f'{result.seconds:.0f} s'),
    ]
    return tag(
        'header',
        tag('p', 'gsemsplat', class_='kicker'),
        tag('h1', 'A robot in a furnished house'),
        tag(
            'p',
            'Four rendered rooms. The node saw stereo images, camera_info, TF and /clock, nothing else. From '
            'them it made one map of semantic Gaussians, which answered words and sent the robot to a thing.',
            class_='lead',
        ),
        tag(
            'dl', [tag('div', tag('dt', name), tag('dd', value)) for name, value in figures], class_='figures'
        ),
        tag(
            'figure',
            tag('div', tag('img', src=data_url('image/webp', result.film), alt='the drive'), class_='frame'),
            tag('figcaption', 'What the robot sees, and its map from above'),
            style='margin-top:2rem',
        ),
    )


def drive_section(result: HouseResult) -> Markup:
    """The floor plan with the paths, and the arrival."""
    parts: list[object] = [tag('h2', 'The way'), plan(result)]
    legend = (
        'Grey: the round. Green: the drive to what was asked for. Rings: where the words were found; a line '
    )
    legend += 'leads to the middle of the nearest thing of that name.'
    parts.append(tag('p', legend, class_='meta'))
    if result.drive:
        parts += arrival(result.drive)
    elif result.refused:
        parts.append(tag('p', f'The robot was sent nowhere: {result.refused}', class_='meta'))
    return tag('section', parts, id='way')


def arrival(drive: Drive) -> list[Markup]:
    """Where the robot ended, in numbers and in its picture."""
    beside = 'none stands in the house' if drive.beside is None else f'{metres(drive.beside)} from its sides'
    rows = [
        ('asked for', drive.asked),
        ('goal (approach of /query)', 'x {:.2f}, y {:.2f} m'.format(*drive.goal)),
        ('driven', metres(drive.length)),
        ('from the goal at arrival', f'{metres(drive.off)}, {drive.turn_off:.0f}°'),
        (f'from the true {drive.asked}', beside),
    ]
    return [
        tag('h3', 'Arrival'),
        tag(
            'div',
            figure(drive.shown, 'arrival', 'What it sees there, with the box found before'),
            pairs_table(rows),
            class_='columns',
        ),
    ]


def plan(result: HouseResult) -> Markup:
    """The floor plan from above, x to the right, y up."""
    low, high = result.floors[:, 0].min(0) - MARGIN, result.floors[:, 1].max(0) + MARGIN

    def line(points: Iterable[Sequence[float]] | np.ndarray, closed: bool = False, **style: object) -> Markup:
        flat = (np.asarray(points, float)[:, :2] - [low[0], high[1]]) * [SCALE, -SCALE]
        path = 'M' + 'L'.join(f'{x:.1f} {y:.1f}' for x, y in flat) + 'Z' * closed
        return tag('path', d=path, **{'fill': 'none', **style})

    def label(place: Sequence[float], text: str, **style: object) -> Markup:
        x, y = (np.asarray(place[:2]) - [low[0], high[1]]) * [SCALE, -SCALE]
        return tag('text', text, x=f'{x:.1f}', y=f'{y:.1f}', text_anchor='middle', font_size=17, **style)

    floors = [
        line(np.array([a, [b[0], a[1]], b, [a[0], b[1]]]), True, fill='var(--card)') for a, b in result.floors
    ]
    pieces = [line(c, True, fill='var(--track)', stroke='var(--rule)') for _, c in result.pieces]
    walls = [
        line(wall, stroke='var(--ink)', stroke_width=4, stroke_linecap='square') for wall in result.walls
    ]
    paths = [
        line(
            result.tour, stroke='var(--muted)', stroke_width=3, stroke_dasharray='2 7', stroke_linecap='round'
        )
    ]
    if result.drive:
        paths.append(line(result.drive.path, stroke='var(--accent)', stroke_width=6, stroke_linejoin='round'))
        x, y, yaw = result.drive.path[-1]
        tip = [(x + 0.25 * np.cos(yaw + a), y + 0.25 * np.sin(yaw + a)) for a in (0, 2.5, np.pi, -2.5)]
        paths.append(line(tip, True, fill='var(--accent)'))
    marks = []
    for word in (word for word in result.words if word.place is not None):
        color = 'var(--accent)' if word.verdict == 'right' else 'var(--wrong)'
        place = np.array(word.place)
        if word.true is not None:
            marks.append(line(np.array([word.place, word.true]), stroke=color, stroke_width=2.5))
        ring = [(place[0] + 0.11 * np.cos(a), place[1] + 0.11 * np.sin(a)) for a in np.linspace(0, 6.28, 24)]
        marks.append(line(ring, True, stroke=color, stroke_width=4, fill='var(--paper)'))
        marks.append(
            label(
                (place[0], place[1] + 0.17),
                word.text,
                fill=color,
                stroke='var(--paper)',
                stroke_width=4,
                paint_order='stroke',
                font_weight=600,
            )
        )
    width, height = (high - low) * SCALE
    return tag(
        'svg',
        *floors,
        *pieces,
        *walls,
        *paths,
        *marks,
        viewBox=f'0 0 {width:.0f} {height:.0f}',
        role='img',
        aria_label='the floor plan with the way of the robot',
        style='display:block;width:100%;max-width:760px;margin:1.5rem auto 0',
    )


def words_section(result: HouseResult) -> Markup:
    """Each word beside the truth."""
    rows = [
        (
            word.text,
            SAID[word.verdict][1],
            (f'{word.score:.2f}',),
            ('' if word.off is None else metres(word.off),),
            ('' if word.beside is None else metres(word.beside),),
            (word.standing,),
            (seconds(word.seconds),),
        )
        for word in result.words
    ]
    header = (
        'word',
        'answer',
        ('score',),
        ('from its middle',),
        ('from its sides',),
        ('standing',),
        ('time',),
    )
    shown = [word for word in result.words if word.shown is not None]
    return tag(
        'section',
        tag('h2', 'Words'),
        tag(
            'p',
            f'Right: at most {RIGHT_M} m from the sides of a thing of that name, seen from above. What looks '
            'alike may be taken for it.',
            class_='meta',
        ),
        tag('div', table(rows, header), class_='wide', style='margin-top:1.2rem'),
        tag('h3', 'As the robot saw them'),
        tag('div', [word_card(word) for word in shown], class_='answers small'),
        id='words',
    )


def word_card(word: WordResult) -> Markup:
    """The picture that the robot took of what it found."""
    kind, said = SAID[word.verdict]
    assert word.shown is not None
    return tag(
        'article',
        tag('div', picture(word.shown, f'{word.text} in an image of the robot', 480), class_='frame'),
        tag(
            'div',
            tag('div', tag('h4', word.text), tag('span', said, class_='badge'), class_='verdict'),
            class_='body',
        ),
        class_=f'answer {kind}',
    )


def making(result: HouseResult, card: dict, versions: dict[str, str], command: str) -> Markup:
    """What is simulated and what is not, times, checkpoint, versions, furniture and command."""
    stages = [(stage, (f'{1e3 * value:,.0f}',)) for stage, value in result.timings.items()]
    left_out = f' {result.left_out} keyframes were left out of the map.' if result.left_out else ''
    return tag(
        'section',
        tag('h2', 'How it was made'),
        tag(
            'p',
            'Simulated: the house, its images (without noise or lens), the time, and a robot that knows its '
            'place exactly and drives exactly, around what stands on the floor plan (a stand-in for Nav2). '
            'Not simulated: the node, its messages, network, map and answers, and the goal. The network was '
            f'trained with these models of furniture, in other rooms.{left_out}',
            class_='meta',
        ),
        tag(
            'div',
            tag('div', tag('h3', 'Time of a keyframe, by stage'), table(stages, ('stage', ('median [ms]',)))),
            tag(
                'div',
                tag('h3', 'Versions'),
                pairs_table(versions.items()),
                checkpoint_card(result.weights, card),
            ),
            class_='columns',
        ),
        tag('h3', 'Furniture'),
        table(result.credits, ('library', 'by', 'licence')),
        tag('h3', 'The command that makes this page again'),
        tag('pre', command),
        id='making',
    )


def metres(value: float) -> str:
    """A length as text."""
    return f'{value:.2f} m'
