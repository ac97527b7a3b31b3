# SPDX-License-Identifier: Apache-2.0
"""The queue under its operator, under a dead destination, under a poison message; its clean-up."""
import json
import os
import re
import sqlite3
import subprocess
import threading
import time

import pytest

import queue_tool as tool
from devkit import procs
from hop import Hop
from mail import ALICE, Rest, token

ELSEWHERE = "carol@elsewhere.example.net"


@pytest.fixture
def down(world):
    """A router that has nobody to deliver to, and retries far away."""
    world.start(edit_router=tool.slow_retries)
    return world


# ---- the operator ----

def test_list_show_stats(down):
    assert tool.rows(down) == []
    first = tool.submit(down, token(), "bob@one.example")
    second = tool.submit(down, token(), "bob@two.example", mail_from="other@sender.example")
    for location in (first, second):
        tool.wait_attempts(down, location)
    found = tool.rows(down)
    assert [row["id"] for row in found] == [tool.name_of(first), tool.name_of(second)]
    row = found[0]
    assert (row["state"], row["from"], row["to"], row["destination"], row["attempts"]) == \
        ("queued", ALICE, "bob@one.example", "one.example", 1)
    assert row["next_attempt"] >= row["created"] + 90 and row["final_reason"] is None
    for filters, want in [(["--to", "bob@two.example"], [second]), (["--to", "@one.example"], [first]),
                          (["--from", "other@sender.example"], [second]),
                          (["--destination", "one.example"], [first]),
                          (["--state", "held"], []), (["--state", "any"], [first, second]),
                          (["--older-than", "1h"], []), (["--limit", "1"], [first])]:
        assert [row["id"] for row in tool.rows(down, *filters)] == \
            [tool.name_of(location) for location in want], filters
    table = tool.run(down, "list").splitlines()
    assert table[0].split() == ["ID", "STATE", "AGE", "TRIES", "NEXT", "FROM", "TO", "REASON"]
    assert len(table) == 3 and "bob@two.example" in table[2] and re.search(r" in \d+s ", table[1])
    shown = tool.show(down, tool.name_of(first))
    assert shown["responses"]["mail_response"]["code"] // 100 == 4
    assert shown["request"]["rcpt_to"] == [{"m": "bob@one.example"}]
    assert re.search(r"MAIL +4\d\d ", tool.run(down, "show", tool.name_of(first)))
    counts = tool.stats(down)
    assert (counts["queued"], counts["leased"], counts["held"], counts["active"]) == (2, 0, 0, 0)
    assert {entry["destination"]: entry["queued"] for entry in counts["destinations"]} == \
        {"one.example": 1, "two.example": 1}
    assert 0 <= counts["oldest_age"] <= time.time() - row["created"] + 1
    assert "two.example" in tool.run(down, "stats")


def test_retry_and_cancel(down):
    marks = {domain: token() for domain in ("one.example", "two.example", "three.example")}
    where = {domain: tool.submit(down, mark, f"bob@{domain}") for domain, mark in marks.items()}
    for location in where.values():
        tool.wait_attempts(down, location)
    hop = down.hop()
    assert "cancel: 1 done" in tool.run(down, "cancel", tool.name_of(where["three.example"]))
    assert "retry: 1 done" in tool.run(down, "retry", "--destination", "one.example")
    hop.wait_for(marks["one.example"])
    assert not hop.with_text(marks["two.example"])
    done = json.loads(tool.run(down, "retry", "--all", "--json"))
    assert done["failed"] == 0 and tool.name_of(where["two.example"]) in done["done"]
    hop.wait_for(marks["two.example"])
    with Rest(down.router_url) as rest:
        tx = rest.final(where["three.example"])
        assert tx["final_attempt_reason"] == "downstream cancelled"
        assert rest.final(where["two.example"])["final_attempt_reason"] == "upstream response success"
    assert not hop.with_text(marks["three.example"])
    assert tool.rows(down) == []
    assert "final already" in tool.run(down, "cancel", tool.name_of(where["three.example"]), code=1)
    assert "409" in tool.run(down, "retry", tool.name_of(where["two.example"]), code=1)


def test_hold_and_release(down):
    mark, other = token(), token()
    location = tool.submit(down, mark, "bob@one.example")
    free = tool.submit(down, other, "bob@two.example")
    for where in (location, free):
        tool.wait_attempts(down, where)
    tool.run(down, "hold", tool.name_of(location), "--reason", "asked by the owner: 100 % sure")
    row = tool.show(down, tool.name_of(location))
    assert (row["state"], row["held_reason"]) == ("held", "asked by the owner: 100 % sure")
    hop = down.hop()
    tool.run(down, "retry", "--state", "queued")
    hop.wait_for(other)
    assert not hop.with_text(mark), "what is held stays"
    assert tool.stats(down)["held"] == 1
    assert "release: 1 done" in tool.run(down, "release", "--to", "@one.example")
    tool.run(down, "retry", tool.name_of(location))
    hop.wait_for(mark)


@pytest.mark.parametrize("arguments", [
    [], ["nonsense"], ["list", "x"], ["show"], ["retry"], ["cancel"], ["stats", "x"],
    ["retry", "AAx", "--all"], ["list", "--state", "none"], ["list", "--older-than", "soon"],
    ["list", "--limit", "0"], ["retry", "AAx", "--reason", "r"], ["list", "--nonsense"],
])
def test_wrong_usage(world, arguments):
    done = subprocess.run([world.binary, "queue", *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=20, check=False)
    assert done.returncode == 2 and done.stderr and not done.stdout


def test_clear_errors(world):
    assert "no answer" in tool.run(world, "list", code=1, url="http://127.0.0.1:1")
    world.start()
    assert "no such transaction" in tool.run(world, "show", "AAnobody", code=1)
    assert "no administration" in tool.run(world, "stats", code=1,
                                           url=f"http://127.0.0.1:{world.values['gateway_port']}")
    done = subprocess.run([world.binary, "queue", "--help"], stdout=subprocess.PIPE, timeout=20,
                          check=True)
    assert b"koukan queue list" in done.stdout


# ---- the routes ----

def test_routes(world):
    world.start()
    with Rest(world.router_url) as rest:
        assert (rest.call("GET", "/healthz").status, rest.call("GET", "/readyz").status) == (200, 200)
        for query, status in [("", 200), ("?limit=5", 200), ("?limit=0", 400), ("?state=x", 400),
                              ("?to=%zz", 400), ("?what=1", 400), ("?after=AAnobody", 404)]:
            assert rest.call("GET", "/admin/v1/transactions" + query).status == status, query
        assert rest.call("DELETE", "/admin/v1/queue").status == 405
        assert rest.call("POST", "/admin/v1/transactions/AAx/nonsense").status == 404
        for action in ("retry", "hold", "release", "cancel"):
            answer = rest.call("POST", f"/admin/v1/transactions/AAx/{action}")
            assert (answer.status, answer.body) == (404, b"no such transaction\n"), action
        assert rest.call("GET", "/admin/v1/queue", origin="http://evil.example").status == 403
    with Rest(f"http://127.0.0.1:{world.values['gateway_port']}") as rest:
        assert rest.call("GET", "/healthz").status == 200
        assert rest.call("GET", "/admin/v1/queue").status == 404


@pytest.mark.parametrize("allowed", [False, True])
def test_not_on_public_listeners(world, allowed):
    def edit(text):
        text = text.replace('addr: ["127.0.0.1"', 'addr: ["0.0.0.0"')
        text = text.replace("koukan:\n", "koukan:\n  rest: {allow_unauthenticated: true}\n")
        return text.replace("koukan:\n", "koukan:\n  admin: true\n") if allowed else text
    world.start(edit_router=edit)
    with Rest(world.router_url) as rest:
        assert rest.call("GET", "/admin/v1/queue").status == (200 if allowed else 404)
        assert rest.call("GET", "/metrics").status == (200 if allowed else 404)
        assert rest.call("GET", "/readyz").status == 200


# ---- fairness ----

@pytest.mark.threads
def test_stuck_destination_does_not_delay_others(world):
    """Twelve messages go to a host that never answers; the places it may take are four."""
    stuck = Hop(on_mail=lambda _address: time.sleep(3600) or Hop.DROP)
    try:
        def edit(text):
            text = tool.slow_retries(text).replace("koukan:\n", "koukan:\n  per_destination: 4\n")
            return text.replace("""  - filter: router
    policy:
      name: dest_domain
""", f"""  - filter: router
    policy:
      name: address_list
      domains: [stuck.example]
      destination:
        endpoint: gateway
        host_list:
        - host: 127.0.0.1
          port: {stuck.port}
  - filter: router
    policy:
      name: dest_domain
""", 1)
        world.start(edit_router=edit)
        hop = world.hop()
        marks = [token() for _ in range(8)]
        stuck_ones = [tool.submit(world, token(), f"u{i}@stuck.example") for i in range(12)]
        procs.wait_until(lambda: stuck.sessions >= 1, "the stuck hop to be asked")
        for i, mark in enumerate(marks):
            tool.submit(world, mark, f"u{i}@fine{i}.example")
        for mark in marks:
            hop.wait_for(mark, 20)
        # And after a restart, when all comes out of the queue.
        world.router_server.kill()
        world.procs.remove(world.router_server)
        world.servers.remove(world.router_server)
        more = [token() for _ in range(8)]
        before = stuck.sessions
        world.start(edit_router=edit)
        for i, mark in enumerate(more):
            tool.submit(world, mark, f"v{i}@fine{i}.example")
        for mark in more:
            hop.wait_for(mark, 20)
        procs.wait_until(lambda: stuck.sessions > before, "the stuck hop to be asked again")
        counts = {entry["destination"]: entry for entry in tool.stats(world)["destinations"]}
        assert counts["stuck.example"]["leased"] <= 4
        assert counts["stuck.example"]["queued"] >= len(stuck_ones) - 4
        world.router_server.kill()
        world.procs.remove(world.router_server)
        world.servers.remove(world.router_server)
    finally:
        stuck.close()


# ---- clean-up ----

def test_garbage_collection(world):
    hop = world.hop()
    world.start(edit_router=lambda text: tool.slow_retries(text) +
                "\nstorage:\n  gc_interval: 0.2\n  gc_ttl: 1\n  cache_ttl: 1\n")
    mark, waits = token(), token()
    location = tool.submit(world, mark, "bob@one.example")
    hop.wait_for(mark)
    hop.on_mail = lambda _address: "451 4.3.0 later"
    kept = tool.submit(world, waits, "bob@two.example")
    tool.wait_attempts(world, kept)
    with Rest(world.router_url) as rest:
        procs.wait_until(lambda: rest.get(location).status == 404, "the collection")
        assert rest.call("PUT", location + "/body", b"x").status == 404
        assert rest.call("POST", location + "/cancel").status == 200
        assert rest.get(kept).status == 200, "what waits for a retry is not collected"
    hop.on_mail = None
    tool.run(world, "retry", "--all")
    hop.wait_for(waits)
    procs.wait_until(lambda: tool.rows(world, "--state", "any") == [], "an empty store")


# ---- poison ----

def test_poison_is_set_aside(world):
    """Whoever tries this one dies; after ten deaths it is held, and everything else flows."""
    poison, fine = token(), token()
    deaths = []

    def on_rcpt(address):
        if address == "poison@one.example":
            deaths.append(time.monotonic())
            world.procs[-1].popen.kill()  # the newest: it may not be known to be ready yet
            time.sleep(0.2)
            return Hop.DROP
        return None
    hop = world.hop(on_rcpt=on_rcpt)
    world.start()
    location = tool.submit(world, poison, "poison@one.example")
    for _ in range(14):
        try:
            world.router_server.popen.wait(timeout=6)
        except subprocess.TimeoutExpired:
            break
        world.procs.remove(world.router_server)
        world.servers.remove(world.router_server)
        world.start()
    assert world.router_server.is_alive(), "it still dies"
    assert 10 <= len(deaths) <= 12
    row = tool.show(world, tool.name_of(location))
    assert row["state"] == "held" and "crash" in row["held_reason"]
    tool.submit(world, fine, "bob@one.example")
    hop.wait_for(fine)
    assert "queue.set_aside" in world.router_server.err()


# ---- the database by hand ----

def test_store_commands(world, tmp_path):
    def run(*arguments):
        return subprocess.run([world.binary, "store", *arguments], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=60, check=False)
    path = str(tmp_path / "by-hand.db")
    assert run("init", path).returncode == 0
    assert run("migrate", path).returncode == 0
    assert run("check", path).returncode == 0
    with open(path, "r+b") as file:
        file.write(b"no database")
    broken = run("check", path)
    assert broken.returncode == 1 and broken.stderr
    for arguments in ([], ["init"], ["nonsense", path], ["check", path, path], ["check", "-x"]):
        assert run(*arguments).returncode == 2, arguments
    assert run("--help").returncode == 0


def refuses_to_start(world, *argv):
    """What the router says when it does not start."""
    done = subprocess.run([*argv, world.binary, "router", world.config("router.yaml")],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 1, done
    text = done.stderr.decode()
    assert "cannot start" in text and "server.ready" not in text, text
    return text


def test_start_on_a_newer_schema(world):
    world.start()
    world.stop_servers()
    path = os.path.join(world.values["state_dir"], "koukan.db")
    with sqlite3.connect(path) as database:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        database.execute(f"PRAGMA user_version={version + 1}")
    database.close()
    text = refuses_to_start(world)
    assert "koukan.db" in text and str(version + 1) in text and "newer" in text, text


READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_start_on_a_read_only_file_system(world):
    world.start()
    world.stop_servers()
    text = refuses_to_start(world, "unshare", "--mount", "sh", "-c", READ_ONLY, "sh",
                            world.values["state_dir"])
    assert "koukan.db" in text and "Read-only file system" in text, text


# ---- cancel ----

@pytest.mark.threads
def test_cancel_races_a_slow_delivery(world):
    """A cancel that comes while the next hop thinks about the dot: what the client is told is what
    the next hop has."""
    hop = world.hop(on_data=lambda _message: time.sleep(0.3))
    world.start(edit_router=tool.slow_retries)
    outcomes = {}

    def one(i):
        mark = token()
        location = tool.submit(world, mark, f"u{i}@one.example")
        time.sleep(0.05 * i)
        with Rest(world.router_url) as rest:
            assert rest.call("POST", location + "/cancel").status == 200
            outcomes[mark] = rest.final(location)["final_attempt_reason"]
    threads = [threading.Thread(target=one, args=(i,)) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(0.5)
    assert len(outcomes) == 10
    for mark, reason in outcomes.items():
        want = "upstream response success" if hop.with_text(mark) else "downstream cancelled"
        assert reason == want, mark


def test_cancel_of_a_hanging_attempt(world):
    world.hop(on_data=lambda _message: time.sleep(60) or Hop.DROP)
    world.start(edit_router=tool.slow_retries)
    location = tool.submit(world, token(), "bob@one.example")
    time.sleep(0.5)
    with Rest(world.router_url) as rest:
        start = time.monotonic()
        assert rest.call("POST", location + "/cancel").status == 200
        assert time.monotonic() - start < 12
        assert rest.final(location)["final_attempt_reason"] == "downstream cancelled"
