"""The way of a pair and of words through a GPU: its results are the CPU's, and it copies and waits no more
than it must. Each test of values runs on a pretended GPU too; tests that count run on that alone.
"""

import copy
import functools
import threading
import zlib
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from gsemsplat_ros.bench import stages, tools
from gsemsplat_ros.bench.compare import bench
from gsemsplat_ros.bench.flops import Flops
from gsemsplat_ros.checkpoints import checkpoint as checkpoints
from gsemsplat_ros.device import NoGpuMemory, lacks_memory
from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.images.view import Pair, View
from gsemsplat_ros.mapping.map import Map
from gsemsplat_ros.network import inference
from gsemsplat_ros.pipeline import Pipeline

WIDTH, HEIGHT = 160, 120
CAMERA = Camera(WIDTH, HEIGHT, 120.0, 120.0, 79.5, 59.5)
SIDE = 128  # of the network's input here [px]
IMAGE = 96 * SIDE * 3  # elements
PIXELS = 48 * 64  # of a view's Gaussians, and of the rendering
CODES = 16  # of a Gaussian in the rendering; the picture itself has the rest
DIM = 384 + 1000 + 80  # of the text space
WORDS = 'chair', 'a red wall', 'curtain'


def textured(shift=0, width=WIDTH, height=HEIGHT):
    wall = np.random.default_rng(0).integers(0, 255, (height // 4, width // 2, 3), dtype=np.uint8)
    wall = np.kron(wall, np.ones((4, 4, 1), np.uint8))
    return np.ascontiguousarray(wall[:, 40 + shift : 40 + shift + width])


def stereo(shift=6, **size):
    camera = Camera.centred(size.get('width', WIDTH), size.get('height', HEIGHT), 120.0)
    return Pair(View(textured(**size), camera, 'left', 7), View(textured(shift, **size), camera), 0.2)


KINDS = {
    'stereo': stereo,
    'moving': lambda: Pair(View(textured(), CAMERA), View(textured(6), CAMERA)),
    'unknown camera': lambda: Pair(View(textured()), View(textured(6))),
}


class Words:
    """A text encoder that machines without packages have too: a random direction for each phrase."""

    name, dim = 'random', DIM

    def encode(self, phrases):
        rows = [np.random.default_rng(zlib.crc32(p.encode())).normal(size=DIM) for p in phrases]
        return np.array([row / np.linalg.norm(row) for row in rows], np.float32)

    def knows(self, word):
        return True


@functools.cache
def shipped():
    return checkpoints.load(None, torch.device('cpu'))


def load(device, exact=True):
    """The network that ships, for small pictures: a GPU that is only pretended is slow."""
    checkpoint = copy.deepcopy(shipped())
    checkpoint.model.to(device)
    pipeline = Pipeline(checkpoint, Words(), torch.device(device), exact=exact)
    pipeline.model.config = pipeline.model.config.replace(long_side=SIDE)
    return pipeline


@pytest.fixture(scope='module')
def alone():
    return load('cpu')


def assert_alike(got, wanted, tolerance):
    """Two scenes, of a GPU and of the CPU."""
    assert got.gaussians.means.is_cuda and got.keyframe.rendering.rgb.is_cuda
    assert (got.scale_source, got.focal_source, got.points) == (
        wanted.scale_source,
        wanted.focal_source,
        wanted.points,
    )
    assert got.scale == pytest.approx(wanted.scale, rel=tolerance)
    for name in ('means', 'scales', 'opacities', 'colors', 'codes'):
        ours, theirs = getattr(got.gaussians, name).cpu(), getattr(wanted.gaussians, name)
        error = (ours - theirs).abs() / (theirs.max() - theirs.min())
        assert error.mean() < tolerance and error.quantile(0.99) < 10 * tolerance, name
    for name in ('rgb', 'alpha', 'depth', 'codes'):
        ours = getattr(got.keyframe.rendering, name).cpu().numpy()
        theirs = getattr(wanted.keyframe.rendering, name).numpy()
        assert np.nanmean(np.abs(ours - theirs)) < 10 * tolerance * np.nanmax(np.abs(theirs)), name


@pytest.mark.parametrize('kind', KINDS)
def test_a_scene_and_its_answers_are_those_of_the_cpu(gpu, alone, kind):
    pair, other = KINDS[kind](), load('cuda')
    scene, wanted = other.build(pair), alone.build(pair)
    assert_alike(scene, wanted, 1e-5 if gpu else 2e-3)  # a real one has TF32 in its convolutions
    for answer, expected in zip(other.query_all(scene, WORDS), alone.query_all(wanted, WORDS)):
        assert answer.score == pytest.approx(expected.score, abs=1e-4 if gpu else 0.02)
        assert answer.found == expected.found and answer.text == expected.text


@pytest.mark.heavy
def test_points_of_another_network_are_those_of_the_cpu(gpu):
    scenes = []
    for device in ('cuda', 'cpu'):
        pipeline = load(device)
        pose = torch.eye(4, device=device)[None]
        pipeline.backbone = lambda *images: replace(pipeline.model(*images), first_from_second=pose)
        scenes.append(pipeline.build(stereo()))
    assert_alike(*scenes, 1e-5 if gpu else 2e-3)


def test_in_bfloat16_a_scene_is_nearly_that_of_the_cpu(gpu, alone):
    if gpu:
        gpu.bf16 = True
    other = load('cuda', exact=False)
    assert other.network.bf16
    scene, wanted = other.build(stereo()), alone.build(stereo())
    assert_alike(scene, wanted, 0.02)
    got, expected = other.query(scene, 'chair'), alone.query(wanted, 'chair')
    assert got.score == pytest.approx(expected.score, abs=0.05)


@pytest.mark.fake_cuda
def test_a_pass_copies_the_images_up_and_what_the_geometry_needs(pretended_gpu):
    pipeline, pair = load('cuda'), stereo()
    pipeline.build(pair)  # recorded
    corrections, camera = 2 * (PIXELS + 16), 16 + 9
    geometry = 2 * 4 * PIXELS  # points and confidence of both views
    seen = {}
    for kind, images in ('new', [stereo().first, stereo().second]), ('kept', [pair.first, stereo().second]):
        if kind == 'kept':
            pipeline.build(pair)
        with pretended_gpu.watch() as watched:
            scene = pipeline.build(Pair(*images, 0.2))
        assert watched.reads == ['_local_scalar_dense']  # gsplat: how many pairs of tile and Gaussian
        assert watched.down == [geometry]
        seen[kind] = watched.up
    assert seen['new'] == [IMAGE, IMAGE, corrections, camera]
    assert seen['kept'] == [IMAGE, corrections, camera]
    with pretended_gpu.watch() as watched:
        pipeline.query(scene, 'chair')
    assert (watched.up, watched.reads) == ([DIM], [])
    assert watched.down == [PIXELS, 2 * PIXELS * 4 + 5 * PIXELS]  # once: means, opacities, alpha, depth, rgb
    with pretended_gpu.watch() as watched:
        answers = pipeline.query_all(scene, WORDS)
    assert (watched.up, watched.down, watched.reads) == ([3 * DIM], [3 * PIXELS], [])
    assert len(answers) == 3


@pytest.mark.fake_cuda
def test_a_map_is_asked_with_two_copies_each_way(pretended_gpu, alone):
    """Of the cells, then of the Gaussians in those that matter; the codes of these go up once."""
    pipeline = load('cuda')
    scene = pipeline.build(stereo())
    map_, on_cpu = (
        Map.empty('left', 0.03).merged(s.gaussians, np.zeros(3), 10**6)
        for s in (scene, alone.build(stereo()))
    )
    index = pipeline.index(map_)
    with pretended_gpu.watch() as watched:
        answer = pipeline.query(index, 'chair')
    with pretended_gpu.watch() as again:
        pipeline.query(index, 'chair')
    *_, codes, members = watched.up
    assert watched.up == [DIM, codes, members] and again.up == [DIM, members]
    assert codes == map_.gaussians.codes.shape[1] * members and 0 < members < len(map_)
    assert watched.down == again.down == [2 * len(index.counts), 2 * members]
    assert watched.reads == again.reads == []
    expected = alone.query(alone.index(on_cpu), 'chair')
    assert answer.score == pytest.approx(expected.score, abs=1e-3)
    assert len(map_) == pytest.approx(len(on_cpu), rel=0.01)


def test_passes_of_other_sizes_are_recorded_beside(gpu, alone, monkeypatch):
    monkeypatch.setattr(inference, 'RECORDED', 3)
    pipeline, recorded = load('cuda'), []
    for size in dict(), dict(width=120), dict(), dict(width=120, height=160):  # the last drops the others
        pair = stereo(**size)
        assert_alike(pipeline.build(pair), alone.build(pair), 1e-5 if gpu else 2e-3)
        recorded.append(len(pipeline.network._recorded))
    assert recorded == [2, 4, 4, 2]


def test_two_pipelines_share_a_gpu(gpu, alone):
    pipelines, pairs = (load('cuda'), load('cuda')), (stereo(), KINDS['moving']())
    scenes = [pipeline.build(pair) for pipeline, pair in zip(pipelines, pairs)]
    again = pipelines[0].build(pairs[0])  # replayed after the other was recorded
    for scene, pair in zip((again, scenes[1]), pairs):
        assert_alike(scene, alone.build(pair), 1e-5 if gpu else 2e-3)


def test_words_are_asked_while_passes_are_recorded_and_replayed(gpu):
    pipeline = load('cuda')
    scene, pairs = pipeline.build(stereo()), [stereo(), stereo(width=120)]
    wanted = [answer.score for answer in pipeline.query_all(scene, WORDS)]
    scores, errors, stop, began = [], [], threading.Event(), threading.Event()

    def ask():
        try:
            with gpu.here() if gpu else nullcontext():
                while not stop.is_set():
                    scores.append([answer.score for answer in pipeline.query_all(scene, WORDS)])
                    began.set()
        except Exception as error:
            errors.append(error)
            began.set()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        assert began.wait(60)
        count = len(scores)
        for pair in pairs:
            pipeline.build(pair)
    finally:
        stop.set()
        thread.join(60)
    assert errors == [] and len(scores) > count
    np.testing.assert_allclose(scores, [wanted] * len(scores), atol=1e-6)


@pytest.mark.fake_cuda
def test_a_gpu_that_is_full_is_said_in_one_line_and_survived(pretended_gpu):
    pipeline = load('cuda')
    scene, emptied = pipeline.build(stereo()), pretended_gpu.emptied
    wanted = pipeline.query(scene, 'chair').score
    pretended_gpu.largest = 4 * IMAGE  # what a pass makes is larger
    with pytest.raises(
        NoGpuMemory, match=r"^the GPU has no memory for a pair of 160x120 px, .* GB are free: .*'cpu'$"
    ):
        pipeline.build(stereo())
    assert pipeline.network._recorded == {} and pipeline.network._kept == []
    assert pretended_gpu.emptied == emptied + 2
    pretended_gpu.largest = 4 * PIXELS
    with pytest.raises(NoGpuMemory, match='^the GPU has no memory for the question'):
        pipeline.query(scene, 'chair')
    with pytest.raises(NoGpuMemory, match='^the GPU has no memory for the network'):
        Pipeline.load(device='cuda')
    pretended_gpu.largest = float('inf')
    assert pipeline.query(scene, 'chair').score == wanted
    again = pipeline.build(stereo())
    assert torch.equal(again.gaussians.means.cpu(), scene.gaussians.means.cpu())


@pytest.mark.cuda
def test_a_real_gpu_that_is_full_is_survived():
    pipeline = load('cuda')
    scene = pipeline.build(stereo())
    pipeline.network.forget()
    torch.cuda.empty_cache()
    held = []
    try:
        for size in (2**30, 2**26, 2**20):  # all that is free
            while True:
                try:
                    held.append(torch.empty(size, dtype=torch.uint8, device='cuda'))
                except torch.OutOfMemoryError:
                    break
        with pytest.raises(NoGpuMemory, match='^the GPU has no memory for a pair'):
            pipeline.build(stereo())
    finally:
        held.clear()
        torch.cuda.empty_cache()
    again = pipeline.build(stereo())
    torch.testing.assert_close(again.gaussians.means, scene.gaussians.means, atol=1e-3, rtol=1e-3)


def test_what_says_that_memory_is_lacking():
    assert lacks_memory(torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB'))
    assert lacks_memory(
        RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`')
    )
    assert not lacks_memory(RuntimeError('CUDA error: an illegal memory access was encountered'))
    try:
        try:
            raise torch.OutOfMemoryError('CUDA out of memory')
        finally:
            raise RuntimeError('CUDA error: operation failed due to a previous error during capture')
    except RuntimeError as error:
        assert lacks_memory(error)


@pytest.mark.fake_cuda
def test_the_bench_runs_on_a_gpu(pretended_gpu, monkeypatch):
    for name, value in {'WIDTH': SIDE, 'HEIGHT': 96, 'DRAWN': {'small': (64, 48)}}.items():
        monkeypatch.setattr(stages, name, value)
    monkeypatch.setattr(tools, 'PEAK_SIDE', {'cuda': 64})
    counted = dict.fromkeys(('encode', 'decode', 'heads'), Flops(1e9, 1e9))  # they are counted on `meta`
    monkeypatch.setattr(stages, 'network_flops', lambda *of: counted)
    result = bench('small', torch.device('cuda'), 1)
    assert result['max_relative_difference'] <= result['tolerance'], result
    assert 'decode and heads' in result['stages']
