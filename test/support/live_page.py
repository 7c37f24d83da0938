"""The live page with known Gaussians and answers."""

import threading
from dataclasses import replace

import torch
from support.page_visitor import Visitor

from gsemsplat_ros.gaussians.gaussians import Gaussians
from gsemsplat_ros.live import shown_scene as scenes
from gsemsplat_ros.live.page_answer import answered_by_boxes
from gsemsplat_ros.live.server import ViewServer
from gsemsplat_ros.live.shared_state import SharedState
from gsemsplat_ros.semantics.answer import Answer
from gsemsplat_ros.semantics.object_history import History, State
from gsemsplat_ros.semantics.objects import Object

DEADLINE_S = 60.0
THRESHOLD = 0.65  # of answers for which no threshold was set


EVIL = (
    '<script>document.title="broken"</script><img src=x onerror=alert(1)> '
    '[a](javascript:alert(1)) **b** & "q"'
)


CHAIR = Object((0.0, 0.25, 2.0), (0.5, 1.0, 0.25), 0.9)


def some(count=300, codes=4, frame='cam', seed=0):
    """Random Gaussians 1 to 4 m in front of a camera."""
    rng = torch.Generator().manual_seed(seed)
    z = 1 + 3 * torch.rand(count, generator=rng)
    means = torch.stack(
        [z * (torch.rand(count, generator=rng) - 0.5), z * (torch.rand(count, generator=rng) - 0.5), z], 1
    )
    quats = torch.nn.functional.normalize(torch.randn(count, 4, generator=rng), dim=1)
    return Gaussians(
        means,
        quats,
        0.01 + 0.02 * torch.rand(count, 3, generator=rng),
        0.2 + 0.8 * torch.rand(count, generator=rng),
        torch.rand(count, 3, generator=rng),
        torch.randn(count, codes, generator=rng),
        frame,
    )


THINGS = {'chair': (CHAIR,), 'door': (Object((-0.5, 0.0, 3.0), (0.3, 0.6, 0.3), 0.8), CHAIR)}
S = 10**9
KNOWN = replace(CHAIR, history=History(7, State.THERE, (('stool', 0.9),), S, 40 * S, 3))
GONE = replace(CHAIR, history=History(4, State.GONE, (('stool', 0.9),), S, 20 * S, 5, 30 * S))


class Served:
    """A page with a scene and known answers; the query 'slow' waits for `release`, 'boom' fails, 'stool' is
    of a map, where another one has gone."""

    def __init__(self, count=2000):
        self.shared, self.release, self.asked = SharedState(4), threading.Event(), []
        self.shown = scenes.shown_from_camera('a room', some(count), 100_000, True)
        self.shared.write(shown=self.shown, ask=self.ask)
        self.server = ViewServer(self.shared, port=0)
        self.visitors = []

    def ask(self, text, threshold):
        self.asked.append((text, threshold))
        if text == 'slow':
            self.release.wait(DEADLINE_S)
        if text == 'boom':
            raise RuntimeError('a fault of ours')
        objects = (KNOWN,) if text == 'stool' else THINGS.get(text, ())
        score, gone = 0.9 if objects else 0.1, (GONE,) if text == 'stool' else ()
        answer = Answer(
            text, threshold or THRESHOLD, bool(objects), score, (0.0, 0.0, 1.0), None, objects, gone=gone
        )
        return answered_by_boxes(answer, self.shared.state.shown, 0.01, stamp_ns=50 * S)

    def visitor(self, **camera):
        self.visitors.append(Visitor(self.server.port, **camera))
        return self.visitors[-1]

    def close(self):
        self.release.set()
        for visitor in self.visitors:
            visitor.close()
        self.server.close()
        self.shared.close()
