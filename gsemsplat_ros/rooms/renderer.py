"""OpenGL rendering of a furnished room (moderngl, headless EGL): colour, metric depth and instance ids.

Everything is rendered at twice the resolution, and colour is filtered down. Pixel 2i of the fine grid is
pixel i of the image, so depth and ids are exact samples at the pixel centres (integer coordinates, OpenCV
axes), without a shift of half a pixel.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import cv2
import moderngl
import numpy as np
from numpy.typing import ArrayLike

from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.rooms.furniture import TEXTURE, Furniture
from gsemsplat_ros.rooms.layout import Light, Quad, Room
from gsemsplat_ros.rooms.shaders import (
    PHOTOGRAPHIC_SHADER,
    PLAIN_SHADER,
    SHADOW_SHADER,
    SURVEY_SHADER,
    VERTEX_SHADER,
)
from gsemsplat_ros.rooms.triangles import VERTEX, Triangles

NEAR, FAR = 0.05, 20.0
MAX_LIGHTS = 4
SHADOW = 768  # pixels per side of a lamp's shadow map
FRAME = 8  # of a mirror, pixels of its texture
SHADOW_REACH = 2.5  # tangent of half of its opening angle


@dataclass(frozen=True)
class RenderedFrame:
    """rgb (H,W,3) uint8; depth (H,W) float32 m along the optical axis, instance (H,W) int16: 0 in void."""

    rgb: np.ndarray
    depth: np.ndarray
    instance: np.ndarray


class RoomRenderer:
    """An EGL context that renders one room at a time, on the GPU number `device` modulo their number, or on
    the CPU where there is none. Raises ValueError if EGL is unavailable."""

    def __init__(self, furniture: Furniture, height: int, width: int, device: int = 0):
        self.furniture, self.height, self.width = furniture, height, width
        # Mesa's LLVM and triton's (part of PyTorch for CUDA) work together only if triton comes first
        if importlib.util.find_spec('triton'):
            importlib.import_module('triton')
        gpus = len(list(Path('/dev').glob('nvidia[0-9]*')))
        try:
            self._gl = moderngl.create_standalone_context(
                require=330,
                backend='egl',  # type: ignore[arg-type]  # the stub lacks names
                device_index=device % max(1, gpus),  # type: ignore[arg-type]  # the same
            )
        except Exception as error:
            raise ValueError(
                f'no EGL rendering here ({error}): install libegl1 and libgl1-mesa-dri'
            ) from error
        # only cut-out textures such as leaves discard fragments: without discard, the early depth test stays
        # on, which halves the time
        self._programs = {
            name: [
                self._gl.program(vertex_shader=VERTEX_SHADER, fragment_shader=shader.replace('CUT_OUT', cut))
                for cut in ('', 'if (albedo.a < 0.5) discard;')
            ]
            for name, shader in (
                ('plain', PLAIN_SHADER),
                ('photographic', PHOTOGRAPHIC_SHADER),
                ('survey', SURVEY_SHADER),
            )
        }
        self._shadow_program = self._gl.program(
            vertex_shader=SHADOW_SHADER, fragment_shader='#version 330\nvoid main() {}'
        )
        fine, coarse = (2 * width, 2 * height), (width, height)
        self._color, self._geometry = self._gl.texture(fine, 4), self._gl.texture(fine, 2, dtype='f4')
        self._target = self._gl.framebuffer([self._color, self._geometry], self._gl.depth_renderbuffer(fine))
        self._survey = self._gl.texture(coarse, 2, dtype='f4')
        self._survey_target = self._gl.framebuffer([self._survey], self._gl.depth_renderbuffer(coarse))
        self._shadows = [self._gl.depth_texture((SHADOW, SHADOW)) for _ in range(2)]
        self._shadow_targets = [self._gl.framebuffer(depth_attachment=s) for s in self._shadows]
        for shadow in self._shadows:
            shadow.compare_func = '<='
            shadow.repeat_x = shadow.repeat_y = False
        self._room: list = []

    def load(self, room: Room) -> None:
        """Upload a room in place of the previous one."""
        for thing in self._room:
            thing.release()
        triangles = Triangles(self.furniture, room)
        faces, opaque = triangles.faces
        layers = np.stack(triangles.layers)
        self._array = self._gl.texture_array((TEXTURE, TEXTURE, len(layers)), 4, layers.tobytes())
        self._array.build_mipmaps()
        self._array.filter = (moderngl.LINEAR_MIPMAP_NEAREST, moderngl.LINEAR)
        vbo, ibo = self._gl.buffer(triangles.vertices.tobytes()), self._gl.buffer(faces.tobytes())
        layout = (vbo, '3f 4f1 3f 4f1 2f', *(VERTEX.names or ()))
        self._looks = 'plain' if room.photographic is None else 'photographic'
        self._draws = {
            name: [
                self._gl.vertex_array(program, [layout], ibo, skip_errors=True)
                for program in self._programs[name]
            ]
            for name in (self._looks, 'survey')
        }
        self._split = 3 * opaque
        shade = self._gl.vertex_array(
            self._shadow_program, [(vbo, f'3f {VERTEX.itemsize - 12}x', 'position')], ibo
        )
        draws = [draw for pair in self._draws.values() for draw in pair]
        self._room = [*draws, shade, vbo, ibo, self._array]
        lamps = room.lights[:MAX_LIGHTS]
        pad = MAX_LIGHTS - len(lamps)
        near, far = 0.1, 12.0
        turns = [_view(lamp) for lamp in lamps[:2]]
        look = room.photographic
        for program in self._programs[self._looks]:
            _write(program, 'light_at', [*(lamp.position for lamp in lamps), *[np.zeros(3)] * pad])
            _write(program, 'light_color', [*(lamp.color for lamp in lamps), *[np.zeros(3)] * pad])
            program['lights'], program['room'] = len(lamps), tuple(room.size)
            program['clip_z'] = (far + near) / (far - near), 2 * far * near / (far - near)
            program['reach'] = SHADOW_REACH
            program['shadow0'], program['shadow1'], program['textures'] = 0, 1, 2
            if look is None:
                program['ambient'] = room.ambient
                continue
            _write(program, 'light_normal', [*(lamp.normal for lamp in lamps), *[np.zeros(3)] * pad])
            _write(program, 'light_radius', [*(lamp.radius for lamp in lamps), *[0.0] * pad])
            _write(program, 'light_turn', [turn.T for turn in turns] + [np.eye(3)] * (2 - len(turns)))
            program['sky'], program['ground'], program['exposure'] = (
                tuple(look.sky),
                tuple(look.ground),
                look.exposure,
            )
        self._programs['survey'][1]['textures'] = 2
        self._gl.enable_only(moderngl.DEPTH_TEST)
        for target, lamp, turn in zip(self._shadow_targets, lamps, turns):
            matrix = np.array(
                [
                    [1 / SHADOW_REACH, 0, 0, 0],
                    [0, 1 / SHADOW_REACH, 0, 0],
                    [0, 0, -(far + near) / (far - near), -2 * far * near / (far - near)],
                    [0, 0, -1, 0],
                ]
            )
            move = np.eye(4)
            move[:3, :3], move[:3, 3] = turn, -turn @ lamp.position
            target.use()
            target.clear(depth=1.0)
            _write(self._shadow_program, 'clip_from_world', (matrix @ move).T)
            shade.render()
        mirrors = [quad for quad in room.quads if room.names[quad.instance] == 'mirror']
        for quad in mirrors:
            self._reflect(quad)
        if mirrors:
            self._array.build_mipmaps()

    def _reflect(self, mirror: Quad) -> None:
        """Put what a mirror reflects into its texture: about the view from its middle into the room. A
        reflection proper would depend on the camera."""
        normal = np.cross(mirror.u, mirror.v)
        normal /= np.linalg.norm(normal)
        eye = mirror.corner + mirror.u / 2 + mirror.v / 2 + 0.1 * normal
        pose = np.eye(4)
        pose[:3, 0], pose[:3, 1] = (side / np.linalg.norm(side) for side in (mirror.u, mirror.v))
        pose[:3, 2], pose[:3, 3] = normal, eye
        high, wide = self.height, self.width  # the mirror fills the view as from a metre away
        focal = wide / float(np.linalg.norm(mirror.u)), high / float(np.linalg.norm(mirror.v))
        seen = self.render(Camera(wide, high, *focal, (wide - 1) / 2, (high - 1) / 2), pose).rgb
        side = TEXTURE - 2 * FRAME
        seen = cv2.resize(seen, (side, side), interpolation=cv2.INTER_AREA)
        inside = (FRAME, FRAME, 1 + mirror.texture, side, side, 1)
        self._array.write(np.dstack([seen, np.full(seen.shape[:2], 255, np.uint8)]).tobytes(), inside)

    def render(self, camera: Camera, world_from_camera: np.ndarray) -> RenderedFrame:
        """Render the loaded room; `camera`: (height, width) px; world_from_camera (4, 4): OpenCV pose [m]."""
        for program in self._programs[self._looks]:
            program['eye'] = tuple(world_from_camera[:3, 3])
        self._draw(self._looks, self._target, camera, world_from_camera)
        h, w = 2 * self.height, 2 * self.width
        rgb = np.frombuffer(self._color.read(), np.uint8).reshape(h, w, 4)[..., :3]
        geometry = np.frombuffer(self._geometry.read(), np.float32).reshape(h, w, 2)[::2, ::2]
        return RenderedFrame(cv2.pyrDown(np.ascontiguousarray(rgb)), *_surfaces(geometry))

    def survey(self, camera: Camera, world_from_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Depth and instance of `render` up to the rounding of edges, several times as fast."""
        self._draw('survey', self._survey_target, camera, world_from_camera)
        geometry = np.frombuffer(self._survey.read(), np.float32).reshape(self.height, self.width, 2)
        return _surfaces(geometry)

    def _draw(
        self, looks: str, target: moderngl.Framebuffer, camera: Camera, world_from_camera: np.ndarray
    ) -> None:
        camera_from_world = np.linalg.inv(world_from_camera)
        w, h = target.size
        fine = (
            np.diag([w / self.width, h / self.height, 1.0]) @ camera.K
        )  # pixel i is pixel 2i of a fine grid
        clip = np.zeros((4, 4))  # row 0 of the image is the bottom row of OpenGL
        clip[0, :3] = 2 * fine[0] / w + [0, 0, 1 / w - 1]
        clip[1, :3] = 2 * fine[1] / h + [0, 0, 1 / h - 1]
        clip[2, 2:] = (FAR + NEAR) / (FAR - NEAR), -2 * FAR * NEAR / (FAR - NEAR)
        clip[3, 2] = 1
        for program in self._programs[looks]:
            _write(program, 'clip_from_world', (clip @ camera_from_world).T)
            program['depth_row'] = tuple(camera_from_world[2])
        self._gl.enable_only(moderngl.DEPTH_TEST)
        self._shadows[0].use(0)
        self._shadows[1].use(1)
        self._array.use(2)
        target.use()
        target.clear()
        opaque, cut_out = self._draws[looks]
        opaque.render(vertices=self._split)
        if cut_out.vertices > self._split:
            cut_out.render(vertices=cut_out.vertices - self._split, first=self._split)


def _surfaces(geometry: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth (H,W) float32 and instance (H,W) int16 of both (H,W,2)."""
    return np.ascontiguousarray(geometry[..., 0]), geometry[..., 1].astype(np.int16)


def _view(light: Light) -> np.ndarray:
    """Rotation (3,3) from the world into the frame of a light's shadow map, which looks along -z: a lamp
    looks down, a window into the room."""
    if not light.normal.any():
        return np.eye(3)
    back = -light.normal
    right = np.cross([0.0, 0, 1], back)
    return np.stack([right, np.cross(back, right), back])


def _write(program: moderngl.Program, name: str, values: ArrayLike) -> None:
    """Set a uniform of several numbers."""
    uniform = program[name]
    assert isinstance(uniform, moderngl.Uniform), name
    uniform.write(np.ascontiguousarray(values, 'f4').tobytes())
