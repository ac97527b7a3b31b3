# SPDX-License-Identifier: Apache-2.0
"""What the SMTP server needs when much is asked of it: memory of idle sessions and of large or
finely cut messages, processor time without descriptors.  Sizes and times are those of the release
binary."""
import collections
import glob
import hashlib
import os
import resource
import socket
import ssl
import time

import pytest

from devkit import procs
from devkit.procs import wait_until
from mail import Raw, message, submit, token
from test_smtp_server import client_context, make_certificate, with_keys
from world import RELEASE, World

needs_release = pytest.mark.skipif(RELEASE is None or not os.path.exists(RELEASE),
                                   reason="no release binary (./dev build)")


@pytest.fixture
def release(tmp_path):
    it = World(tmp_path, binary=RELEASE, log_level="warn", workers=4, message_max=100 << 20)
    yield it
    it.close()


def resident(world):
    return procs.resident_bytes(world.smtp_server.pid)


# ---- idle sessions ----

@pytest.fixture
def descriptors():
    """As many as the system lets us have; inherited by the servers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard if hard != resource.RLIM_INFINITY else 1 << 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def idle_sessions(port, count, context=None):
    """So many sessions that have said EHLO, from many addresses."""
    clients = []
    for i in range(count):
        client = socket.socket()
        client.bind((f"127.0.0.{1 + i % 200}", 0))
        client.settimeout(60)
        client.connect(("127.0.0.1", port))
        if context is not None:
            client = context.wrap_socket(client, server_hostname="localhost")
        clients.append(client)
    for client in clients:
        assert client.recv(1000).startswith(b"220 ")
        client.sendall(b"EHLO client.example\r\n")
    for client in clients:
        assert client.recv(1000).startswith(b"250-")
    return clients


@needs_release
@pytest.mark.parametrize("tls,count", [(False, 10000), (True, 2000)])
def test_idle_sessions_in_80_mb(release, tmp_path, descriptors, tls, count):
    """All that is resident: 10,000 plain sessions, or 2,000 with TLS."""
    count = min(count, descriptors - 500)
    keys, context = {}, None
    if tls:
        cert, key = make_certificate(str(tmp_path))
        keys = {"cert": cert, "key": key, "smtps": "true"}
        context = client_context(cert)
    release.start("serve", edit_gateway=with_keys(**keys))
    before = resident(release)
    clients = idle_sessions(release.ingress, count, context)
    size = resident(release)
    print(f"{count} sessions, TLS {tls}: {size / 1e6:.1f} MB, {(size - before) / count:.0f} each")
    try:
        assert size < 80e6, size
        mark = token()
        release.hop()
        assert submit(release.submission, mark)[0] == 250  # and mail is moved
    finally:
        for client in clients:
            client.close()


# ---- no descriptors ----

def processor_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@needs_release
def test_starved_of_descriptors(release, descriptors):
    """128 descriptors, 500 clients that stay: some are told, the process rests, and all is well
    when they are gone."""
    del descriptors
    release.start("serve", edit_gateway=with_keys())
    hop = release.hop()
    pid = release.smtp_server.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (128, hard))
    clients = []
    for _ in range(500):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", release.ingress))
        clients.append(client)

    def told():
        count = 0
        for client in clients:
            try:
                count += client.recv(100, socket.MSG_PEEK).startswith(b"421 4.3.2 ")
            except (BlockingIOError, ConnectionError):
                pass
        return count
    wait_until(lambda: told() >= 5, "clients that are told")
    start, used = time.monotonic(), processor_seconds(pid)
    time.sleep(2)
    rate = (processor_seconds(pid) - used) / (time.monotonic() - start)
    print(f"{rate:.3f} cores while starved, {told()} of 500 told")
    assert rate < 0.2, rate
    for client in clients:
        client.close()

    def works():
        mark = token()
        try:
            return submit(release.ingress, mark, timeout=5)[0] == 250 and hop.with_text(mark)
        except (OSError, Exception):  # pylint: disable=broad-except
            return False
    wait_until(works, "a message that passes", 30)
    start, used = time.monotonic(), processor_seconds(pid)
    time.sleep(1)
    assert (processor_seconds(pid) - used) / (time.monotonic() - start) < 0.1


@pytest.fixture
def narrow(tmp_path):
    """A release server that begins with 128 descriptors."""
    path = tmp_path / "koukan128"
    path.write_text(f'#!/bin/sh\nexec prlimit --nofile=128 {RELEASE} "$@"\n')
    path.chmod(0o755)
    it = World(tmp_path, binary=str(path), log_level="warn")
    yield it
    it.close()


@needs_release
def test_a_flood_leaves_descriptors_for_mail(narrow):
    """500 clients that stay: those beyond what there are descriptors for are told at once, and a
    session that was there before moves mail all the while."""
    hop = narrow.hop()
    narrow.start("serve")
    pid = narrow.smtp_server.pid
    clients = []
    try:
        with Raw(narrow.ingress) as early:
            for _ in range(500):
                client = socket.socket()
                client.setblocking(False)
                client.connect_ex(("127.0.0.1", narrow.ingress))
                clients.append(client)
            start, used = time.monotonic(), processor_seconds(pid)
            for _ in range(20):
                mark = token()
                # more than is held in memory: it needs a file beside the next hop
                data = message(mark, ("x" * 70 + "\r\n") * 5000)
                early.begin()
                assert early.code("DATA") == 354
                early.send(data + b".\r\n")
                code, text = early.reply()
                assert code == 250, text
                assert hop.with_text(mark)
                time.sleep(0.05)
            rate = (processor_seconds(pid) - used) / (time.monotonic() - start)
            wait_until(lambda: answers(clients)[421] >= 400, "those that are told", 30)
        print(f"{rate:.3f} cores, {dict(answers(clients))}")
        assert rate < 0.2, rate
    finally:
        for client in clients:
            client.close()
    assert submit(narrow.ingress, token())[0] == 250


def answers(clients):
    """How many have got which code (0: none yet)."""
    count = collections.Counter()
    for client in clients:
        try:
            count[int(client.recv(100, socket.MSG_PEEK)[:3] or 0)] += 1
        except (BlockingIOError, ConnectionError):
            count[0] += 1
    return count


# ---- memory of messages ----

@needs_release
def test_100000_chunks_of_one_byte(release):
    """The message arrives, and what is held for it is its size and no more."""
    hop = release.hop()
    release.start("serve", edit_gateway=with_keys(enable_bdat="true"))
    assert submit(release.ingress, token())[0] == 250
    mark = token()
    data = message(mark, ("x" * 70 + "\r\n") * 1400)[:100000]
    data = data[:-2] + b"\r\n"
    before = resident(release)
    with Raw(release.ingress) as client:
        client.begin()
        for at in range(0, len(data), 1000):
            piece = data[at:at + 1000]
            client.send(b"".join(b"BDAT 1\r\n" + piece[i:i + 1] for i in range(len(piece))))
            for _ in piece:
                assert client.reply()[0] == 250
        grown = resident(release) - before
        client.send(b"BDAT 0 LAST\r\n")
        assert client.reply()[0] == 250
    print(f"{len(data)} chunks: {grown / 1e6:.1f} MB more")
    assert grown < 20e6, grown
    assert hop.wait_for(mark).data.endswith(data)


def by_data(client, data):
    assert client.code("DATA") == 354
    client.send(data + b".\r\n")  # no line of it begins with a dot
    return client.reply()


def by_bdat(client, data):
    piece = 1 << 20
    for at in range(0, len(data), piece):
        part = data[at:at + piece]
        last = b" LAST" if at + piece >= len(data) else b""
        client.send(b"BDAT %d%s\r\n" % (len(part), last) + part)
        code, text = client.reply()
        if last or code != 250:
            return code, text
    raise AssertionError


@needs_release
@pytest.mark.parametrize("way", [by_data, by_bdat])
def test_50_mb_in_20_mb(release, way):
    """In by DATA and out by DATA, or both by BDAT: byte for byte, in little memory."""
    def edit(text):
        text = with_keys(enable_bdat="true")(text)
        return text.replace("ehlo_host: gateway.example.net",
                            "ehlo_host: gateway.example.net\n      enable_bdat: true")
    release.sink(*(["--bdat"] if way is by_bdat else []))
    release.start("serve", edit_gateway=edit)
    assert submit(release.ingress, token())[0] == 250
    mark = token()
    data = message(mark, "".join(f"{i:076d}\r\n" for i in range(50 * 1024 * 1024 // 78)))
    before = most = resident(release)
    with Raw(release.ingress, timeout=60) as client:
        client.begin()
        code, text = way(client, data)
        most = max(most, peak(release))
        assert code == 250, text
    print(f"50 MB by {way.__name__}: at most {(most - before) / 1e6:.1f} MB more")
    assert most - before < 20e6, most - before
    found = [path for path in glob.glob(os.path.join(release.folder, "sink", "*"))
             if os.path.getsize(path) > len(data)]
    assert len(found) == 1
    with open(found[0], "rb") as file:
        got = file.read()
    assert hashlib.sha256(got[-len(data):]).digest() == hashlib.sha256(data).digest()


def peak(world):
    """The most that was ever resident."""
    with open(f"/proc/{world.smtp_server.pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")
