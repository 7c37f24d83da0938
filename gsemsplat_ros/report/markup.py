"""HTML in which everything that is not Markup is escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape

import cv2
import numpy as np

QUALITY = 80  # of WebP: all browsers since 2020 show it, and it takes half the space of JPEG
VOID = {'img', 'circle', 'path'}  # elements without content


class Markup(str):
    """Text that is HTML already."""


def safe(content: object) -> Markup:
    """`content` escaped, unless it is Markup; an iterable is joined, None is nothing."""
    if isinstance(content, Markup):
        return content
    if content is None:
        return Markup('')
    if isinstance(content, Iterable) and not isinstance(content, str):
        return Markup(''.join(map(safe, content)))
    return Markup(escape(str(content), quote=True))


def tag(name: str, *content: object, **attributes: object) -> Markup:
    """An element; attributes named with a trailing _ (class_) lose it, None leaves one out."""
    inside = ''.join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Markup(f'<{name}{inside}>') if name == 'img' else Markup(f'<{name}{inside}/>')
    return Markup(f'<{name}{inside}>{safe(content)}</{name}>')


def picture(image: np.ndarray, alt: str, width: int | None = None) -> Markup:
    """(H, W, 3) uint8 RGB as an <img> with its data inside, `width` pixels wide at most."""
    height = image.shape[0]
    if width and image.shape[1] > width:
        height = round(image.shape[0] * width / image.shape[1])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return tag('img', src=image_url(image), alt=alt, width=image.shape[1], height=height)


def video(mp4: bytes, poster: np.ndarray, label: str) -> Markup:
    """An MP4 file as a <video> with its data inside; poster (H, W, 3) uint8 RGB: shown before it plays."""
    height, width = poster.shape[:2]
    return tag(
        'video',
        src=data_url('video/mp4', mp4),
        poster=image_url(poster),
        width=width,
        height=height,
        controls='',
        loop='',
        muted='',
        playsinline='',
        preload='none',
        aria_label=label,
    )


def image_url(image: np.ndarray) -> str:
    """(H, W, 3) uint8 RGB as a data URL."""
    done, data = cv2.imencode('.webp', image[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    assert done, image.shape
    return data_url('image/webp', data.tobytes())


def data_url(kind: str, data: bytes) -> str:
    """Bytes of the media type `kind` as a data URL."""
    return f'data:{kind};base64,' + base64.b64encode(data).decode()


def table(rows: Iterable[Iterable[object]], header: Iterable[object] = ()) -> Markup:
    """Rows of cells; numbers, given as (text,) tuples, are right-aligned."""

    def cell(name: str, value: object) -> Markup:
        if isinstance(value, tuple):
            return tag(name, value[0], class_='number')
        return tag(name, value)

    head = tag('thead', tag('tr', [cell('th', value) for value in header])) if header else None
    return tag('table', head, tag('tbody', [tag('tr', [cell('td', value) for value in row]) for row in rows]))


def pairs_table(rows: Iterable[tuple[str, object]]) -> Markup:
    """A table of names and values."""
    return tag(
        'table',
        tag(
            'tbody',
            [
                tag('tr', tag('td', name, class_='key'), tag('td', value, class_='value'))
                for name, value in rows
            ],
        ),
    )


def figure(image: np.ndarray, alt: str, caption: object) -> Markup:
    """A picture (H, W, 3) uint8 RGB with `caption` below."""
    return tag('figure', tag('div', picture(image, alt), class_='frame'), tag('figcaption', caption))
