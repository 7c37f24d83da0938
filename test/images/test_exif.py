"""The focal length that image files tell, written by PIL."""

import math

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from gsemsplat_ros.images.image_file import read_views

TAGS = ExifTags.Base
TAKEN = {TAGS.ExifImageWidth: 4000, TAGS.ExifImageHeight: 3000}
WIDE = {**TAKEN, TAGS.FocalLengthIn35mmFilm: 26}
FOCAL_OF_26 = 26 / math.hypot(36, 24)  # over the diagonal


def read(path, tags, size=(400, 300), turned=False):
    """The focal length [px] of a view read from a JPEG with these EXIF tags."""
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif).update({int(tag): value for tag, value in tags.items()})
    if turned:
        exif[int(TAGS.Orientation)] = 6
    Image.fromarray(np.zeros((*size[::-1], 3), np.uint8)).save(path / 'image.jpg', exif=exif)
    view = read_views(path / 'image.jpg')[0]
    assert view.image.shape[:2] == (size if turned else size[::-1]) and view.camera is None
    return view.exif_focal


def test_the_focal_length_of_35_mm_film_compares_diagonals(tmp_path):
    assert read(tmp_path, WIDE) == pytest.approx(500 * FOCAL_OF_26)  # resized from 4000 x 3000
    assert read(tmp_path, WIDE, (4000, 3000)) == pytest.approx(5000 * FOCAL_OF_26)
    assert read(tmp_path, WIDE, turned=True) == pytest.approx(500 * FOCAL_OF_26)


@pytest.mark.parametrize('unit, per_unit', [(2, 25.4 * 200), (3, 10 * 200)])  # inch, centimetre
def test_the_focal_plane_is_more_exact_than_the_film(tmp_path, unit, per_unit):
    lens = {
        TAGS.FocalLength: IFDRational(25, 2),  # 12.5 mm
        TAGS.FocalPlaneXResolution: IFDRational(per_unit),
        TAGS.FocalPlaneResolutionUnit: unit,
    }
    assert read(tmp_path, {**WIDE, **lens}) == pytest.approx(12.5 * 200 * 400 / 4000)


@pytest.mark.parametrize(
    'tags, size',
    [
        ({}, (400, 300)),
        (TAKEN, (400, 300)),
        ({TAGS.FocalLengthIn35mmFilm: 26}, (400, 300)),  # of which size?
        (WIDE, (400, 225)),  # a crop
        ({**WIDE, TAGS.DigitalZoomRatio: IFDRational(2)}, (400, 300)),
        ({**WIDE, TAGS.FocalLengthIn35mmFilm: 0}, (400, 300)),  # 0: unknown
        ({**TAKEN, TAGS.FocalLength: IFDRational(4, 1)}, (400, 300)),  # of which sensor?
    ],
)
def test_what_is_not_told_is_not_guessed(tmp_path, tags, size):
    assert read(tmp_path, tags, size) is None


def test_a_png_tells_nothing(tmp_path):
    Image.fromarray(np.zeros((32, 40, 3), np.uint8)).save(tmp_path / 'image.png')
    assert read_views(tmp_path / 'image.png')[0].exif_focal is None
