"""The ROS 2 node and, in `client`, the programs that use it. Only this folder imports ROS.

Takes messages; gives messages.

parameters, qos: parameters and qualities of service
inputs: subscriptions, which store messages and hand them on
image_bridge, conversions, calibration: messages to arrays and cameras
synchronize: pairs of left and right messages
tf_buffer, tf_history, tf_listener: frames over time, and poses of the camera
frame_checks: frames of images that would lead astray
sources: messages to a `Pair`, in the worker
worker: the thread of the heavy work, with a mailbox for the newest input
perception: from a pair to scene, map and answers
map_keeper, map_services: the map, and its services
changes: the service that lists what appeared in the map and what went
relocalize: the service that says where a picture was taken in the map
answers, shown: answers to queries, and those whose markers are shown
snapshot: the results of the node, one value that is replaced
state: the parts of the node in each lifecycle state
clouds, packed_splats: Gaussians as messages
messages, object_messages: answers and objects as messages
publishers: the topics of the results
services: errors of a service as its message
status, diagnostics: the status message, and /diagnostics made from it
policy: permissions for SROS 2
log: the log of the core on that of the node
node: the lifecycle node
arguments: ROS arguments, and what is wrong with them
main: its process
"""
