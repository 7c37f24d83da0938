"""Parameters as a user meets them: described, refused with the range, changed live or not."""

from dataclasses import fields
from pathlib import Path

import pytest
import rclpy
import yaml
from rclpy.context import Context
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.parameter import Parameter

from gsemsplat_ros.ros.parameters import Parameters, changed, declare

YAML = Path(__file__).parents[2] / 'config' / 'gsemsplat.yaml'


@pytest.fixture(scope='module')
def context(domain):
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    yield context
    rclpy.shutdown(context=context)


@pytest.fixture
def declared(context):
    """Function: a node with these overrides, and its Parameters."""
    nodes = []

    def make(**overrides):
        values = [Parameter(name, value=value) for name, value in overrides.items()]
        nodes.append(
            rclpy.create_node(
                'parameters', context=context, start_parameter_services=False, parameter_overrides=values
            )
        )
        return nodes[-1], declare(nodes[-1])

    yield make
    for node in nodes:
        node.destroy_node()


def test_defaults_and_descriptions(declared):
    node, parameters = declared()
    assert parameters == Parameters()
    for f in fields(Parameters):
        descriptor = node.describe_parameter(f.name)
        assert len(descriptor.description) > 20
    slop = node.describe_parameter('sync_slop_s')
    assert slop.description.endswith('[s]')
    assert (slop.floating_point_range[0].from_value, slop.floating_point_range[0].to_value) == (0.0, 1.0)
    assert node.describe_parameter('max_objects').integer_range[0].to_value == 1000
    assert node.describe_parameter('mode').additional_constraints == 'one of stereo, sequential'


def test_overrides(declared):
    _, parameters = declared(
        mode='sequential', sync_slop_s=0.05, queries=['chair', ' door ', ''], max_objects=3
    )
    assert parameters == Parameters(
        mode='sequential', sync_slop_s=0.05, queries=('chair', 'door'), max_objects=3
    )
    assert declared(queries=[])[1].queries == ()


@pytest.mark.parametrize(
    'overrides, error, words',
    [
        (dict(sync_slop_s=7.0), InvalidParameterValueException, ['sync_slop_s', '0.0', '1.0', '7.0']),
        (dict(sync_slop_s=float('nan')), (ValueError, InvalidParameterValueException), ['sync_slop_s']),
        (dict(max_objects=0), InvalidParameterValueException, ['max_objects', '1', '1000']),
        (dict(sync_slop_s=1), InvalidParameterTypeException, ['sync_slop_s', 'DOUBLE', 'INTEGER']),
        (dict(mode='mono'), ValueError, ['mode', "'mono'", 'stereo, sequential']),
        (dict(queries='chair'), ValueError, ['queries', 'list']),
        (dict(queries=[1, 2]), ValueError, ['queries', 'list']),
        (dict(canonical=[]), ValueError, ['canonical', 'at least one']),
        (dict(queries=['thing'] * 33), ValueError, ['queries', '33', '32']),
        (dict(keyframe_min_motion=0.5), ValueError, ['keyframe_min_motion', '0.5', 'keyframe_max_motion']),
    ],
)
def test_bad_values_are_refused_at_start(declared, overrides, error, words):
    with pytest.raises(error) as raised:
        declared(**overrides)
    assert all(word in str(raised.value) for word in words), str(raised.value)


def test_live_changes():
    now = Parameters()
    wanted = [
        Parameter('threshold', value=0.25),
        Parameter('queries', value=['sofa']),
        Parameter('use_sim_time', value=True),
    ]
    assert changed(now, wanted, running=True) == Parameters(threshold=0.25, queries=('sofa',))
    with pytest.raises(ValueError, match='threshold is 2.0: wanted 0.0 to 0.999'):
        changed(now, [Parameter('threshold', value=2.0)], running=True)
    with pytest.raises(ValueError, match='weights cannot change while.*cleanup'):
        changed(now, [Parameter('weights', value='other.safetensors')], running=True)
    with pytest.raises(ValueError, match='queries cannot be deleted: set a value'):
        changed(now, [Parameter('queries', value=None)], running=True)
    assert changed(now, [Parameter('weights', value='x')], running=False).weights == 'x'
    assert changed(now, [Parameter('mode', value='stereo')], running=True) == now  # no change


def test_the_parameter_file_holds_every_default():
    values = yaml.safe_load(YAML.read_text())['/**']['ros__parameters']
    defaults = {
        f.name: list(f.default) if isinstance(f.default, tuple) else f.default for f in fields(Parameters)
    }
    values['queries'] = [text for text in values['queries'] if text]
    assert values == defaults
    assert {name: type(value) for name, value in values.items()} == {
        name: type(v) for name, v in defaults.items()
    }
