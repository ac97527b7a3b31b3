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


def sql(url, text):
    """Rows of one statement, their columns separated by |."""
    done = subprocess.run([os.path.join(BINARIES[-1], "psql"), "-X", "-A", "-t", "-c", text, url],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True)
    return done.stdout.decode().splitlines()


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


def test_service_uri_is_for_all_session_uri_for_one(pair):
    """What only one replica can serve is named by its session_uri, a finished body by the
    service_uri: any replica takes it by reference."""
    def behind_balancer(edit):
        return lambda text: edit(text).replace("  session_uri: http", "  service_uri: "
                                               "http://balancer.example:8000\n  session_uri: http")
    mark = token()
    pair.edit = behind_balancer(pair.edit)
    a, b = pair.start()  # without a next hop: it is deferred
    location = tool.submit(a, mark, "bob@one.example")
    assert location.startswith(a.router_url + "/transactions/")
    tool.wait_attempts(a, location)
    hop = pair.worlds[0].hop()
    with Rest(b.router_url) as rest:
        body = rest.get(paths(location)).json["body"]["blob_status"]
        assert body["finalized"] and body["uri"].startswith(
            "http://balancer.example:8000" + paths(location))
        again = rest.create("submission", mail_from={"m": "alice@example.com"},
                            rcpt_to=[{"m": "carol@two.example"}],
                            body={"reuse_uri": body["uri"]}).headers["location"]
        assert again.startswith(b.router_url + "/transactions/")
    assert "carol@two.example" in hop.wait_for(mark).rcpts[0]


def test_unsafe_settings_are_logged(pair, database):
    sql(database, "ALTER SYSTEM SET fsync = off")
    sql(database, "ALTER SYSTEM SET full_page_writes = off")
    sql(database, "SELECT pg_reload_conf()")
    procs.wait_until(lambda: sql(database, "SHOW full_page_writes") == ["off"], "the new settings")
    world = pair.worlds[0]
    world.start(edit_router=pair.edit)
    lines = [line for line in world.router_server.err().splitlines() if "store.unsafe" in line]
    assert len(lines) == 2 and all(" error " in line for line in lines), lines
    assert "fsync=off" in lines[0] + lines[1]
    assert "full_page_writes is off" in lines[0] + lines[1]


def test_safe_settings_are_not(pair):
    world = pair.worlds[0]
    world.start(edit_router=pair.edit)
    assert "store.unsafe" not in world.router_server.err()


def store(world, *arguments):
    done = subprocess.run([world.binary, "store", *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=120, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_store_commands(pair, database):
    world = pair.worlds[0]
    code, _, text = store(world, "check", database)
    assert code == 1 and "koukan store init" in text
    for _ in range(2):
        code, text, _ = store(world, "init", database)
        assert code == 0 and "up to date" in text
    code, text, _ = store(world, "check", database)
    assert code == 0 and "schema version: 3" in text and "queued: 0" in text

    # An older one: nobody starts on it, until it is migrated with the routers stopped.
    sql(database, "DROP TABLE koukan.idem; UPDATE koukan.meta SET version=1")
    config = world.config("router.yaml", pair.edit)
    router = world.start_proc("router", "router", config)
    assert router.popen.wait(timeout=30) == 1
    assert "stop the routers that use it, then run koukan store migrate" in router.err()
    world.procs.remove(router)
    assert store(world, "check", database)[0] == 1
    assert store(world, "migrate", database)[0] == 0
    hop = world.hop()
    world.start(edit_router=pair.edit)
    mark = token()
    tool.submit(world, mark, "bob@one.example")
    hop.wait_for(mark)
    # Not under a router.
    sql(database, "UPDATE koukan.meta SET version=1")
    code, _, text = store(world, "migrate", database)
    assert code == 1 and "1 router(s) use the database" in text
    sql(database, "UPDATE koukan.meta SET version=3")

    # A newer one: hands off.
    world.stop_servers()
    sql(database, "UPDATE koukan.meta SET version=77")
    code, _, text = store(world, "migrate", database)
    assert code == 1 and "version 77" in text and "newer program" in text
    router = world.start_proc("router", "router", config)
    assert router.popen.wait(timeout=30) == 1
    assert "a newer program made it" in router.err()
    world.procs.remove(router)


def test_frozen_replica_does_not_stop_the_other(pair):
    """Frozen at any moment, also inside of a transaction: what the other one stores for the same
    destination is refused for moments at most."""
    a, b = pair.start()
    hop = pair.worlds[0].hop(on_data=lambda _message: time.sleep(0.05))
    end = threading.Event()

    def traffic():  # claims of a, one after the other
        while not end.is_set():
            try:
                tool.submit(a, token(), "bob@one.example")
            except Exception:  # it is frozen
                return
    thread = threading.Thread(target=traffic, daemon=True)
    thread.start()
    time.sleep(1)
    a.router_server.signal(signal.SIGSTOP)
    try:
        begin = time.monotonic()
        mark = token()
        with Rest(b.router_url) as rest:
            procs.wait_until(lambda: rest.call(
                "POST", "/senders/submission/transactions",
                {"mail_from": {"m": "alice@example.com"}, "rcpt_to": [{"m": "bob@one.example"}],
                 "body": {"inline": f"Subject: test {mark}\r\n\r\n"}}).status == 201,
                "b to accept", 10)
        hop.wait_for(mark)
        assert time.monotonic() - begin < 12
    finally:
        end.set()
        a.router_server.signal(signal.SIGCONT)
    thread.join(20)
