# SPDX-License-Identifier: Apache-2.0
"""Who may use the REST API: keys, certificates, senders; and listeners without either."""
import http.client
import json
import re
import ssl
import subprocess

import pytest

from access import bearer, fingerprint, make_ca, make_key, rest_section
from mail import ALICE, BOB, Rest, message, submit, token
from world import BINARY, World

ENVELOPE = {"mail_from": {"m": ALICE}, "rcpt_to": [{"m": BOB}]}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A router for three clients: `app` (submission), `other` (oneshot), `boss` (all, admin)."""
    it = World(tmp_path_factory.mktemp("guarded"))
    it.next_hop = it.hop(on_rcpt=lambda rcpt: "450 later" if "later" in rcpt else None)
    lines = {}
    it.keys = {}
    for name in ("app", "app2", "other", "boss"):
        it.keys[name], lines[name] = make_key()
    two = "api_keys: [" + ", ".join(re.search(r'"[^"]+"', lines[name]).group(0)
                                    for name in ("app", "app2")) + "]"
    edit = rest_section(["name: app", two, "senders: [submission]"],
                        ["name: other", lines["other"], "senders: [oneshot]"],
                        ["name: boss", lines["boss"], 'senders: ["*"]', "admin: yes",
                         "metrics: yes"])
    it.start("serve", edit_router=edit)
    yield it
    it.close()


@pytest.fixture
def rest(guarded):
    with Rest(guarded.router_url) as it:
        yield it


def test_the_key_is_not_in_the_configuration(guarded):
    with open(guarded.folder + "/router.yaml", encoding="utf-8") as file:
        text = file.read()
    assert all(key not in text and len(key) > 40 for key in guarded.keys.values())


@pytest.mark.parametrize("headers", [
    {}, {"authorization": ""}, {"authorization": "Bearer"}, {"authorization": "Bearer "},
    {"authorization": "Bearer kk_wrong"}, {"authorization": "Basic YTpi"},
    {"authorization": "Bearer a b"}, {"authorization": "Bearer " + "k" * 5000}])
def test_without_a_key(guarded, rest, headers):
    for method, path in (("POST", "/senders/submission/transactions"),
                         ("GET", "/transactions/AAAAAAAAAAAAAAAAAAAAAAAA"),
                         ("GET", "/admin/v1/transactions"), ("GET", "/nothing")):
        answer = rest.call(method, path, b"{}" if method == "POST" else None, **headers)
        assert (answer.status, answer.body) == (401, b"authentication required")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    for path in ("/healthz", "/readyz"):
        assert rest.call("GET", path).status == 200, "probes are for everybody"


@pytest.mark.parametrize("name", ["app", "app2"])
def test_with_a_key(guarded, rest, name):
    mark = token()
    answer = rest.call("POST", "/senders/submission/transactions",
                       dict(ENVELOPE, body={"inline": message(mark).decode()}),
                       **bearer(guarded.keys[name]))
    assert answer.status == 201
    location = answer.headers["location"]
    assert rest.call("GET", location, **bearer(guarded.keys["app"])).status == 200
    guarded.next_hop.wait_for(mark)


def test_the_scheme_is_not_case_sensitive(guarded, rest):
    answer = rest.call("POST", "/senders/submission/transactions", ENVELOPE,
                       authorization="bearer  " + guarded.keys["app"])
    assert answer.status == 201
    rest.call("POST", answer.headers["location"] + "/cancel", **bearer(guarded.keys["app"]))


@pytest.mark.parametrize("sender", ["oneshot", "ingress", "nobody"])
def test_another_sender(guarded, rest, sender):
    answer = rest.call("POST", f"/senders/{sender}/transactions", ENVELOPE,
                       **bearer(guarded.keys["app"]))
    assert answer.status == 403, "whether or not that sender exists"


def test_transactions_of_another_sender(guarded, rest):
    """Live, and (retried, held back by a next hop that is busy) stored."""
    app, other = bearer(guarded.keys["app"]), bearer(guarded.keys["other"])
    live = rest.call("POST", "/senders/submission/transactions", ENVELOPE, **app)
    mark = token()
    done = rest.call("POST", "/senders/submission/transactions",
                     dict(ENVELOPE, body={"inline": message(mark).decode()}), **app)
    with Rest(guarded.router_url) as own:
        end = own.call("GET", done.headers["location"], **app)
        while "final_attempt_reason" not in end.json:
            end = own.call("GET", done.headers["location"], if_none_match=end.etag,
                           request_timeout="5", **app)
    for location in (live.headers["location"], done.headers["location"]):
        etag = rest.call("GET", location, **app).etag
        assert rest.call("GET", location, **other).status == 404
        assert rest.call("GET", location, if_none_match=etag, request_timeout="5",
                         **other).status == 404
        assert rest.call("PATCH", location, if_match=etag, **other).status == 404
        assert rest.call("PUT", location + "/body", b"x", **other).status == 404
        assert rest.call("PUT", location + "/blob/b", b"x", **other).status == 404
        assert rest.call("POST", location + "/cancel", **other).status == 404
        assert rest.call("GET", location, **bearer(guarded.keys["boss"])).status == 200
        reuse = rest.call("POST", "/senders/oneshot/transactions",
                          dict(ENVELOPE, body={"reuse_uri": location + "/body"}), **other)
        assert reuse.status == 404
    assert "cancelled" not in rest.call("GET", live.headers["location"], **app).json
    again = rest.call("POST", "/senders/submission/transactions",
                      dict(ENVELOPE, body={"reuse_uri": done.headers["location"] + "/body"}),
                      **app)
    assert again.status == 201, "the own body may be used again"
    assert rest.call("POST", live.headers["location"] + "/cancel", **app).status == 200


def test_stored_transactions_of_another_sender(guarded, rest):
    """Between two attempts nothing of them is in memory."""
    app, other = bearer(guarded.keys["app"]), bearer(guarded.keys["other"])
    answer = rest.call("POST", "/senders/submission/transactions",
                       dict(ENVELOPE, rcpt_to=[{"m": "x@later.example"}],
                            body={"inline": message(token()).decode()}), **app)
    location = answer.headers["location"]
    for _ in range(30):
        assert rest.call("GET", location, **other).status == 404
        assert rest.call("POST", location + "/cancel", **other).status == 404
        now = rest.call("GET", location, **app)
        assert now.status == 200 and "cancelled" not in now.json
    assert rest.call("POST", location + "/cancel", **app).status in (200, 503)


def test_administration_is_for_who_may(guarded, rest):
    path = "/admin/v1/transactions"
    assert rest.call("GET", path, **bearer(guarded.keys["app"])).status == 404
    assert rest.call("GET", path, **bearer(guarded.keys["boss"])).status == 200


def key_file(world, name, key):
    path = world.write(name, key + "\n")
    return path


def test_koukan_send_and_queue(guarded):
    mark = token()
    path = guarded.write("mail.eml", message(mark).decode())
    base = [BINARY, "send", "--mail_from", ALICE, "--rfc822_filename", path, "--url",
            guarded.router_url + "/senders/submission/transactions"]
    app = key_file(guarded, "app.key", guarded.keys["app"])
    boss = key_file(guarded, "boss.key", guarded.keys["boss"])
    assert subprocess.run(base + [BOB], capture_output=True, timeout=60).returncode == 1
    done = subprocess.run(base + ["--api-key-file", app, BOB], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    queue = [BINARY, "queue", "list", "--url", guarded.router_url, "--json"]
    assert subprocess.run(queue, capture_output=True, timeout=60).returncode == 1
    done = subprocess.run(queue + ["--api-key-file", boss], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_gateway_shows_its_key(world):
    """Two processes: SMTP in, the gateway's key, the router."""
    world.next_hop = world.hop()
    key, line = make_key()
    path = world.write("gateway.key", key + "\n")
    edit = rest_section(["name: gateway", line, 'senders: ["*"]'])
    outputs = "    rcpt_timeout: 20\n"
    world.start("two", edit_router=edit,
                edit_gateway=lambda text: text.replace(outputs,
                                                       outputs + f"    api_key_file: {path}\n"))
    mark = token()
    assert submit(world.ingress, mark)[0] == 250
    world.next_hop.wait_for(mark)


def test_a_router_shows_its_key(world):
    """The way back: the gateway takes deliveries from who has its key alone."""
    world.next_hop = world.hop()
    key, line = make_key()
    path = world.write("router.key", key + "\n")
    other = "  - filter: rest_output\n"
    world.start("two", edit_gateway=rest_section(["name: router", line, "senders: [router]"]),
                edit_router=lambda text: text.replace(other,
                                                      other + f"    api_key_file: {path}\n"))
    with Rest(f"http://127.0.0.1:{world.values['gateway_port']}") as gateway:
        assert gateway.call("POST", "/senders/router/transactions", ENVELOPE).status == 401
    mark = token()
    assert submit(world.ingress, mark)[0] == 250
    world.next_hop.wait_for(mark)


# ---- certificates ----

def https(world, name=None):
    context = ssl.create_default_context(cafile=world.folder + "/ca.pem")
    if name:
        context.load_cert_chain(f"{world.folder}/{name}.pem", f"{world.folder}/{name}.key")
    return http.client.HTTPSConnection("127.0.0.1", world.values["router_port"], timeout=30,
                                       context=context)


def ask(connection, method, path, body=None, **headers):
    connection.request(method, path, json.dumps(body) if body is not None else None,
                       {key.replace("_", "-"): value for key, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.read(), dict(answer.getheaders())


@pytest.mark.parametrize("by", ["name", "fingerprint"])
def test_client_certificates(world, by):
    make_ca(world.folder)
    world.next_hop = world.hop()
    known = "app.example.com" if by == "name" else \
        "sha256:" + fingerprint(world.folder + "/good.pem")
    key, line = make_key()
    rest = rest_section(["name: app", f"certificates: ['{known}']", "senders: [submission]"],
                        ["name: other", line, "senders: [submission]"],
                        client_ca=world.folder + "/ca.pem")

    def edit(text):
        tls = (f"  cert: {world.folder}/server.pem\n  key: {world.folder}/server.key\n"
               "  session_uri: https://127.0.0.1:")
        return rest(text.replace("  session_uri: http://127.0.0.1:", tls))
    world.start("serve", edit_router=edit)
    path = "/senders/submission/transactions"
    mark = token()
    body = dict(ENVELOPE, body={"inline": message(mark).decode()})
    good = https(world, "good")
    status, _, headers = ask(good, "POST", path, body)
    assert status == 201
    assert ask(good, "GET", headers["location"].split("/", 3)[3].join(["/", ""]))[0] == 200
    assert ask(good, "POST", "/senders/oneshot/transactions", body)[0] == 403
    assert ask(https(world), "POST", path, body)[0] == 401, "no certificate"
    assert ask(https(world, "stranger"), "POST", path, body)[0] == 401, "not in the list"
    assert ask(good, "POST", path, body, authorization="Bearer wrong")[0] == 401
    assert ask(https(world), "POST", path, body, authorization="Bearer " + key)[0] == 201
    try:  # nobody vouches for it: refused in the handshake, or unknown
        assert ask(https(world, "other"), "POST", path, body)[0] == 401
    except (OSError, http.client.HTTPException):
        pass
    sent = subprocess.run(
        [BINARY, "send", "--mail_from", ALICE, "--rfc822_filename",
         world.write("mail.eml", message(token()).decode()), "--url",
         f"https://127.0.0.1:{world.values['router_port']}{path}", "--ca",
         world.folder + "/ca.pem", "--client-cert", world.folder + "/good.pem", "--client-key",
         world.folder + "/good.key", BOB], capture_output=True, timeout=60)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    world.next_hop.wait_for(mark)


# ---- listeners ----

def check(world, edit):
    path = world.config("router.yaml", edit)
    done = subprocess.run([BINARY, "config", "check", path], capture_output=True, text=True,
                          timeout=30)
    return done.returncode, done.stdout + done.stderr, path


def on(address):
    return lambda text: text.replace('addr: ["127.0.0.1",', f'addr: ["{address}",')


@pytest.mark.parametrize("address", ["0.0.0.0", "192.0.2.1", "::", "mail.example.com", ""])
def test_an_open_listener_is_refused(world, address):
    code, text, path = check(world, on(address))
    assert code == 1
    assert re.search(re.escape(path) + r":6:9: error: .*allow_unauthenticated: true", text), text
    done = subprocess.run([BINARY, "router", path], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "allow_unauthenticated" in done.stderr


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_needs_no_authentication(world, address):
    assert check(world, on(address))[0] == 0


def test_an_open_listener_that_is_meant(world):
    edit = rest_section(allow_unauthenticated="true")
    code, text, _ = check(world, lambda text: edit(on("0.0.0.0")(text)))
    assert code == 0, text
    _, line = make_key()
    edit = rest_section(["name: a", line, "senders: [submission]"])
    code, text, _ = check(world, lambda text: edit(on("0.0.0.0")(text)))
    assert code == 0 and "clear text" in text


@pytest.mark.parametrize("entry,what", [
    (["name: a", "senders: [s]"], "needs 'api_keys' or 'certificates'"),
    (["name: a", "api_keys: [secret]", "senders: [s]"], "64 hexadecimal digits"),
    (["name: a", "api_keys: ['sha256:" + "0" * 63 + "']", "senders: [s]"], "64 hexadecimal"),
    (["name: a", "api_keys: ['sha256:" + "0" * 64 + "']"], "needs 'senders'"),
    (["name: a", "certificates: [x.example]", "senders: [s]"], "needs 'client_ca'"),
    (["api_keys: ['sha256:" + "0" * 64 + "']", "senders: [s]"], "name"),
    (["name: a", "api_keys: ['sha256:" + "0" * 64 + "', 'sha256:" + "0" * 64 + "']",
      "senders: [s]"], "twice"),
])
def test_faults_of_entries(world, entry, what):
    code, text, path = check(world, rest_section(entry))
    assert code == 1 and what in text, text
    assert re.search(re.escape(path) + r":\d+:\d+: error: ", text)
