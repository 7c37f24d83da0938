"""HTML and labels of the live page. Text from queries, files and robots is escaped (report/markup.py)."""

from __future__ import annotations

import numpy as np

from gsemsplat_ros.live.page_answer import PageAnswer
from gsemsplat_ros.live.shared_state import ViewState
from gsemsplat_ros.live.shown_scene import ShownScene
from gsemsplat_ros.report.markup import Markup, tag
from gsemsplat_ros.semantics.objects import Object

MAX_LABEL = 32  # characters of the phrase in a label
GONE = 3  # objects listed that have gone
GOOD, BAD, QUIET = '#4ade80', '#fb923c', '#94a3b8'


def block(*content: object, color: str | None = None, bold: bool = False) -> Markup:
    """A paragraph of the panel."""
    style = 'padding:0 .75em .35em;font-size:.82em;line-height:1.35;overflow-wrap:anywhere;'
    style += f'color:{color};' * bool(color) + 'font-weight:600;' * bold
    return tag('div', *content, style=style)


def head(state: ViewState) -> str:
    """HTML: title and size of the scene, and the status of the source."""
    shown = state.shown
    parts = []
    if shown is not None:
        parts += [
            block(shown.title, bold=True),
            block(
                f'{len(shown.gaussians):,} Gaussians in {shown.frame}'
                + ('' if shown.unit == 'm' else '; scale unknown, lengths are not metres'),
                color=QUIET,
            ),
        ]
        if shown.thinned:
            parts.append(block(shown.thinned, color=QUIET))
    if state.status:
        parts.append(
            block(tag('span', '● ', style=f'color:{BAD if state.is_trouble else GOOD}'), state.status)
        )
    elif shown is None:
        parts.append(block('nothing to show yet', color=QUIET))
    return str(tag('div', parts))


def waiting(text: str, why: str) -> str:
    """HTML for a query that cannot be answered yet, and why."""
    return str(block(f'{text}: waits, {why}', color=QUIET))


def verdict(
    answer: PageAnswer | None, error: str, mode: str, ends: tuple[float, float] | None, level: str = ''
) -> str:
    """HTML: the result of the query, the legend of the colours, and the detail `level`.

    ends: distances of the depth colours, near and far.
    """
    parts = []
    if error:
        parts.append(block(error, color=BAD))
    elif answer is not None:
        name = tag('b', answer.answer.text)
        if answer.answer.found:
            count = len(answer.answer.objects)
            parts.append(
                block(
                    name,
                    f': found, score {answer.answer.score:.2f}, {count} object{"" if count == 1 else "s"} in '
                    f'{_duration(answer.seconds)}',
                    color=GOOD,
                )
            )
        elif answer.answer.state == 'not understood':
            parts.append(block(name, ': not understood', color=BAD))
        else:
            at = f', threshold {answer.answer.threshold:.2f}' if answer.answer.threshold else ''
            parts.append(block(name, f': not found (score {answer.answer.score:.2f}{at})', color=BAD))
        if answer.answer.objects:
            parts.append(
                block(
                    f'Distance from {answer.shown.eye_name}; {answer.shown.axes} in {answer.shown.unit}',
                    color=QUIET,
                )
            )
        parts += [block(note, color=QUIET) for note in (answer.answer.note, answer.note) if note]
    if mode == 'Depth' and ends and np.isfinite(ends).all():
        parts.append(_legend(f'{ends[0]:.2f}', f'{ends[1]:.2f}', 'to left'))
    elif mode == 'Relevancy' and answer is not None:
        parts.append(_legend('unlike', 'alike', 'to right'))
    elif mode == 'Relevancy':
        parts.append(block('Relevancy shows the answer to a word: type one', color=QUIET))
    elif mode == 'Semantics':
        parts.append(block('Like colours mean alike', color=QUIET))
    if level:
        parts.append(block(level, color=QUIET))
    return str(tag('div', parts))


def level(shown: ShownScene | None, full: bool) -> str:
    """A note that only the light level is drawn; '' if all Gaussians are."""
    if full or shown is None or shown.light is None:
        return ''
    drawn = f'{len(shown.rows):,} Gaussians are drawn as {len(shown.light.gaussians):,}'
    return f'{drawn}, for speed; Detail: Full draws all'


def _legend(low: str, high: str, way: str) -> Markup:
    bar = tag(
        'div',
        style='flex:1;height:.6em;border-radius:.3em;background:linear-gradient('
        f'{way},#4454c4,#1bcfd4,#a4fc3c,#fb8022,#a11201)',
    )
    return block(
        tag('div', tag('span', low), bar, tag('span', high), style='display:flex;gap:.5em;align-items:center')
    )


def object_line(number: int, thing: Object, shown: ShownScene) -> str:
    """Label of an object's button, as plain text; number: its rank, for one that no map knows."""
    return f'{name(number, thing)}   {_away(thing, shown)}   {_size(thing)}'


def object_hint(thing: Object, stamp_ns: int) -> str:
    """What its button does, and when the object was seen; stamp_ns: of the newest images."""
    return f'Fly there; {thing.history.sight(stamp_ns)}' if thing.history else 'Fly there'


def gone(answer: PageAnswer | None) -> str:
    """HTML: what the answer's text found before and has gone since, struck through; '' for nothing."""
    if answer is None:
        return ''
    lines = [
        block(
            tag('s', f'#{thing.id}   {_away(thing, answer.shown)}'),
            f' {thing.history.sight(answer.stamp_ns)}',
            color=QUIET,
        )
        for thing in answer.answer.gone[:GONE]
        if thing.history
    ]
    return str(tag('div', lines)) if lines else ''


def label(number: int, text: str, thing: Object, shown: ShownScene) -> str:
    """Label of an object in the scene, as plain text."""
    text = text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + '…'
    text += f' #{thing.id}' if thing.id else ''
    return f'{text}  {shown.distance(thing.center):.2f} {shown.unit}  {_size(thing)}'


def name(number: int, thing: Object) -> str:
    """The number by which the map knows an object, else its rank in the answer."""
    return f'#{thing.id}' if thing.id else str(number)


def _away(thing: Object, shown: ShownScene) -> str:
    return f'{shown.distance(thing.center):.2f} {shown.unit} away'


def _size(thing: Object) -> str:
    return ' × '.join(f'{edge:.2f}' for edge in thing.size)


def _duration(seconds: float) -> str:
    return f'{seconds:.1f} s' if seconds >= 1 else f'{seconds * 1e3:.0f} ms'
