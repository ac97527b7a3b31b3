# SPDX-License-Identifier: Apache-2.0
"""Other people's SMTP clients as they relay to us: Postfix's own, smtp-source, swaks with
PIPELINING.  (Postfix as next hop, smtp-sink: test_smtp_client.py; curl, msmtp, swaks, smtplib
with TLS and AUTH: test_smtp_server.py; Exim: test_interop_exim.py.)"""
import os
import shutil
import smtplib
import subprocess

import pytest

from devkit import postfix, procs
from mail import ALICE, message, token
from test_dsn import WITH_DSN
from test_smtp_server import Server, make_certificate, with_keys

RCPTS = [f"user{n}@example.com" for n in range(5)]


def needs(*programs):
    lacking = [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(bool(lacking), reason="not installed: " + ", ".join(lacking))


class Relay(postfix.Postfix):
    """Hands everything on to our port."""

    def __init__(self, folder, port, extra=""):
        super().__init__(folder, port)
        with open(os.path.join(self.folder, "main.cf"), "a", encoding="ascii") as file:
            file.write("smtpd_discard_ehlo_keywords = chunking\nmaximal_queue_lifetime = 1h\n"
                       + extra)

    def log(self):
        with open(os.path.join(self.folder, "log"), encoding="utf-8", errors="replace") as file:
            return file.read()


@pytest.fixture
def relay(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("Postfix's master process needs root")
    made = []

    def start(port, extra=""):
        path = str(tmp_path)
        made.append(Relay(path, port, extra))
        while path != "/":  # its processes run as another user
            os.chmod(path, os.stat(path).st_mode | 0o055)
            path = os.path.dirname(path)
        made[-1].start()
        return made[-1]
    yield start
    for server in made:
        server.stop()


def submit(port, mark, mail=(), rcpt=(), rcpts=RCPTS, data=None):
    """To Postfix."""
    with smtplib.SMTP("127.0.0.1", port, local_hostname="localhost", timeout=30) as client:
        client.ehlo()
        assert client.mail(ALICE, list(mail))[0] == 250
        for address in rcpts:
            assert client.rcpt(address, list(rcpt))[0] == 250
        code, text = client.data(data if data is not None else message(mark))
        assert code == 250, text


def copies(hop, mark, count):
    procs.wait_until(lambda: len(hop.with_text(f"end-{mark}")) >= count,
                     f"{count} copies of {mark}", 60)
    return hop.with_text(f"end-{mark}")


@needs("postfix")
@pytest.mark.parametrize("level", ["none", "may", "secure"])
def test_postfix_relays_to_us(world, relay, tmp_path, level):
    """PIPELINING, SIZE, 8BITMIME, several recipients at a time; in clear, with opportunistic TLS,
    and with our certificate verified."""
    cert, key = make_certificate(str(tmp_path))
    os.chmod(cert, 0o644)
    server = Server(world, **({} if level == "none" else {"cert": cert, "key": key}))
    client = relay(server.port, f"smtp_tls_security_level = {level}\nsmtp_tls_loglevel = 1\n"
                   + (f"smtp_tls_CAfile = {cert}\n" if level == "secure" else "") +
                   "smtp_tls_secure_cert_match = localhost\n")
    marks = []
    for body in ("hello\r\n", ".\r\n..\r\n.x\r\n", "gr\u00fc\u00dfe\r\n", "line\r\n" * 20000):
        marks.append(token())
        submit(client.port, marks[-1], ["BODY=8BITMIME"], data=message(marks[-1], body))
        got = copies(server.hop, marks[-1], len(RCPTS))
        assert sorted(each.rcpts[0].partition("<")[2].partition(">")[0] for each in got) == RCPTS
        # behind added trace fields: what was sent, to the byte
        assert all(each.data.endswith(message(marks[-1], body)) for each in got)
    log = client.log()
    assert "status=sent (250" in log and "status=deferred" not in log, log[-3000:]
    assert ("TLS connection established" in log) == (level != "none"), log[-3000:]
    assert ("Verified TLS connection established" in log) == (level == "secure"), log[-3000:]


@needs("postfix")
def test_postfix_sees_our_refusals(world, relay):
    """A refused recipient is bounced by Postfix, a temporary one is deferred, the others go."""
    hop = world.hop(on_rcpt=lambda address: "550 5.1.1 no such user" if "user1" in address
                    else "451 4.2.1 later" if "user2" in address else None)
    world.start()
    client = relay(world.ingress)
    mark = token()
    submit(client.port, mark)
    copies(hop, mark, 3)
    procs.wait_until(lambda: "status=bounced" in client.log() and "status=deferred" in client.log(),
                     "Postfix's verdicts", 30)
    log = client.log()
    assert "to=<user1@example.com>" in [word for line in log.splitlines() if "status=bounced" in line
                                        for word in line.replace(",", " ").split()]
    assert all("user2@example.com" in line for line in log.splitlines() if "status=deferred" in line)


@needs("postfix")
def test_dsn_from_postfix_to_the_next_hop(world, relay):
    """Postfix hands RET, ENVID, NOTIFY and ORCPT on to us, and we to a next hop with DSN."""
    hop = world.hop(extensions=WITH_DSN)
    world.start(edit_gateway=with_keys(dsn="true"))
    client = relay(world.ingress)
    mark = token()
    submit(client.port, mark, ["RET=HDRS", "ENVID=QQ314159"],
           ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;first@old.example"], rcpts=RCPTS[:1])
    got = copies(hop, mark, 1)[0]
    assert " RET=HDRS" in got.mail_from and " ENVID=QQ314159" in got.mail_from
    assert "NOTIFY=SUCCESS,FAILURE" in got.rcpts[0]
    assert "ORCPT=rfc822;first@old.example" in got.rcpts[0]


@needs("smtp-source")
@pytest.mark.parametrize("arguments", [
    ["-s", "4", "-m", "40"], ["-s", "4", "-m", "40", "-d"], ["-m", "5", "-l", "200000"],
    ["-m", "5", "-r", "10"]])
def test_smtp_source(world, arguments):
    """Connections at a time, kept open, long messages, many recipients."""
    hop = world.hop()
    world.start()
    done = subprocess.run(["smtp-source", *arguments, "-f", ALICE, "-t", "bob@example.com",
                           f"inet:127.0.0.1:{world.ingress}"], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=90, check=False)
    assert done.returncode == 0 and not done.stdout, done.stdout.decode()
    messages = int(arguments[arguments.index("-m") + 1])
    rcpts = 10 if "-r" in arguments else 1
    procs.wait_until(lambda: len(hop.taken) == messages * rcpts, "all messages", 30)


@needs("swaks")
def test_swaks_pipelining(world):
    server = Server(world)
    mark = token()
    done = subprocess.run(
        ["swaks", "--server", "127.0.0.1", "--port", str(server.port), "--helo", "localhost",
         "--from", ALICE, "--to", ",".join(RCPTS), "--pipeline", "--data",
         message(mark).decode().replace("\r\n", "\n")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
    assert done.returncode == 0, done.stdout.decode()
    assert len(copies(server.hop, mark, len(RCPTS))) == len(RCPTS)
