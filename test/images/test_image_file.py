"""Image files of every kind give the picture that is in them, or one line."""

import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from support.damaged import damaged

from gsemsplat_ros.images.image_file import ImageFile, image_size, read_image, read_views

RAMP = np.tile(np.arange(256, dtype=np.uint8).repeat(2), (48, 1))  # (48, 512) gray, from black to white
RGB = np.dstack([RAMP, RAMP[:, ::-1], RAMP // 2])


def fill(picture, bits):
    """8 bits stretched over `bits` of 16."""
    return np.rint(picture * ((2**bits - 1) / 255)).astype(np.uint16)


def encoded(values, ending, *flags):
    """By OpenCV, of gray or RGB values."""
    return cv2.imencode(ending, values if values.ndim == 2 else values[..., ::-1], list(flags))[1].tobytes()


def saved(image, kind, **options):
    """By PIL."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png(depth, color, rows, *chunks):
    """A PNG of 512 x 48 px of any bit depth and colour type."""

    def chunk(name, data):
        return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))

    head = chunk(b'IHDR', struct.pack('>IIBBBBB', 512, 48, depth, color, 0, 0, 0))
    data = chunk(b'IDAT', zlib.compress(b''.join(b'\0' + bytes(row) for row in rows)))
    return b'\x89PNG\r\n\x1a\n' + head + b''.join(chunk(*c) for c in chunks) + data + chunk(b'IEND', b'')


def tiff(values, orientation):
    """An uncompressed TIFF of (H, W, 3) uint16."""
    height, width = values.shape[:2]
    raw = values.astype('<u2').tobytes()
    tags = {256: width, 257: height, 258: 0, 259: 1, 262: 2, 273: 0, 274: orientation, 277: 3, 278: height}
    tags |= {279: len(raw), 284: 1}
    after = 8 + 2 + 12 * len(tags) + 4
    tags |= {258: after, 273: after + 6}
    entries = b''.join(
        struct.pack('<HHII', tag, 3 if tag == 258 else 4, 3 if tag == 258 else 1, value)
        for tag, value in tags.items()
    )
    return b'II*\0\x08\0\0\0' + struct.pack('<H', len(tags)) + entries + bytes(4) + bytes([16, 0] * 3) + raw


UNIT = (RAMP / 255).astype(np.float32)
ALPHA = np.full_like(RAMP, 7)
TURNED = struct.pack(
    '>2sHIHHHIHHI', b'MM', 42, 8, 1, 0x0112, 3, 1, 6, 0, 0
)  # Exif: lying, to be shown upright
FILES = {
    'gray 16 bit PNG': (encoded(fill(RAMP, 16), '.png'), RAMP),
    'gray 16 bit TIFF': (encoded(fill(RAMP, 16), '.tiff'), RAMP),
    'gray 16 bit TIFF, big endian': (
        saved(Image.frombytes('I;16B', (512, 48), fill(RAMP, 16).astype('>u2').tobytes()), 'TIFF'),
        RAMP,
    ),
    'gray 16 bit TIFF, white is zero': (
        saved(Image.fromarray(fill(255 - RAMP, 16)), 'TIFF', tiffinfo={262: 0}),
        RAMP,
    ),
    'gray 14 bit PNG': (encoded(fill(RAMP, 14), '.png'), RAMP),
    'gray 12 bit TIFF': (encoded(fill(RAMP, 12), '.tiff'), RAMP),
    'gray 12 bit by shifting': (encoded(RAMP.astype(np.uint16) << 4, '.png'), RAMP),
    'gray 10 bit PNG': (encoded(fill(RAMP, 10), '.png'), RAMP),
    'gray 8 in 16 bit PNG': (encoded(RAMP.astype(np.uint16), '.png'), RAMP),
    'gray dark 16 bit PNG': (encoded(fill(RAMP // 8, 16), '.png'), RAMP // 8),
    'gray 16 bit PNG with alpha': (
        png(16, 4, np.dstack([fill(RAMP, 16), fill(ALPHA, 16)]).astype('>u2').reshape(48, -1).view(np.uint8)),
        RAMP,
    ),
    'gray 32 bit integers TIFF': (saved(Image.fromarray(fill(RAMP, 16).astype(np.int32)), 'TIFF'), RAMP),
    'gray 12 of 32 bits TIFF': (saved(Image.fromarray(fill(RAMP, 12).astype(np.int32)), 'TIFF'), RAMP),
    'float 0 to 1 TIFF': (encoded(UNIT, '.tiff'), RAMP),
    'float 0 to 0.5 TIFF': (encoded(UNIT / 2, '.tiff'), RAMP // 2),
    'float 0 to 255 TIFF': (saved(Image.fromarray(UNIT * 255), 'TIFF'), RAMP),
    'float 0 to 4095 TIFF': (saved(Image.fromarray(UNIT * 4095), 'TIFF'), RAMP),
    'float 0 to 65535 TIFF': (saved(Image.fromarray(UNIT * 65535), 'TIFF'), RAMP),
    'RGB 16 bit PNG': (encoded(fill(RGB, 16), '.png'), RGB),
    'RGB 16 bit TIFF': (encoded(fill(RGB, 16), '.tiff'), RGB),
    'RGB 12 bit PNG': (encoded(fill(RGB, 12), '.png'), RGB),
    'RGB 12 bit TIFF': (tiff(fill(RGB, 12), 1), RGB),
    'RGB 12 bit TIFF, turned': (tiff(fill(np.rot90(RGB), 12), 6), RGB),
    'RGB 10 bit PNG, turned': (
        png(16, 2, fill(RGB, 10).astype('>u2').reshape(48, -1).view(np.uint8), (b'eXIf', TURNED)),
        np.rot90(RGB, -1),
    ),
    'RGBA 16 bit PNG': (
        png(16, 6, fill(np.dstack([RGB, ALPHA]), 16).astype('>u2').reshape(48, -1).view(np.uint8)),
        RGB,
    ),
    'RGBA PNG': (saved(Image.fromarray(np.dstack([RGB, ALPHA])), 'PNG'), RGB),
    'gray PNG with alpha': (saved(Image.fromarray(np.dstack([RAMP, ALPHA]), 'LA'), 'PNG'), RAMP),
    'palette PNG': (saved(Image.fromarray(RAMP).convert('P'), 'PNG'), RAMP),
    'palette PNG, transparent': (
        saved(Image.fromarray(RAMP).convert('P'), 'PNG', transparency=bytes(256)),
        RAMP,
    ),
    '1 bit PNG': (saved(Image.fromarray(RAMP > 127), 'PNG'), np.where(RAMP > 127, 255, 0)),
    '2 bit PNG': (png(2, 0, np.full((48, 128), 0b00011011, np.uint8)), np.tile([0, 85, 170, 255], (48, 128))),
    'CMYK JPEG': (saved(Image.fromarray(RGB).convert('CMYK'), 'JPEG', quality=95, subsampling=0), RGB),
    'CMYK TIFF': (saved(Image.fromarray(RGB).convert('CMYK'), 'TIFF'), RGB),
    'JPEG': (saved(Image.fromarray(RGB), 'JPEG', quality=95, subsampling=0), RGB),
    'gray JPEG': (saved(Image.fromarray(RAMP), 'JPEG', quality=95), RAMP),
    'WebP': (saved(Image.fromarray(RGB), 'WEBP', lossless=True), RGB),
    'RGBA WebP': (saved(Image.fromarray(np.dstack([RGB, ALPHA + 200])), 'WEBP', lossless=True), RGB),
}


@pytest.mark.parametrize('kind', FILES)
def test_a_file_gives_the_picture_that_is_in_it(tmp_path, recwarn, kind):
    data, wanted = FILES[kind]
    (tmp_path / 'image').write_bytes(data)
    picture = read_image(tmp_path / 'image')
    assert picture.dtype == np.uint8 and picture.flags.c_contiguous
    wanted = wanted if wanted.ndim == 3 else np.repeat(wanted[..., None], 3, 2)
    assert picture.shape == wanted.shape
    error = np.abs(picture.astype(int) - wanted)
    assert error.max() <= (6 if 'JPEG' in kind else 1) and error.mean() < 1
    assert not recwarn.list


def test_a_picture_is_upright(tmp_path):
    path = tmp_path / 'turned.jpg'
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, to be shown upright
    Image.fromarray(RGB).save(path, exif=exif, quality=95, subsampling=0)
    assert np.abs(read_image(path).astype(int) - np.rot90(RGB, -1)).mean() < 1
    assert image_size(path) == (512, 48)


@pytest.mark.parametrize('brighter', [0, 1])
def test_both_images_of_a_pair_are_scaled_alike(tmp_path, brighter):
    """One of them fills 12 bits, the other, with less light, 10 of them."""
    pictures = [RAMP // 4, RAMP // 4]
    pictures[brighter] = RAMP
    paths = [tmp_path / 'left.png', tmp_path / 'right.tiff']
    for path, picture in zip(paths, pictures):
        path.write_bytes(encoded(fill(picture, 12), path.suffix))
    for view, picture in zip(read_views(*paths), pictures):
        assert np.abs(view.image[..., 0].astype(int) - picture).max() <= 1


def test_hot_pixels_do_not_darken_a_picture(tmp_path):
    values = fill(RAMP, 12)
    values[7, 100] = values[20, 30] = 65535  # 2 of 24,576
    (tmp_path / 'hot.png').write_bytes(encoded(values, '.png'))
    error = np.abs(read_image(tmp_path / 'hot.png')[..., 0].astype(int) - RAMP)
    assert (error > 1).sum() == 2


def bomb(width, height):
    ihdr = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    data = FILES['RGBA PNG'][0]
    return data[:8] + struct.pack('>I', 13) + ihdr + struct.pack('>I', zlib.crc32(ihdr)) + data[33:]


@pytest.mark.parametrize(
    'data, words',
    [
        (b'', 'another format'),
        (b'no image', 'another format'),
        (
            b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n',
            'another format',
        ),  # no Ghostscript is started
        (saved(Image.fromarray(RGB), 'BMP'), 'another format'),
        (saved(Image.fromarray(RAMP), 'GIF'), 'another format'),
        (encoded(RGB, '.jpg')[:-700], 'truncated'),
        (encoded(RGB, '.png')[:-700], 'wanted a JPEG, PNG, TIFF or WebP file'),
        (encoded(fill(RGB, 16), '.png')[:-700], 'wanted a JPEG, PNG, TIFF or WebP file'),
        (bomb(12000, 12000), 'it has 12000x12000 px'),
        (bomb(60000, 60000), 'wanted a JPEG, PNG, TIFF or WebP file of at most 100 million pixels'),
        (
            saved(Image.fromarray(UNIT * 7.5), 'TIFF'),
            'values go from 0 to 7.5, not from 0 to 1, 255 or 65535',
        ),
        (saved(Image.fromarray(UNIT - 0.5), 'TIFF'), 'values go from -0.5 to 0.5'),
        (saved(Image.fromarray(UNIT * 1e6), 'TIFF'), 'values go from 0 to 1e.06'),
        (saved(Image.fromarray(np.where(UNIT > 0.9, np.nan, UNIT)), 'TIFF'), 'holds NaN or infinity'),
        (saved(Image.fromarray(np.where(UNIT > 0.9, np.inf, UNIT)), 'TIFF'), 'holds NaN or infinity'),
        (saved(Image.fromarray(RAMP.astype(np.int32) - 9), 'TIFF'), 'values go from -9 to 246'),
        (saved(Image.fromarray(RAMP.astype(np.int32) << 20), 'TIFF'), 'values go from 0 to'),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(tmp_path, data, words):
    (tmp_path / 'image').write_bytes(data)
    with pytest.raises(ValueError, match=words) as error:
        read_image(tmp_path / 'image')
    assert '\n' not in str(error.value) and str(tmp_path) in str(error.value)


def test_what_is_no_file_is_refused_in_one_line(tmp_path):
    os.mkfifo(tmp_path / 'pipe')  # opened, it would wait for a writer
    for wrong, words in (
        (tmp_path / 'absent.png', 'no image at'),
        (tmp_path, 'folder'),
        (tmp_path / 'pipe', 'no'),
    ):
        for read in read_image, image_size:
            with pytest.raises(ValueError, match=words):
                read(wrong)


def test_fuzz_damaged_files(tmp_path, capfd, recwarn):
    """Whatever PIL stumbles over is one line."""
    rng, files, read = np.random.default_rng(31), [data for data, _ in FILES.values()], 0
    for case in range(4000):
        (tmp_path / 'image').write_bytes(damaged(rng, files[case % len(files)], least=1, most=3, head=300))
        try:
            file = ImageFile.read(tmp_path / 'image')
        except ValueError as error:
            assert '\n' not in str(error) and len(str(error)) < 400, case
        else:
            assert file.values.dtype in (np.uint8, np.uint16), case
            read += 1
    assert 100 < read < 3900 and not recwarn.list
    capfd.readouterr()  # what libtiff and libpng print
