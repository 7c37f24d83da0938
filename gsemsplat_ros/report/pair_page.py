"""The report of `infer` and `demo`: one self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from string import Template

import numpy as np

from gsemsplat_ros.flight.flight import Film
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.pictures.overlay import depth_picture
from gsemsplat_ros.report.checkpoint_card import checkpoint_card, words
from gsemsplat_ros.report.markup import Markup, figure, pairs_table, picture, safe, table, tag, video
from gsemsplat_ros.report.pair_result import PairResult, ReportedAnswer
from gsemsplat_ros.semantics.answer import Answer
from gsemsplat_ros.semantics.objects import Object

TEMPLATE = Path(__file__).with_name('report.html')
NEAREST = 0.05  # m: boxes that reach closer to the camera are not drawn
SHOWN_OBJECTS = 5  # of an answer, best first
# a light line on a dark one shows on every picture
OUTLINE = {'stroke': '#000', 'stroke_width': 4.5, 'opacity': 0.4}, {'stroke': '#fff', 'stroke_width': 1.8}


@dataclass(frozen=True)
class PairReport:
    """The contents of the page. card: of the checkpoint; versions: by name; command: that reproduces it."""

    title: str
    results: tuple[PairResult, ...]
    card: dict
    versions: dict[str, str]
    command: str


def page(report: PairReport) -> str:
    """The page as self-contained HTML: texts are escaped, pictures are inside."""
    body = [
        opening(report),
        *(pair_section(number, result) for number, result in enumerate(report.results, 1)),
        making(report),
    ]
    return Template(TEMPLATE.read_text(encoding='utf-8')).substitute(
        title=safe(report.title), body=Markup('\n').join(body)
    )


def opening(report: PairReport) -> Markup:
    """Title, the figures that sum it up, and a link to each pair."""
    results = report.results
    answers = [answer for result in results for answer in result.answers]
    several = len(results) > 1
    figures: list[tuple[str, object]] = [('pairs of images', len(results))] if several else []
    figures += [
        ('Gaussians a pair' if several else 'Gaussians', f'{median(r.gaussians for r in results):,.0f}'),
        ('from images to Gaussians', seconds(median(r.pair_seconds for r in results))),
    ]
    if answers:
        figures += [
            ('words found', f'{sum(a.answer.found for a in answers)} of {len(answers)}'),
            ('from word to answer', seconds(median(a.seconds for a in answers))),
        ]
    contents = None
    if several:
        contents = tag(
            'nav',
            [
                tag(
                    'a',
                    tag('div', picture(result.first, '', 200), class_='frame'),
                    tag('span', words(result.name)),
                    href=f'#pair-{number}',
                )
                for number, result in enumerate(results, 1)
            ],
            aria_label='pairs',
        )
    return tag(
        'header',
        tag('p', 'gsemsplat', class_='kicker'),
        tag('h1', report.title),
        tag(
            'p',
            (
                'Each pair of images became a cloud of semantic 3D Gaussians in one forward pass, and '
                'answered words. Times are medians over the pairs.'
            )
            if several
            else 'Two images became a cloud of semantic 3D Gaussians in one forward pass, and '
            'answered words.',
            class_='lead',
        ),
        tag(
            'dl', [tag('div', tag('dt', name), tag('dd', value)) for name, value in figures], class_='figures'
        ),
        contents,
    )


def pair_section(number: int, result: PairResult) -> Markup:
    """One pair: images, depth, new viewpoints, answers."""
    unit = 'm' if result.metric else 'units'
    scale = (
        f'metric scale from the {result.scale_source}'
        if result.metric
        else "scale unknown: lengths are in the network's own units"
    )
    depth, near, far = depth_picture(result.depth)
    legend = [f'{near:.2f} {unit}', tag('i'), f'{far:.2f} {unit}'] if math.isfinite(near) else 'unknown'
    figures = [
        figure(result.first, 'first image', 'First image'),
        figure(result.second, 'second image', 'Second image'),
        figure(depth, 'depth of the first image', tag('span', 'Depth', tag('span', legend, class_='scale'))),
    ]
    parts = [
        tag('h2', words(result.name)),
        tag(
            'p', f'{result.gaussians:,} Gaussians in {seconds(result.pair_seconds)} · {scale}', class_='meta'
        ),
        tag('p', f'Focal length: {result.focal}', class_='meta'),
        result.geometry and tag('p', f'Geometry: {result.geometry}', class_='meta'),
        tag('div', figures, class_='trio'),
        tag('h3', 'From new viewpoints'),
        tag(
            'div',
            [figure(view.picture, f'the scene {view.title}', view.title) for view in result.views],
            class_='strip',
        ),
    ]
    if result.film:
        parts.append(films(result.film))
    if result.answers:
        parts += [
            tag('h3', 'Words'),
            tag('div', [answer_card(a, result.camera, unit) for a in result.answers], class_='answers'),
        ]
    return tag('section', parts, id=f'pair-{number}')


def films(film: Film) -> Markup:
    """The two videos of a flight, side by side."""
    captions = (
        f'Flight along the path {film.path}, {film.seconds:.1f} s',
        'The same flight, coloured by meaning',
    )
    return tag(
        'div',
        [
            tag('figure', tag('div', video(mp4, poster, caption), class_='frame'), tag('figcaption', caption))
            for mp4, poster, caption in zip(film.files, film.posters, captions)
        ],
        class_='films',
    )


def answer_card(reported: ReportedAnswer, camera: Camera, unit: str) -> Markup:
    """Where one phrase is, or that it was not found."""
    answer = reported.answer
    things = answer.objects[:SHOWN_OBJECTS] if answer.found else ()
    place = '' if answer.state == 'not understood' else 'Nothing was rendered where it could be.'
    if answer.peak_point is not None:
        x, y, z = answer.peak_point
        name = 'Peak' if answer.found else 'Closest match, below the threshold:'
        at = f'x {x:.2f}, y {y:.2f}, z {z:.2f}'.replace('-', '\N{MINUS SIGN}')
        place = f'{name} {math.hypot(x, y, z):.2f} {unit} away, at {at}'
    rows = [
        (
            str(i),
            (f'{math.hypot(*thing.center):.2f} {unit}',),
            (' × '.join(f'{edge:.2f}' for edge in thing.size) + f' {unit}',),
            (f'{thing.score:.2f}',),
        )
        for i, thing in enumerate(things, 1)
    ]
    listed = table(rows, ('', ('distance',), ('width × height × depth',), ('score',))) if rows else None
    body = [
        tag(
            'div',
            tag('h4', answer.text),
            tag('span', answer.state.capitalize(), class_='badge'),
            class_='verdict',
        ),
        tag(
            'div',
            tag('div', tag('i', style=f'width:{100 * min(max(answer.score, 0), 1):.1f}%'), class_='track'),
            f'{answer.score:.2f}',
            class_='score',
        ),
        [tag('p', line, class_='where') for line in (place, answer.note) if line],
        listed,
    ]
    shot = None
    if reported.picture is not None:
        height, width = reported.picture.shape[:2]
        marks = tag(
            'svg',
            [box_mark(thing, camera) for thing in things],
            peak_mark(answer) if answer.found else [],
            [number_mark(i, thing, camera) for i, thing in enumerate(things, 1)] if len(things) > 1 else [],
            viewBox=f'-0.5 -0.5 {width} {height}',
            aria_hidden='true',
        )
        shot = tag('div', picture(reported.picture, f'relevancy of {answer.text}'), marks, class_='frame')
    return tag(
        'article',
        shot,
        tag('div', body, class_='body'),
        class_='answer found' if answer.found else 'answer absent',
    )


def peak_mark(answer: Answer) -> list[Markup]:
    """A ring around the most relevant pixel."""
    if answer.peak_pixel is None:
        return []
    u, v = answer.peak_pixel
    return [tag('circle', cx=f'{u:.1f}', cy=f'{v:.1f}', r=9, **style) for style in OUTLINE]


def box_mark(thing: Object, camera: Camera) -> list[Markup]:
    """The edges of an object's box in the first image; none when it reaches behind the camera."""
    if thing.corners[:, 2].min() < NEAREST:
        return []
    uv, _ = camera.project(thing.edges)
    lines = ' '.join('M{:.1f} {:.1f}L{:.1f} {:.1f}'.format(*edge.ravel()) for edge in uv)
    return [tag('path', d=lines, **style) for style in OUTLINE]


def number_mark(number: int, thing: Object, camera: Camera) -> list[Markup]:
    """An object's row number in the table, written at its centre; none behind the camera."""
    (u, v), in_front = camera.project(np.array(thing.center), NEAREST)
    return [tag('text', number, x=f'{u:.1f}', y=f'{v:.1f}')] if in_front else []


def making(report: PairReport) -> Markup:
    """How the page was made: times, checkpoint, versions, command."""
    return tag(
        'section',
        tag('h2', 'How it was made'),
        tag(
            'div',
            tag('div', tag('h3', 'Time, by stage'), timings(report.results)),
            tag(
                'div',
                tag('h3', 'Versions'),
                pairs_table(report.versions.items()),
                checkpoint_card(report.results[0].weights, report.card),
            ),
            class_='columns',
        ),
        tag('h3', 'The command that makes this page again'),
        tag('pre', report.command),
        id='making',
    )


def timings(results: Sequence[PairResult]) -> Markup:
    """Milliseconds of each stage: of the one pair, or median and slowest of several."""
    stages = dict.fromkeys(stage for result in results for stage in result.timings)
    several, rows = len(results) > 1, []
    for stage in stages:
        values = [1e3 * result.timings[stage] for result in results if stage in result.timings]
        rows.append((stage, (f'{median(values):,.1f}',), *([(f'{max(values):,.1f}',)] if several else [])))
    return tag(
        'div',
        table(rows, ('stage', ('median [ms]',), ('slowest [ms]',)) if several else ('stage', ('ms',))),
        class_='wide',
    )


def seconds(value: float) -> str:
    """A duration [s] as text, in s or ms."""
    return f'{value:.2f} s' if value >= 0.1 else f'{value * 1e3:.0f} ms'
