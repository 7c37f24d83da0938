"""Processes that are killed in the middle of saving a map: `python -m support.killed_saves FOLDER KILLS`.

After each kill the map is loaded: it must be one of the two that were saved in turn, whole. Prints how many
kills met an unfinished file, and what is left in the folder after one more save.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from support.word_maps import HERE, scene_cloud

from gsemsplat_ros.formats.ply import read_ply
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.mapping.map_file import load_map, save_map
from gsemsplat_ros.scene.coded_file import CodeSpace

SPACE = CodeSpace('small.safetensors', 'minilm-l6', 'abc', 32)


def save_for_ever(path, maps):
    """In a child: until it is killed."""
    while True:
        for map_ in maps:
            save_map(path, map_, SPACE)


def main(folder, kills):
    torch.set_num_threads(1)
    rng, path = random.Random(7), folder / 'kitchen.safetensors'
    small = Map.empty('map', 0.05).merged(scene_cloud(0), HERE, 10**6)
    maps = small, small.merged(scene_cloud(1), HERE, 10**6)
    counts, unfinished = {len(map_) for map_ in maps}, 0
    start = time.monotonic()
    save_map(path, maps[1], SPACE)
    seconds = time.monotonic() - start
    for _ in range(kills):
        child = os.fork()
        if not child:
            save_for_ever(path, maps)
        time.sleep(rng.uniform(0.2, 3.0) * seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        unfinished += bool(list(folder.glob('.*.part')))
        assert len(load_map(path, SPACE)) in counts
        assert len(read_ply(path.with_suffix('.ply'), 'map')) in counts
    save_map(path, small, SPACE)
    left = sorted(file.name for file in folder.iterdir())
    print(f'{kills} kills, {unfinished} of them within a file; left: {left}')


if __name__ == '__main__':
    main(Path(sys.argv[1]), int(sys.argv[2]))
