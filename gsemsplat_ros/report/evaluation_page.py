"""The pages of evaluations: tables, and for `eval scannetpp` the pictures of each annotated view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import Template

import cv2
import numpy as np

from gsemsplat_ros.pictures.heat import heat
from gsemsplat_ros.pictures.overlay import turbo
from gsemsplat_ros.report.markup import Markup, figure, pairs_table, safe, table, tag
from gsemsplat_ros.report.pair_page import TEMPLATE

WIDTH = 360  # px of the small pictures
TRUTH = (64, 224, 208)  # RGB of the annotation
RIGHT, WRONG = (60, 200, 90), (230, 60, 50)
DIM = 0.3  # brightness outside a mask


@dataclass(frozen=True)
class PhrasePictures:
    """One phrase in one view.

    relevancy (H, W): smoothed, of the head that answered; found, truth (H, W) bool: the masks that were
    compared; peaks (n, 2) of x, y [px]; branch: the head, in words. iou and localised as published, the other
    two corrected, None where the phrase does not count.
    """

    text: str
    relevancy: np.ndarray
    found: np.ndarray
    truth: np.ndarray
    peaks: np.ndarray
    branch: str
    iou: float | None
    localised: bool | None
    corrected_iou: float | None
    corrected_localised: bool | None


@dataclass(frozen=True)
class EvaluationPage:
    """The contents of the page. tables: title, header and rows, cells as in `markup.table`; notes: sentences
    about omissions; sections: from `section`; facts: names and values of how it was made.
    """

    title: str
    lead: str
    tables: Sequence[tuple[str, Sequence[object], Sequence[Sequence[object]]]]
    notes: Sequence[str]
    sections: Sequence[Markup]
    facts: Sequence[tuple[str, str]]
    command: str


def page(content: EvaluationPage) -> str:
    """The page as self-contained HTML: texts are escaped, pictures are inside."""
    opening = tag(
        'header',
        tag('p', 'gsemsplat', class_='kicker'),
        tag('h1', content.title),
        tag('p', content.lead, class_='lead'),
    )
    tables = [
        tag('div', tag('h3', title), tag('div', table(rows, header), class_='wide'))
        for title, header, rows in content.tables
    ]
    body = [
        opening,
        tag(
            'section',
            tag('h2', 'Scores'),
            tag('div', tables, class_='columns'),
            [tag('p', note, class_='meta') for note in content.notes],
            id='table',
        ),
        *content.sections,
        tag(
            'section',
            tag('h2', 'How it was made'),
            pairs_table(content.facts),
            tag('h3', 'Command'),
            tag('pre', content.command),
            id='making',
        ),
    ]
    return Template(TEMPLATE.read_text(encoding='utf-8')).substitute(
        title=safe(content.title), body=Markup('\n').join(body)
    )


def section(
    title: str, image: np.ndarray, others: Sequence[tuple[str, np.ndarray]], phrases: Sequence[PhrasePictures]
) -> Markup:
    """One view: its picture (H, W, 3) uint8 RGB, titled pictures beside it, and every phrase."""
    shown = [small_figure(image, 'annotated view'), *(small_figure(other, name) for name, other in others)]
    return tag(
        'section', tag('h2', title), strip(shown, 3), [phrase_block(image, phrase) for phrase in phrases]
    )


def phrase_block(image: np.ndarray, phrase: PhrasePictures) -> Markup:
    """Heat map, composite, mask and peak of one phrase, and its numbers."""
    figures = [
        small_figure(heat_map(phrase.relevancy), 'heat map'),
        small_figure(composite(image, phrase.relevancy), 'relevancy above 0.5'),
        small_figure(mask_picture(image, phrase.found, phrase.truth), 'mask'),
        small_figure(peak_picture(image, phrase.truth, phrase.peaks, phrase.localised), 'peak'),
    ]
    numbers = (
        f'as published: {numbers_of(phrase.iou, phrase.localised)} · corrected: '
        f'{numbers_of(phrase.corrected_iou, phrase.corrected_localised)} · {phrase.branch}'
    )
    return safe([tag('h3', phrase.text), tag('p', numbers, class_='meta'), strip(figures, 4)])


def heat_map(relevancy: np.ndarray) -> np.ndarray:
    """The upper half of a map's own range (H, W) in colours (docs/published.md 29)."""
    return turbo(np.nan_to_num(heat(relevancy, found=True)))


def composite(image: np.ndarray, relevancy: np.ndarray) -> np.ndarray:
    """Absolute relevancy above 0.5 in colours over the image (docs/published.md 29)."""
    above = np.clip(np.nan_to_num(relevancy) - 0.5, 0, 1)
    colours = turbo(above / max(float(above.max()), 1e-9))
    return np.where((np.nan_to_num(relevancy) < 0.5)[..., None], image, colours)


def mask_picture(image: np.ndarray, found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The image, dim outside the mask, with the annotation's outline."""
    return outlined(np.rint(image * np.where(found, 1.0, DIM)[..., None]).astype(np.uint8), truth)


def peak_picture(image: np.ndarray, truth: np.ndarray, peaks: np.ndarray, right: bool | None) -> np.ndarray:
    """The image with the annotation's outline and a ring around the first peak, green if `right`."""
    drawn = outlined(image, truth)
    if len(peaks):
        inside = [(x, y) for x, y in peaks if truth[y, x]]
        x, y = (int(value) for value in (inside or peaks.tolist())[0])
        radius = max(5, min(drawn.shape[:2]) // 40)
        cv2.circle(drawn, (x, y), radius, (255, 255, 255), radius // 2 + 2, cv2.LINE_AA)
        cv2.circle(drawn, (x, y), radius, RIGHT if right else WRONG, radius // 2, cv2.LINE_AA)
    return drawn


def outlined(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """A copy of the image with the border of `truth` (H, W) bool drawn on it."""
    drawn = np.ascontiguousarray(image).copy()
    contours, _ = cv2.findContours(truth.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(drawn, contours, -1, TRUTH, max(1, min(image.shape[:2]) // 170), cv2.LINE_AA)
    return drawn


def small_figure(image: np.ndarray, caption: str) -> Markup:
    """A picture (H, W, 3) uint8 RGB, at most WIDTH px wide, with `caption` below."""
    height, width = image.shape[:2]
    if width > WIDTH:
        image = cv2.resize(image, (WIDTH, round(height * WIDTH / width)), interpolation=cv2.INTER_AREA)
    return figure(image, caption, caption)


def strip(figures: Sequence[Markup], columns: int) -> Markup:
    """Figures side by side."""
    style = f'grid-template-columns: repeat({columns}, minmax(0, 1fr)); margin-top: .8rem'
    return tag('div', figures, class_='strip', style=style)


def numbers_of(iou: float | None, localised: bool | None) -> str:
    """The scores of one phrase, in words."""
    return 'not counted' if iou is None else f'IoU {iou:.3f}, peak {"inside" if localised else "outside"}'
