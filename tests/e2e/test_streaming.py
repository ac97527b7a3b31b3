# SPDX-License-Identifier: Apache-2.0
"""Cut-through: a large message flows to the next hop while its client still sends, and is never
ended there unless the client has ended it."""
import os
import smtplib
import threading

import pytest

from devkit.procs import wait_until
from mail import BOB, Raw, message, submit, token


class Watcher:
    """A next hop that shows what it holds of a message before its end."""

    def __init__(self, world, **behaviour):
        self.parts, self.lock = {}, threading.Lock()
        self.hop = world.hop(**behaviour)
        self.hop.read_data = self.read_data

    def read_data(self, lines, it):
        data = []
        for line in lines:
            if line == b".\r\n":
                it.data = b"".join(data)
                return it
            data.append(line[1:] if line.startswith(b".") else line)
            if len(data) % 100 == 0:
                with self.lock:
                    self.parts[id(data)] = b"".join(data[-100:])
                    self.seen = sum(map(len, data))
        with self.hop.lock:
            self.hop.cut.append(b"".join(data))
        return None

    seen = 0


def big(mark, size):
    return message(mark, "".join(f"{i:070d}\r\n" for i in range(size // 72)))


def start_in(world, mode, chunk_size=None):
    def edit(text):
        if chunk_size is None:
            return text
        return text.replace("data_timeout: 20\n", f"data_timeout: 20\n    chunk_size: {chunk_size}\n")

    def edit_router(text):
        if chunk_size is None:
            return text
        return text.replace("  - filter: rest_output\n",
                            f"  - filter: rest_output\n    chunk_size: {chunk_size}\n")
    world.start(mode, edit_gateway=edit, edit_router=edit_router)


def by_data(client, data, until):
    assert client.code("DATA") == 354
    client.send(data[:until])

    def finish():
        client.send(data[until:] + b".\r\n")
        return client.reply()
    return finish


def by_bdat(client, data, until):
    for at in range(0, until, 50000):
        piece = data[at:min(at + 50000, until)]
        client.send(b"BDAT %d\r\n" % len(piece) + piece)
        assert client.reply()[0] == 250

    def finish():
        client.send(b"BDAT %d LAST\r\n" % (len(data) - until) + data[until:])
        return client.reply()
    return finish


WAYS = {"DATA": by_data, "BDAT": by_bdat}


def offer_bdat(text):
    return text.replace("tag: smtp-mx", "tag: smtp-mx\n      enable_bdat: true")


@pytest.mark.parametrize("way", WAYS)
def test_the_next_hop_reads_while_the_client_sends(world, way):
    watcher = Watcher(world)
    world.start("serve", edit_gateway=offer_bdat)
    mark = token()
    data = big(mark, 2 << 20)
    with Raw(world.ingress, ehlo=True) as client:
        client.begin()
        finish = WAYS[way](client, data, 1 << 20)
        # more than half of what we sent is there, and we have not finished
        wait_until(lambda: watcher.seen > 512 * 1024, "the first part at the next hop")
        assert not watcher.hop.taken
        assert finish()[0] == 250
    got = watcher.hop.wait_for(mark)
    assert got.data.endswith(data) and b"\r\n\tfor bob@example.com;" in got.data[:1000]
    assert got.data.count(b"by router.example.com") == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_is_cut_off_ends_nothing(world, way):
    """The next hop has a part of the message, and never its end."""
    watcher = Watcher(world)
    world.start("serve", edit_gateway=offer_bdat)
    mark = token()
    data = big(mark, 2 << 20)
    client = Raw(world.ingress)
    client.begin()
    WAYS[way](client, data, 1 << 20)
    wait_until(lambda: watcher.seen > 512 * 1024, "the first part at the next hop")
    client.reset()
    wait_until(lambda: watcher.hop.cut, "the end of the connection at the next hop")
    assert data.startswith(watcher.hop.cut[0].partition(b"From: ")[2][:100].join([b"From: ", b""]))
    after = token()
    assert submit(world.ingress, after)[0] == 250
    watcher.hop.wait_for(after)
    assert not watcher.hop.with_text(mark)


@pytest.mark.parametrize("way", WAYS)
def test_no_last_chunk_without_ours(world, way):
    """The same to a next hop that takes BDAT: chunks have come, none was the last."""
    world.sink("--bdat")
    world.start("serve", edit_gateway=lambda text: offer_bdat(text).replace(
        "ehlo_host: gateway.example.net",
        "ehlo_host: gateway.example.net\n      enable_bdat: true"))
    mark, after = token(), token()
    client = Raw(world.ingress)
    client.begin()
    WAYS[way](client, big(mark, 2 << 20), 1 << 20)

    def spilled():
        """The sink holds a part of the message, in a file without a name."""
        folder = f"/proc/{world.procs[0].pid}/fd"
        for name in os.listdir(folder):
            try:
                if os.readlink(f"{folder}/{name}").endswith("(deleted)") and \
                        os.stat(f"{folder}/{name}").st_size > 512 * 1024:
                    return True
            except OSError:
                pass
        return False
    wait_until(spilled, "the first part at the next hop")
    client.reset()
    assert submit(world.ingress, after)[0] == 250
    wait_until(lambda: not spilled(), "the end of it")
    texts = []
    for name in os.listdir(os.path.join(world.folder, "sink")):
        with open(os.path.join(world.folder, "sink", name), "rb") as file:
            texts.append(file.read())
    assert any(after.encode() in text for text in texts)
    assert not any(mark.encode() in text for text in texts)


def test_a_fault_in_the_middle_ends_nothing(world):
    """A bare LF behind a megabyte: the client gets 550 at its end, the next hop nothing whole."""
    watcher = Watcher(world)
    world.start("serve")
    mark = token()
    data = big(mark, 1 << 20)
    with Raw(world.ingress) as client:
        client.begin()
        finish = by_data(client, data + b"bad\nline\r\n" + data, len(data))
        wait_until(lambda: watcher.seen > 512 * 1024, "the first part at the next hop")
        assert finish()[0] == 550
        wait_until(lambda: watcher.hop.cut, "the end of the connection at the next hop")
        after = token()
        assert client.works(after)[0] == 250
    watcher.hop.wait_for(after)
    assert not watcher.hop.with_text(mark)


def test_a_refusal_in_the_middle(world):
    """The next hop drops the connection in the message: a temporary answer at the client's end."""
    watcher = Watcher(world)
    world.start("serve")
    mark = token()
    data = big(mark, 2 << 20)
    with Raw(world.ingress) as client:
        client.begin()
        finish = by_data(client, data, 1 << 20)
        wait_until(lambda: watcher.seen > 512 * 1024, "the first part at the next hop")
        with watcher.hop.lock:
            for connection in watcher.hop.connections:
                connection.shutdown(2)
        code, text = finish()
        assert 400 <= code <= 499, (code, text)
        assert client.code("NOOP") == 250


def test_submission_survives_a_cut_at_the_next_hop(world):
    """What was sent in part is kept from its beginning and sent again: once, and whole."""
    watcher = Watcher(world)
    world.start("serve", edit_router=lambda text: text.replace("  - filter: message_validation\n", "")
                .replace("""  - filter: policy_action
    match:
      matcher: koukan.message_validation_filter.MessageValidationFilter
      validity_threshold: BASIC
    action: REJECT
    tag: message_validation
""", ""))
    mark = token()
    data = big(mark, 2 << 20)
    with Raw(world.submission) as client:
        client.begin(rcpt="carol@elsewhere.example.net")
        finish = by_data(client, data, 1 << 20)
        wait_until(lambda: watcher.seen > 512 * 1024, "the first part at the next hop")
        with watcher.hop.lock:
            for connection in watcher.hop.connections:
                connection.shutdown(2)
        assert finish()[0] == 250
    got = watcher.hop.wait_for(mark)
    assert got.data.endswith(data) and len(watcher.hop.with_text(mark)) == 1


def test_a_check_of_the_whole_holds_it_back(world):
    """With message_validation in the chain nothing leaves before the end."""
    watcher = Watcher(world)
    world.start("serve")
    mark, other = token(), token()
    data = big(mark, 1 << 20)
    with Raw(world.submission) as client:
        client.begin(rcpt="carol@elsewhere.example.net")
        finish = by_data(client, data, 600000)
        assert submit(world.ingress, other)[0] == 250  # others pass meanwhile
        watcher.hop.wait_for(other)
        assert watcher.hop.commands.count("DATA") == 1
        assert finish()[0] == 250
    watcher.hop.wait_for(mark)


def test_hold(world):
    """An operator who does not want it says so."""
    watcher = Watcher(world)
    world.start("serve", edit_router=lambda text: text.replace(
        "received_hostname: router.example.com",
        "received_hostname: router.example.com\n    hold: true"))
    mark, other = token(), token()
    data = big(mark, 1 << 20)
    with Raw(world.ingress) as client:
        client.begin()
        finish = by_data(client, data, 600000)
        assert submit(world.ingress, other)[0] == 250
        watcher.hop.wait_for(other)
        assert watcher.hop.commands.count("DATA") == 1
        assert finish()[0] == 250
    assert watcher.hop.wait_for(mark).data.endswith(data)


def test_streaming_between_two_processes(world):
    """With `chunk_size` also over REST."""
    watcher = Watcher(world)
    start_in(world, "two", 65536)
    mark = token()
    data = big(mark, 2 << 20)
    with Raw(world.ingress) as client:
        client.begin()
        finish = by_data(client, data, 1 << 20)
        wait_until(lambda: watcher.seen > 512 * 1024, "the first part at the next hop")
        assert finish()[0] == 250
    assert watcher.hop.wait_for(mark).data.endswith(data)


def test_a_slow_next_hop_holds_no_memory(world):
    """Nothing is read there for a while: the message waits in a file, and arrives."""
    release = threading.Event()
    watcher = Watcher(world)
    read = watcher.hop.read_data

    def slow(lines, it):
        release.wait(30)
        return read(lines, it)
    watcher.hop.read_data = slow
    world.start("serve")
    mark = token()
    data = big(mark, 8 << 20)
    results = []
    client = threading.Thread(target=lambda: results.append(
        submit(world.ingress, mark, data=data)))
    client.start()
    wait_until(lambda: any(c.startswith("DATA") for c in watcher.hop.commands), "DATA")
    release.set()
    client.join(30)
    assert results and results[0][0] == 250
    assert watcher.hop.wait_for(mark).data.endswith(data)


def test_smtplib_still_agrees(world):
    watcher = Watcher(world)
    world.start("serve")
    mark = token()
    data = big(mark, 3 << 20)
    with smtplib.SMTP("127.0.0.1", world.ingress, timeout=30) as client:
        assert client.sendmail("alice@example.com", [BOB], data) == {}
    assert watcher.hop.wait_for(mark).data.endswith(data)
