# SPDX-License-Identifier: Apache-2.0
"""Two routers on one PostgreSQL: who holds a transaction, and what happens when that one stops."""
import glob
import os
import pwd
import shutil
import signal
import subprocess
import threading
import time

import pytest

import queue_tool as tool
from conftest import World
from devkit import procs
from mail import Rest, token

BINARIES = sorted(glob.glob("/usr/lib/postgresql/*/bin"))


def as_user(folder):
    """PostgreSQL does not run as root."""
    if os.getuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


@pytest.fixture
def database():
    """The URL of an empty database on a Unix socket."""
    if not BINARIES:
        pytest.skip("no PostgreSQL server here")
    folder = f"/tmp/koukan-pg-{token()}"
    os.mkdir(folder)
    user = as_user(folder)
    data = os.path.join(folder, "data")
    subprocess.run([os.path.join(BINARIES[-1], "initdb"), "-D", data, "-U", "koukan", "-A", "trust",
                    "-E", "UTF8", "--no-sync"], stdout=subprocess.DEVNULL, check=True, cwd=folder,
                   **user)
    server = subprocess.Popen([os.path.join(BINARIES[-1], "postgres"), "-D", data, "-k", folder,
                               "-h", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              cwd=folder, **user)
    ready = [os.path.join(BINARIES[-1], "pg_isready"), "-q", "-h", folder]
    try:
        procs.wait_until(lambda: subprocess.run(ready, check=False).returncode == 0, "PostgreSQL")
        yield f"postgresql://koukan@/postgres?host={folder}"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


class Pair:
    """Two of everything but the next hop and the database."""

    def __init__(self, tmp_path, url):
        self.worlds = []
        for name in ("a", "b"):
            os.makedirs(tmp_path / name)
            world = World(tmp_path / name)
            if self.worlds:
                world.values["sink_port"] = self.worlds[0].values["sink_port"]
            self.worlds.append(world)
        self.edit = lambda text: tool.slow_retries(text) + (
            f"\nstorage:\n  url: {url}\n  session_refresh_interval: 0.3\n")

    def start(self):
        for world in self.worlds:
            world.start(edit_router=self.edit)
        return self.worlds


@pytest.fixture
def pair(tmp_path, database):
    it = Pair(tmp_path, database)
    yield it
    for world in reversed(it.worlds):
        world.close()


def paths(location):
    """Without the host, so that any replica can be asked."""
    return "/transactions/" + tool.name_of(location)


def test_other_replica_redirects(pair):
    go_on = threading.Event()
    pair.worlds[0].hop(on_data=lambda _message: go_on.wait(30) and None)
    a, b = pair.start()
    location = tool.submit(a, token(), "bob@one.example")
    with Rest(b.router_url) as rest:
        procs.wait_until(lambda: rest.get(paths(location)).status == 308, "the lease to be seen")
        for method, path, headers in [("GET", "", {}), ("PATCH", "", {"if_match": "1"}),
                                      ("PUT", "/body", {}), ("POST", "/cancel", {})]:
            answer = rest.call(method, paths(location) + path, b"x" if method == "PUT" else None,
                               **headers)
            assert answer.status == 308, (method, answer.status, answer.body)
            assert answer.headers["location"] == a.router_url + paths(location) + path
        row = tool.show(b, tool.name_of(location))
        assert (row["state"], row["owner"]) == ("leased", a.router_url)
        assert a.router_url in tool.run(b, "cancel", tool.name_of(location), code=1)
        go_on.set()
        with Rest(a.router_url) as owner:
            owner.final(location)
        procs.wait_until(lambda: rest.get(paths(location)).status == 200, "the end to be seen")
        assert rest.get(paths(location)).json["final_attempt_reason"] == "upstream response success"


def test_stopped_replica_writes_nothing_over_the_other(pair):
    mark = token()
    first = threading.Event()

    def on_data(_message):
        if not first.is_set():
            first.set()
            time.sleep(12)  # until well after the other one has taken over
            return "451 4.3.0 too late"
        return None
    hop = pair.worlds[0].hop(on_data=on_data)
    a, b = pair.start()
    location = tool.submit(a, mark, "bob@one.example")
    assert first.wait(20)
    a.router_server.signal(signal.SIGSTOP)
    try:
        hop.wait_for(mark, 30)
        row = tool.wait_state(b, location, "final")
        assert row["final_reason"] == "upstream response success"
    finally:
        a.router_server.signal(signal.SIGCONT)
    procs.wait_until(lambda: "tx.lease_lost" in a.router_server.err(), "a to notice", 30)
    after = tool.show(b, tool.name_of(location))
    assert (after["state"], after["final_reason"]) == ("final", "upstream response success")
    assert len(hop.with_text(mark)) == 1
    other = token()
    tool.submit(a, other, "bob@two.example")
    hop.wait_for(other)
