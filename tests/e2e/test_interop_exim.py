# SPDX-License-Identifier: Apache-2.0
"""Exim on both sides of us: it relays to us by BDAT where we offer CHUNKING, and takes what we relay,
with its own reading of every extension."""
import os

import pytest

from devkit import exim, procs
from mail import Raw, message, submit, token
from test_dsn import WITH_DSN
from test_interop import RCPTS, copies
from test_interop import submit as submit_many
from test_smtp_client import output_keys
from test_smtp_server import Server, make_certificate, with_keys

pytestmark = [
    pytest.mark.skipif(exim.program() is None, reason="no exim (./dev test unpacks it)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="Exim's own user needs a mount namespace"),
]
BODIES = ["hello\r\n", ".\r\n..\r\n.x\r\n\r\n.\r\n", "gr\u00fc\u00dfe\r\n", "y" * 990 + "\r\n",
          "line\r\n" * 50000]


@pytest.fixture
def start_exim(tmp_path):
    made = []

    def start(**keywords):
        path = str(tmp_path)
        made.append(exim.Exim(path, **keywords))
        while path != "/":  # it runs as another user
            os.chmod(path, os.stat(path).st_mode | 0o055)
            path = os.path.dirname(path)
        made[-1].start()
        return made[-1]
    yield start
    for server in made:
        server.stop()


@pytest.fixture
def tls(tmp_path):
    pair = make_certificate(str(tmp_path))
    for path in pair:
        os.chmod(path, 0o644)
    return pair


def served(world, tls, secure, **keys):
    if secure:
        keys.update(cert=tls[0], key=tls[1])
    return Server(world, **keys)


@pytest.mark.parametrize("chunking", [True, False])
@pytest.mark.parametrize("secure", [True, False])
def test_exim_relays_to_us(world, start_exim, tls, chunking, secure):
    server = served(world, tls, secure, enable_bdat="true" if chunking else "false")
    client = start_exim(hop_port=server.port, tls=tls if secure else None)
    for body in BODIES:
        mark = token()
        submit_many(client.port, mark, ["BODY=8BITMIME"], data=message(mark, body))
        got = copies(server.hop, mark, len(RCPTS))
        assert sorted(each.rcpts[0].partition("<")[2].partition(">")[0] for each in got) == RCPTS
        assert all(each.data.endswith(message(mark, body)) for each in got)
    procs.wait_until(lambda: client.log().count("Completed") == len(BODIES), "Exim's log")
    sent = [line for line in client.log().splitlines() if " => " in line]
    assert len(sent) == len(BODIES)
    for line in sent:
        assert (" K " in line) == chunking and (" X=TLS" in line) == secure, line
        assert 'C="250' in line, line


def test_exim_sees_our_refusals(world, start_exim):
    hop = world.hop(on_rcpt=lambda address: "550 5.1.1 no such user" if "user1" in address
                    else "451 4.2.1 later" if "user2" in address else None)
    world.start(edit_gateway=with_keys(enable_bdat="true"))
    client = start_exim(hop_port=world.ingress)
    mark = token()
    submit_many(client.port, mark)
    copies(hop, mark, 3)
    procs.wait_until(lambda: " ** user1@example.com" in client.log()
                     and " == user2@example.com" in client.log(), "Exim's verdicts")
    log = client.log()
    assert "550 5.1.1" in log and "451 4.2.1" in log, log


def test_dsn_from_exim_to_the_next_hop(world, start_exim):
    hop = world.hop(extensions=WITH_DSN)
    world.start(edit_gateway=with_keys(dsn="true"))
    client = start_exim(hop_port=world.ingress)
    mark = token()
    submit_many(client.port, mark, ["RET=HDRS", "ENVID=QQ314159"],
                ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;first@old.example"], rcpts=RCPTS[:1])
    got = copies(hop, mark, 1)[0]
    assert " RET=HDRS" in got.mail_from and " ENVID=QQ314159" in got.mail_from
    assert "NOTIFY=SUCCESS,FAILURE" in got.rcpts[0]
    assert "ORCPT=rfc822;first@old.example" in got.rcpts[0]


@pytest.mark.parametrize("bdat", ["true", "false"])
@pytest.mark.parametrize("policy", ["none", "required"])
def test_exim_takes_what_we_relay(world, start_exim, tls, bdat, policy):
    server = start_exim(tls=tls)
    world.values["sink_port"] = server.port
    world.start(edit_gateway=output_keys(enable_bdat=bdat, tls=policy))
    for count, body in enumerate(BODIES, 1):
        mark = token()
        data = message(mark, body)
        assert submit(world.ingress, mark, data=data)[0] == 250
        procs.wait_until(lambda: len(server.kept()) == count, "the message")  # noqa: B023
        got = [each for each in server.kept() if mark.encode() in each]
        assert len(got) == 1 and got[0].endswith(data.replace(b"\r\n", b"\n"))
    taken = [line for line in server.log().splitlines() if " <= alice@example.com" in line]
    assert len(taken) == len(BODIES)
    for line in taken:
        assert (" K " in line) == (bdat == "true"), line
        assert (" X=TLS" in line) == (policy == "required"), line


@pytest.mark.parametrize("bdat", ["true", "false"])
def test_refusals_of_exim(world, start_exim, bdat):
    server = start_exim()
    world.values["sink_port"] = server.port
    world.start(edit_gateway=output_keys(enable_bdat=bdat))
    with Raw(world.ingress) as client:
        assert client.code("MAIL FROM:<alice@example.com>") == 250
        assert client.command("RCPT TO:<nobody@example.com>") == (550, "5.0.0 no such user")
        assert client.command("RCPT TO:<later@example.com>") == (451, "4.0.0 not now")
        assert client.code("RSET") == 250
        assert client.works(token())[0] == 250
