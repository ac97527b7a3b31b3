# SPDX-License-Identifier: Apache-2.0
"""The SMTP client of the gateway and `koukan smtp` against other people's servers: Postfix,
smtp-sink, and a server on Python's ssl that speaks STARTTLS, AUTH, BDAT and LMTP."""
import base64
import hashlib
import os
import re
import shutil
import smtplib
import socket
import ssl
import subprocess
import threading

import pytest

import queue_tool
from world import RELEASE
from devkit import postfix, procs
from hop import address_of
from mail import ALICE, BOB, Raw, message, submit, token

USER, PASSWORD = "relay-user", "correct horse battery"


# ---- peers ----

@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    """ca.pem; hop.pem for hop.example.net, signed by it; both with openssl's own tool."""
    folder = str(tmp_path_factory.mktemp("certs"))
    path = {name: os.path.join(folder, name) for name in ("ca.pem", "ca.key", "hop.pem",
                                                          "hop.key")}
    base = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2"]
    for command in (
            [*base, "-keyout", path["ca.key"], "-out", path["ca.pem"], "-subj", "/CN=test-ca"],
            [*base, "-keyout", path["hop.key"], "-out", path["hop.pem"], "-subj", "/CN=hop",
             "-CA", path["ca.pem"], "-CAkey", path["ca.key"], "-addext",
             "subjectAltName=DNS:hop.example.net,DNS:localhost", "-addext",
             "basicConstraints=critical,CA:FALSE"]):
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        assert done.returncode == 0, done.stdout.decode()
    return path


class Taken:
    def __init__(self, session, sender, rcpts, data, verb):
        self.tls, self.user, self.peer = session.tls, session.user, session.peer
        self.sender, self.rcpts, self.verb = sender, rcpts, verb
        self.size, self.raw = len(data), data
        self.data = bytes(data[:4096]) + bytes(data[-4096:])


class Session:
    def __init__(self, hop, connection, peer):
        self.hop, self.connection, self.peer = hop, connection, peer[0]
        self.tls, self.user = False, None

    def start_tls(self):
        self.connection = self.hop.context.wrap_socket(self.connection, server_side=True)
        self.lines = self.connection.makefile("rb")
        self.tls = True

    def say(self, text):
        self.connection.sendall(text.encode() + b"\r\n")

    def ask(self, text):
        self.say("334 " + base64.b64encode(text.encode()).decode())
        return base64.b64decode(self.lines.readline())

    def run(self):
        hop = self.hop
        self.lines = self.connection.makefile("rb")
        if hop.tls == "implicit":
            self.start_tls()
        self.say("220 hop.example.net")
        sender, rcpts, data = None, [], bytearray()
        while True:
            line = self.lines.readline().decode().rstrip("\r\n")
            verb = line.split(" ")[0].upper()
            with hop.lock:
                hop.commands.append(line)
            if verb in ("EHLO", "LHLO"):
                offers = ["hop.example.net", "8BITMIME", *hop.offers]
                if hop.tls in ("starttls", "broken") and not self.tls:
                    offers.append("STARTTLS")
                if hop.auth:
                    offers.append("AUTH " + hop.auth)
                self.say("\r\n".join(f"250{'-' if i < len(offers) - 1 else ' '}{offer}"
                                     for i, offer in enumerate(offers)))
            elif verb == "STARTTLS":
                self.say("220 go ahead")
                if hop.tls == "broken":
                    self.connection.sendall(b"this is no handshake\r\n" * 10)
                    return
                self.start_tls()
            elif verb == "AUTH":
                self.authenticate(line)
            elif verb == "MAIL":
                sender, rcpts, data = line, [], bytearray()
                self.say("250 sender")
            elif verb == "RCPT":
                rcpts.append(line)
                self.say("250 recipient")
            elif verb == "DATA":
                self.say("354 go")
                while (line := self.lines.readline()) != b".\r\n":
                    if not line:
                        return
                    data += line[1:] if line.startswith(b".") else line
                self.finish(sender, rcpts, data, "DATA")
            elif verb == "BDAT":
                size = int(line.split(" ")[1])
                while size > 0:
                    piece = self.lines.read(min(size, 65536))
                    if not piece:
                        return
                    size -= len(piece)
                    data += piece
                if line.endswith(" LAST"):
                    self.finish(sender, rcpts, data, "BDAT")
                else:
                    self.say("250 chunk")
            elif verb == "QUIT":
                self.say("221 bye")
                return
            elif verb == "":
                return
            else:
                self.say("250 ok")

    def authenticate(self, line):
        words = line.split(" ")
        if words[1] == "PLAIN":
            raw = base64.b64decode(words[2]) if len(words) > 2 else self.ask("")
            _, user, password = raw.decode().split("\0")
        else:
            user, password = self.ask("Username:").decode(), self.ask("Password:").decode()
        if (user, password) == (USER, PASSWORD):
            self.user = user
            self.say("235 2.7.0 welcome")
        else:
            self.say("535 5.7.8 no")

    def finish(self, sender, rcpts, data, verb):
        hop = self.hop
        if hop.drop_after_end:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        with hop.lock:
            hop.taken.append(Taken(self, sender, rcpts, data, verb))
        for rcpt in rcpts if hop.lmtp else rcpts[:1]:
            self.say(hop.on_end(address_of(rcpt)))


class SecureHop:
    """`tls`: None, "starttls", "implicit" or "broken"."""

    def __init__(self, port=0, certs=None, tls=None, auth="", offers=(), lmtp=False,
                 on_end=lambda rcpt: "250 2.0.0 taken", drop_after_end=False):
        self.tls, self.auth, self.offers, self.lmtp = tls, auth, offers, lmtp
        self.on_end, self.drop_after_end = on_end, drop_after_end
        self.lock, self.taken, self.commands = threading.Lock(), [], []
        if certs:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certs["hop.pem"], certs["hop.key"])
        self.listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, peer = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection, peer), daemon=True).start()

    def serve(self, connection, peer):
        session = Session(self, connection, peer)
        try:
            session.run()
        except (OSError, ValueError):
            pass
        finally:
            session.connection.close()

    def find(self, mark):
        with self.lock:
            return [taken for taken in self.taken if mark.encode() in taken.data]

    def wait_for(self, mark, seconds=20):
        return procs.wait_until(lambda: self.find(mark), f"{mark} in the next hop", seconds)[0]

    def close(self):
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()


@pytest.fixture
def secure_hop(world, certs):
    """A maker of next hops; on the sink's port unless another is given."""
    made = []

    def make(**behaviour):
        made.append(SecureHop(behaviour.pop("port", world.values["sink_port"]), certs,
                              **behaviour))
        return made[-1]
    yield make
    for hop in made:
        hop.close()


def output_keys(**keys):
    """An edit of the configuration: keys of smtp_output.hosts.outbound."""
    lines = "".join(f"      {key}: {value}\n" for key, value in keys.items())
    return lambda text: text.replace("      ehlo_host:", lines + "      ehlo_host:", 1)


def refusal(world, mark):
    """The code of an ingress transaction that cannot be delivered now."""
    with pytest.raises((smtplib.SMTPRecipientsRefused, smtplib.SMTPSenderRefused)) as caught:
        submit(world.ingress, mark)
    error = caught.value
    return error.smtp_code if isinstance(error, smtplib.SMTPSenderRefused) \
        else error.recipients[BOB][0]


def wait_log(world, pattern):
    return procs.wait_until(lambda: re.search(pattern, world.smtp_server.err()),
                            f"{pattern} in the log")


def koukan_smtp(world, *arguments, port, text=b"", host="127.0.0.1", rcpts=(BOB,)):
    return subprocess.run(
        [world.binary, "smtp", *arguments, host, str(port), "client.example", ALICE, *rcpts],
        input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False)


# ---- TLS ----

def test_starttls_without_a_word_about_it(world, secure_hop):
    hop = secure_hop(tls="starttls")
    world.start()
    mark = token()
    assert submit(world.ingress, mark)[0] == 250
    assert hop.wait_for(mark).tls
    assert [line[:4] for line in hop.commands[:3]] == ["EHLO", "STAR", "EHLO"]


def test_broken_tls_falls_back_and_says_so(world, secure_hop):
    hop = secure_hop(tls="broken")
    world.start()
    mark = token()
    assert submit(world.ingress, mark)[0] == 250
    assert not hop.wait_for(mark).tls
    wait_log(world, r"smtp\.tls .*tag=outbound.*TLS handshake failed")


@pytest.mark.parametrize("tls, text", [
    (None, "4.7.4 TLS is required"), ("broken", "4.7.5 TLS handshake failed")])
def test_required_is_never_plain(world, secure_hop, tls, text):
    hop = secure_hop(tls=tls)
    world.start(edit_gateway=output_keys(tls="required"))
    mark = token()
    assert 400 <= refusal(world, mark) < 500
    wait_log(world, re.escape(text) + r".*\(message not sent\)")
    assert not hop.taken and not any(line.startswith("MAIL") for line in hop.commands)


@pytest.mark.parametrize("name, good", [("hop.example.net", True), ("other.example.net", False)])
def test_verified(world, secure_hop, certs, name, good):
    hop = secure_hop(tls="starttls")
    world.start(edit_gateway=output_keys(tls="verified", tls_ca=certs["ca.pem"], tls_name=name))
    mark = token()
    if good:
        assert submit(world.ingress, mark)[0] == 250
        assert hop.wait_for(mark).tls
    else:
        assert 400 <= refusal(world, mark) < 500
        wait_log(world, "4.7.5 TLS handshake failed: certificate: [Hh]ostname mismatch")
        assert not hop.taken


@pytest.mark.parametrize("name, good", [("hop.example.net", True), ("other.example.net", False)])
def test_verified_by_the_name_of_the_host(world, mode, secure_hop, certs, name, good):
    """The name that routing resolved, in one process and between two."""
    hop = secure_hop(tls="starttls")
    world.start(mode, edit_gateway=output_keys(tls="verified", tls_ca=certs["ca.pem"],
                                               tls_mx_name="true"),
                edit_router=lambda text: text.replace("next-hop", name))
    mark = token()
    if good:
        assert submit(world.ingress, mark)[0] == 250
        assert hop.wait_for(mark).tls
    else:
        assert refusal(world, mark) == 450
        wait_log(world, r"4\.7\.5 TLS handshake failed: certificate")


def test_tool_and_certificates(world, secure_hop, certs):
    hop = secure_hop(tls="starttls", port=0)
    other = secure_hop(tls="implicit", port=0)
    ca = ["--tls-ca", certs["ca.pem"]]
    for arguments, port, host, code in (
            (["--starttls"], hop.port, "127.0.0.1", 0),
            (["--starttls", *ca], hop.port, "localhost", 0),
            (["--starttls", *ca, "--tls-name", "hop.example.net"], hop.port, "127.0.0.1", 0),
            (["--starttls", *ca], hop.port, "127.0.0.1", 1),
            (["--tls", *ca], other.port, "localhost", 0),
            (["--tls", "--tls-name", "hop.example.net"], other.port, "127.0.0.1", 1),
            (["--no-tls"], hop.port, "127.0.0.1", 0)):
        done = koukan_smtp(world, *arguments, port=port, host=host)
        assert done.returncode == code, (arguments, done.stdout.decode())
    assert [taken.tls for taken in hop.taken] == [True, True, True, False]
    assert [taken.tls for taken in other.taken] == [True]


# ---- AUTH ----

@pytest.mark.parametrize("offer", ["PLAIN", "LOGIN", "CRAM-MD5 LOGIN PLAIN"])
def test_auth(world, secure_hop, offer):
    hop = secure_hop(tls="starttls", auth=offer)
    secret = world.write("secret", PASSWORD + "\n")
    world.start(edit_gateway=output_keys(tls="required", auth_user=USER,
                                         auth_secret_file=secret))
    mark = token()
    assert submit(world.ingress, mark)[0] == 250
    taken = hop.wait_for(mark)
    assert taken.tls and taken.user == USER
    assert PASSWORD not in world.smtp_server.err()


def test_wrong_password(world, secure_hop):
    hop = secure_hop(tls="starttls", auth="PLAIN")
    secret = world.write("secret", "wrong one\n")
    world.start(edit_gateway=output_keys(auth_user=USER, auth_secret_file=secret))
    assert 400 <= refusal(world, token()) < 500
    wait_log(world, "4.7.8 next hop refused our credentials: 535 5.7.8 no")
    assert not hop.taken and "wrong one" not in world.smtp_server.err()


def test_auth_of_the_tool(world, secure_hop):
    hop = secure_hop(tls="starttls", auth="LOGIN", port=0)
    mark = token()
    arguments = ["--starttls", "--auth-user", USER, "--auth-password-stdin"]
    done = koukan_smtp(world, *arguments, port=hop.port,
                       text=PASSWORD.encode() + b"\n" + message(mark))
    assert done.returncode == 0, done.stdout.decode()
    assert hop.wait_for(mark).user == USER
    done = koukan_smtp(world, *arguments, port=hop.port, text=b"nope\n")
    assert done.returncode == 1 and b"4.7.8" in done.stdout, done.stdout.decode()


@pytest.mark.parametrize("keys, text", [
    ({"auth_user": "u", "auth_secret_file": "/nonexistent/secret"}, "auth_secret_file"),
    ({"auth_user": "u"}, "belong together"),
    ({"tls": "verified", "tls_ca": "/nonexistent/ca.pem"}, "/nonexistent/ca.pem"),
    ({"tls": "sometimes"}, "tls"),
    ({"source": "not-an-address"}, "must be an address")])
def test_bad_configuration(world, keys, text):
    gateway = world.config("gateway.yaml", output_keys(**keys))
    proc = world.start_proc("bad", "gateway", gateway)
    assert proc.finish() != 0
    assert text in proc.err()
    world.procs.remove(proc)


# ---- message ----

def test_bdat(world, secure_hop):
    hop = secure_hop(offers=("CHUNKING", "PIPELINING"))
    world.start(edit_gateway=output_keys(enable_bdat="true", chunk_size="8k"))
    mark = token()
    text = message(mark, "..dots\r\n.\r\n" + "0123456789abcdef\r\n" * 5000)
    assert submit(world.ingress, mark, data=text)[0] == 250
    taken = hop.wait_for(mark)
    assert taken.verb == "BDAT"
    sizes = [int(line.split()[1]) for line in hop.commands if line.startswith("BDAT")]
    assert len(sizes) > 5 and sum(sizes) == taken.size


def lines_until_end(send, target):
    """A message of about `target` bytes; its digest and size as sent, without dots stuffed."""
    digest, size = hashlib.sha256(), 0
    block = b"".join(b"%063d\r\n" % i for i in range(1000))
    head = message("big", body="")
    for piece in [head] + [block] * (target // len(block)):
        send(piece)
        digest.update(piece)
        size += len(piece)
    send(b".\r\n")
    return digest.hexdigest(), size


def resident(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(re.search(r"VmHWM:\s+(\d+)", file.read()).group(1)) // 1024


@pytest.mark.parametrize("verb", ["DATA", "BDAT"])
def test_50_megabytes(world, secure_hop, verb):
    """Byte for byte; the release binary's memory stays flat."""
    if RELEASE:
        world.binary = RELEASE
    hop = secure_hop(offers=("CHUNKING", "PIPELINING"))
    world.values["message_max"] = 100 * 1024 * 1024
    world.start(edit_gateway=output_keys(enable_bdat="true" if verb == "BDAT" else "false"))
    assert submit(world.ingress, "warm")[0] == 250
    before = resident(world.smtp_server.pid)
    client = Raw(world.ingress, timeout=120)
    client.begin()
    assert client.code("DATA") == 354
    digest, size = lines_until_end(client.send, 50 * 1024 * 1024)
    assert client.reply()[0] == 250
    taken = max(hop.taken, key=lambda each: each.size)
    assert taken.verb == verb
    # behind added trace fields the bytes that were sent
    assert taken.size >= size and hashlib.sha256(taken.raw[-size:]).hexdigest() == digest
    growth = resident(world.smtp_server.pid) - before
    print(f"{verb}: resident memory grew by {growth} MiB")
    assert not RELEASE or growth < 20


def test_unacknowledged(world, secure_hop):
    hop = secure_hop(drop_after_end=True)
    world.start("two")
    mark = token()
    code, text = submit(world.ingress, mark)
    assert 400 <= code < 500 and "message sent, not acknowledged" in text
    wait_log(world, r"smtp\.delivery .*unacknowledged=true .*message sent, not acknowledged")
    assert not hop.taken


def test_unacknowledged_in_the_record(world, secure_hop):
    secure_hop(drop_after_end=True)
    world.start(edit_router=queue_tool.slow_retries)
    location = queue_tool.submit(world, token(), BOB)
    row = queue_tool.wait_attempts(world, location)
    assert row["last_attempt"] == "unacknowledged"
    text = queue_tool.run(world, "show", queue_tool.name_of(location))
    assert re.search(r"^last_attempt +unacknowledged$", text, re.M), text


def test_source_address(world, secure_hop):
    hop = secure_hop()
    world.start(edit_gateway=output_keys(source="127.0.0.5"))
    mark = token()
    assert submit(world.ingress, mark)[0] == 250
    assert hop.wait_for(mark).peer == "127.0.0.5"


# ---- LMTP ----

def test_lmtp(world, secure_hop):
    hop = secure_hop(lmtp=True)
    world.start(edit_gateway=output_keys(protocol="lmtp"))
    mark = token()
    assert submit(world.ingress, mark)[0] == 250
    assert hop.wait_for(mark)
    assert hop.commands[0].startswith("LHLO ")


def test_lmtp_answers_of_each(world, secure_hop):
    answers = {"a@x.example": "250 2.0.0 a has it", "b@x.example": "552 5.2.2 b is full",
               "c@x.example": "452 4.2.2 c later"}
    hop = secure_hop(lmtp=True, on_end=answers.get, port=0)
    done = koukan_smtp(world, "--lmtp", port=hop.port, rcpts=list(answers))
    text = done.stdout.decode()
    assert done.returncode == 1
    for want in ("RCPT TO:<a@x.example>: 250 ", "RCPT TO:<b@x.example>: 552 5.2.2 b is full",
                 "RCPT TO:<c@x.example>: 452 4.2.2 c later", "DATA: 250 2.0.0 a has it"):
        assert want in text, text


# ---- smtp-sink ----

@pytest.fixture
def smtp_sink(world):
    if shutil.which("smtp-sink") is None:
        pytest.skip("not installed: smtp-sink")

    def start(*options):
        port = procs.free_port()
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        world.procs.append(procs.Proc("smtp-sink", [
            "smtp-sink", *options, *user, f"127.0.0.1:{port}", "100"], world.folder))
        procs.wait_until(lambda: not procs.can_bind(port), "smtp-sink", alive=world.procs[-1])
        return port
    yield start
    for proc in [each for each in world.procs if each.name == "smtp-sink"]:
        proc.kill()
        world.procs.remove(proc)


@pytest.mark.parametrize("options, arguments", [
    ([], []), (["-p"], []), ([], ["--no-pipelining"]), (["-L"], ["--lmtp"]),
    (["-e"], [])])  # -e: no ESMTP
def test_many_into_smtp_sink(world, smtp_sink, options, arguments):
    port = smtp_sink(*options)
    done = koukan_smtp(world, *arguments, "--count", "200", "--connections", "5", port=port,
                       text=b"hello\n")
    text = done.stdout.decode()
    assert done.returncode == 0, text
    assert "199 messages in" in text and "accepted 199, refused 0" in text, text


@pytest.mark.parametrize("options, want", [
    (["-q", "DATA"], "4.4.2"), (["-q", "."], "message sent, not acknowledged"),
    (["-r", "RCPT"], "4"), (["-f", "MAIL"], "5"), (["-r", "."], "450"), (["-Q", "RCPT"], "421")])
def test_faults_of_smtp_sink(world, smtp_sink, options, want):
    port = smtp_sink(*options)
    done = koukan_smtp(world, port=port)
    assert done.returncode == 1 and want in done.stdout.decode(), done.stdout.decode()


# ---- Postfix ----

class TlsPostfix(postfix.Postfix):
    EXTRA = ("smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {cert}\n"
             "smtpd_tls_key_file = {key}\nsmtp_tls_security_level = none\n"
             "message_size_limit = 100000000\nsmtpd_tls_received_header = yes\n")

    def __init__(self, folder, sink_port, certs):
        super().__init__(folder, sink_port)
        with open(os.path.join(self.folder, "main.cf"), "a", encoding="ascii") as file:
            file.write(self.EXTRA.format(cert=certs["hop.pem"], key=certs["hop.key"]))


@pytest.fixture
def postfix_hop(world, certs, tmp_path):
    """Postfix as next hop on the sink's port; what it takes it sends on to a scripted hop."""
    if shutil.which("postfix") is None:
        pytest.skip("not installed: postfix")
    if os.geteuid() != 0:
        pytest.skip("Postfix's master process needs root")
    behind = world.hop_behind = SecureHop()
    server = TlsPostfix(str(tmp_path), behind.port, certs)
    path = str(tmp_path)
    while path != "/":  # its processes run as another user
        os.chmod(path, os.stat(path).st_mode | 0o055)
        path = os.path.dirname(path)
    server.start()
    world.values["sink_port"] = server.port
    yield behind
    server.stop()
    behind.close()


@pytest.mark.parametrize("keys", [
    {"tls": "none"}, {}, {"tls": "verified", "enable_bdat": "true"},
    {"tls": "required", "reuse_max": "1"}])
def test_postfix(world, certs, postfix_hop, keys):
    if keys.get("tls") == "verified":
        keys = dict(keys, tls_ca=certs["ca.pem"], tls_name="hop.example.net")
    world.start(edit_gateway=output_keys(**keys))
    for body in ("hello\r\n", ".\r\n..\r\n" + "x" * 900 + "\r\n" * 3,
                 "0123456789abcdef" * 4 + "\r\n", "line\r\n" * 50000):
        mark = token()
        assert submit(world.ingress, mark, data=message(mark, body))[0] == 250
        taken = postfix_hop.wait_for(mark)
        with_tls = b"using TLSv1" in taken.data
        assert with_tls == (keys.get("tls") != "none"), taken.data[:1500]
        sent = message(mark, body)
        assert taken.size > len(sent) and taken.data.endswith(sent[-60:])


def test_postfix_and_the_tool(world, certs, postfix_hop):
    port = world.values["sink_port"]
    done = koukan_smtp(world, "--starttls", "--tls-ca", certs["ca.pem"], "--bdat", "--count", "50",
                       "--connections", "4", port=port, host="localhost")
    assert done.returncode == 0, done.stdout.decode()
    procs.wait_until(lambda: len(postfix_hop.taken) == 50, "50 messages behind Postfix", 60)
