"""The state of the node as gsemsplat_msgs/Status: for programs on ~/status, as text in /diagnostics."""

from __future__ import annotations

import resource
import time

import torch
from builtin_interfaces.msg import Time
from gsemsplat_msgs.msg import InputTopic, Latency, Status

from gsemsplat_ros.ros.inputs import Heard
from gsemsplat_ros.ros.snapshot import Snapshot
from gsemsplat_ros.ros.state import Active, Configured

JUMPED_S = 5.0  # for so long it is said that stamps went back or ahead
NAN = float('nan')


def status_of(stamp: Time, configured: Configured | None, active: Active | None) -> Status:
    """The current status, while other threads go on. `stereo_pairs` is read last, so it is never less than
    the scenes, refused and dropped inputs together.
    """
    status = Status()
    status.header.stamp = stamp
    if configured is None:
        return status
    now = configured.perception.latest.now
    status.dropped = configured.worker.mailbox.dropped
    _network(status, configured, now)
    _map(status, now)
    if active is not None:
        _inputs(status, active)
    return status


def _inputs(status: Status, active: Active) -> None:
    status.active = True
    status.inputs = [_topic(heard, time.monotonic()) for heard in active.inputs.heard]
    sync = active.inputs.sync
    status.skew = status.gap = status.slop = NAN
    if sync:
        status.stereo, status.slop = True, sync.slop_s
        status.stereo_pairs, status.received, status.unmatched = sync.pairs, sync.received, sync.unmatched
        status.skew = NAN if sync.skew_ns is None else sync.skew_ns / 1e9
        status.gap = NAN if sync.gap_ns is None else sync.gap_ns / 1e9
    selection = active.source.selection
    status.keyframe_reason = selection.reason
    status.keyframe_pairs, status.keyframe_pairs_dropped = selection.pairs, selection.dropped
    status.still_pairs, status.changed = selection.still, selection.changed
    status.motion = NAN if selection.motion is None else selection.motion
    status.overlap = NAN if selection.overlap is None else selection.overlap
    status.complaints = [*selection.complaints, *active.inputs.complaints]
    if tf := active.tf:
        status.tf_frame, status.tf_messages = tf.map_frame, tf.messages
        status.tf_error = tf.complaint


def _topic(heard: Heard, now: float) -> InputTopic:
    return InputTopic(
        name=heard.topic,
        is_image=heard.is_image,
        required=heard.required,
        count=heard.count,
        age=NAN if heard.last_s is None else now - heard.last_s,
        jumps=heard.jumps,
        jump=heard.jumped if now - heard.jumped_s < JUMPED_S else '',
    )


def _network(status: Status, configured: Configured, now: Snapshot) -> None:
    pipeline = configured.perception.pipeline
    status.configured = True
    status.weights, status.text_encoder = pipeline.weights, pipeline.text_encoder.name
    status.device = str(pipeline.device)
    status.scenes, status.refused, status.last_error = now.scenes, now.refused, now.last_error
    if now.done:
        scene = now.done.scene
        status.header.frame_id = scene.gaussians.frame
        status.gaussians, status.scale = len(scene.gaussians), float(scene.scale)
        status.scale_source = scene.scale_source
        status.inliers, status.points = scene.inliers, scene.points
        status.latencies = [
            Latency(stage=stage, seconds=seconds) for stage, seconds in now.done.latencies.items()
        ]
    status.peak_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 1_000_000
    try:
        with open('/proc/self/statm') as file:
            status.memory = int(file.read().split()[1]) * resource.getpagesize() // 1_000_000
    except OSError:  # not Linux
        pass
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        status.cuda_memory = torch.cuda.memory_allocated() // 1_000_000
        status.peak_cuda_memory = torch.cuda.max_memory_allocated() // 1_000_000


def _map(status: Status, now: Snapshot) -> None:
    kept = now.kept
    status.map_frame, status.map_gaussians = kept.map.frame, len(kept.map)
    status.map_scenes = kept.map.scenes
    status.map_from_file, status.map_voxel = kept.loaded, kept.map.voxel
    status.map_scale_source = kept.map.scale_source
    status.scenes_fused, status.scenes_left_out = kept.fused, kept.left_out
    status.last_left_out, status.fusion_reason = not kept.last_fused, kept.reason
    status.save_error = kept.save_error
