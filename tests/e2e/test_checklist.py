# SPDX-License-Identifier: Apache-2.0
"""The interoperability checklist, an item a test: our router, gateway and client side with doubles
of the existing ones (peer.py), which are as strict as those."""
import json
import os
import re
import sqlite3
import threading
import time

import pytest

from devkit import procs
from mail import ALICE, APP, BOB, Raw, Rest, message, submit, token
from peer import READ, Client, Server, blob_uris
from world import World

ENVELOPE = {"mail_from": {"m": ALICE}, "rcpt_to": [{"m": BOB}]}
INGRESS = "/senders/ingress/transactions"
SMTP = {"remote_host": ["198.51.100.7", 48920], "local_host": ["192.0.2.1", 25],
        "mail_from": {"m": "a@example.org", "e": [{"k": "SIZE", "p": "276"}]},
        "smtp_meta": {"ehlo_host": "mx.example.org", "esmtp": True, "tls": False, "auth": None},
        "sender": {"name": "ingress", "tag": "smtp-mx"}}


@pytest.fixture
def rest(shared):
    with Rest(shared.router_url) as it:
        yield it


@pytest.fixture
def smtp_like(shared):
    """A gateway's transaction at our router."""
    with Client(shared.router_url, INGRESS) as it:
        it.start(**SMTP)
        yield it


@pytest.fixture
def one_shot(shared):
    """An application's."""
    with Client(shared.router_url) as it:
        it.start(**ENVELOPE)
        yield it


def gateway_client(shared):
    """A router's transaction at our gateway."""
    client = Client(f"http://127.0.0.1:{shared.values['gateway_port']}",
                    "/senders/router/transactions")
    client.start(mail_from={"m": ALICE}, rcpt_to=[{"m": BOB}],
                 remote_host=["127.0.0.1", shared.values["sink_port"]],
                 sender={"name": "router", "tag": "outbound"})
    return client


@pytest.fixture
def router_to(tmp_path):
    """Our router, with what is behind it played by a double: (world, double)."""
    made = []

    def start(role, edit=None, **behaviour):
        peer = Server(role, **behaviour)
        port = {"gateway": "gateway_port", "receiver": "receiver_port"}[role]
        world = World(tmp_path, **{port: peer.port})
        made.extend((world, peer))
        world.router_server = world.smtp_server = world.start_server(
            "router", "router", world.config("router.yaml", edit))
        return world, peer
    yield start
    for each in made:
        each.close()


@pytest.fixture
def gateway_to(tmp_path):
    """Our gateway, with a double of the router behind it: (SMTP port, double)."""
    made = []

    def start(**behaviour):
        peer = Server("router", **behaviour)
        world = World(tmp_path, router_port=peer.port)
        made.extend((world, peer))
        server = world.start_server("gateway", "gateway", world.config("gateway.yaml"))
        return server.smtp_port("smtp-mx"), peer
    yield start
    for each in made:
        each.close()


# ---- as a server ----

def test_item_01_content_type_is_exact(shared, rest):
    """On every JSON response, of the router and of the gateway."""
    location = rest.create(**ENVELOPE).headers["location"]
    etag = rest.wait(location, lambda tx: "rcpt_response" in tx).etag
    data = message(token())
    seen = [rest.call("POST", "/senders/submission/transactions", ENVELOPE), rest.get(location),
            rest.call("PATCH", location, b"", if_match=etag),
            rest.call("PUT", location + "/body", data), rest.get("/nothing"),
            rest.call("DELETE", location)]
    gateway = gateway_client(shared)
    seen += [gateway.rest.call("GET", gateway.location), gateway.rest.call("GET", "/nothing")]
    gateway.cancel()
    gateway.close()
    assert [each.status for each in seen] == [201, 200, 200, 200, 404, 405, 200, 404]
    for answer in seen:
        json.loads(answer.body)
        assert answer.headers["content-type"] == "application/json"
    rest.call("POST", seen[0].headers["location"] + "/cancel")


def test_item_02_absolute_urls(shared, rest):
    answer = rest.create(**ENVELOPE, body={"message_builder": {"text_body": [
        {"content_type": "text/plain", "content": {"create_id": "a"}},
        {"content_type": "text/html", "content": {"inline": "b"}}]}})
    base = shared.router_url + "/transactions/"
    assert answer.headers["location"].startswith(base)
    uris = [each["uri"] for each in blob_uris(answer.json["body"]).values()]
    assert len(uris) == 2 and all(uri.startswith(answer.headers["location"]) for uri in uris)
    rest.call("POST", answer.headers["location"] + "/cancel")
    gateway = gateway_client(shared)
    assert gateway.location.startswith(gateway.rest.url + "/transactions/")
    gateway.cancel()
    gateway.close()


def test_item_03_etags(shared, rest):
    created = rest.create(**ENVELOPE)
    location = created.headers["location"]
    assert created.etag == "1"
    answer = rest.wait(location, lambda tx: "rcpt_response" in tx)
    patched = rest.call("PATCH", location, b"", if_match=answer.etag)
    assert patched.status == 200 and int(patched.etag) > int(answer.etag)
    for spelling in (patched.etag, f'"{patched.etag}"'):
        answer = rest.get(location, spelling, wait=0)
        assert (answer.status, answer.etag) == (304, spelling), "the client's own is echoed"
    rest.call("POST", location + "/cancel")


def test_item_04_keys_and_placeholders(shared, one_shot, smtp_like):
    """The doubles refuse unknown keys, null, empty lists and values instead of placeholders; here
    for a whole life of each kind."""
    one_shot.settle()
    one_shot.upload(message(token()))
    one_shot.settle(True)
    one_shot.until("final_attempt_reason")
    assert one_shot.tx["mail_from"] == {} and one_shot.tx["rcpt_to"] == [{}]
    assert smtp_like.tx["sender"] == {} and "smtp_meta" not in smtp_like.tx
    smtp_like.settle()
    for number in range(3):
        assert smtp_like.rcpt(f"user{number}@example.com") == 250
        assert smtp_like.tx["rcpt_to"] == [{}] * (number + 1)
    smtp_like.upload(message(token()))
    smtp_like.settle(True)
    assert set(smtp_like.tx) <= READ
    gateway = gateway_client(shared)
    gateway.settle()
    gateway.upload(message(token()))
    assert gateway.settle(True)["data_response"]["code"] == 250
    gateway.close()


def test_item_05_upload_url_from_the_201_on(shared, rest, smtp_like):
    """The client needs it when DATA starts, whatever happened before."""
    uri = smtp_like.tx["body"]["blob_status"]["uri"]
    assert uri == smtp_like.location + "/body"
    for _ in range(3):
        smtp_like.settle()
        assert smtp_like.tx["body"]["blob_status"]["uri"] == uri
        smtp_like.rcpt(BOB)
    smtp_like.cancel()
    for sender in ("submission", "oneshot"):
        answer = rest.create(sender, **ENVELOPE)
        assert answer.json["body"]["blob_status"]["uri"] == answer.headers["location"] + "/body"
        rest.call("POST", answer.headers["location"] + "/cancel")
    gateway = gateway_client(shared)
    assert "uri" in gateway.tx["body"]["blob_status"]
    gateway.cancel()
    gateway.close()


def test_item_06_nothing_changes_between_reads(shared, smtp_like):
    """Each read is compared with the one before; the attempt count stays what it is."""
    smtp_like.settle()
    smtp_like.until("attempt_count")
    for number in range(4):
        smtp_like.rcpt(f"user{number}@example.com")
        smtp_like.heartbeat()
    smtp_like.upload(message(token()))
    smtp_like.settle(True)
    smtp_like.until("final_attempt_reason")
    assert smtp_like.tx["attempt_count"] == 1
    etag = smtp_like.etag
    assert not smtp_like.get() and smtp_like.etag == etag


@pytest.mark.threads
def test_item_07_long_polls(shared):
    """A poll waits, wakes on each change, and ends with 304; POST, PATCH and PUT wait for nobody,
    although the next hop takes its time."""
    busy = threading.Event()
    shared.next_hop.on_data = lambda _: busy.wait(20) and None
    shared.next_hop.on_rcpt = lambda _: busy.wait(20) and None
    try:
        with Client(shared.router_url, INGRESS, seconds=4) as client:
            begin = time.monotonic()
            client.start(**SMTP)
            client.until("mail_response")
            client.patch(rcpt_to=[{"m": BOB}])
            client.upload(message(token()))
            assert time.monotonic() - begin < 10, "answered while the next hop is busy"
            woken = []

            def poll():
                with Rest(shared.router_url) as other:
                    woken.append(other.get(client.location, other.get(client.location).etag,
                                           wait=25))
            thread = threading.Thread(target=poll)
            thread.start()
            answer = client.rest.get(client.location)
            for _ in range(20):  # until nothing more happens by itself
                answer = client.rest.get(client.location, answer.etag, wait=1)
                if answer.status == 304:
                    break
                etag = answer.etag
            assert answer.status == 304
            busy.set()
            thread.join(timeout=30)
            assert [each.status for each in woken] == [200] and woken[0].etag
            client.seconds = 30
            client.settle(True)
            assert client.tx["data_response"]["code"] == 250
    finally:
        busy.set()
        shared.next_hop.on_data = shared.next_hop.on_rcpt = None


def test_item_08_heartbeats_and_offsets(one_shot, smtp_like):
    one_shot.settle()
    etag = one_shot.etag
    one_shot.heartbeat()
    assert one_shot.etag != etag
    one_shot.cancel()
    smtp_like.settle()
    smtp_like.heartbeat()
    smtp_like.settle()
    smtp_like.patch(rcpt_to=[{"m": BOB}])  # no offset: 0
    smtp_like.settle()
    smtp_like.patch(rcpt_to_list_offset=1, rcpt_to=[{"m": ALICE}])
    assert smtp_like.settle()["rcpt_to"] == [{}, {}]
    smtp_like.cancel()


@pytest.mark.parametrize("late_end", [False, True])
@pytest.mark.parametrize("chunk_size", [None, 64, 100])
def test_item_09_upload_ranges(shared, chunk_size, late_end):
    """Whole; in ranges; the end known with the last range, or only afterwards; the client goes by
    what the answers say is held."""
    if chunk_size is None and late_end:
        chunk_size = 1 << 20
    mark = token()
    data = message(mark, "x" * 100 + "\r\n")
    with Client(shared.router_url, chunk_size=chunk_size) as client:
        client.start(**ENVELOPE)
        client.settle()
        client.upload(data, late_end=late_end)
        assert client.settle(True)["data_response"]["code"] == 250
    assert shared.next_hop.wait_for(mark).data.endswith(data)


def test_item_09_upload_goes_on_where_it_was(shared, one_shot):
    """What another try has left is not sent again: 416 says how much is held."""
    mark = token()
    data = message(mark, "y" * 500 + "\r\n")
    uri = one_shot.tx["body"]["blob_status"]["uri"]
    assert one_shot.put(uri, data[:300], 0, None) == 300
    assert one_shot.put(uri, data[400:500], 400, None) == 300, "a gap: 416 with what is held"
    assert one_shot.sent[-1] == ("PUT", 416)
    assert one_shot.put(uri, data[300:], 300, len(data)) == len(data)
    assert one_shot.settle(True)["data_response"]["code"] == 250
    assert shared.next_hop.wait_for(mark).data.endswith(data)


def test_item_10_envelope_before_the_body(shared, smtp_like):
    """MAIL and RCPT are answered before there is a body; data_response only behind its end."""
    assert smtp_like.settle()["mail_response"]["code"] == 250
    assert smtp_like.rcpt(BOB) == 250
    data = message(token())
    uri = smtp_like.tx["body"]["blob_status"]["uri"]
    smtp_like.put(uri, data[:100], 0, None)
    answer = smtp_like.rest.get(smtp_like.location)
    assert "data_response" not in answer.json
    smtp_like.put(uri, data[100:], 100, len(data))
    tx = smtp_like.settle(True)
    assert tx["data_response"]["code"] == 250 and tx["body"]["blob_status"]["finalized"] is True


# ---- as a client ----

def test_item_11_as_client_of_a_gateway(router_to):
    """if-match on each PATCH, 308 followed with method and body, 304 is no error, no body in the
    POST, sender.tag, remote_host with an IP literal, at least mail_from."""
    world, peer = router_to("gateway")
    peer.moved = {"GET", "PATCH", "PUT"}
    peer.unchanged = 1
    mark = token()
    data = message(mark)
    with Client(world.router_url) as app:
        app.start(**ENVELOPE)
        app.settle()
        procs.wait_until(lambda: any(headers.get("content-length") == "0"
                                     for headers, _ in peer.of("PATCH")), "a heartbeat")
        app.upload(data)
        assert app.settle(True)["data_response"] == {"code": 250, "message": "2.0.0 taken"}
        app.until("final_attempt_reason")
    assert peer.faults == [] and not peer.moved and peer.unchanged == 0
    [(headers, body)] = peer.of("POST", "/senders/router/transactions")
    assert headers["content-type"] == "application/json" and int(headers["request-timeout"]) > 0
    assert json.loads(body) == {
        "remote_host": ["127.0.0.1", world.values["sink_port"]], "mail_from": {"m": ALICE},
        "rcpt_to": [{"m": BOB}], "sender": {"name": "router", "tag": "outbound"}}
    for headers, body in peer.of("PATCH"):
        assert "if-match" in headers and body == b"" and "content-type" not in headers
    assert all("if-none-match" in headers and "request-timeout" in headers
               for headers, _ in peer.of("GET"))
    [tx] = peer.txs.values()
    assert tx.body.endswith(data) and not tx.cancelled
    assert [headers.get("content-range") for headers, _ in peer.of("PUT")] == [None, None]


@pytest.mark.parametrize("lost", [0, 100])
def test_item_11_uploads_in_ranges(router_to, lost):
    """With chunk_size; when the gateway has kept less than was sent, from there on."""
    world, peer = router_to("gateway", lambda text: text.replace(
        "    data_timeout: 20\n", "    data_timeout: 20\n    chunk_size: 1000\n"))
    peer.lose_bytes = lost
    mark = token()
    data = message(mark, ("r" * 76 + "\r\n") * 60)
    with Rest(world.router_url) as rest:
        location = rest.submit(mark, data=data).headers["location"]
        rest.wait(location, lambda tx: "data_response" in tx)
        assert peer.faults == []
        assert rest.final(location)["data_response"]["code"] == 250
    [tx] = peer.txs.values()
    assert tx.body.endswith(data)
    ranges = [headers["content-range"] for headers, _ in peer.of("PUT")]
    assert ranges[0] == "bytes 0-999/*" and len(ranges) >= 5
    assert ranges[1].startswith(f"bytes {1000 - lost}-")
    assert ranges[-1].endswith(f"/{len(tx.body)}")


def test_item_11_cancels_what_it_gives_up(router_to):
    """A recipient that is refused: the gateway's transaction is cancelled, nothing is uploaded."""
    world, peer = router_to("gateway", on_rcpt=lambda *_: (550, "5.1.1 no such user"))
    with Rest(world.router_url) as rest:
        location = rest.submit(token()).headers["location"]
        tx = rest.final(location)
    assert tx["rcpt_response"] == [{"code": 550, "message": "5.1.1 no such user"}]
    procs.wait_until(lambda: all(each.cancelled for each in peer.txs.values()), "the cancel")
    assert peer.faults == [] and peer.of("PUT") == []


def test_item_12_as_gateway(gateway_to):
    port, peer = gateway_to(on_rcpt=lambda _, address: (550, "5.1.1 no") if "bad" in address
                            else None)
    mark = token()
    with Raw(port) as client:
        here = client.socket.getsockname()
        assert client.code(f"MAIL FROM:<{ALICE}> SIZE=276 BODY=8BITMIME") == 250
        assert client.code(f"RCPT TO:<{BOB}>") == 250
        assert client.command("RCPT TO:<bad@example.com>") == (550, "5.1.1 no")
        assert client.code("RCPT TO:<carol@example.com>") == 250
        assert client.code("DATA") == 354
        client.send(message(mark) + b".\r\n")
        assert client.reply() == (250, "2.0.0 taken"), peer.faults
        [tx] = peer.txs.values()
        assert not tx.cancelled and tx.body.endswith(message(mark))
        assert client.code("MAIL FROM:<>") == 250
        client.code("QUIT")
    first, second = [(headers, json.loads(body)) for headers, body in peer.of(
        "POST", "/senders/ingress/transactions")]
    headers, request = first
    assert headers["content-type"] == "application/json" and int(headers["request-timeout"]) > 0
    assert request == {
        "remote_host": ["127.0.0.1", here[1]], "local_host": ["127.0.0.1", port],
        "mail_from": {"m": ALICE, "e": [{"k": "SIZE", "p": "276"}, {"k": "BODY", "p": "8BITMIME"}]},
        "smtp_meta": {"ehlo_host": "localhost", "esmtp": True, "tls": False, "auth": None},
        "sender": {"name": "ingress", "tag": "smtp-mx"}}
    assert second[1]["mail_from"] == {"m": ""}
    assert [json.loads(body) for _, body in peer.of("PATCH") if body] == [
        {"rcpt_to": [{"m": BOB}]},
        {"rcpt_to_list_offset": 1, "rcpt_to": [{"m": "bad@example.com"}]},
        {"rcpt_to_list_offset": 2, "rcpt_to": [{"m": "carol@example.com"}]}]
    assert peer.faults == []


@pytest.mark.parametrize("end", ["RSET", "QUIT", "EHLO", "gone", "reset"])
@pytest.mark.parametrize("where", ["MAIL", "RCPT"])
def test_item_12_gateway_cancels(gateway_to, end, where):
    port, peer = gateway_to()
    client = Raw(port)
    assert client.code(f"MAIL FROM:<{ALICE}>") == 250
    if where == "RCPT":
        assert client.code(f"RCPT TO:<{BOB}>") == 250
    if end == "reset":
        client.reset()
    elif end != "gone":
        client.command(end + (" localhost" if end == "EHLO" else ""))
    if end != "reset":
        client.close()
    procs.wait_until(lambda: [each.cancelled for each in peer.txs.values()] == [True],
                     "the cancel")
    assert peer.faults == []


PARTED = (b"From: <alice@example.com>\r\nTo: <bob@rest-application.example.com>\r\n"
          b"Subject: %s\r\nDate: Fri, 13 Feb 2009 23:31:30 +0000\r\nMessage-ID: <p@example.com>\r\n"
          b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
          b"--b\r\nContent-Type: text/plain\r\n\r\nhi\r\n"
          b"--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n"
          b"Content-Disposition: attachment; filename=a.png\r\n\r\niVBORw==\r\n--b--\r\n")


def test_item_13_to_a_receiver(router_to):
    """Whole uploads only, even with chunk_size; the description to message_builder.uri, parts
    first, the message last, filter_output with POST and PATCH."""
    world, peer = router_to("receiver", lambda text: text.replace(
        "receive_parsing:\n", "receive_parsing:\n          send_filter_output: true\n").replace(
        "    data_timeout: 20\n", "    data_timeout: 20\n    chunk_size: 100\n").replace(
        "  - filter: message_parser\n", "  - filter: message_validation\n"
                                       "  - filter: message_parser\n"))
    mark = token().encode()
    with Client(world.router_url, INGRESS) as gateway:
        gateway.start(**SMTP)
        gateway.settle()
        assert gateway.rcpt(APP) == 250
        gateway.upload(PARTED % mark)
        assert gateway.settle(True)["data_response"]["code"] == 250
    assert peer.faults == []
    [tx] = peer.txs.values()
    assert tx.order == ["blob/0", "body"]
    assert tx.parts == {"0": b"\x89PNG"} and tx.body.endswith(PARTED % mark)
    assert tx.spec["text_body"] == [{"content_type": "text/plain", "content": {"inline": "hi"}}]
    assert tx.spec["file_attachments"] == [
        {"content_type": "image/png", "filename": "a.png", "content": {"create_id": "0"}}]
    assert tx.spec["parts"]["content_type"] == "multipart/mixed"
    [(headers, _)] = peer.of("POST", "/message_builder")
    assert headers["content-type"] == "application/json" and headers["if-match"]
    assert tx.output, "filter_output came"
    assert set(json.loads(peer.of("POST", "/transactions")[0][1])) <= {
        "remote_host", "local_host", "mail_from", "rcpt_to", "smtp_meta", "sender",
        "filter_output"}


# ---- words and files ----

@pytest.mark.parametrize("hop,reason", [
    ({}, "upstream response success"),
    ({"on_mail": lambda _: "550 no"}, "upstream mail_response permfail"),
    ({"on_rcpt": lambda _: "550 no"}, "upstream rcpt_response permfail"),
    ({"on_data": lambda _: "550 no"}, "upstream response permfail"),
    ({"on_rcpt": lambda _: "450 later"}, "retry policy max attempts"),
])
def test_item_14_reasons(tmp_path, hop, reason):
    world = World(tmp_path, max_attempts=2)
    try:
        world.hop(**hop)
        world.start("serve")
        with Rest(world.router_url) as rest:
            location = rest.submit(token()).headers["location"]
            assert rest.final(location)["final_attempt_reason"] == reason
    finally:
        world.close()


def test_item_14_reason_of_a_cancel(one_shot):
    one_shot.cancel()
    assert one_shot.until("final_attempt_reason") == "downstream cancelled"
    assert one_shot.tx["cancelled"] is True


def test_item_14_texts_of_the_client_side(router_to):
    """What the original says when what is behind it fails; applications match on them."""
    world, peer = router_to("gateway")
    peer.close()
    with Rest(world.router_url) as rest:
        answer = rest.create("oneshot", **ENVELOPE, body={"inline": message(token()).decode()})
        tx = rest.wait(answer.headers["location"], lambda tx: "rcpt_response" in tx).json
    assert tx["mail_response"]["message"].startswith("RestEndpoint._start_upstream_tx")
    assert tx["mail_response"]["code"] == 450


def test_item_15_database_of_our_own(shared):
    """Nothing needs the existing schema: ours is made at the first start, in an empty folder."""
    found = [os.path.join(where, name) for where, _, names in os.walk(shared.values["state_dir"])
             for name in names if re.search(r"\.(db|sqlite3?)$", name)]
    assert found, os.listdir(shared.values["state_dir"])
    with sqlite3.connect(f"file:{found[0]}?mode=ro", uri=True) as database:
        tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
    database.close()
    assert "tx" in tables


def test_smtp_to_smtp_through_doubles_and_us(shared):
    """The whole of it once more without doubles: what they play is what we are."""
    mark = token()
    assert submit(shared.ingress, mark)[0] == 250
    assert len(shared.next_hop.with_text(mark)) == 1
