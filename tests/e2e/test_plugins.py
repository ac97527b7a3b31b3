# SPDX-License-Identifier: Apache-2.0
"""The plug-ins of examples/plugin, built with the public header alone, in running servers."""
import os
import re
import shutil
import smtplib
import subprocess

import pytest

from mail import ALICE, BOB, Raw, message, submit, token
from test_config import koukan
from world import ROOT

NAMES = ("hello_filter", "hello_policy", "hello_matcher")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Copies of sources and header, and what make makes of them: nothing of the tree is in reach."""
    folder = tmp_path_factory.mktemp("plugins")
    include = folder / "include" / "koukan"
    include.mkdir(parents=True)
    shutil.copy(os.path.join(ROOT, "include/koukan/plugin.h"), include)
    for name in (*(name + ".c" for name in NAMES), "Makefile"):
        shutil.copy(os.path.join(ROOT, "examples/plugin", name), folder)
    done = subprocess.run(["make", "-C", str(folder), f"KOUKAN_INCLUDE={folder}/include"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=60)
    assert done.returncode == 0, done.stdout.decode()
    return folder


def modules(folder):
    return f"""
modules:
  sync_filter: {{hello_filter: {folder}/hello_filter.so}}
  recipient_router_policy: {{hello_policy: {folder}/hello_policy.so}}
  transaction_matcher: {{hello_matcher: {folder}/hello_matcher.so}}
"""


FILTER = """\
  chain:
  - filter: hello_filter
    greeting: Good morning
    refuse_subject: secret
"""
ROUTER = """\
  - filter: router
{dry}    policy:
      name: hello_policy
      domain: hello.example
      destination:
        endpoint: gateway
        host_list:
        - {{host: next-hop, port: {port}}}
"""
MATCHER = """\
  - filter: policy_action
    tag: greeting
    match: {matcher: hello_matcher, ehlo: bad.example}
    action: REJECT
    message: 5.7.1 we do not talk to you
"""


def with_plugins(folder, port):
    def edit(text):
        head, exploder, rest = re.split(r"(?m)^(?=- name: ingress(?:_exploder)?\n  output_handler)",
                                        text)
        exploder = exploder.replace("  - filter: router\n", MATCHER + ROUTER.format(
            dry="    dry_run: true\n", port=port) + "  - filter: router\n", 1)
        rest = rest.replace("  chain:\n", FILTER, 1).replace(
            "  - filter: router\n", ROUTER.format(dry="", port=port) + "  - filter: router\n", 1)
        return head + exploder + rest + modules(folder)
    return edit


@pytest.mark.threads
def test_examples(world, mode, built):
    hop = world.hop()
    world.start(mode, edit_router=with_plugins(built, world.values["sink_port"]))
    mark = token()
    assert submit(world.ingress, mark)[0] == 250
    taken = hop.taken[-1]
    assert (b"X-Hello: Good morning; recipients=1; user=-; client=127.0.0.1; encrypted=no"
            in re.sub(rb"\r\n ", b" ", taken.data))
    assert taken.data.endswith(message(mark)), "the message itself is as it came"

    secret = message(mark).replace(b"Subject: test", b"Subject: secret")
    code, text = submit(world.ingress, mark, data=secret)
    assert (code, text) == (550, "5.7.1 such a subject is not relayed")
    assert len(hop.taken) == 1

    assert submit(world.ingress, token(), rcpts=["carol@hello.example"])[0] == 250
    assert hop.taken[-1].rcpts == ["RCPT TO:<carol@hello.example>"]
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        submit(world.ingress, token(), rcpts=["nobody@hello.example"])
    assert list(refused.value.recipients.values()) == [(550, b"5.1.1 nobody lives here")]
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        submit(world.ingress, token(), rcpts=["carol@other.example"])

    with Raw(world.ingress, ehlo=False) as client:
        client.command("EHLO bad.example")
        client.command(f"MAIL FROM:<{ALICE}>")
        code, text = client.command(f"RCPT TO:<{BOB}>")
        assert code // 100 == 5, text
    world.stop_servers()


def check(tmp_path, text):
    path = tmp_path / "router.yaml"
    path.write_text("rest_listener: {addr: ['127.0.0.1', 0]}\nglobal: {}\n" + text, encoding="utf-8")
    done = koukan("config", "check", str(path))
    return done.returncode, (done.stdout + done.stderr).replace(str(path), "FILE")


def test_problems_have_a_place(tmp_path, built):
    shutil.copy(built / "hello_filter.so", tmp_path / "mine.so")
    line = "modules:\n  sync_filter:\n    hello_filter: {}\n"
    assert check(tmp_path, line.format("mine.so"))[0] == 0, "relative to the folder of the file"
    os.chmod(tmp_path / "mine.so", 0o666)
    code, text = check(tmp_path, line.format("mine.so"))
    assert code != 0
    assert f"FILE:5:19: error: module 'hello_filter': {tmp_path}/mine.so: everybody may write it " \
           "(mode 0666)" in text
    code, text = check(tmp_path, line.format("absent.so"))
    assert code != 0 and "FILE:5:19: error:" in text and "No such file" in text
    code, text = check(tmp_path, line.format(f"{built}/hello_matcher.so"))
    assert code != 0 and "plug-in hello_matcher has no filter 'hello_filter'" in text
    code, text = check(tmp_path, f"modules:\n  sync_filter: {{router: {built}/hello_filter.so}}\n")
    assert code != 0 and "module 'router': the name is that of a built-in one" in text
    code, text = check(tmp_path, "modules:\n  sync_filter: {hello: koukan.hello_filter}\n"
                       "  recipient_router_policy: {hello: koukan.hello_policy}\n"
                       "  transaction_matcher: {hello: 'koukan.hello_matcher:match'}\n")
    assert code == 0 and "module" not in text, text


def test_header_stands_alone(tmp_path):
    """As C11 and as C++, without anything else."""
    source = tmp_path / "alone.c"
    source.write_text("#include <koukan/plugin.h>\nint use = (int)sizeof(KoukanHost);\n",
                      encoding="utf-8")
    for language in (["-std=c11", "-x", "c"], ["-std=c++17", "-x", "c++"]):
        if language[-1] == "c++" and shutil.which("c++") is None:
            continue
        compiler = "c++" if language[-1] == "c++" else "cc"
        subprocess.run([compiler, *language, "-pedantic", "-Wall", "-Wextra", "-Werror",
                        "-fsyntax-only", "-I" + os.path.join(ROOT, "include"), str(source)],
                       check=True, timeout=60)
