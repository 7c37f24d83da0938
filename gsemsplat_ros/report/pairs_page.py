"""A labelled pair in the report of `eval pairs`: its images, and each phrase with its boxes and its peak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gsemsplat_ros.report.markup import Markup, figure, picture, tag
from gsemsplat_ros.report.pair_page import OUTLINE, peak_mark
from gsemsplat_ros.semantics.answer import Answer

Box = tuple[float, float, float, float]
# verdict -> class of its card
VERDICTS = {
    'Found': 'found',
    'Found elsewhere': 'found wrong',
    'Missed': 'missed',
    'False alarm': 'found wrong',
    'Not found': 'absent',
}


@dataclass(frozen=True)
class JudgedAnswer:
    """The answer to a phrase, and whether it is right.

    picture (H, W, 3) uint8 RGB: relevancy over the first image; boxes (x0, y0, x1, y1) [px] of what it names,
    none if it is not there; right: the peak lies in one of them; note: more about it, in words.
    """

    answer: Answer
    picture: np.ndarray
    boxes: tuple[Box, ...]
    right: bool
    note: str

    @property
    def verdict(self) -> str:
        """One of VERDICTS."""
        if not self.boxes:
            return 'False alarm' if self.answer.found else 'Not found'
        if not self.answer.found:
            return 'Missed'
        return 'Found' if self.right else 'Found elsewhere'


def pair_section(
    title: str, facts: Sequence[str], images: tuple[np.ndarray, np.ndarray], answers: Sequence[JudgedAnswer]
) -> Markup:
    """One pair: facts below its title, both images (H, W, 3) uint8 RGB, what is there, and what is not, the
    highest score first.
    """
    there = [answer for answer in answers if answer.boxes]
    absent = sorted((a for a in answers if not a.boxes), key=lambda a: -a.answer.score)
    shown = [
        figure(image, f'{name} image', f'{name} image') for name, image in zip(('First', 'Second'), images)
    ]
    parts: list[Markup] = [
        tag('h2', title),
        *(tag('p', fact, class_='meta') for fact in facts),
        tag('div', shown, class_='trio'),
    ]
    for heading, group, columns in (
        ('What is there', there, 'answers'),
        ('What is not there', absent, 'answers small'),
    ):
        if group:
            parts += [tag('h3', heading), tag('div', [card(answer) for answer in group], class_=columns)]
    return tag('section', parts)


def card(judged: JudgedAnswer) -> Markup:
    """One phrase: picture with boxes (dashed) and peak (a ring), verdict and score."""
    answer = judged.answer
    height, width = judged.picture.shape[:2]
    marks = tag(
        'svg',
        [box_outline(box) for box in judged.boxes],
        peak_mark(answer),
        viewBox=f'-0.5 -0.5 {width} {height}',
        aria_hidden='true',
    )
    body = [
        tag('div', tag('h4', answer.text), tag('span', judged.verdict, class_='badge'), class_='verdict'),
        tag(
            'div',
            tag('div', tag('i', style=f'width:{100 * min(max(answer.score, 0), 1):.1f}%'), class_='track'),
            f'{answer.score:.2f}',
            class_='score',
        ),
        tag('p', judged.note, class_='where'),
    ]
    return tag(
        'article',
        tag('div', picture(judged.picture, f'relevancy of {answer.text}'), marks, class_='frame'),
        tag('div', body, class_='body'),
        class_=f'answer {VERDICTS[judged.verdict]}',
    )


def box_outline(box: Box) -> Markup:
    """The dashed border of a box."""
    x0, y0, x1, y1 = box
    d = f'M{x0:.1f} {y0:.1f}H{x1:.1f}V{y1:.1f}H{x0:.1f}Z'
    dark, light = OUTLINE
    return Markup(tag('path', d=d, **dark) + tag('path', d=d, stroke_dasharray='8 5', **light))
