# SPDX-License-Identifier: Apache-2.0
"""`koukan explain` and `koukan queue show --why`: which filter decided, by which rule, on what."""
import json
import os
import re
import socket
import subprocess

import pytest

import queue_tool as tool
from mail import Raw, message, token
from nameserver import Nameserver
from world import BINARY, ROOT

EXAMPLE = os.path.join(ROOT, "examples", "explain")
ROUTER = os.path.join(EXAMPLE, "router.yaml")
SPOOF = {"--chain": "mx", "--remote": "203.0.113.7", "--helo": "mail.spoofer.example",
         "--mail_from": "ceo@bank.example", "--rcpt": "alice@example.com",
         "--message": os.path.join(EXAMPLE, "spoof.eml"),
         "--dns": os.path.join(EXAMPLE, "answers.yaml")}
TIMES = re.compile(r" [\d.]+ (us|ms|s)(, waited [\d.]+ (us|ms|s))?(?=;|$)", re.M)


def koukan(*arguments, cwd=None):
    return subprocess.run([BINARY, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=60, check=False, text=True, cwd=cwd)


def explain(*more, config=ROUTER, **changes):
    """The run of SPOOF with other options; None takes one away."""
    options = dict(SPOOF, **{"--" + name: value for name, value in changes.items()})
    words = [word for name, value in options.items() if value is not None
             for word in (name, value)]
    return koukan("explain", config, *words, *more)


def steps(why, name):
    return [step for step in why["filters"] if step["filter"] == name]


# ---- the page ----

def test_page():
    """The command of docs/explain.md gives what stands there, but for the times."""
    with open(os.path.join(ROOT, "docs", "explain.md"), encoding="utf-8") as file:
        blocks = re.findall(r"^```sh\n(.*?)^```\n+```text\n(.*?)^```\n", file.read(), re.M | re.S)
    assert len(blocks) == 1
    words = blocks[0][0].replace("\\\n", " ").split()
    assert words[:2] == ["koukan", "explain"]
    done = koukan(*words[1:], cwd=ROOT)
    assert TIMES.sub(" TIME", done.stdout) == TIMES.sub(" TIME", blocks[0][1]), done.stderr
    assert "TIME" in TIMES.sub(" TIME", done.stdout)
    assert done.returncode == 3


def test_spoof_in_one_screen():
    done = explain()
    lines = done.stdout.splitlines()
    assert done.returncode == 3 and len(lines) <= 40 and max(map(len, lines)) < 80
    head = " ".join(line.strip() for line in lines[:6])
    assert "550 5.7.1 the domain of From does not vouch" in head
    assert re.search(r"policy_action, rule no-spoofed-sender \(\S+router.yaml:27:5\)", head)
    text = done.stdout
    for part in ["dmarc result: fail, policy: reject", "fail for bank.example: -all",
                 "DNS TXT bank.example: v=spf1 ip4:198.51.100.0/24 -all",
                 "DNS TXT _dmarc.bank.example: v=DMARC1; p=reject",
                 "DNS PTR 7.113.0.203.in-addr.arpa: mail.spoofer.example.",
                 "rule own-network: no: network_address cidr: 192.0.2.0/24 (saw 203.0.113.7)"]:
        assert part in text, part


def test_spoof_as_json():
    done = explain("--json")
    first, second = json.loads(done.stdout)
    assert done.returncode == 3 and first["outcome"] == "rejected" and first["chain"] == "mx"
    assert (first["decided"]["rule"], first["decided"]["to"], first["decided"]["code"]) == \
        ("no-spoofed-sender", "DATA", 550)
    rule = steps(first, "policy_action")[1]["rules"][0]
    assert (rule["result"], rule["action"]) == ("yes", "REJECT")
    assert rule["matchers"] == [{"matcher": "dmarc", "wants": "result: fail, policy: reject",
                                 "saw": "result: fail, policy: reject", "result": "yes"}]
    answers = {(dns["type"], dns["name"]): dns for step in first["filters"]
               for dns in step.get("dns", [])}
    assert answers["TXT", "bank.example"]["records"] == ["v=spf1 ip4:198.51.100.0/24 -all"]
    assert answers["TXT", "_dmarc.bank.example"]["records"] == ["v=DMARC1; p=reject"]
    assert answers["AAAA", "mail.spoofer.example."]["status"] == "NODATA"
    assert steps(first, "dmarc_check")[0]["output"]["policy"] == "reject"
    # The recipient had been handed on before the message came.
    assert (second["chain"], second["transaction"], second["outcome"]) == \
        ("deliver", "2", "unanswered")


# ---- what becomes of it ----

def answers_file(folder, **changes):
    with open(SPOOF["--dns"], encoding="utf-8") as file:
        text = file.read()
    for name, value in changes.items():
        text = re.sub(rf"^{re.escape(name.replace('_', '.'))}:.*$",
                      f"{name.replace('_', '.')}: {value}", text, flags=re.M)
    path = os.path.join(folder, "answers.yaml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def test_accepted(tmp_path):
    """The bank's own host: the chains behind the exploder are explained in full."""
    dns = answers_file(tmp_path, bank_example='{TXT: "v=spf1 ip4:203.0.113.7 -all"}')
    done = explain("--json", dns=dns)
    first, second = json.loads(done.stdout)
    assert done.returncode == 0 and (first["outcome"], second["outcome"]) == ("accepted",) * 2
    assert first["decided"] is None and not first["stored"]
    assert steps(first, "exploder")[0]["notes"] == \
        ["hands alice@example.com to sender deliver as transaction 2"]
    assert steps(second, "rest_output")[0]["notes"] == \
        ["sends to http://localhost:8001/senders/router/transactions, sender router, "
         "host 198.18.0.9"]
    assert steps(second, "received_header")[0]["notes"][0].startswith(
        "adds Received: from mail.spoofer.example ([203.0.113.7]) by mx.example.com with ESMTP")
    text = explain(dns=dns).stdout
    assert "transaction 2, chain deliver: accepted" in text and "OK: 198.18.0.9:24" in text


def test_outcomes(tmp_path):
    temp = answers_file(tmp_path, **{"7_113_0_203_in-addr_arpa": "TEMP"})
    done = explain("--json", dns=temp)
    first = json.loads(done.stdout)[0]
    assert done.returncode == 4 and first["outcome"] == "deferred"
    assert first["decided"]["filter"] == "remote_host" and first["decided"]["to"] == "MAIL"
    assert steps(first, "spf_check")[0]["left"] is None
    assert "not reached" in explain(dns=temp).stdout
    # One recipient is refused, the message taken for the other.
    good = answers_file(tmp_path, bank_example='{TXT: "v=spf1 ip4:203.0.113.7 -all"}')
    done = explain("--json", "--rcpt", "x@elsewhere.example", dns=good)
    first = json.loads(done.stdout)[0]
    assert done.returncode == 3 and first["outcome"] == "partial"
    assert first["decided"]["to"] == "RCPT 2" and first["decided"]["filter"] == "router"
    # A network of ours is believed.
    done = explain("--json", remote="192.0.2.5:4000")
    first = json.loads(done.stdout)[0]
    assert done.returncode == 0
    assert steps(first, "policy_action")[1]["notes"] == \
        ["rule no-spoofed-sender rests: tag spoof has matched"]
    # All recipients refused: the message is not even asked for.
    done = explain("--json", rcpt="x@elsewhere.example")
    first = json.loads(done.stdout)[0]
    assert done.returncode == 3 and "end of body" not in steps(first, "spf_check")[0]["saw"]


def test_no_answer(tmp_path):
    """A resolver that says nothing, and less time than it would take."""
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("127.0.0.1", 0))
    with open(ROUTER, encoding="utf-8") as file:
        text = file.read() + f"  dns_forward: [127.0.0.1@{silent.getsockname()[1]}]\n" \
                             "  dns_timeout: 60\n"
    path = tmp_path / "router.yaml"
    path.write_text(text, encoding="utf-8")
    done = explain("--json", "--timeout", "1", config=str(path), dns=None)
    silent.close()
    first = json.loads(done.stdout)[0]
    assert done.returncode == 5 and first["outcome"] == "unanswered"
    assert steps(first, "remote_host")[0]["left"] == "wait"
    assert "still waits" not in explain().stdout


def test_resolver_of_the_configuration(tmp_path):
    server = Nameserver({"bank.example": {"TXT": ["v=spf1 -all"]},
                         "imap.example.com": {"A": ["198.18.0.9"]},
                         "_dmarc.bank.example": {"TXT": ["v=DMARC1; p=reject"]}})
    with open(ROUTER, encoding="utf-8") as file:
        text = file.read() + f"  dns_forward: [127.0.0.1@{server.port}]\n"
    path = tmp_path / "router.yaml"
    path.write_text(text, encoding="utf-8")
    done = explain("--json", config=str(path), dns=None)
    server.close()
    first = json.loads(done.stdout)[0]
    assert done.returncode == 3 and first["decided"]["rule"] == "no-spoofed-sender"
    assert steps(first, "spf_check")[0]["dns"][0]["records"] == ["v=spf1 -all"]


def test_nothing_leaves(world):
    """Chains that send and store, of a router that does not run: no connection, no file."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", world.values["gateway_port"]))
    listener.listen()
    listener.settimeout(0)
    config = world.config("router.yaml")
    letter = world.write("letter.eml", message(token()).decode())
    for sender in (["--sender", "submission"], ["--sender", "submission", "--tag", "smtp-msa",
                                                "--remote", "127.0.0.1"]):
        done = koukan("explain", config, *sender, "--json", "--message", letter, "--mail_from",
                      "alice@example.com", "--rcpt", "bob@example.com")
        chains = json.loads(done.stdout)
        assert done.returncode == 0, done.stdout
        assert steps(chains[-1], "rest_output")[0]["notes"][0].startswith("sends to http://127.")
    assert len(chains) == 2
    with pytest.raises(BlockingIOError):
        listener.accept()
    listener.close()
    assert os.listdir(world.values["state_dir"]) == []


# ---- wrong use ----

def test_help():
    done = koukan("explain", "--help")
    assert done.returncode == 0 and "Exit code 0: accepted" in done.stdout
    for option in re.findall(r"--\w+", done.stdout):
        assert re.search(rf"^  {option}\b.* {{2}}", done.stdout, re.M), option


@pytest.mark.parametrize("arguments,said", [
    ([], "which configuration"), ([ROUTER], "exactly one"),
    ([ROUTER, "--chain", "a", "--sender", "b"], "exactly one"),
    ([ROUTER, "--chain", "a", "--tag", "b"], "--tag"), ([ROUTER, "--chain", "a"], "--message"),
    ([ROUTER, "--chain", "mx", "--message", "m"], "--mail_from"),
    ([ROUTER, "--chain", "mx", "--message", "m", "--mail_from", "a"], "--rcpt"),
    ([ROUTER, "--chain", "mx", "--message", "m", "--mail_from", "a", "--rcpt", "b", "--tls"],
     "--remote"),
    ([ROUTER, "more", "--chain", "mx"], "more"), ([ROUTER, "--nonsense"], "--help"),
])
def test_usage(arguments, said):
    done = koukan("explain", *arguments)
    assert done.returncode == 2 and said in done.stderr and done.stdout == ""


def test_wrong_values(tmp_path):
    for changes, code, said in [
            ({"remote": "host"}, 2, "--remote"), ({"remote": "192.0.2.1:x"}, 2, "--remote"),
            ({"timeout": "0"}, 2, "--timeout"), ({"timeout": "86401"}, 2, "--timeout"),
            ({"chain": "mxx"}, 1, "no endpoint 'mxx', did you mean 'mx'?"),
            ({"chain": None, "sender": "mxx"}, 1, "no sender 'mxx'"),
            ({"message": str(tmp_path / "none")}, 1, "none: No such file"),
            ({"dns": str(tmp_path / "none")}, 1, "none")]:
        done = explain(**changes)
        assert done.returncode == code and said in done.stderr, (changes, done.stderr)
    wrong = tmp_path / "dns.yaml"
    wrong.write_text("bank.example:\n  A: [host]\n", encoding="utf-8")
    done = explain(dns=str(wrong))
    assert done.returncode == 1 and f"{wrong}:2:7: error: no A record" in done.stderr
    wrong.write_text("endpoint:\n- name: mx\n  chain:\n  - filter: nothing\n", encoding="utf-8")
    done = explain(config=str(wrong))
    assert done.returncode == 1 and f"{wrong}:4:13: warning: unknown filter" in done.stderr
    assert "errors in the chain of 'mx'" in done.stderr
    wrong.write_text("endpoint: 5\n", encoding="utf-8")
    done = explain(config=str(wrong))
    assert done.returncode == 1 and f"{wrong}:1:11: error: " in done.stderr


# ---- transactions of a router that runs ----

CHECKS = """  - filter: spf_check
  - filter: dkim_check
  - filter: dmarc_check
  - filter: policy_action
    tag: spoof
    name: no-spoofed-sender
    match: {matcher: dmarc, result: fail, policy: reject}
    action: REJECT
    message: 5.7.1 spoofed
"""


@pytest.fixture(name="bank")
def bank_fixture():
    server = Nameserver({"bank.example": {"TXT": ["v=spf1 ip4:198.51.100.0/24 -all"]},
                         "_dmarc.bank.example": {"TXT": ["v=DMARC1; p=reject"]}})
    yield server
    server.close()


def with_checks(server, mode):
    def edit(text):
        start = text.index("- name: ingress_exploder")
        at = text.index("  - filter:", start)
        text = text[:at] + CHECKS + text[at:]
        return text + f"  dns_forward: [127.0.0.1@{server.port}]\n  explain: {mode}\n"
    return edit


def spoof(world):
    """Sends one; the id of the transaction, from the log."""
    mark = token()
    with Raw(world.ingress) as client:
        client.begin(sender="ceo@bank.example")
        assert client.code("DATA") == 354
        client.send(message(mark, sender="ceo@bank.example") + b".\r\n")
        code = client.reply()[0]
    ids = re.findall(r"event=smtp\.message|smtp\.message.*?tx=(\S+)", world.smtp_server.err())
    return code, ids[-1]


def why(world, name):
    return json.loads(tool.run(world, "show", "--why", name, "--json"))


def test_refused_by_a_running_router(world, bank):
    world.start(edit_router=with_checks(bank, "problems"))
    world.hop()
    code, name = spoof(world)
    assert int(code) == 550
    kept = why(world, name)
    assert kept["decided"]["rule"] == "no-spoofed-sender" and kept["outcome"] == "rejected"
    assert steps(kept, "spf_check")[0]["dns"][0]["records"] == \
        ["v=spf1 ip4:198.51.100.0/24 -all"]
    text = tool.run(world, "show", "--why", name)
    assert "rule no-spoofed-sender" in text and "DNS TXT _dmarc.bank.example" in text
    assert len(text.splitlines()) <= 40
    assert "nothing is kept" in tool.run(world, "show", "--why", "A" + "x" * 23, code=1)
    assert "--why" in tool.run(world, "list", "--why", code=2)


def test_off(world, bank):
    world.start(edit_router=with_checks(bank, "off"))
    world.hop()
    code, name = spoof(world)
    assert int(code) == 550
    assert "nothing is kept" in tool.run(world, "show", "--why", name, code=1)


def test_deferred_is_kept_with_the_row(world):
    """The newest attempt's, also after a restart; and not what the row's readers get."""
    world.start(edit_router=tool.slow_retries)
    location = tool.submit(world, token(), "bob@one.example")
    name = tool.name_of(location)
    tool.wait_attempts(world, location)
    before = why(world, name)
    assert before["outcome"] == "deferred" and before["attempt"] == 1
    assert before["decided"]["filter"] == "rest_output"
    assert before["answers"]["mail"]["code"] // 100 == 4
    assert "why" not in tool.show(world, name)["responses"]
    world.stop_servers()
    world.start(edit_router=tool.slow_retries)
    assert why(world, name) == before


def test_all(world):
    """With `explain: all` what was delivered is explained, too."""
    def edit(text):
        return text + "  explain: all\n"
    world.start(edit_router=edit)
    hop = world.hop()
    mark = token()
    location = tool.submit(world, mark, "bob@one.example")
    hop.wait_for(mark)
    name = tool.name_of(location)
    tool.wait_state(world, location, "final")
    kept = why(world, name)
    assert kept["outcome"] == "accepted" and kept["decided"] is None
    assert steps(kept, "rest_output")[0]["answers"][-1]["code"] == 250
