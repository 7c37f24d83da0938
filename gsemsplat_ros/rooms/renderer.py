"""OpenGL rendering of a furnished room (moderngl, headless EGL): colour, metric depth and instance ids.

Everything is rendered at twice the resolution, and colour is filtered down. Pixel 2i of the fine grid is
pixel i of the image, so depth and ids are exact samples at the pixel centres (integer coordinates, OpenCV
axes), without a shift of half a pixel.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import cv2
import moderngl
import numpy as np

from gsemsplat_ros.images.camera import Camera
from gsemsplat_ros.rooms.furnish import Room
from gsemsplat_ros.rooms.furniture import TEXTURE, Furniture

NEAR, FAR = 0.05, 20.0
MAX_LIGHTS = 4
SHADOW = 768  # pixels per side of a lamp's shadow map
SHADOW_REACH = 2.5  # tangent of half of its opening angle
VERTEX = np.dtype(
    [('position', 'f4', 3), ('normal', 'u1', 4), ('uv', 'f4', 2), ('color', 'u1', 4), ('layer_id', 'f4', 2)]
)

_VERTEX_SHADER = """
#version 330
uniform mat4 clip_from_world;
uniform vec4 depth_row;
in vec3 position; in vec4 normal; in vec2 uv; in vec4 color; in vec2 layer_id;
out vec3 p; out vec3 n; out vec2 t; out vec4 c; out float z; flat out vec2 li;
void main() {
    p = position; n = (normal.xyz * 255.0 - 128.0) / 127.0; t = uv; c = color; li = layer_id;
    z = dot(depth_row, vec4(position, 1));
    gl_Position = clip_from_world * vec4(position, 1);
}"""
_FRAGMENT_SHADER = """
#version 330
uniform sampler2DArray textures;
uniform sampler2DShadow shadow0; uniform sampler2DShadow shadow1;
uniform vec3 eye; uniform vec3 room; uniform float ambient; uniform int lights;
uniform vec3 light_at[4]; uniform vec3 light_color[4]; uniform vec2 clip_z; uniform float reach;
in vec3 p; in vec3 n; in vec2 t; in vec4 c; in float z; flat in vec2 li;
layout(location = 0) out vec4 rgb;
layout(location = 1) out vec2 geometry;
float lit(sampler2DShadow map, vec3 q) {
    float w = -q.z;
    if (w < 0.1) return 1.0;
    vec3 s = vec3(q.xy / (reach * w), clip_z.x - clip_z.y / w) * 0.5 + 0.5;
    return max(abs(s.x - 0.5), abs(s.y - 0.5)) > 0.5 ? 1.0 : texture(map, s);
}
void main() {
    vec4 albedo = texture(textures, vec3(t, li.x));
    CUT_OUT
    vec3 view = eye - p;
    vec3 m = dot(n, n) < 0.01 ? cross(dFdx(p), dFdy(p)) : n;
    m = normalize(m);
    if (dot(m, view) < 0.0) m = -m;
    vec3 away = 1.0 - abs(m);              // darker towards the edges of the room, except along a surface
    vec3 low = exp(-max(p, 0.0) / 0.25), high = exp(-max(room - p, 0.0) / 0.25);
    vec3 dark = 1.0 - 0.3 * away * (low + high);
    float open = clamp(dark.x * dark.y * dark.z, 0.3, 1.0);
    vec3 light = vec3(ambient * (0.8 + 0.2 * m.z) * open);
    for (int k = 0; k < lights; k++) {
        vec3 l = light_at[k] - p;
        float d2 = dot(l, l);
        float lambert = max(dot(m, l) * inversesqrt(d2), 0.0) / (1.0 + 0.12 * d2);
        vec3 q = p + m * 0.02 - light_at[k];
        if (lambert > 0.0 && k == 0) lambert *= lit(shadow0, q);
        if (lambert > 0.0 && k == 1) lambert *= lit(shadow1, q);
        light += light_color[k] * lambert * (0.5 + 0.5 * open);
    }
    rgb = vec4(albedo.rgb * c.rgb * mix(light, vec3(1.0), c.a), 1.0);
    geometry = vec2(z, li.y);
}"""
_SHADOW_VERTEX = """
#version 330
uniform mat4 clip_from_world;
in vec3 position;
void main() { gl_Position = clip_from_world * vec4(position, 1); }"""


@dataclass(frozen=True)
class RenderedFrame:
    """rgb (H,W,3) uint8; depth (H,W) float32 m along the optical axis, instance (H,W) int16: 0 in void."""

    rgb: np.ndarray
    depth: np.ndarray
    instance: np.ndarray


class RoomRenderer:
    """An EGL context that renders one room at a time. Raises ValueError if EGL is unavailable."""

    def __init__(self, furniture: Furniture, height: int, width: int):
        self.furniture, self.height, self.width = furniture, height, width
        # Mesa's LLVM and triton's (part of PyTorch for CUDA) work together only if triton comes first
        if importlib.util.find_spec('triton'):
            importlib.import_module('triton')
        try:
            self._gl = moderngl.create_standalone_context(
                require=330,
                backend='egl',  # type: ignore[arg-type]  # the stub lacks names
            )
        except Exception as error:
            raise ValueError(
                f'no EGL rendering here ({error}): install libegl1 and libgl1-mesa-dri'
            ) from error
        # only cut-out textures such as leaves discard fragments: without discard, the early depth test stays
        # on, which halves the time
        self._programs = [
            self._gl.program(
                vertex_shader=_VERTEX_SHADER, fragment_shader=_FRAGMENT_SHADER.replace('CUT_OUT', cut)
            )
            for cut in ('', 'if (albedo.a < 0.5) discard;')
        ]
        self._shadow_program = self._gl.program(
            vertex_shader=_SHADOW_VERTEX, fragment_shader='#version 330\nvoid main() {}'
        )
        fine = (2 * width, 2 * height)
        self._color, self._geometry = self._gl.texture(fine, 4), self._gl.texture(fine, 2, dtype='f4')
        self._target = self._gl.framebuffer([self._color, self._geometry], self._gl.depth_renderbuffer(fine))
        self._shadows = [self._gl.depth_texture((SHADOW, SHADOW)) for _ in range(2)]
        self._shadow_targets = [self._gl.framebuffer(depth_attachment=s) for s in self._shadows]
        for shadow in self._shadows:
            shadow.compare_func = '<='
            shadow.repeat_x = shadow.repeat_y = False
        for program in self._programs:
            program['shadow0'], program['shadow1'], program['textures'] = 0, 1, 2
        self._room: list = []

    def load(self, room: Room) -> None:
        """Upload a room in place of the previous one."""
        for thing in self._room:
            thing.release()
        vertices, opaque, cut_out, layers = _geometry(self.furniture, room)
        array = self._gl.texture_array(
            (TEXTURE, TEXTURE, len(layers)), 4, np.ascontiguousarray(layers).tobytes()
        )
        array.build_mipmaps()
        array.filter = (moderngl.LINEAR_MIPMAP_NEAREST, moderngl.LINEAR)
        vbo, ibo = (
            self._gl.buffer(vertices.tobytes()),
            self._gl.buffer(np.concatenate([opaque, cut_out]).tobytes()),
        )
        layout = (vbo, '3f 4f1 2f 4f1 2f', *(VERTEX.names or ()))
        self._draws = [self._gl.vertex_array(program, [layout], ibo) for program in self._programs]
        self._split = 3 * len(opaque)
        shade = self._gl.vertex_array(
            self._shadow_program, [(vbo, f'3f {VERTEX.itemsize - 12}x', 'position')], ibo
        )
        self._room, self._array = [*self._draws, shade, vbo, ibo, array], array
        lamps = room.lights[:MAX_LIGHTS]
        pad = [np.zeros(3)] * (MAX_LIGHTS - len(lamps))
        near, far = 0.1, 12.0
        for program in self._programs:
            _write(program, 'light_at', np.array([lamp.position for lamp in lamps] + pad, 'f4'))
            _write(program, 'light_color', np.array([lamp.color for lamp in lamps] + pad, 'f4'))
            program['lights'], program['room'], program['ambient'] = (
                len(lamps),
                tuple(room.size),
                room.ambient,
            )
            program['clip_z'], program['reach'] = (
                ((far + near) / (far - near), 2 * far * near / (far - near)),
                SHADOW_REACH,
            )
        self._gl.enable_only(moderngl.DEPTH_TEST)
        for target, lamp in zip(self._shadow_targets, lamps):
            matrix = np.array(
                [
                    [1 / SHADOW_REACH, 0, 0, 0],
                    [0, 1 / SHADOW_REACH, 0, 0],
                    [0, 0, -(far + near) / (far - near), -2 * far * near / (far - near)],
                    [0, 0, -1, 0],
                ]
            )
            move = np.eye(4)
            move[:3, 3] = -lamp.position
            target.use()
            target.clear(depth=1.0)
            _write(self._shadow_program, 'clip_from_world', (matrix @ move).T.astype('f4'))
            shade.render()

    def render(self, camera: Camera, world_from_camera: np.ndarray) -> RenderedFrame:
        """Render the loaded room; `camera`: (height, width) px; world_from_camera (4, 4): OpenCV pose [m]."""
        camera_from_world = np.linalg.inv(world_from_camera)
        w, h = 2 * self.width, 2 * self.height
        fine = np.diag([2.0, 2.0, 1.0]) @ camera.K  # pixel 2i of the fine grid is pixel i
        clip = np.zeros((4, 4))  # row 0 of the image is the bottom row of OpenGL
        clip[0, :3] = 2 * fine[0] / w + [0, 0, 1 / w - 1]
        clip[1, :3] = 2 * fine[1] / h + [0, 0, 1 / h - 1]
        clip[2, 2:] = (FAR + NEAR) / (FAR - NEAR), -2 * FAR * NEAR / (FAR - NEAR)
        clip[3, 2] = 1
        for program in self._programs:
            _write(program, 'clip_from_world', (clip @ camera_from_world).T.astype('f4'))
            program['depth_row'], program['eye'] = (
                tuple(camera_from_world[2]),
                tuple(world_from_camera[:3, 3]),
            )
        self._gl.enable_only(moderngl.DEPTH_TEST)
        self._shadows[0].use(0)
        self._shadows[1].use(1)
        self._array.use(2)
        self._target.use()
        self._target.clear()
        self._draws[0].render(vertices=self._split)
        if self._draws[1].vertices > self._split:
            self._draws[1].render(vertices=self._draws[1].vertices - self._split, first=self._split)
        rgb = np.frombuffer(self._color.read(), np.uint8).reshape(h, w, 4)[..., :3]
        geometry = np.frombuffer(self._geometry.read(), np.float32).reshape(h, w, 2)[::2, ::2]
        return RenderedFrame(
            cv2.pyrDown(np.ascontiguousarray(rgb)),
            np.ascontiguousarray(geometry[..., 0]),
            geometry[..., 1].astype(np.int16),
        )


def _geometry(furniture: Furniture, room: Room) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All triangles of a room: vertices (VERTEX), opaque and cut-out faces (F,3) int32, and texture layers
    (L, TEXTURE, TEXTURE, 4) uint8, layer 0 white.

    Pieces come before the walls behind them, so that most hidden fragments are never shaded.
    """
    layers = [np.full((TEXTURE, TEXTURE, 4), 255, np.uint8)]
    layers += [np.dstack([t, np.full(t.shape[:2], 255, np.uint8)]) for t in room.textures]
    where, holes = {-1: 0}, {-1: False}
    parts, opaque, cut_out, count = [], [], [], 0
    for k, piece in enumerate(room.pieces):
        mesh = furniture.mesh(piece.model)
        c, s = np.cos(piece.yaw), np.sin(piece.yaw)
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float32)
        used, inverse = np.unique(mesh.textures, return_inverse=True)
        for t in map(int, used):
            if t not in where:
                where[t] = len(layers)
                layers.append(furniture.texture(t))
                holes[t] = bool((layers[-1][..., 3] < 128).any())
        part = np.zeros(len(mesh.vertices), VERTEX)
        part['position'] = mesh.vertices @ turn.T + np.asarray(piece.position, np.float32)
        part['normal'][:, :3] = np.round(128 + 127 * mesh.normals @ turn.T)
        part['uv'] = mesh.uv
        part['color'][:, :3] = np.clip(mesh.colors @ piece.color.T.astype(np.float32), 4, 255)
        part['layer_id'][:, 0] = np.array([where[int(t)] for t in used], np.float32)[inverse]
        part['layer_id'][:, 1] = room.first_piece + k
        parts.append(part)
        hole = np.array([holes[int(t)] for t in used])[inverse][mesh.faces[:, 0]]
        opaque.append(mesh.faces[~hole] + count)
        cut_out.append(mesh.faces[hole] + count)
        count += len(part)
    for q in room.quads:
        part = np.zeros(4, VERTEX)
        part['position'] = q.corner + np.array([np.zeros(3), q.u, q.u + q.v, q.v])
        normal = np.cross(q.u, q.v)
        part['normal'][:, :3] = np.round(128 + 127 * normal / np.linalg.norm(normal))
        part['uv'] = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * q.tiling
        part['color'] = 255, 255, 255, int(255 * q.glow)
        part['layer_id'] = 1 + q.texture, q.instance
        parts.append(part)
        opaque.append(np.array([(0, 1, 2), (0, 2, 3)], np.int32) + count)
        count += 4

    def whole(faces: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([np.zeros((0, 3), np.int32), *faces]).astype(np.int32)

    return np.concatenate(parts), whole(opaque), whole(cut_out), np.stack(layers)


def _write(program: moderngl.Program, name: str, values: np.ndarray) -> None:
    """Set a uniform of several numbers."""
    uniform = program[name]
    assert isinstance(uniform, moderngl.Uniform), name
    uniform.write(values.tobytes())
