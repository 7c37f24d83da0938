"""Pictures of a real scene, drawn of what another program reads in our files."""

import cv2
import numpy as np
import pytest
import torch
from support.independent_readers import by_gaussforge, glb, usda

from gsemsplat_ros.datasets.demo_pairs import load_scene
from gsemsplat_ros.formats import spz
from gsemsplat_ros.formats.writers import write
from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.gaussians.render import render
from gsemsplat_ros.pipeline import Pipeline
from gsemsplat_ros.saved import of_scene

Y_UP_CAMERA = np.diag([1.0, -1, -1, 1])  # looks along -z, y up
Z_UP_CAMERA = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])  # along +x, z up
KHR = 'KHR_gaussian_splatting'


def psnr(a, b):
    return -10 * np.log10(np.mean((a - b) ** 2))


def of_ply(columns):
    def stacked(*names):
        return torch.from_numpy(np.stack([columns[name] for name in names], -1))

    quats = stacked('rot_0', 'rot_1', 'rot_2', 'rot_3')
    return Gaussians(
        stacked('x', 'y', 'z'),
        quats / quats.norm(dim=1, keepdim=True),
        stacked('scale_0', 'scale_1', 'scale_2').exp(),
        torch.from_numpy(columns['opacity'].copy()).sigmoid(),
        stacked('f_dc_0', 'f_dc_1', 'f_dc_2') * 0.28209479 + 0.5,
        torch.zeros(len(quats), 0),
        'file',
    )


def of_glb(path):
    _, columns = glb(path)
    read = {name: torch.from_numpy(np.array(values)) for name, values in columns.items()}
    return Gaussians(
        read['POSITION'],
        read[f'{KHR}:ROTATION'].roll(1, dims=1),
        read[f'{KHR}:SCALE'],
        read[f'{KHR}:OPACITY'][:, 0],
        read[f'{KHR}:SH_DEGREE_0_COEF_0'] * 0.28209479 + 0.5,
        torch.zeros(len(read['POSITION']), 0),
        'file',
    )


def of_usda(path):
    _, _, columns = usda(path)
    positions, quats, scales, opacities, sh = (torch.from_numpy(column.copy()) for column in columns.values())
    codes = torch.zeros(len(positions), 0)
    return Gaussians(positions, quats, scales, opacities, sh * 0.28209479 + 0.5, codes, 'file')


@pytest.mark.heavy
def test_the_picture_is_ours(tmp_path, monkeypatch, record_property):
    """PLY and GLB to the last bits; SPZ, with steps of 6 % in scale, within 1 dB against the photograph."""
    try:
        pair = load_scene('living_room').pair
    except ValueError as error:
        pytest.skip(str(error))
    pipeline = Pipeline.load(device='cpu')
    scene = pipeline.build(pair)
    splats, camera = of_scene(scene, pipeline.code_space), scene.keyframe.camera

    def draw(gaussians, camera_from_file):
        return render(gaussians, camera, camera_from_file).rgb.clamp(0, 1).numpy()

    ours = draw(splats.without_codes().joined(), np.eye(4))
    window = scene.keyframe.window
    seen = pair.first.image[
        round(window.y0) : round(window.y0 + window.height * window.scale_y),
        round(window.x0) : round(window.x0 + window.width * window.scale_x),
    ]
    photograph = cv2.resize(seen, (camera.width, camera.height), interpolation=cv2.INTER_AREA) / 255
    readers = {'a.glb': of_glb, 'a.usda': of_usda}
    cameras = {'a.ply': np.eye(4), 'a.usda': Z_UP_CAMERA}
    for name in ('a.ply', 'a.glb', 'a.usda', 'a.spz', 'b.spz'):
        if name == 'a.usda':
            pytest.importorskip('tinyusdz')
        if name == 'b.spz':
            monkeypatch.setattr(spz, 'MOST', 1)
        write(tmp_path / name, splats)
        found = readers.get(name, lambda path: of_ply(by_gaussforge(path)))(tmp_path / name)
        picture = draw(found, cameras.get(name, Y_UP_CAMERA))
        same, before, after = psnr(picture, ours), psnr(ours, photograph), psnr(picture, photograph)
        size = (tmp_path / name).stat().st_size / 1e6
        print(f'{name}: {size:.1f} MB, {same:.1f} dB of ours; {before:.2f} dB, then {after:.2f} of the image')
        assert same > (42 if name.endswith('spz') else 70) and after > before - 1
