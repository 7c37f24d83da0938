"""Files appear whole or not at all; a digest is that of the bytes, wherever they lie."""

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from gsemsplat_ros.files import FileBytes, digest, write_whole


def test_the_new_file_takes_the_place_of_the_old_at_the_end(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('old')
    with write_whole(path) as part:
        part.write_text('new')
        assert part.parent == tmp_path and path.read_text() == 'old'
    assert path.read_text() == 'new' and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / 'a.txt'
    path.write_text('old')
    with pytest.raises(error), write_whole(path) as part:
        part.write_text('half of the n')
        raise error
    assert path.read_text() == 'old' and list(tmp_path.iterdir()) == [path]


def test_the_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    path, steps = tmp_path / 'a.txt', []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda handle: (steps.append(os.fstat(handle).st_ino), fsync(handle)))
    monkeypatch.setattr(os, 'replace', lambda a, b: (steps.append('name'), replace(a, b)))
    with write_whole(path) as part:
        part.write_text('new')
    assert steps == [path.stat().st_ino, 'name', tmp_path.stat().st_ino]


def test_others_may_read_it_as_any_new_file(tmp_path):
    with write_whole(tmp_path / 'a') as part:
        part.write_text('new')
    (tmp_path / 'b').write_text('new')
    assert (tmp_path / 'a').stat().st_mode == (tmp_path / 'b').stat().st_mode


def test_writers_of_one_path_do_not_mix(tmp_path):
    path, together = tmp_path / 'a.txt', threading.Barrier(8)

    def write(letter: str) -> None:
        with write_whole(path) as part:
            together.wait(20)
            part.write_text(letter * 10_000)
            together.wait(20)

    writers = [threading.Thread(target=write, args=(letter,)) for letter in 'abcdefgh']
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    text = path.read_text()
    assert len(text) == 10_000 and len(set(text)) == 1 and list(tmp_path.iterdir()) == [path]


def test_others_may_not_read_it_where_no_new_file_is_theirs(tmp_path):
    before = os.umask(0o077)
    try:
        with write_whole(tmp_path / 'a') as part:
            part.write_text('new')
    finally:
        os.umask(before)
    assert (tmp_path / 'a').stat().st_mode & 0o777 == 0o600


KILLED = """
import sys, time
from pathlib import Path
from gsemsplat_ros.files import write_whole
with write_whole(Path(sys.argv[1])) as part:
    part.write_text('half of the n')
    print(part, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writer(tmp_path):
    """A process in the middle of writing 'a.txt', and its unfinished file."""
    with subprocess.Popen(
        [sys.executable, '-c', KILLED, tmp_path / 'a.txt'], stdout=subprocess.PIPE, text=True
    ) as process:
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_what_a_killed_writer_left_goes_with_the_next_file(tmp_path, writer):
    process, part = writer
    assert part.parent == tmp_path and part.exists()
    process.kill()
    process.wait(20)
    (tmp_path / '.a.txt.part').write_text('not ours')
    with write_whole(tmp_path / 'b.txt') as other:
        other.write_text('new')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['.a.txt.part', 'b.txt']


def test_what_another_process_is_writing_stays(tmp_path, writer):
    for _ in range(3):
        with write_whole(tmp_path / 'a.txt') as other:
            other.write_text('new')
    assert writer[1].read_text() == 'half of the n' and (tmp_path / 'a.txt').read_text() == 'new'


def test_bytes_are_read_by_position(tmp_path):
    (tmp_path / 'a').write_bytes(bytes(range(200)))
    file = FileBytes(tmp_path / 'a')
    assert (file.size, file.read(10, 3), file.read(200, 0)) == (200, bytes((10, 11, 12)), b'')
    row = np.zeros((2, 4), np.uint8)
    file.read_into(row.data, 3)
    assert row.tolist() == [[3, 4, 5, 6], [7, 8, 9, 10]]
    for start, count in ((199, 2), (0, 1 << 60), (1 << 62, 1)):
        with pytest.raises(ValueError, match='the file ends before'):
            file.read(start, count)
    with pytest.raises(ValueError, match='the file ends before byte 203'):
        file.read_into(row.data, 195)
    with pytest.raises(OSError, match='nowhere'):
        FileBytes(tmp_path / 'nowhere')


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere'), write_whole(tmp_path / 'nowhere' / 'a') as part:
        part.write_text('new')


def test_digest_of_files_and_bytes_in_their_order(tmp_path):
    content = bytes(range(256)) * 10_000  # more than is read at once
    (tmp_path / 'a').write_bytes(content)
    rows = np.arange(6, dtype=np.int16).reshape(2, 3)
    assert digest(tmp_path / 'a') == digest(content) == hashlib.sha256(content).hexdigest()
    assert digest(b'a', rows.data, tmp_path / 'a') == digest(b'a' + rows.tobytes() + content)
    assert digest() == hashlib.sha256().hexdigest()
