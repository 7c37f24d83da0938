"""ROS arguments of a command line, and what is wrong with them in the words of who typed them."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.utilities import remove_ros_args

RCLError: type[Exception] = rclpy_implementation.RCLError
UnknownROSArgsError: type[Exception] = rclpy_implementation.UnknownROSArgsError
# what rcl calls an argument -> what was wanted
WANTED = {
    'params file': 'wanted node: {ros__parameters: {name: value}}, with lists of one type',
    'parameter override rule': 'wanted NAME:=VALUE, where VALUE is YAML of one type',
    'remap rule': 'wanted FROM:=TO, names of letters, digits, _ and /',
    'log level': 'wanted debug, info, warn, error or fatal',
}


def foreign_arguments(arguments: list[str]) -> list[str]:
    """Those of a command line that are no ROS arguments. Raises ValueError for ROS arguments that cannot be
    read."""
    try:
        return remove_ros_args(['gsemsplat', *arguments])[1:]
    except (RCLError, UnknownROSArgsError) as error:
        raise ValueError(in_words(error)) from None


def mistake(error: Exception) -> str:
    """What an error of rclpy says of arguments, parameters and qualities of service, which are the user's, in
    one line; '' for any other error."""
    known = RCLError, UnknownROSArgsError, InvalidParameterTypeException, InvalidParameterValueException
    if isinstance(error, known) or str(error).startswith('Unexpected QoS override'):
        return in_words(error)
    return ''


def in_words(error: Exception) -> str:
    """An error of rcl in one line, without the places in its source; of a parameter file, what the parser of
    YAML says."""
    if isinstance(error, UnknownROSArgsError):
        return f'unknown ROS arguments {error}: see `gsemsplat node --help`'
    text = re.sub(r',? at \S+:\d+', '', ' '.join(str(error).split()))
    text = text.removeprefix('Failed to parse ROS arguments: ')
    found = re.search(r"Couldn't parse ([a-z ]+): '(\S+) (.*)'\. Error: (.*)", text)
    if not found:
        return text
    kind, option, value, reason = found.groups()
    if kind == 'params file':
        reason = _of_file(Path(value)) or reason
    # of a grammar that only rcl's source tells
    reason = re.sub(r'.*lexeme.* index (\d+)', r'not understood after \1 characters', reason)
    reason = re.sub('error not set|Error parsing an? event', 'not understood', reason)
    return f'{option} {value}: {reason}; {WANTED.get(kind, "see `gsemsplat node --help`")}'


def _of_file(path: Path) -> str:
    """Why a parameter file is no YAML; '' if it is."""
    try:
        yaml.safe_load(path.read_bytes())
    except OSError as error:
        return (error.strerror or str(error)).lower()
    except yaml.MarkedYAMLError as error:
        line = f'line {error.problem_mark.line + 1}: ' if error.problem_mark else ''
        return f'{line}{error.problem}'.replace(r"character '\t'", 'a tab')
    except (yaml.YAMLError, ValueError, RecursionError):
        return 'it is no text in YAML'
    return ''
