# SPDX-License-Identifier: Apache-2.0
"""The server under test: started, killed and started again on the same ports; each run has a
number, its generation, which the next hop sees in EHLO."""
import os
import random
import re
import signal
import string
import subprocess
import time

from devkit import procs

HERE = os.path.dirname(os.path.abspath(__file__))
PORTS = random.SystemRandom()


# An address of loopback that no other program uses: while a server or the next hop is down, nobody
# who looks for a free port on 127.0.0.1 gets theirs.
ADDRESS = "127." + ".".join(str(PORTS.randrange(1, 255)) for _ in range(3))


def quiet_port():
    """A free port outside the range that the kernel takes for outgoing connections, so that a
    client cannot connect to itself on it."""
    for _ in range(1000):
        port = PORTS.randrange(20000, 32000)
        if port not in given and procs.can_bind(port, ADDRESS):
            given.add(port)
            return port
    raise procs.Failed("no free port between 20000 and 32000")


given = set()  # by quiet_port


class Run:
    """One life of the server."""

    def __init__(self, generation, start):
        self.generation, self.start = generation, start
        self.end = None     # when it was killed or told to end
        self.how = None     # "kill" or "term"
        self.frozen = []    # (SIGSTOP, SIGCONT)
        self.ready = None   # seconds from start to listening
        self.failing = False  # what the next hop had taken could not be written down for a while


class Koukan:
    """`koukan serve` in a folder.  `runs` says when each generation lived."""

    generations = 0  # shared: replicas of one database need different numbers

    def __init__(self, binary, folder, url, sink_port, **values):
        self.binary, self.folder = binary, folder
        os.makedirs(folder, exist_ok=True)
        self.values = {
            "gateway_port": quiet_port(), "router_port": quiet_port(), "mx_port": quiet_port(),
            "msa_port": quiet_port(), "sink_port": sink_port, "url": url, "log_level": "info",
            "address": ADDRESS,
            "spill_dir": os.path.join(folder, "spill"), "session_refresh": 1, **values}
        os.makedirs(self.values["spill_dir"], exist_ok=True)
        self.runs = []
        self.server = None
        self.pid = None
        self.wrapped = False

    @property
    def mx(self):
        return self.values["mx_port"]

    @property
    def msa(self):
        return self.values["msa_port"]

    @property
    def rest(self):
        return f"http://{ADDRESS}:{self.values['router_port']}"

    def config(self, name):
        with open(os.path.join(HERE, "config", name), encoding="utf-8") as file:
            text = string.Template(file.read()).substitute(self.values)
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def start(self, wrapper=(), env=None, wait=True):
        """`wrapper`: a command in front, such as strace."""
        Koukan.generations += 1
        self.values["generation"] = Koukan.generations
        self.runs.append(Run(Koukan.generations, time.monotonic()))
        self.wrapped = bool(wrapper)
        argv = [*wrapper, self.binary, "serve", self.config("gateway.yaml"),
                self.config("router.yaml")]
        self.server = procs.Server("serve", argv[0], argv[1:], self.folder, env=env)
        self.pid = self.server.pid
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, seconds=20.0):
        self.server.wait_ready(seconds)
        self.runs[-1].ready = time.monotonic() - self.runs[-1].start

    def note_end(self, how):
        run = self.runs[-1]
        if run.end is None:
            run.end, run.how = time.monotonic(), how

    def is_alive(self):
        return self.server is not None and self.server.is_alive()

    def signal(self, number):
        """To the server itself: strace would only let go of it."""
        if not self.wrapped:
            self.server.signal(number)
            return
        for child in procs.children(self.pid):
            try:
                os.kill(child, number)
            except ProcessLookupError:
                pass

    def kill(self):
        if self.is_alive():
            self.signal(signal.SIGKILL)
        self.server.finish()
        self.note_end("kill")

    def end(self, seconds=30.0):
        """SIGTERM; (exit code, seconds).  The code is None when it had to be killed."""
        begin = time.monotonic()
        self.signal(signal.SIGTERM)
        try:
            code = self.server.popen.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            code = None
        self.note_end("term" if code == 0 else "kill")
        return code, time.monotonic() - begin

    def release_held(self):
        """What died with ten processes in a row is held for an operator, who is us; how many."""
        done = subprocess.run([self.binary, "queue", "release", "--state", "held", "--url",
                               self.rest], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=60, check=False)
        found = re.search(rb"release: (\d+) done", done.stdout)
        return int(found.group(1)) if found else 0

    def close(self):
        if self.is_alive():
            self.end()

    def log(self, *words):
        """Lines of the log that contain all words."""
        try:
            with open(self.server.err_path, encoding="utf-8", errors="replace") as file:
                return [line.rstrip() for line in file if all(word in line for word in words)]
        except FileNotFoundError:
            return []

    def slowest_start(self):
        return max((run.ready for run in self.runs if run.ready is not None), default=0.0)
