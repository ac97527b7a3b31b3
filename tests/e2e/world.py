# SPDX-License-Identifier: Apache-2.0
"""A `World` is one test's servers, next hop, receiver and scratch folder.

KOUKAN names the binary under test (default: the newest of build/*/koukan), KOUKAN_RELEASE the
release binary, against which alone times and sizes are asserted."""
import glob
import os
import re
import string
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tools"))
sys.dont_write_bytecode = True

from devkit import procs  # noqa: E402
from hop import Hop  # noqa: E402

SANITIZER_REPORT = re.compile(
    r"ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|: runtime error: "
    r"|SUMMARY: \w+Sanitizer|assertion failed", re.I)


def find_binary(variable, pattern):
    if os.environ.get(variable):
        return os.environ[variable]
    found = sorted(glob.glob(os.path.join(ROOT, "build", pattern, "koukan")), key=os.path.getmtime)
    return found[-1] if found else None


BINARY = find_binary("KOUKAN", "*")
RELEASE = find_binary("KOUKAN_RELEASE", "release")


DEFAULTS = {
    "workers": 2, "log_level": "debug", "body_memory": 65536, "message_max": 33554432,
    "rcpt_max": 1000, "max_attempts": 30, "smtp_timeout": 30,
    "exploder_rcpt_timeout": 10,
}


class World:
    """Servers of one test.  `mode` is "serve" (one process) or "two" (gateway and router)."""

    def __init__(self, folder, binary=None, **values):
        self.folder = str(folder)
        self.binary = binary or BINARY
        self.procs = []
        self.servers = []
        self.hops = []
        self.values = dict(
            DEFAULTS, router_port=procs.free_port(), gateway_port=procs.free_port(),
            receiver_port=procs.free_port(), sink_port=procs.free_port(),
            state_dir=self.make("state"), spill_dir=self.make("spill"))
        self.values.update(values)

    # ---- files ----

    def make(self, name):
        path = os.path.join(self.folder, name)
        os.makedirs(path, exist_ok=True)
        return path

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def config(self, name, edit=None):
        """A filled-in copy of config/NAME; `edit` may change the text."""
        with open(os.path.join(HERE, "config", name), encoding="utf-8") as file:
            text = string.Template(file.read()).substitute(self.values)
        return self.write(name, edit(text) if edit else text)

    # ---- processes ----

    def start_proc(self, name, *arguments, **keywords):
        proc = procs.Proc(name, [self.binary, *arguments], self.folder, **keywords)
        self.procs.append(proc)
        return proc

    def start_server(self, name, *arguments, wait=True):
        server = procs.Server(name, self.binary, list(arguments), self.folder)
        self.procs.append(server)
        self.servers.append(server)
        if wait:
            server.wait_ready()
        return server

    def start(self, mode="serve", edit_gateway=None, edit_router=None):
        gateway = self.config("gateway.yaml", edit_gateway)
        router = self.config("router.yaml", edit_router)
        if mode == "serve":
            self.smtp_server = self.router_server = self.start_server("serve", "serve", gateway,
                                                                      router)
        else:
            self.router_server = self.start_server("router", "router", router)
            self.smtp_server = self.start_server("gateway", "gateway", gateway)
        return self

    def hop(self, **behaviour):
        """A scripted next hop on the sink's port."""
        hop = Hop(self.values["sink_port"], **behaviour)
        self.hops.append(hop)
        return hop

    def sink(self, *arguments):
        """The product's own sink there; messages go to the folder `sink`."""
        proc = self.start_proc("sink", "sink", str(self.values["sink_port"]), "--dir",
                               self.make("sink"), *arguments)
        proc.wait_listening()
        return proc

    def receiver(self):
        proc = self.start_proc("receiver", "receiver", "--listen",
                               f"127.0.0.1:{self.values['receiver_port']}", "--dir",
                               self.make("received"))
        proc.wait_listening()
        return proc

    # ---- addresses ----

    @property
    def ingress(self):
        return self.smtp_server.smtp_port("smtp-mx")

    @property
    def submission(self):
        return self.smtp_server.smtp_port("smtp-msa")

    @property
    def router_url(self):
        return f"http://127.0.0.1:{self.values['router_port']}"

    # ---- the end ----

    def stop_servers(self):
        """SIGTERM to the servers, first the gateway; each must end with 0."""
        for server in reversed(self.servers):
            if server.is_alive():
                assert server.stop() == 0, server.tail()
        self.servers = []

    def close(self):
        problems = []
        for proc in reversed(self.procs):
            try:
                if proc.is_alive():
                    code = proc.stop()
                    if code != 0:
                        problems.append(f"{proc.name}: exit code {code}\n{proc.tail()}")
            except procs.Failed as error:
                problems.append(str(error))
        for hop in self.hops:
            hop.close()
        for proc in self.procs:
            found = SANITIZER_REPORT.search(proc.err())
            if found:
                text = proc.err()
                problems.append(f"{proc.name}: sanitizer or assertion report\n"
                                + text[max(0, found.start() - 500):found.start() + 6000])
        assert not problems, "\n".join(problems)

    def report(self):
        """What pytest prints when the test fails."""
        return "\n".join(f"--- {proc.name} (exit code {proc.popen.poll()})\n{proc.out()[-1500:]}"
                         f"{proc.err()[-5000:]}" for proc in self.procs)
