# SPDX-License-Identifier: Apache-2.0
"""Several certificates on one port (SNI), certificates of clients, and what policies, rows and the
log learn of a session."""
import json
import os
import signal
import smtplib
import socket
import ssl

import pytest

from devkit.procs import wait_until
from mail import BOB, message, token
from test_smtp_server import (Server, client_context, make_certificate, make_secrets, send_one,
                              with_keys)

CAROL = "carol@elsewhere.example.net"


def folder_of(path, name):
    made = path / name
    made.mkdir()
    return str(made)


@pytest.fixture
def two(tmp_path):
    """Certificates for localhost and for other.example, each (cert, key)."""
    return (make_certificate(folder_of(tmp_path, "first")),
            make_certificate(folder_of(tmp_path, "second"), "other.example"))


def subject(port, name):
    """Whose certificate the server shows to a client that wants `name` (None: does not say)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=20) as raw:
        with context.wrap_socket(raw, server_hostname=name) as safe:
            return safe.getpeercert(True)


def der(cert):
    with open(cert, encoding="ascii") as file:
        return ssl.PEM_cert_to_DER_cert(file.read())


def more(*pairs):
    return json.dumps([{"cert": cert, "key": key} for cert, key in pairs])


def test_sni(world, two):
    first, second = two
    server = Server(world, cert=first[0], key=first[1], smtps="true", certificates=more(second))
    assert subject(server.port, "other.example") == der(second[0])
    for name in ("localhost", "unknown.example", "OTHER.example.", None):
        assert subject(server.port, name) == der(first[0]), name
    mark = token()
    context = client_context(second[0])
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
        with context.wrap_socket(raw, server_hostname="other.example") as safe:
            safe.sendall(b"EHLO c\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<%s>\r\nDATA\r\n"
                         % BOB.encode())
            lines = safe.makefile("rb")
            while not lines.readline().startswith(b"354 "):
                pass
            safe.sendall(message(mark) + b".\r\n")
            assert lines.readline().startswith(b"250 ")
    server.arrived(mark)


def test_sni_reload(world, tmp_path, two):
    """SIGHUP brings new files for all names; one that cannot be read changes nothing."""
    first, second = two
    server = Server(world, cert=first[0], key=first[1], certificates=more(second), smtps="true")
    old = der(second[0])
    make_certificate(os.path.dirname(second[0]), "other.example")
    assert subject(server.port, "other.example") == old
    server.signal(signal.SIGHUP)
    wait_until(lambda: subject(server.port, "other.example") == der(second[0]), "the new one")
    new = der(second[0])
    with open(second[1], "w", encoding="ascii") as file:
        file.write("no key\n")
    server.signal(signal.SIGHUP)
    wait_until(lambda: "smtp.reload_failed" in server.log(), "the complaint")
    assert subject(server.port, "other.example") == new
    assert subject(server.port, "localhost") == der(first[0])


def test_bad_certificates_are_said_clearly(world, two):
    first, second = two
    path = world.config("gateway.yaml", with_keys(cert=first[0], key=first[1],
                                                  certificates=more((second[0], first[1]))))
    proc = world.start_proc("gateway", "gateway", path)
    assert proc.finish() == 1
    assert first[1] in proc.err()
    world.procs.remove(proc)


def test_client_certificates(world, tmp_path, two):
    """One of the right authority is named in the log; one of others and none are served as well."""
    first, second = two
    good = make_certificate(folder_of(tmp_path, "good"), "client.example")
    server = Server(world, cert=first[0], key=first[1], client_ca=good[0])
    for pair in (good, second, None):
        context = client_context(first[0])
        if pair:
            context.load_cert_chain(*pair)
        mark = token()
        with smtplib.SMTP("127.0.0.1", server.port, timeout=20) as client:
            client.ehlo("client.example")
            client.starttls(context=context)
            client.ehlo("client.example")
            send_one(client, mark)
        server.arrived(mark)
    wait_until(lambda: server.log().count("smtp.session") >= 3, "the end of the sessions")
    lines = [line for line in server.log().splitlines() if "smtp.session" in line]
    assert [("certificate=CN=client.example" in line or 'certificate="CN=client.example"' in line)
            for line in lines] == [True, False, False], lines
    assert all("tls=TLSv1.3" in line and "cipher=TLS_" in line for line in lines), lines


# ---- the name of an authenticated client ----

POLICY = """  - filter: policy_action
    match: {not: {matcher: smtp_auth, users: [bob]}}
    action: REJECT
    tag: users
"""


def only_bob(text):
    """Only bob may send, says the chain of the client's transaction and that of each recipient."""
    head, exploder, rest = text.partition("- name: submission_exploder\n")
    rest = rest.replace("  chain:\n", "  chain:\n" + POLICY, 2)
    return head + exploder + rest


def send_as(port, cert, user, password, mark):
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.starttls(context=client_context(cert))
        client.login(user, password)
        code, text = client.mail("alice@example.com")
        if code == 250:
            code, text = client.rcpt(CAROL)
        return client.data(message(mark)) if code == 250 else (code, text)


def submission_keys(**keys):
    lines = "".join(f"\n      {name}: {value}" for name, value in keys.items())
    return lambda text: text.replace("tag: smtp-msa", "tag: smtp-msa" + lines)


def test_policies_know_the_user(world, mode, two):
    """By name, and in two processes as well."""
    cert, key = two[0]
    secrets = make_secrets(world, bob=("b0b", "--plain-sha256"), carol=("c4rol", "--plain-sha256"))
    hop = world.hop()
    world.start(mode, edit_router=only_bob,
                edit_gateway=submission_keys(cert=cert, key=key, auth_secrets=secrets))
    mark, other = token(), token()
    code, text = send_as(world.submission, cert, "carol", "c4rol", other)
    assert code == 550 and b"users" in text, (code, text)
    code, text = send_as(world.submission, cert, "bob", "b0b", mark)
    assert code == 250, text
    got = hop.wait_for(mark)
    assert "with ESMTPSA" in got.text and not hop.with_text(other)


def test_a_row_keeps_the_user(world, two):
    """The policy holds for a retry after a restart, too."""
    cert, key = two[0]
    secrets = make_secrets(world, bob=("b0b", "--plain-sha256"))
    busy = [True]
    hop = world.hop(on_mail=lambda _: "451 later" if busy[0] else None)

    def start():
        world.start("serve", edit_router=only_bob,
                    edit_gateway=submission_keys(cert=cert, key=key, auth_secrets=secrets))
    start()
    mark = token()
    code, text = send_as(world.submission, cert, "bob", "b0b", mark)
    assert code == 250, text
    assert not hop.with_text(mark)
    world.stop_servers()
    busy[0] = False
    start()
    hop.wait_for(mark, 30)
