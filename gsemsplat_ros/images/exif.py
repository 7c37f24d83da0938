"""The focal length that an image file tells, as far as it can be believed (Exif 2.32)."""

from __future__ import annotations

import math

from PIL import ExifTags, Image

FILM_DIAGONAL_MM = math.hypot(36, 24)
MM_PER_UNIT = {2: 25.4, 3: 10.0}  # of the focal plane's resolution: inch, centimetre
SAME_SHAPE = 0.01  # width over height may differ by this fraction: sizes are whole pixels


def focal_length(image: Image.Image) -> float | None:
    """Focal length [px] of an opened image, by its EXIF; None: not told, or not to be believed.

    It is told by FocalLength and FocalPlaneXResolution, or by FocalLengthIn35mmFilm, which compares
    diagonals. The file must also tell the size as taken: a whole image may have been resized since, but after
    a crop, which changes the shape, or with a digital zoom nobody knows what the numbers are about.
    """
    tags = image.getexif().get_ifd(ExifTags.IFD.Exif)
    width, height = (
        _number(tags.get(tag)) for tag in (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)
    )
    zoom = _number(tags.get(ExifTags.Base.DigitalZoomRatio)) or 1.0
    if (
        not (width and height)
        or abs(width / height * image.height / image.width - 1) > SAME_SHAPE
        or zoom != 1
    ):
        return None
    focal, per_unit = (
        _number(tags.get(tag)) for tag in (ExifTags.Base.FocalLength, ExifTags.Base.FocalPlaneXResolution)
    )
    unit = MM_PER_UNIT.get(int(_number(tags.get(ExifTags.Base.FocalPlaneResolutionUnit)) or 2))
    if focal and per_unit and unit:
        return focal * per_unit / unit * image.width / width
    film = _number(tags.get(ExifTags.Base.FocalLengthIn35mmFilm))
    return film / FILM_DIAGONAL_MM * math.hypot(image.width, image.height) if film else None


def _number(value: object) -> float | None:
    """A positive, finite number of a tag; None: anything else."""
    try:
        number = float(value)  # type: ignore[arg-type]  # what a file holds: the error is the check
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if 0 < number < math.inf else None
