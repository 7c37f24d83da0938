"""That no NaN and no Inf is in a message but where its own comment says that NaN means nothing there."""

import math

import numpy as np
from sensor_msgs.msg import Image, PointCloud2

# of gsemsplat_msgs/Relevancy and Query.Response
NOTHING_THERE = {'peak.x', 'peak.y', 'peak.z', 'peak_u', 'peak_v'}


def odd_numbers(message, path=''):
    """The fields of a message that hold what they may not, as 'path = value'."""
    if isinstance(message, PointCloud2):
        values = np.frombuffer(message.data, np.float32)
        wrong = values[~np.isfinite(values)]
        return [f'{path or "cloud"}: {len(wrong)} numbers'] if len(wrong) or not message.is_dense else []
    if isinstance(message, Image):
        if message.encoding != '32FC1':
            return []
        return [f'{path or "image"}: Inf'] if np.isinf(np.frombuffer(message.data, np.float32)).any() else []
    if isinstance(message, float):
        allowed = math.isfinite(message) or (math.isnan(message) and path in NOTHING_THERE)
        return [] if allowed else [f'{path} = {message}']
    if hasattr(message, 'get_fields_and_field_types'):
        parts = [(name, getattr(message, name)) for name in message.get_fields_and_field_types()]
        return [odd for name, part in parts for odd in odd_numbers(part, f'{path}.{name}'.lstrip('.'))]
    if isinstance(message, (list, tuple)):
        return [odd for part in message for odd in odd_numbers(part, f'{path}[]')]
    return []
