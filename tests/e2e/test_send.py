# SPDX-License-Identifier: Apache-2.0
"""koukan send: every kind of message, what it says of the outcome, and its exit codes."""
import email
import email.policy
import json
import os
import re
import subprocess

import pytest

from mail import ALICE, BOB, Rest, message, token
from world import BINARY

CAROL = "carol@elsewhere.example.net"
REFUSED, LATER = "refused@example.com", "later@example.com"


@pytest.fixture(scope="module", autouse=True)
def next_hop(shared):
    shared.next_hop.on_rcpt = lambda rcpt: {REFUSED: "550 5.1.1 no such user",
                                            LATER: "450 4.2.1 later"}.get(rcpt)
    return shared.next_hop


def run(shared, *arguments, stdin=b"", to=(BOB,), url=None):
    done = subprocess.run(
        [BINARY, "send", "--mail_from", ALICE, "--url",
         url or shared.router_url + "/senders/submission/transactions", *arguments, *to],
        input=stdin, capture_output=True, timeout=90, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def uploads(shared):
    """How many there were."""
    with Rest(shared.router_url) as rest:
        text = rest.call("GET", "/metrics").body.decode()
    found = re.search(r'^koukan_rest_request_seconds_count\{method="PUT"\} (\d+)$', text, re.M)
    return int(found.group(1)) if found else 0


def parsed(hop, mark):
    return email.message_from_bytes(hop.wait_for(mark).data, policy=email.policy.default)


@pytest.fixture
def file(tmp_path):
    def make(name, data):
        path = tmp_path / name
        path.write_bytes(data)
        return str(path)
    return make


@pytest.mark.parametrize("ends", [b"\r\n", b"\n"])
@pytest.mark.parametrize("how", ["file", "stdin", "inline"])
def test_raw(shared, next_hop, file, how, ends):
    """To two recipients; what is uploaded goes up once, what is inline not at all."""
    mark = token()
    data = message(mark)
    text = data.replace(b"\r\n", ends)
    path = "-" if how == "stdin" else file("message", text)
    before = uploads(shared)
    code, out, err = run(shared, "--rfc822_filename", path, *(["--inline"] * (how == "inline")),
                         stdin=text, to=(BOB, CAROL))
    assert (code, err) == (0, ""), (out, err)
    assert [line.split(": ")[:2] for line in out.splitlines()] == [
        [BOB, "delivered"], [CAROL, "delivered"]]
    got = next_hop.with_text(f"end-{mark}")
    assert len(got) == 2 and all(each.data.endswith(data) for each in got)
    assert uploads(shared) - before == (0 if how == "inline" else 1)


def test_described(shared, next_hop, file):
    """Files beside the description; for each recipient after the first they are referred to."""
    mark = token()
    file("a.bin", bytes(range(256)))
    file("b.txt", f"text {mark}\n".encode())
    path = file("message.json", json.dumps({
        "headers": [["subject", mark], ["from", [{"address": ALICE}]]],
        "text_body": [{"content_type": "text/plain", "content": {"create_id": "t",
                                                                 "filename": "b.txt"}}],
        "file_attachments": [{"content_type": "application/x-b", "filename": "a.bin", "content": {
            "create_id": "f", "filename": "a.bin"}}]}).encode())
    before = uploads(shared)
    code, out, err = run(shared, "--message_builder_filename", path, to=(BOB, CAROL))
    assert code == 0, (out, err)
    assert uploads(shared) - before == 2
    got = parsed(next_hop, mark)
    assert got["date"] and got["message-id"]
    assert [part.get_content_type() for part in got.walk()] == ["multipart/mixed", "text/plain",
                                                                 "application/x-b"]
    assert list(got.iter_attachments())[0].get_content() == bytes(range(256))
    assert len(next_hop.with_text(mark)) == 2


def test_composed(shared, next_hop, file):
    mark = token()
    text, html = file("t.txt", f"grüße {mark}".encode()), file("h.html", b"<p>hi</p>")
    pdf, large = file("a.pdf", b"%PDF"), file("ü.bin", b"\xff\0" * 100000)
    code, out, err = run(shared, "--subject", f"hällo {mark}", "--text", text, "--html", html,
                         "--attach", pdf, "--attach", large, to=(BOB, CAROL))
    assert code == 0, (out, err)
    got = parsed(next_hop, f"To: {BOB}, {CAROL}".replace("To", "to"))
    assert got["subject"] == f"hällo {mark}" and got["from"] == ALICE
    assert got.get_body(("plain",)).get_content().strip() == f"grüße {mark}"
    assert got.get_body(("html",)).get_content().strip() == "<p>hi</p>"
    kinds = [(part.get_content_type(), part.get_filename()) for part in got.iter_attachments()]
    assert kinds == [("application/pdf", "a.pdf"), ("application/octet-stream", "ü.bin")]
    assert list(got.iter_attachments())[1].get_content() == b"\xff\0" * 100000


def test_composed_from_standard_input(shared, next_hop):
    """Short text goes inline, longer text as a part."""
    for size in (100, 65536, 65537):
        mark = token()
        before = uploads(shared)
        code, out, err = run(shared, "--subject", mark, "--text", "-", stdin=b"x" * size)
        assert code == 0, (out, err)
        assert uploads(shared) - before == (1 if size > 65536 else 0)
        assert parsed(next_hop, mark).get_content().strip() == "x" * size


@pytest.mark.parametrize("to,code,said", [
    ((BOB,), 0, "delivered"), ((REFUSED,), 1, "not delivered"), ((LATER,), 75, "not delivered"),
    ((BOB, LATER), 75, "not delivered"), ((LATER, REFUSED, BOB), 1, "not delivered")])
def test_exit_codes(shared, file, to, code, said):
    path = file("message", message(token()))
    got, out, _ = run(shared, "--rfc822_filename", path, "--timeout", "2", to=to)
    assert got == code, out
    assert len(out.splitlines()) == len(to) and f": {said}" in out
    if REFUSED in to:
        assert "550 5.1.1 no such user" in out
    if to[-1] == LATER:
        assert "still in flight" in out and "450" in out


def test_without_waiting(shared, file):
    path = file("message", message(token()))
    code, out, _ = run(shared, "--no-wait", "--rfc822_filename", path, to=(LATER,))
    assert code == 0 and f"{LATER}: submitted" in out
    code, out, _ = run(shared, "--no-wait", "--wait", "--timeout", "1", "--rfc822_filename", path,
                       to=(LATER,))
    assert code == 75, "the last of the two counts"


def test_json(shared, file):
    path = file("message", message(token()))
    code, out, _ = run(shared, "--json", "--rfc822_filename", path, to=(BOB, REFUSED))
    assert code == 1
    bob, refused = [json.loads(line) for line in out.splitlines()]
    assert bob["delivered"] is True and bob["rcpt_to"] == BOB
    assert bob["final_attempt_reason"] == "upstream response success"
    assert refused["delivered"] is False
    assert refused["transaction"]["rcpt_response"][0]["code"] == 550


def test_progress(shared, next_hop, file):
    """Asked for, and of a large upload only."""
    mark = token()
    path = file("large", message(mark, ("p" * 76 + "\r\n") * 40000))
    code, out, err = run(shared, "--progress", "--rfc822_filename", path, to=(BOB, CAROL))
    assert code == 0, out
    lines = err.rstrip("\n").split("\r")[1:]
    assert lines[-1] == f"uploading {path}: 3.1 of 3.1 MB (100 %)" and err.count("100 %") == 1
    shares = [int(re.search(r"\((\d+) %\)$", line).group(1)) for line in lines]
    assert shares == sorted(shares)
    code, _, err = run(shared, "--rfc822_filename", path)
    assert (code, err) == (0, ""), "standard error is no terminal"
    _, _, err = run(shared, "--progress", "--rfc822_filename", file("small", message(token())))
    assert err == ""


def test_rounds(shared, next_hop, file):
    mark = token()
    path = file("message", message(mark))
    before = uploads(shared)
    code, out, _ = run(shared, "--iters", "3", "--rfc822_filename", path)
    assert code == 0 and len(out.splitlines()) == 3
    assert len(next_hop.with_text(f"end-{mark}")) == 3 and uploads(shared) - before == 1


def test_commands_of_older_versions(shared, next_hop, file):
    """A URL without a path, a recipient as an option, options without a meaning."""
    mark = token()
    path = file("message", message(mark))
    done = subprocess.run(
        [BINARY, "send", "--mail_from", ALICE, "--rcpt_to", BOB, "--router_url",
         shared.router_url, "--host", "msa-output", "--notification_host", "msa-output",
         "--threads", "1", "--rfc822_filename", path], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    assert len(next_hop.with_text(f"end-{mark}")) == 1
    code, _, _ = run(shared, "--rfc822_filename", path, url=shared.router_url + "/")
    assert code == 0


@pytest.mark.parametrize("arguments", [
    [], ["--inline"], ["--subject", "x", "--rfc822_filename", "y"], ["--iters", "x"],
    ["--inline", "--subject", "x"], ["--timeout", "1000001", "--subject", "x"],
    ["--iters", "1000001", "--subject", "x"]])
def test_wrong_usage(shared, arguments):
    code, out, err = run(shared, *arguments)
    assert code == 2 and out == "" and err.startswith("usage:")


def test_faults_of_files(shared, file, tmp_path):
    latin = file("latin", b"Subject: x\r\n\r\n\xe4\r\n")
    no_file = file("no.json", json.dumps({"file_attachments": [
        {"content_type": "a/b", "content": {"create_id": "x"}}]}).encode())
    for arguments, said in (
            (["--rfc822_filename", "/nowhere"], "/nowhere"),
            (["--rfc822_filename", str(tmp_path)], "no file"),
            (["--inline", "--rfc822_filename", latin], "UTF-8"),
            (["--message_builder_filename", file("bad", b"{")], "line"),
            (["--message_builder_filename", no_file], "without a filename"),
            (["--attach", "/nowhere"], "/nowhere")):
        code, out, err = run(shared, *arguments)
        assert (code, out) == (1, "") and said in err, err


def test_no_server(shared, file):
    path = file("message", message(token()))
    code, out, _ = run(shared, "--rfc822_filename", path, url="http://127.0.0.1:1")
    assert code == 1 and f"{BOB}: error: submission" in out
    assert os.path.exists(path)
