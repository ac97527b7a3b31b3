# SPDX-License-Identifier: Apache-2.0
"""The four flows, with both services in one process and as two, with several clients."""
import json
import os
import subprocess
import time
import sys

import pytest

from devkit import procs
from mail import ALICE, APP, BOB, Rest, message, submit, token

pytestmark = pytest.mark.threads


def added_fields(got, sent):
    """What was put before the message, when the rest is byte for byte the same."""
    assert got.endswith(sent), got.decode("utf-8", "replace")
    return got[:len(got) - len(sent)].decode()


def test_ingress_to_smtp(world, mode):
    hop = world.hop()
    world.start(mode)
    mark = token()
    code, text = submit(world.ingress, mark)
    assert (code, "taken by the hop" in text) == (250, True), text
    got = hop.with_text(mark)
    assert len(got) == 1
    assert f"<{ALICE}>" in got[0].mail_from and f"<{BOB}>" in got[0].rcpts[0]
    assert got[0].ehlo == "gateway.example.net"
    added = added_fields(got[0].data, message(mark))
    assert added.startswith("Received: from localhost ") and "by router.example.com" in added


def test_ingress_to_rest(world, mode):
    world.receiver()
    world.start(mode)
    mark = token()
    parts = (f"From: Alice <{ALICE}>\r\nTo: <{APP}>\r\nSubject: parts {mark}\r\n"
             f"Date: Fri, 13 Feb 2009 23:31:30 +0000\r\nMessage-ID: <{mark}@example.com>\r\n"
             "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=edge\r\n\r\n"
             "--edge\r\nContent-Type: text/plain\r\n\r\nthe text\r\n"
             "--edge\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n"
             "Content-Disposition: attachment; filename=\"dot.png\"\r\n\r\niVBORw0KGgo=\r\n"
             f"--edge--\r\nend-{mark}\r\n").encode()
    code, text = submit(world.ingress, mark, rcpts=[APP], data=parts)
    assert code == 250, text
    folder = os.path.join(world.folder, "received")
    names = os.listdir(folder)
    raw = [name for name in names if name.endswith(".msg")]
    spec = [name for name in names if name.endswith(".msg.json")]
    envelope = [name for name in names if name.endswith(".tx.json")]
    assert (len(raw), len(spec), len(envelope)) == (1, 1, 1), names
    with open(os.path.join(folder, raw[0]), "rb") as file:
        assert "Received: " in added_fields(file.read(), parts)
    with open(os.path.join(folder, spec[0]), encoding="utf-8") as file:
        parsed = json.load(file)
    assert ["subject", f"parts {mark}"] in parsed["parts"]["headers"]
    assert parsed["file_attachments"][0]["filename"] == "dot.png"
    with open(os.path.join(folder, envelope[0]), encoding="utf-8") as file:
        tx = json.load(file)
    assert (tx["mail_from"]["m"], tx["rcpt_to"][0]["m"]) == (ALICE, APP)
    png = [name for name in names if name not in raw + spec + envelope]
    contents = [open(os.path.join(folder, name), "rb").read() for name in png]
    assert b"\x89PNG\r\n\x1a\n" in contents, names


def test_submission_to_smtp(world, mode):
    hop = world.hop()
    world.start(mode)
    mark = token()
    code, text = submit(world.submission, mark, rcpts=["carol@elsewhere.example.net"])
    assert code == 250, text
    got = hop.wait_for(mark)
    assert "<carol@elsewhere.example.net>" in got.rcpts[0]
    assert len(hop.with_text(mark)) == 1


def test_rest_submission(world, mode):
    hop = world.hop()
    world.start(mode)
    mark = token()
    with Rest(world.router_url) as rest:
        created = rest.submit(mark)
        tx = rest.final(created.headers["location"])
    assert tx["final_attempt_reason"] == "upstream response success"
    assert tx["data_response"]["code"] == 250
    assert "taken by the hop" in tx["data_response"]["message"]
    assert len(hop.with_text(mark)) == 1


def test_short_circuit(world, mode):
    """Submission for one's own domain goes to ingress and from there to the next hop."""
    hop = world.hop()
    world.start(mode)
    mark = token()
    rcpt = "dave@short-circuit.example.com"
    code, text = submit(world.submission, mark, rcpts=[rcpt])
    assert code == 250, text
    got = hop.wait_for(mark)
    assert got.text.count("Received: ") == 2, got.text


def test_rest_submission_to_rest_receiver(world, mode):
    world.receiver()
    world.start(mode)
    mark = token()
    with Rest(world.router_url) as rest:
        created = rest.submit(mark, rcpt=APP)
        tx = rest.final(created.headers["location"])
    assert tx["final_attempt_reason"] == "upstream response success", tx
    folder = os.path.join(world.folder, "received")
    assert any(name.endswith(".msg") for name in os.listdir(folder))


def test_many_recipients_by_submission(world, mode):
    hop = world.hop()
    world.start(mode)
    mark = token()
    rcpts = [f"user{n}@host{n}.example.net" for n in range(20)]
    code, text = submit(world.submission, mark, rcpts=rcpts)
    assert code == 250, text
    procs.wait_until(lambda: len(hop.with_text(mark)) >= 20, "20 copies")
    got = sorted(rcpt for copy in hop.with_text(mark) for rcpt in copy.rcpts)
    assert len(got) == 20
    assert all(any(f"<{want}>" in rcpt for rcpt in got) for want in rcpts)


def test_more_recipients_than_connections(world, mode):
    """Each recipient holds a connection to the next hop until the message comes; they take turns,
    so that all are answered by the next hop and all are delivered in the first attempt."""
    hop = world.hop()
    world.start(mode, edit_gateway=lambda text: text.replace(
        "      ehlo_host:", "      connections: 5\n      ehlo_host:", 1))
    mark = token()
    rcpts = [f"user{n}@host{n}.example.net" for n in range(45)]
    began = time.monotonic()
    code, text = submit(world.submission, mark, rcpts=rcpts)
    assert code == 250, text
    assert time.monotonic() - began < 8, "nobody waits for connections that nobody gives back"
    procs.wait_until(lambda: len(hop.with_text(mark)) >= 45, "45 copies")
    got = sorted(rcpt for copy in hop.with_text(mark) for rcpt in copy.rcpts)
    assert len(got) == len(set(got)) == 45
    text = world.router_server.err()
    assert "4.4.5" not in text and "tx.retry" not in text


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 1 << 20, 5 << 20])
def test_sizes_arrive_byte_for_byte(world, mode, size):
    """Around the memory limit of a body (65536 here), and well beyond it."""
    hop = world.hop()
    world.start(mode)
    mark = token()
    line = "0123456789" * 7 + "\r\n"
    body = (line * (size // len(line) + 1))[:size]
    body = body[:size - size % len(line)] + "." * (size % len(line)) + "\r\n" if size else ""
    data = message(mark, body)
    code, text = submit(world.ingress, mark, data=data)
    assert code == 250, text
    added_fields(hop.wait_for(mark).data, data)


def run_client(argv, stdin=b""):
    return subprocess.run(argv, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=60, check=False)


def test_swaks(world):
    hop = world.hop()
    world.start()
    mark = token()
    done = run_client(["swaks", "--server", "127.0.0.1", "--port", str(world.ingress), "--helo",
                       "localhost", "--from", ALICE, "--to", BOB, "--pipeline", "--data", "-"],
                      message(mark))
    assert done.returncode == 0, done.stdout.decode()
    hop.wait_for(mark)


def test_msmtp(world):
    hop = world.hop()
    world.start()
    mark = token()
    done = run_client(["msmtp", "--host=127.0.0.1", f"--port={world.submission}", "--tls=off",
                       "--auth=off", "--domain=localhost", f"--from={ALICE}", "--file=/dev/null",
                       BOB], message(mark).replace(b"\r\n", b"\n"))
    assert done.returncode == 0, done.stdout.decode()
    hop.wait_for(mark)


def test_curl_sends_smtp(world):
    hop = world.hop()
    world.start()
    mark = token()
    path = os.path.join(world.folder, "message")
    with open(path, "wb") as file:
        file.write(message(mark))
    done = run_client(["curl", "-sS", "--noproxy", "*", "--mail-from", ALICE, "--mail-rcpt", BOB,
                       "--upload-file", path, f"smtp://127.0.0.1:{world.ingress}/localhost"])
    assert done.returncode == 0, done.stdout.decode()
    hop.wait_for(mark)


def test_curl_speaks_rest(world):
    hop = world.hop()
    world.start()
    mark = token()
    path = os.path.join(world.folder, "message")
    with open(path, "wb") as file:
        file.write(message(mark))
    created = run_client([
        "curl", "-sS", "--noproxy", "*", "-H", "content-type: application/json", "-d",
        json.dumps({"mail_from": {"m": ALICE}, "rcpt_to": [{"m": BOB}]}),
        world.router_url + "/senders/submission/transactions"])
    assert created.returncode == 0, created.stdout.decode()
    uri = json.loads(created.stdout)["body"]["blob_status"]["uri"]
    put = run_client(["curl", "-sS", "--noproxy", "*", "-T", path, uri])
    assert (put.returncode, put.stdout) == (0, b"{}"), put.stdout.decode()
    hop.wait_for(mark)


def test_product_tools(world):
    """koukan smtp and koukan send against koukan sink."""
    world.sink()
    world.start()
    mark = token()
    done = run_client([world.binary, "smtp", "127.0.0.1", str(world.ingress), "localhost", ALICE,
                       BOB], message(mark))
    assert done.returncode == 0 and b"250" in done.stdout, done.stdout.decode()
    other = token()
    path = os.path.join(world.folder, "message")
    with open(path, "wb") as file:
        file.write(message(other))
    done = run_client([world.binary, "send", "--mail_from", ALICE, "--rfc822_filename", path,
                       "--url", world.router_url + "/senders/submission/transactions", BOB])
    assert done.returncode == 0, done.stdout.decode()
    folder = os.path.join(world.folder, "sink")

    def arrived():
        texts = [open(os.path.join(folder, name), "rb").read() for name in os.listdir(folder)]
        return all(any(f"end-{each}".encode() in text for text in texts)
                   for each in (mark, other))
    procs.wait_until(arrived, "both messages in the sink's folder")


@pytest.mark.slow
def test_demo_of_a_stranger(tmp_path):
    """./dev demo --once, on whatever ports are free."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    done = subprocess.run([sys.executable, os.path.join(root, "dev"), "demo", "--once"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300,
                          check=False, env=dict(os.environ, TMPDIR=str(tmp_path)))
    assert done.returncode == 0, done.stdout.decode()[-6000:]


@pytest.mark.slow
def test_demo_stays_up_until_interrupted(tmp_path):
    import signal
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    demo = procs.Proc("demo", [sys.executable, os.path.join(root, "dev"), "demo",
                               "--two-processes"], str(tmp_path), env={"TMPDIR": str(tmp_path)})
    try:
        procs.wait_until(lambda: "Ctrl-C ends it" in demo.out(), "the demo", 200, alive=demo)
        started = procs.children(demo.pid)
        assert len(started) == 4
        demo.signal(signal.SIGINT)
        assert demo.finish(60) == 0, demo.tail()
        assert not any(os.path.exists(f"/proc/{pid}") for pid in started)
        assert [name for name in os.listdir(tmp_path) if name.startswith("koukan-demo")] == []
    finally:
        demo.kill()
