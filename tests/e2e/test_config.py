# SPDX-License-Identifier: Apache-2.0
"""koukan config, broken files, and the general face of the command line."""
import os
import re
import subprocess

import pytest

from world import BINARY, ROOT


def koukan(*arguments, **keywords):
    return subprocess.run([BINARY, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          stdin=subprocess.DEVNULL, timeout=30, check=False, text=True, **keywords)


def check(tmp_path, *texts):
    paths = []
    for number, text in enumerate(texts):
        path = tmp_path / f"file{number}.yaml"
        path.write_text(text, encoding="utf-8")
        paths.append(str(path))
    done = koukan("config", "check", *paths)
    return done.returncode, done.stdout + done.stderr


def test_version_and_help():
    assert re.match(r"koukan \d+\.\d+\.\d+", koukan("--version").stdout)
    done = koukan("--help")
    assert done.returncode == 0
    for verb in ("serve", "gateway", "router", "sink", "smtp", "send", "receiver", "config"):
        assert verb in done.stdout
        assert koukan(verb, "--help").returncode == 0, verb


@pytest.mark.parametrize("arguments", [
    [], ["nonsense"], ["serve", "--nonsense"], ["config"], ["config", "nonsense"],
    ["gateway"], ["router"], ["sink"], ["sink", "port"], ["smtp"], ["send"]])
def test_wrong_use_says_so(arguments):
    done = koukan(*arguments)
    assert done.returncode != 0
    assert done.stderr.strip(), "something is said on standard error"


def test_own_files_are_right():
    done = koukan("config", "check", os.path.join(ROOT, "config/local-test/router.yaml"),
                  os.path.join(ROOT, "config/local-test/gateway.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_of_the_existing_system_load_unchanged():
    folder = os.environ.get("KOUKAN_CORPUS", os.path.join(os.path.dirname(ROOT), "shared",
                                                          "testdata"))
    names = [os.path.join(folder, "koukan", name) for name in
             ("router.yaml", "gateway.yaml", "router_service_test-router.yaml")]
    if not all(os.path.exists(name) for name in names):
        pytest.skip("KOUKAN_CORPUS names no folder with koukan/router.yaml and the like")
    for name in names:
        done = koukan("config", "check", name)
        assert done.returncode == 0, done.stdout + done.stderr


ROUTER = """\
global: {}
rest_listener:
  addr: ["127.0.0.1", 0]
  sesion_uri: http://127.0.0.1:8000
sender:
- name: a
  output_chain: out
endpoint:
- name: out
  output_handler:
    downstream_timeout: soon
  chain:
  - filter: remote_hots
  - filter: rest_output
"""


def test_all_problems_in_one_run(tmp_path):
    code, text = check(tmp_path, ROUTER)
    assert code == 1
    assert re.search(r"file0\.yaml:4:3: .*sesion_uri.*session_uri", text), text
    assert re.search(r"file0\.yaml:11:25: .*downstream_timeout|file0\.yaml:11:\d+: ", text), text
    assert re.search(r"file0\.yaml:13:\d+: .*remote_hots.*remote_host", text), text


def test_unknown_keys_alone_are_warnings(tmp_path):
    text = (ROUTER.replace("soon", "5").replace("remote_hots", "remote_host"))
    code, out = check(tmp_path, text)
    assert code == 0 and "sesion_uri" in out, out


def test_unknown_filter_in_an_unused_chain_is_no_error(tmp_path):
    text = (ROUTER.replace("soon", "5").replace("output_chain: out", "output_chain: used")
            + "- name: used\n  chain:\n  - filter: rest_output\n")
    code, out = check(tmp_path, text)
    assert code == 0, out


@pytest.mark.parametrize("text,place", [
    ("global: [\n", r":\d+:\d+: "), ("a: b: c\n", r":1:\d+: "), ("\tx: 1\n", r":1:\d+: "),
    ("global: {}\nglobal: {}\n", r":2:1: "), ("- a\n", r":1:1: "), ("", r""),
    ("just text\n", r":1:1: "), ("a: \"unfinished\n", r":\d+:\d+: "),
    ("a: \x00\n", r""), ("a: &x [*x]\n", r"")])
def test_broken_yaml_has_a_position(tmp_path, text, place):
    code, out = check(tmp_path, text)
    assert code != 0, out
    assert re.search(r"file0\.yaml" + place, out), out


def test_missing_file(tmp_path):
    done = koukan("config", "check", str(tmp_path / "none.yaml"))
    assert done.returncode != 0 and "none.yaml" in done.stdout + done.stderr


@pytest.mark.parametrize("verb", ["router", "gateway"])
def test_a_service_with_a_broken_file_does_not_start(tmp_path, verb):
    path = tmp_path / "broken.yaml"
    path.write_text(ROUTER, encoding="utf-8")
    done = koukan(verb, str(path))
    assert done.returncode != 0
    assert "broken.yaml:" in done.stderr, done.stderr


def test_reference_is_up_to_date():
    """docs/configuration.md is what `koukan config doc` prints; to renew it:
    koukan config doc > docs/configuration.md"""
    done = koukan("config", "doc")
    assert done.returncode == 0
    with open(os.path.join(ROOT, "docs", "configuration.md"), encoding="utf-8") as file:
        assert file.read() == done.stdout, "run: koukan config doc > docs/configuration.md"
