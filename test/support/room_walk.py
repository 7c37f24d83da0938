"""A drive through the walked room, before the real node of room_node.py."""

import numpy as np
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from sensor_msgs.msg import PointCloud2
from support.ros_client import EVERY_PAIR, LATCHED, Stereo
from support.ros_messages import picture
from support.walked_room import look
from tf2_msgs.msg import TFMessage

from gsemsplat_ros.gaussians.rotations import rotation_to_quat
from gsemsplat_ros.ros.conversions import make_header

POSES = [look(1.2, 2.2, 0), look(1.4, 1.2, 30), look(1.4, 3.4, -30)]
MAP = '/r/gsemsplat/map'
WITH, WITHOUT = (40, 90, 60), (160, 90, 60)  # the colour of an image says whether the box is there


class RoomWalk:
    """A node that maps the room in `odom`, its stereo camera, and TF that says where it stands."""

    def __init__(self, client, start):
        self.client = client
        process = start('-r', '__ns:=/r', '-p', 'map_frame:=odom', *EVERY_PAIR, program='room_node.py')
        process.wait_for('waiting for')
        for topic in ('/r/gsemsplat/gaussians', MAP):
            client.listen(PointCloud2, topic)
        self.stereo = Stereo(client, '/r')
        self._tf = client.node.create_publisher(TFMessage, '/tf_static', LATCHED)

    def stand(self, pose):
        """TF says that the camera stands at `pose` (4, 4)."""
        w, x, y, z = rotation_to_quat(pose[:3, :3]).tolist()
        place = Transform(
            translation=Vector3(**dict(zip('xyz', pose[:3, 3].tolist()))),
            rotation=Quaternion(w=w, x=x, y=y, z=z),
        )
        transform = TransformStamped(
            header=make_header('odom', 1), child_frame_id='left_optical', transform=place
        )
        self._tf.publish(TFMessage(transforms=[transform]))

    def along(self, color, poses=POSES):
        """See the room from all `poses`, in images of a colour; the newest map then."""
        for pose in poses:
            self.stand(np.asarray(pose))
            self.client.until(lambda: self._tf.get_subscription_count(), 'a listener of TF')
            cloud = self.stereo.scene(left=picture(color))
        stamp = cloud.header.stamp.sec
        heard = self.client.heard[MAP]
        return self.client.until(
            lambda: heard and heard[-1].header.stamp.sec >= stamp and heard[-1], 'the map'
        )
