"""The quality of service of latched topics, whose newest message a late subscriber receives, and of the
service that many may ask at once."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions


def latched(depth: int = 1) -> QoSProfile:
    """Reliable, transient local; `depth`: how many messages a late subscriber gets."""
    return QoSProfile(
        depth=depth, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
    )


def overridable() -> QoSOverridingOptions:
    """By the parameters `qos_overrides.<topic>.<publisher or subscription>.<policy>`, at the start."""
    kinds = QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY
    return QoSOverridingOptions(policy_kinds=kinds)


LATCHED = latched()
# ROS's own depth of 10 drops what an eleventh client asks meanwhile, without a word to anybody
QUERIES = QoSProfile(depth=200, reliability=ReliabilityPolicy.RELIABLE)
