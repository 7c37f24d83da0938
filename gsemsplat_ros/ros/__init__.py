"""The ROS 2 node: the only folder that knows rclpy and message types."""
