"""Programs that use the node over ROS 2.

client: a ROS node that sends queries
reply: the response of /query as an `Answer`
drive: navigation to an object with Nav2
node_process: the node as a child process in its own ROS domain
bag, bag_topics, bag_rectified: stereo pairs of a bag
bag_storage, bag_mcap, bag_sqlite, bag_ros1, bag_decompress: the files of a bag
bag_writer: messages into an MCAP file
player: pairs played to the node, and its results
node_scenes, live_node: a followed node, for the live page
splat_display: Gaussians for RVizSplat
house_demo, simulated_robot: a robot in a rendered house, before the node
idle_node, bench_node, bench_messages, bench_splats: the cost of the node and its messages
"""
