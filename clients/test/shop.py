import json, shlex, subprocess, sys, tempfile, urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "program/tests/accept"))
import rig


class Shop:
    """The order service and its executions: behind the tower layer, or bare, for a proxy."""

    def __init__(self, command, bare=False):
        self.store = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen([*shlex.split(command), *([] if bare else [self.store.name])], text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.url = self.process.stdout.readline().strip()
        self.address = ("127.0.0.1", int(self.url.rsplit(":", 1)[1]))

    def executed(self, path="/orders"):
        with urllib.request.urlopen(self.url + "/count") as answer:
            return [(key, body) for at, key, body in json.load(answer) if at == path]

    def kill(self):
        self.process.kill()
        self.process.wait()


class Proxied(Shop):
    """The same service without the layer, behind `oncekey proxy`."""

    def __init__(self, command):
        super().__init__(command, bare=True)
        self.proxy = rig.Proxy([self.address[1]], rig.store())
        self.address = ("127.0.0.1", self.proxy.port)
        self.url = "http://127.0.0.1:%d" % self.proxy.port

    def kill(self):
        self.proxy.kill()
        super().kill()
