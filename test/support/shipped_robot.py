"""A robot with the real node and the shipped network, as processes of their own."""

from gsemsplat_msgs.msg import Status
from gsemsplat_msgs.srv import Query

from gsemsplat_ros.ros.client.player import Player, stereo_messages
from gsemsplat_ros.ros.qos import LATCHED

WITHIN_S = 120.0


class Robot:
    """A node, a stereo camera, and the newest status."""

    def __init__(self, client, node, pair):
        """pair: of the camera, which the node gets to know by it."""
        self.client, self.node, self.status = client, node, Status()
        client.node.create_subscription(Status, '/gsemsplat/status', self._on_status, LATCHED)
        self.player = Player(client, lambda: node.alive, node.last_words)
        self.player.wait_for_node(stereo_messages(pair, 10**9))

    def _on_status(self, status):
        self.status = status

    def until(self, condition, what):
        done = self.client.until(lambda: condition() or not self.node.alive, WITHIN_S)
        assert done and self.node.alive, f'waited in vain for {what}: {self.node.last_words()}'

    def sees(self, pair, stamp):
        """The status once the scene of this pair is in the map, or left out."""
        before = self.status.map_scenes + self.status.scenes_left_out
        self.player.play(stereo_messages(pair, stamp))
        self.until(lambda: self.status.map_scenes + self.status.scenes_left_out > before, 'the map')
        return self.status

    def call(self, kind, name, request):
        future = self.client.node.create_client(kind, name).call_async(request)
        self.until(future.done, name)
        assert future.result().success, future.result().message
        return future.result()

    def finds(self, text):
        """The best object of that name."""
        response = self.call(Query, '/query', Query.Request(text=text))
        assert response.found, response.message
        return response.objects[0]
