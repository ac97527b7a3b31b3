# SPDX-License-Identifier: Apache-2.0
"""Start, end, crash, restart; size and speed at rest."""
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from devkit import procs
from mail import ALICE, BOB, Raw, Rest, message, submit, token
from world import BINARY, RELEASE, ROOT, World

ELSEWHERE = "carol@elsewhere.example.net"


def test_listen_info_and_ready_line(world, mode):
    world.start(mode)
    info = world.smtp_server.info
    assert info["pid"] == world.smtp_server.pid
    assert {entry["tag"] for entry in info["smtp"]} == {"smtp-mx", "smtp-msa"}
    assert {entry["endpoint"] for entry in info["smtp"]} == {"mx", "msa"}
    assert all(entry["addr"] == "127.0.0.1" and entry["port"] > 0 for entry in info["smtp"])
    assert info["rest"]["gateway"].endswith(f":{world.values['gateway_port']}")
    assert world.router_server.info["rest"]["router"] == world.router_url
    for server in world.servers:
        procs.wait_until(lambda: re.search(r"^\S+ info server\.ready\b", server.err(), re.M),
                         "the ready line", alive=server)


def test_kernel_chosen_rest_port(world):
    world.values["router_port"] = 0
    path = world.config("router.yaml", lambda text: re.sub(r"  session_uri: .*\n", "", text))
    server = world.start_server("router", "router", path)
    url = server.info["rest"]["router"]
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d+", url)
    with Rest(url) as rest:
        location = rest.create(mail_from={"m": ALICE}, rcpt_to=[{"m": ELSEWHERE}]).headers["location"]
        assert location.startswith(url + "/transactions/")
        rest.call("POST", location + "/cancel")


def test_sigterm_when_idle(world, mode):
    world.start(mode)
    start = time.monotonic()
    world.stop_servers()
    assert time.monotonic() - start < 10


def test_sigterm_says_421_to_idle_sessions(world):
    world.hop()
    world.start()
    with Raw(world.ingress) as client:
        world.smtp_server.signal(signal.SIGTERM)
        assert client.reply()[0] in (421, 0)
        assert client.is_closed()
    assert world.smtp_server.finish() == 0


def test_sigterm_between_mail_and_rcpt(world):
    """What can neither be relayed nor stored any more is refused at once, not after a deadline."""
    world.start()
    with Raw(world.submission) as client:
        assert client.command(f"MAIL FROM:<{ALICE}>")[0] == 250
        world.smtp_server.signal(signal.SIGTERM)
        procs.wait_until(lambda: "server.stopping" in world.smtp_server.err(), "the stop")
        begin = time.monotonic()
        assert client.code(f"RCPT TO:<{ELSEWHERE}>") == 451
        assert time.monotonic() - begin < 8
    assert world.smtp_server.finish() == 0


def test_sigterm_between_post_and_put(world):
    """An upload that comes when its transaction has been given up is not told 200."""
    world.start()
    with Rest(world.router_url) as rest, Raw(world.ingress) as client:
        assert client.code(f"MAIL FROM:<{ALICE}>") == 250  # holds up the end
        location = rest.create(mail_from={"m": ALICE}, rcpt_to=[{"m": ELSEWHERE}]).headers["location"]
        world.smtp_server.signal(signal.SIGTERM)
        procs.wait_until(lambda: "reason=\"downstream cancelled\"" in world.smtp_server.err(),
                         "the end of the transaction")
        assert rest.call("PUT", location + "/body", message(token())).status == 503
    assert world.smtp_server.finish() == 0


@pytest.mark.threads
def test_sigterm_while_busy(world, mode):
    """Each message that got its 250 has arrived once, or is in the store and arrives after the
    restart; none twice."""
    import concurrent.futures
    slow = lambda _message: time.sleep(0.02)
    hop = world.hop(on_data=slow)
    world.start(mode)
    acknowledged = []

    def one(number):
        mark = token()
        port = world.ingress if number % 2 else world.submission
        try:
            if submit(port, mark, rcpts=[BOB if number % 2 else ELSEWHERE])[0] == 250:
                acknowledged.append(mark)
        except Exception:  # refused while it ends: the client keeps the mail
            pass
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(one, number) for number in range(120)]
        procs.wait_until(lambda: len(acknowledged) >= 20, "20 messages")
        world.stop_servers()
        concurrent.futures.wait(futures)
    assert acknowledged
    world.start(mode)
    procs.wait_until(lambda: all(hop.with_text(mark) for mark in acknowledged),
                     "all acknowledged messages", 30)
    assert all(len(hop.with_text(mark)) == 1 for mark in acknowledged)


def test_restart_picks_up_what_was_due(world, mode):
    world.start(mode)
    mark, other = token(), token()
    assert submit(world.submission, mark, rcpts=[ELSEWHERE])[0] == 250
    with Rest(world.router_url) as rest:
        location = rest.submit(other, rcpt=ELSEWHERE).headers["location"]
        rest.wait(location, lambda tx: tx.get("attempt_count", 0) >= 1)
    world.stop_servers()
    hop = world.hop()
    world.start(mode)
    hop.wait_for(mark, 30)
    hop.wait_for(other, 30)
    with Rest(world.router_url) as rest:
        tx = rest.final(location)
    assert tx["final_attempt_reason"] == "upstream response success" and tx["attempt_count"] >= 2
    assert len(hop.with_text(mark)) == 1 and len(hop.with_text(other)) == 1


def test_finished_transactions_stay_readable_after_a_restart(world):
    world.hop()
    world.start()
    with Rest(world.router_url) as rest:
        location = rest.submit(token()).headers["location"]
        before = rest.final(location)
    world.stop_servers()
    world.start()
    with Rest(world.router_url) as rest:
        after = rest.get(location)
        assert after.status == 200 and after.json["final_attempt_reason"] == \
            before["final_attempt_reason"]
        assert after.json["data_response"] == before["data_response"]


@pytest.mark.slow
def test_kill_during_rest_submissions(tmp_path):
    """tests/crash/kill_rest.py, small."""
    done = subprocess.run(
        [sys.executable, "-B", os.path.join(ROOT, "tests", "crash", "kill_rest.py"), "--binary",
         BINARY, "--messages", "300", "--kills", "3", "--folder", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240, check=False)
    assert done.returncode == 0, done.stdout.decode()[-6000:]


@pytest.mark.parametrize("which", ["router_port", "smtp"])
def test_port_in_use_is_said_clearly(world, which):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        edit = None
        if which == "router_port":
            world.values["router_port"] = port
        else:
            edit = lambda text: text.replace('addr: ["127.0.0.1", 0]', f'addr: ["127.0.0.1", {port}]',
                                             1)
        gateway = world.config("gateway.yaml", edit)
        server = world.start_server("serve", "serve", gateway, world.config("router.yaml"),
                                    wait=False)
        assert server.finish() != 0
        world.procs.remove(server)
        assert str(port) in server.err() and "in use" in server.err(), server.err()


def test_a_second_process_on_the_same_store_is_refused(world):
    world.start("two")
    world.values["router_port"] = procs.free_port()
    second = world.start_server("second", "router", world.config("router.yaml"), wait=False)
    assert second.finish() != 0
    world.procs.remove(second)
    assert second.err().strip()


@pytest.mark.threads
def test_nothing_is_left_after_many_messages(world):
    """Descriptors come back; spill files are gone."""
    world.hop()
    world.start()
    for _ in range(3):
        submit(world.ingress, token())
    before = procs.open_files(world.smtp_server.pid)
    for _ in range(30):
        assert submit(world.ingress, token(), data=message(token(), "z" * 70 + "\r\n" * 3000))[0] \
            == 250
    procs.wait_until(lambda: procs.open_files(world.smtp_server.pid) <= before + 8,
                     "descriptors to be closed")
    assert os.listdir(world.values["spill_dir"]) == []


def test_json_log(world):
    import json
    world.values["log_level"] = "info"
    world.hop()
    server = None

    def edit(text):
        return text.replace("  log_level: info\n", "  log_level: info\n  log_format: json\n")
    world.start("serve", edit_gateway=edit, edit_router=edit)
    server = world.smtp_server
    submit(world.ingress, token())
    world.stop_servers()
    lines = [json.loads(line) for line in server.err().splitlines() if line.startswith("{")]
    assert any(line["event"] == "server.ready" for line in lines)
    assert all({"time", "level", "event"} <= set(line) for line in lines)
    assert len(lines) == len(server.err().splitlines())


def test_peers_text_in_the_log_is_escaped(world):
    world.hop()
    world.start()
    with Raw(world.ingress) as client:
        client.send(b"BOGUS\x1b[31m\tx level=error\r\n")
        client.reply()
    world.stop_servers()
    assert "\x1b" not in world.procs[-1].err()


# ---- against the release binary: sanitizers change both size and time ----

needs_release = pytest.mark.skipif(RELEASE is None or not os.path.exists(RELEASE),
                                   reason="no release binary (./dev build)")


@needs_release
def test_listening_within_100_ms_and_idle_under_20_mb(tmp_path):
    times, sizes = [], []
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        world = World(folder, binary=RELEASE, log_level="info")
        try:
            start = time.monotonic()
            world.start("serve")
            times.append(time.monotonic() - start)
            sizes.append(procs.resident_bytes(world.smtp_server.pid))
        finally:
            world.close()
    assert min(times) < 0.100, times
    assert max(sizes) < 20e6, sizes


@needs_release
def test_idle_connections_are_cheap(tmp_path):
    world = World(tmp_path, binary=RELEASE, log_level="info")
    clients = []
    try:
        world.start("serve")
        clients += [Raw(world.ingress) for _ in range(50)]  # what is allocated once
        before = procs.resident_bytes(world.smtp_server.pid)
        count = 300
        clients += [Raw(world.ingress) for _ in range(count)]
        grown = procs.resident_bytes(world.smtp_server.pid) - before
        assert grown / count < 16 * 1024, grown / count
    finally:
        for client in clients:
            client.close()
        world.close()


@needs_release
def test_large_message_in_little_memory(tmp_path):
    world = World(tmp_path, binary=RELEASE, log_level="info", message_max=100 << 20)
    try:
        hop = world.hop()
        world.start("serve")
        submit(world.ingress, token())
        before = procs.resident_bytes(world.smtp_server.pid)
        mark = token()
        data = message(mark, ("M" * 76 + "\r\n") * (50 * 1024 * 1024 // 78))
        assert submit(world.ingress, mark, data=data)[0] == 250
        grown = procs.resident_bytes(world.smtp_server.pid) - before
        assert hop.with_text(mark)[0].data.endswith(data)
        assert grown < 20e6, grown
    finally:
        world.close()
