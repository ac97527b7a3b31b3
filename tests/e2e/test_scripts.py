# SPDX-License-Identifier: Apache-2.0
"""Lua scripts in running servers: what they decide, that hostile ones hold nobody up, reload."""
import os
import re
import signal
import threading

import pytest

from devkit import procs
from mail import message, submit, token
from test_config import koukan
from world import ROOT


def scripts_of(page):
    """The Lua blocks of a page by the file name in their first line."""
    with open(os.path.join(ROOT, "docs", page), encoding="utf-8") as file:
        blocks = re.findall(r"^```lua\n(-- (\S+\.lua):.*?)^```", file.read(), re.M | re.S)
    return {name: text for text, name in blocks}


FILTER = """\
  chain:
  - filter: lua
    script: greet.lua
    options: {internal: example.com}
  - filter: policy_action
    tag: newsletters
    match: {matcher: lua, script: newsletter.lua}
    action: REJECT
    message: 5.7.1 no newsletters
"""


def with_scripts(text):
    head, rest = re.split(r"(?m)^(?=- name: ingress\n  output_handler)", text)
    return head + rest.replace("  chain:\n", FILTER, 1)


def with_header(mark, line):
    return line.encode() + b"\r\n" + message(mark)


@pytest.mark.threads
def test_examples_of_the_page(world, mode):
    for name, text in scripts_of("scripts.md").items():
        world.write(name, text)
    hop = world.hop()
    world.start(mode, edit_router=with_scripts)
    mark = token()
    assert submit(world.ingress, mark)[0] == 250
    assert hop.taken[-1].data.count(b"X-Internal: true\r\n") == 1
    assert submit(world.ingress, token(), rcpts=["bob@example.com"],
                  data=with_header(mark, "List-Unsubscribe: <mailto:x@example.com>")) \
        == (550, "5.7.1 no newsletters")
    assert submit(world.ingress, token(), data=with_header(
        mark, "Subject: FREE money").replace(b"Subject: test", b"X-Was: test")) == (550, "5.7.1 no")
    assert len(hop.taken) == 1
    world.stop_servers()


@pytest.mark.threads
def test_reload(world):
    hop = world.hop()
    world.write("newsletter.lua", "function match() return false end")
    world.write("greet.lua", "function message(tx) tx:add_header('X-Round', 'one') end")
    world.start("serve", edit_router=with_scripts)
    stop = threading.Event()
    outcomes = []

    def send():
        while not stop.is_set():
            outcomes.append(submit(world.ingress, token())[0])
    sender = threading.Thread(target=send)
    sender.start()
    try:
        procs.wait_until(lambda: len(outcomes) > 2, "messages")
        for text, event in (("function message(tx) tx:add_header('X-Round', 'two') end",
                             "script.reloaded"),
                            ("function message(tx) return", "script.reload_failed"),
                            ("function message(tx) tx:add_header('X-Round', 'three') end",
                             "script.reloaded")):
            event += f" script={world.write('greet.lua', text)}"
            before = world.smtp_server.err().count(event)
            world.smtp_server.signal(signal.SIGHUP)
            procs.wait_until(lambda e=event, b=before: world.smtp_server.err().count(e) > b, event)
            have = len(outcomes)
            procs.wait_until(lambda h=have: len(outcomes) > h + 2, "messages")
    finally:
        stop.set()
        sender.join()
    assert set(outcomes) == {250}
    assert "greet.lua:1: 'end' expected" in world.smtp_server.err()
    rounds = re.findall(rb"X-Round: (\w+)", b"".join(message.data for message in hop.taken))
    assert set(rounds) == {b"one", b"two", b"three"}
    assert len(rounds) == len(hop.taken), "each message went through exactly one of them"
    world.stop_servers()


HOSTILE = """
function message(tx)
  local subject = tx:header("subject") or ""
  if subject:find("loop") then while true do end end
  if subject:find("pattern") then return (("a"):rep(150)):find(".-.-.-.-b") end
  if subject:find("memory") then local t = {} while true do t[#t + 1] = ("x"):rep(5000) .. #t end end
  if subject:find("error") then error({}) end
end
"""


def test_hostile_scripts_hold_nobody_up(world):
    """With one worker, what follows is not late, and the failures are temporary."""
    hop = world.hop()
    world.values["workers"] = 1
    world.write("newsletter.lua", "function match() return false end")
    world.write("greet.lua", HOSTILE)
    world.start("serve", edit_router=with_scripts)
    for word, reason in (("loop", r"greet\.lua:4: (instructions|processor time) used up"),
                         ("pattern", r"greet\.lua:5: (instructions|processor time) used up"),
                         ("memory", r"greet\.lua:6: (memory|processor time|instructions) used up"),
                         ("error", r"greet\.lua: the error is a table")):
        before = procs.cpu_seconds(world.smtp_server.popen.pid)
        data = with_header(token(), "X-A: b").replace(b"Subject: test", b"Subject: " + word.encode())
        code, text = submit(world.ingress, token(), data=data)
        assert (code, text) == (451, "4.3.0 a check failed here; please try again later")
        assert re.search(reason, world.smtp_server.err()), word
        assert procs.cpu_seconds(world.smtp_server.popen.pid) - before < 1
        assert submit(world.ingress, token())[0] == 250
    assert len(hop.taken) == 4
    world.stop_servers()


def test_problems_have_a_place(tmp_path):
    (tmp_path / "bad.lua").write_text("function mail(tx)\n  x = = 1\nend\n", encoding="utf-8")
    (tmp_path / "router.yaml").write_text(
        "global: {}\nrest_listener: {addr: ['127.0.0.1', 0]}\n"
        "sender: [{name: a, output_chain: out}]\n"
        "endpoint:\n- name: out\n  chain:\n  - filter: lua\n    script: bad.lua\n"
        "  - filter: rest_output\n", encoding="utf-8")
    done = koukan("config", "check", str(tmp_path / "router.yaml"))
    assert done.returncode != 0
    assert "router.yaml:8:13: error: bad.lua:2: unexpected symbol near '='" in done.stdout + done.stderr
