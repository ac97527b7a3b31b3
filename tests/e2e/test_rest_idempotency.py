# SPDX-License-Identifier: Apache-2.0
"""Idempotency-Key: the same request twice is one message."""
import threading
import time

import pytest

from access import bearer, make_key, rest_section
from mail import ALICE, BOB, Rest, message, token
from test_queue_cluster import database, pair, paths  # noqa: F401

ENVELOPE = {"mail_from": {"m": ALICE}, "rcpt_to": [{"m": BOB}]}
CREATE = "/senders/submission/transactions"


@pytest.fixture
def rest(shared):
    with Rest(shared.router_url) as it:
        yield it


def post(rest, key, body, sender="submission", **headers):
    return rest.call("POST", f"/senders/{sender}/transactions", body, idempotency_key=key,
                     **headers)


def inline(mark):
    return dict(ENVELOPE, body={"inline": message(mark).decode()})


def test_the_same_request_again(shared, rest):
    mark, key = token(), token()
    first = post(rest, key, inline(mark))
    assert first.status == 201
    again = [post(rest, key, inline(mark)) for _ in range(3)]
    with Rest(shared.router_url) as other:
        again.append(post(other, key, inline(mark)))
    rest.final(first.headers["location"])
    again.append(post(rest, key, inline(mark)))
    for answer in again:
        assert answer.status == 201, answer.body
        assert answer.headers["location"] == first.headers["location"]
    assert again[-1].json["data_response"]["code"] == 250
    last = token()
    rest.submit(last)
    shared.next_hop.wait_for(last)
    assert len(shared.next_hop.with_text(mark)) == 1


def test_another_request(rest):
    key = token()
    assert post(rest, key, inline(token())).status == 201
    answer = post(rest, key, inline(token()))
    assert (answer.status, answer.body) == (409, b"the idempotency key was used for another "
                                                 b"request")


def test_a_key_is_of_its_sender(rest):
    key, body = token(), inline(token())
    one, two = post(rest, key, body), post(rest, key, body, sender="oneshot")
    assert one.status == two.status == 201
    assert one.headers["location"] != two.headers["location"]


@pytest.mark.parametrize("key,status", [("k" * 255, 201), ("k" * 256, 400), ("", 400),
                                        ('"quoted"', 201), ("ä".encode().decode("latin-1"), 400)])
def test_keys(rest, key, status):
    key = key + token() if status == 201 and len(key) < 255 else key
    answer = post(rest, key, ENVELOPE)
    assert answer.status == status, answer.body
    if status == 201:
        rest.call("POST", answer.headers["location"] + "/cancel")


def test_refused_requests_take_no_key(rest):
    key = token()
    assert post(rest, key, {"nonsense": 1}).status == 400
    assert post(rest, key, inline(token())).status == 201


def test_at_the_same_moment(shared):
    """Ten at once, over ten connections: one transaction."""
    mark, key, seen = token(), token(), []

    def run():
        with Rest(shared.router_url) as own:
            seen.append(post(own, key, inline(mark)))
    threads = [threading.Thread(target=run) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status for answer in seen} == {201}
    assert len({answer.headers["location"] for answer in seen}) == 1
    shared.next_hop.wait_for(mark)
    assert len(shared.next_hop.with_text(mark)) == 1


@pytest.mark.parametrize("sender", ["submission", "oneshot"])
def test_with_an_upload(shared, rest, sender):
    mark, key = token(), token()
    first = post(rest, key, ENVELOPE, sender)
    again = post(rest, key, ENVELOPE, sender)
    assert again.status == 201
    assert again.headers["location"] == first.headers["location"]
    uri = again.json["body"]["blob_status"]["uri"]
    assert rest.call("PUT", uri, message(mark)).status == 200
    rest.final(first.headers["location"])
    last = post(rest, key, ENVELOPE, sender)
    assert last.status == 201 and last.json["body"]["blob_status"]["finalized"] is True
    assert len(shared.next_hop.with_text(mark)) == 1


def test_the_gateway_keeps_none(shared):
    with Rest(f"http://127.0.0.1:{shared.values['gateway_port']}") as gateway:
        answer = gateway.call("POST", "/senders/router/transactions",
                              dict(ENVELOPE, sender={"tag": "outbound"}), idempotency_key="k")
        assert answer.status == 400


def test_clients_do_not_share_keys(world):
    world.hop()
    (one, line1), (two, line2) = make_key(), make_key()
    world.start("serve", edit_router=rest_section(
        ["name: one", line1, 'senders: ["*"]'], ["name: two", line2, 'senders: ["*"]']))
    with Rest(world.router_url) as rest:
        body = inline(token())
        first = post(rest, "k", body, **bearer(one))
        other = post(rest, "k", body, **bearer(two))
        assert first.status == other.status == 201
        assert first.headers["location"] != other.headers["location"]
        again = post(rest, "k", body, **bearer(one))
        assert again.headers["location"] == first.headers["location"]


def test_keys_end(world):
    world.hop()
    world.start("serve", edit_router=rest_section(idempotency_ttl=1))
    with Rest(world.router_url) as rest:
        body = inline(token())
        first = post(rest, "k", body)
        end = time.monotonic() + 20
        while True:
            again = post(rest, "k", body)
            assert again.status == 201
            if again.headers["location"] != first.headers["location"]:
                break
            assert time.monotonic() < end
            time.sleep(0.2)


def kill_and_restart(world):
    world.router_server.kill()
    world.procs.remove(world.router_server)
    world.servers.remove(world.router_server)
    world.router_server = world.start_server(
        "again", "serve", world.folder + "/gateway.yaml", world.folder + "/router.yaml")


@pytest.mark.parametrize("upload", [False, True])
def test_after_kill_9(world, upload):
    """The answer was lost with the process: the repeated request finds what it had made."""
    mark, key = token(), token()
    hop = world.hop(on_rcpt=lambda rcpt: "450 not yet" if busy.is_set() else None)
    busy = threading.Event()
    busy.set()
    world.start("serve")
    body = ENVELOPE if upload else inline(mark)
    with Rest(world.router_url) as rest:
        first = post(rest, key, body)
        assert first.status == 201
        if upload:
            assert rest.call("PUT", first.headers["location"] + "/body",
                             message(mark)).status == 200
    kill_and_restart(world)
    busy.clear()
    with Rest(world.router_url) as rest:
        again = post(rest, key, body)
        assert again.status == 201, again.body
        assert again.headers["location"] == first.headers["location"]
        assert post(rest, key, inline(token())).status == 409
        hop.wait_for(mark)
        rest.final(first.headers["location"])
        last = token()
        rest.submit(last)
        hop.wait_for(last)
    assert len(hop.with_text(mark)) == 1


def test_what_was_in_memory_only_is_made_anew(world):
    """Created, but its message not uploaded, when the process died: nobody has it any more."""
    mark, key = token(), token()
    hop = world.hop()
    world.start("serve")
    with Rest(world.router_url) as rest:
        first = post(rest, key, ENVELOPE)
    kill_and_restart(world)
    with Rest(world.router_url) as rest:
        again = post(rest, key, ENVELOPE)
        assert again.status == 201
        assert again.headers["location"] != first.headers["location"]
        assert rest.call("PUT", again.headers["location"] + "/body", message(mark)).status == 200
    hop.wait_for(mark)
    assert len(hop.with_text(mark)) == 1


# ---- two replicas ----

def test_replicas_share_keys(pair):  # noqa: F811
    """The same request to both, one after the other and at once: one message each."""
    hop = pair.worlds[0].hop()
    a, b = pair.start()
    with Rest(a.router_url) as at_a, Rest(b.router_url) as at_b:
        mark, key = token(), token()
        body = inline(mark)
        first = post(at_a, key, body)
        assert first.status == 201
        hop.wait_for(mark)
        at_a.final(first.headers["location"])
        end = time.monotonic() + 20
        again = post(at_b, key, body)
        while again.status == 308:  # its first owner writes the end of it
            assert again.headers["location"] == a.router_url + CREATE
            assert time.monotonic() < end
            again = post(at_b, key, body)
        assert again.status == 201
        assert again.headers["location"] == b.router_url + paths(first.headers["location"])
        assert post(at_b, key, inline(token())).status == 409
    mark, key, seen = token(), token(), []

    def run(url):
        with Rest(url) as own:
            answer = post(own, key, inline(mark))
            if answer.status == 308:
                with Rest(answer.headers["location"]) as other:
                    answer = post(other, key, inline(mark))
            seen.append(answer)
    threads = [threading.Thread(target=run, args=(world.router_url,))
               for world in pair.worlds * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status for answer in seen} == {201}, [answer.body for answer in seen]
    assert len({paths(answer.headers["location"]) for answer in seen}) == 1
    hop.wait_for(mark)
    last = token()
    with Rest(b.router_url) as rest:
        rest.submit(last)
    hop.wait_for(last)
    assert len(hop.with_text(mark)) == 1


def test_a_transaction_in_the_memory_of_the_other(pair):  # noqa: F811
    pair.worlds[0].hop()
    a, b = pair.start()
    with Rest(a.router_url) as at_a, Rest(b.router_url) as at_b:
        key = token()
        first = post(at_a, key, ENVELOPE)
        answer = post(at_b, key, ENVELOPE)
        assert (answer.status, answer.headers["location"]) == (308, a.router_url + CREATE)
        assert post(at_a, key, ENVELOPE).headers["location"] == first.headers["location"]
    a.router_server.kill()
    a.procs.remove(a.router_server)
    a.servers.remove(a.router_server)
    with Rest(b.router_url) as at_b:
        end = time.monotonic() + 30
        while True:  # until its session counts as dead
            answer = post(at_b, key, ENVELOPE)
            if answer.status == 201:
                break
            assert answer.status == 308 and time.monotonic() < end
            time.sleep(0.2)
        assert answer.headers["location"].startswith(b.router_url)
