"""The node's parameters: declared, described, checked and changed live in one place.

Each field of `Parameters` is one ROS parameter of the same name; its metadata become the ParameterDescriptor
that `ros2 param describe` prints, and the range is what a bad value is refused with, at start and later.
"""

from __future__ import annotations

import array
from collections.abc import Iterable
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from gsemsplat_ros.ros.conversions import quoted
from gsemsplat_ros.semantics.relevancy import CANONICAL

MAX_QUERIES = 32


def _field(
    default: Any,
    doc: str,
    unit: str = '',
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    live: bool = False,
) -> Any:
    """A parameter: default, description, unit, inclusive range or choices; `live`: can change later."""
    return field(
        default=default, metadata=dict(doc=doc, unit=unit, low=low, high=high, choices=choices, live=live)
    )


@dataclass(frozen=True)
class Parameters:
    """All parameters of the node. Raises ValueError with the parameter, its value and the allowed values."""

    mode: str = _field(
        'stereo',
        'Source of the pairs: a stereo camera, or keyframes of one moving camera',
        choices=('stereo', 'sequential'),
    )
    autostart: bool = _field(True, 'Configure and activate at start; false: wait for a lifecycle manager')
    weights: str = _field('', 'Checkpoint file; empty: the shipped network')
    text_checkpoint: str = _field(
        '',
        'Text encoder file for checkpoints that need OpenCLIP; empty: the encoder '
        'named by the checkpoint, from the installed packages',
    )
    geometry: str = _field(
        '',
        'File of another network for the points, Depth Anything 3 SMALL or BASE; '
        'empty: the network of `weights` makes them',
    )
    device: str = _field(
        'auto', 'Device of the network; auto: CUDA if available', choices=('auto', 'cpu', 'cuda')
    )
    square: bool = _field(
        False, 'Crop the square centre (published: 512 x 512) instead of keeping the field of view'
    )
    image_transport: str = _field(
        'raw', 'Image topics: raw, or JPEG or PNG on <image topic>/compressed', choices=('raw', 'compressed')
    )
    rectified: bool = _field(
        True, 'The images are rectified; false: rectify them with K, D, R, P of camera_info'
    )
    sync_slop_s: float = _field(
        0.02, 'Largest difference between the stamps of left and right', 's', 0.0, 1.0
    )
    min_interval_s: float = _field(
        0.0,
        'Shortest time between the stamps of two pairs; 0: as fast as the machine can',
        's',
        0.0,
        3600.0,
        live=True,
    )
    keyframe_min_motion: float = _field(
        0.03,
        'Smallest median image motion. Sequential: from the last keyframe to a frame that is paired with it; '
        'stereo: for a new scene, also where only objects move. 0: every frame',
        'fraction of the image width',
        0.0,
        1.0,
    )
    keyframe_max_motion: float = _field(
        0.35,
        'Sequential: median image motion above which a frame starts a new keyframe without a pair',
        'fraction of the image width',
        0.0,
        1.0,
    )
    keyframe_min_overlap: float = _field(
        0.4, 'Sequential: share of the keyframe that must remain in view', 'fraction', 0.0, 1.0
    )
    keyframe_max_age_s: float = _field(
        10.0,
        'Sequential: an older keyframe is replaced and not paired, since objects may have moved',
        's',
        0.1,
        3600.0,
    )
    map_frame: str = _field(
        '',
        'Fixed TF frame (odom, map) for the camera poses and, sequential, for the scale; '
        'empty: TF is not used',
    )
    base_frame: str = _field(
        'base_link',
        'TF frame of the robot, for the approach pose; if TF lacks it, the camera is used',
        live=True,
    )
    map_voxel_m: float = _field(0.03, 'Edge of the map voxels; each holds one Gaussian', 'm', 0.005, 1.0)
    map_max_gaussians: int = _field(
        300_000,
        'Most Gaussians in the map; the oldest and least certain are removed first; 0: '
        'no fusion, a loaded map stays unchanged',
        'Gaussians',
        0,
        10_000_000,
        live=True,
    )
    map_directory: str = _field(
        '~/.ros/gsemsplat', 'save_map writes and load_map reads only below this folder'
    )
    robot_radius_m: float = _field(
        0.3, 'Radius of the robot seen from above, for the approach pose', 'm', 0.01, 10.0, live=True
    )
    approach_distance_m: float = _field(
        0.6,
        "Distance of the approach pose from the found object's box; up to 1 m more if nothing nearer is free",
        'm',
        0.05,
        10.0,
        live=True,
    )
    queries: tuple[str, ...] = _field((), 'Standing queries, answered on every new scene', live=True)
    canonical: tuple[str, ...] = _field(
        CANONICAL,
        'Phrases that every query is compared with; a place that is more similar to '
        'one of these than to the query scores low',
    )
    threshold: float = _field(
        0.0,
        'Relevancy from which a query counts as found; 0: that of the checkpoint',
        '',
        0.0,
        0.999,
        live=True,
    )
    max_objects: int = _field(8, 'Most objects in one answer, best first', '', 1, 1000, live=True)
    max_points: int = _field(
        200000,
        'Most Gaussians in the published cloud, thinned evenly; 0: all',
        'points',
        0,
        100_000_000,
        live=True,
    )
    publish_codes: bool = _field(
        False,
        'Add the semantic codes code_0 ... code_127 (public networks: code_31) to the cloud: 512 (128) bytes '
        'a point',
        live=True,
    )

    def __post_init__(self) -> None:
        for f in fields(self):
            value, low, high = getattr(self, f.name), f.metadata['low'], f.metadata['high']
            choices = f.metadata['choices']
            if low is not None and not low <= value <= high:  # positive test: NaN fails
                raise ValueError(
                    f'parameter {f.name} is {value}: wanted {low} to {high} {f.metadata["unit"]}'.rstrip()
                )
            if choices and value not in choices:
                raise ValueError(f'parameter {f.name} is {quoted(value)}: wanted one of {", ".join(choices)}')
        if not self.keyframe_min_motion < self.keyframe_max_motion:
            raise ValueError(
                f'parameter keyframe_min_motion is {self.keyframe_min_motion}: wanted less than '
                f'keyframe_max_motion, which is {self.keyframe_max_motion}'
            )
        if not self.canonical:
            raise ValueError(
                "parameter canonical is empty: wanted at least one phrase, e.g. ['object', 'things']"
            )
        if len(self.queries) > MAX_QUERIES:
            raise ValueError(
                f'parameter queries has {len(self.queries)} phrases: wanted at most {MAX_QUERIES}'
            )


def _descriptor(f: Field) -> ParameterDescriptor:
    m = f.metadata
    descriptor = ParameterDescriptor(description=f'{m["doc"]} [{m["unit"]}]' if m['unit'] else m['doc'])
    if m['choices']:
        descriptor.additional_constraints = 'one of ' + ', '.join(m['choices'])
    if isinstance(f.default, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=m['low'], to_value=m['high'])]
    elif isinstance(f.default, int) and not isinstance(f.default, bool):
        descriptor.integer_range = [IntegerRange(from_value=m['low'], to_value=m['high'])]
    # An empty list has no element type in ROS: with a static type, `queries: []` would be read as bytes.
    descriptor.dynamic_typing = isinstance(f.default, tuple)
    return descriptor


def _value(name: str, value: Any) -> Any:
    """The ROS value as the field's type: a string list becomes a tuple without empty strings."""
    if name not in ('queries', 'canonical'):
        return value
    values = () if value is None else value
    if not isinstance(values, (list, tuple, array.array)) or not all(isinstance(v, str) for v in values):
        raise ValueError(
            f"parameter {name} is {repr(value)[:100]}: wanted a list of strings, e.g. ['chair', 'door']"
        )
    return tuple(v.strip() for v in values if v.strip())


def declare(node: Node) -> Parameters:
    """Declare every parameter on `node` and return their values, overrides applied.

    Raises ValueError or rclpy's InvalidParameter*Exception for a value out of range or of another type.
    """
    values = {}
    for f in fields(Parameters):
        default = list(f.default) if isinstance(f.default, tuple) else f.default
        values[f.name] = _value(f.name, node.declare_parameter(f.name, default, _descriptor(f)).value)
    return Parameters(**values)


def changed(current: Parameters, wanted: Iterable[Parameter], running: bool) -> Parameters:
    """`current` with the `wanted` changes; foreign names (use_sim_time, qos_overrides) are ignored.

    Raises ValueError with the reason when a value is not allowed or deleted, or when the node is `running`
    (configured) and the parameter is read only while it configures.
    """
    known = {f.name: f for f in fields(Parameters)}
    wanted = [p for p in wanted if p.name in known]
    for p in wanted:  # those of any type, as lists are, rclpy would forget
        if p.value is None:
            raise ValueError(f'parameter {p.name} cannot be deleted: set a value, e.g. its default')
    values = {p.name: _value(p.name, p.value) for p in wanted}
    for name, value in values.items():
        if running and not known[name].metadata['live'] and value != getattr(current, name):
            raise ValueError(
                f'parameter {name} cannot change while the node is configured: clean the node up first '
                '(lifecycle transitions deactivate, cleanup) or restart it with the new value'
            )
    return replace(current, **values)


def differing(one: Parameters, other: Parameters) -> set[str]:
    """Names of those that differ."""
    return {f.name for f in fields(Parameters) if getattr(one, f.name) != getattr(other, f.name)}
