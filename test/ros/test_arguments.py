"""Wrong ROS arguments are the user's mistake: one line in the user's words, and exit status 2."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gsemsplat_ros.ros.arguments import RCLError, foreign_arguments, in_words

HEAD = '/**:\n  ros__parameters:\n'
FILES = {
    'a tab': (HEAD + '\tmode: sequential\n', r'line 3: found a tab that cannot start any token'),
    'an open list': (HEAD + '    queries: [chair\n', r"line 4: expected ',' or '\]'"),
    'a mixed list': (HEAD + '    queries: [chair, 3]\n', 'Sequence should be of same type.*line_num 3'),
    'another key': ('/**:\n  ros_parameters:\n    mode: stereo\n', 'before ros__parameters at line 3'),
    'no text': (b'\x80\x81' * 50, 'it is no text in YAML'),
    'an alias to nothing': (HEAD + '    mode: *a\n', 'line 3: found undefined alias'),
}
ARGUMENTS = {
    'a blank in a remapping': (
        ['-r', 'left/image_raw:=/my cam/image'],
        '/my cam/image: not understood after 19 characters; wanted FROM:=TO, names of letters',
    ),
    'a remapping without =': (['--remap', 'image:/b'], 'wanted FROM:=TO'),
    'two slashes': (['-r', 'image:=//x'], '-r image:=//x: not understood; wanted FROM:=TO'),
    'an open list': (['-p', 'queries:=[chair'], r'-p queries:=\[chair: not understood; wanted NAME:=VALUE'),
    'a mixed list': (['-p', 'queries:=[chair, 3]'], 'Sequence should be of same type.* YAML of one type'),
    'no value': (['-p', 'mode'], '-p mode: not understood after 4 characters; wanted NAME:=VALUE'),
    'an empty value': (['-p', 'mode:='], '-p mode:=: .* wanted NAME:=VALUE'),
    'no name': (['-p', ':=3'], '-p :=3: .* wanted NAME:=VALUE'),
    'a log level': (['--log-level', 'loud'], 'wanted debug, info, warn, error or fatal'),
    'nothing after a flag': (['--params-file'], '.*trailing --params-file flag. No file path provided'),
    'an unknown flag': (['--foo'], "unknown ROS arguments .*'--foo'"),
}


def refusal(arguments):
    with pytest.raises(ValueError) as raised:
        foreign_arguments(['--ros-args', *arguments])
    said = str(raised.value)
    assert '\n' not in said and not re.search(r'at /|\.c:\d|internal|Failed to parse', said), said
    return said


@pytest.mark.parametrize('case', FILES)
def test_a_parameter_file_that_is_none(tmp_path, case):
    text, words = FILES[case]
    path = tmp_path / 'my file.yaml'
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    said = refusal(['--params-file', str(path)])
    assert said.startswith(f'--params-file {path}: ') and re.search(words, said), said


def test_a_parameter_file_that_is_missing_or_a_folder(tmp_path):
    assert 'no such file or directory' in refusal(['--params-file', str(tmp_path / 'no.yaml')])
    assert 'is a directory' in refusal(['--params-file', str(tmp_path)])


@pytest.mark.parametrize('case', ARGUMENTS)
def test_an_argument_that_cannot_be_read(case):
    arguments, words = ARGUMENTS[case]
    said = refusal(arguments)
    assert re.search(words, said), said


def test_right_arguments_pass():
    arguments = ['--ros-args', '-r', '~/gaussians:=/x', '-r', '__ns:=/robot', '-p', 'queries:=[chair, door]']
    assert foreign_arguments(arguments) == []
    assert foreign_arguments(['--weights', 'x', *arguments]) == ['--weights', 'x']


def test_another_error_of_rcl_is_one_line_too():
    error = RCLError('failed to initialize rcl: Enclave name is not valid, at /project/src/init.c:286\nmore')
    assert in_words(error) == 'failed to initialize rcl: Enclave name is not valid more'


@pytest.mark.parametrize(
    'module, arguments, environment, words',
    [
        ('cli', ['--params-file', 'missing.yaml'], {}, 'missing.yaml: no such file'),
        ('ros.main', ['-p', 'queries:=[chair'], {}, 'wanted NAME:=VALUE'),
        ('cli', ['--enclave', 'no/such'], {}, 'Enclave name is not valid'),
        ('cli', [], {'ROS_DOMAIN_ID': 'abc'}, 'ROS_DOMAIN_ID'),
        ('cli', ['-p', 'mode:=\udcff'], {}, 'is not UTF-8'),
        ('cli', ['-p', 'mode:=3'], {}, "'mode' to '3' of type 'INTEGER', expecting type 'STRING'"),
    ],
)
def test_the_process_ends_with_2(module, arguments, environment, words):
    command = ['node'] if module == 'cli' else []
    done = subprocess.run(
        [sys.executable, '-m', f'gsemsplat_ros.{module}', *command, '--ros-args', *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    said = [line for line in done.stderr.splitlines() if line.startswith('gsemsplat: ')]
    assert done.returncode == 2 and len(said) == 1 and words in said[0], done.stderr
    assert 'Traceback' not in done.stderr and 'internal error' not in done.stderr


@pytest.mark.parametrize(
    'policy, words',
    [
        ('reliability:=good', 'Unexpected QoS override for policy `reliability`: `good`'),
        ('depth:=deep', "to 'deep' of type 'STRING', expecting type 'INTEGER'"),
    ],
)
def test_a_wrong_quality_of_service_is_one_line(policy, words):
    program = Path(__file__).parents[1] / 'support' / 'node_program.py'
    override = f'qos_overrides./left/image_raw.subscription.{policy}'
    done = subprocess.run(
        [sys.executable, str(program), '--ros-args', '-p', override],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    )
    assert done.returncode == 2 and words in done.stderr and 'Traceback' not in done.stderr, done.stderr
