# SPDX-License-Identifier: Apache-2.0
"""The files of config/examples/public-internet on their own; test_internet.py runs them."""
import configparser
import glob
import os
import re
import smtplib
import ssl
import stat
import subprocess

import pytest
import yaml

from access import make_ca
from mail import message, token
from world import BINARY, RELEASE, ROOT

EXAMPLES = os.path.join(ROOT, "config", "examples", "public-internet")
YAMLS = ("gateway.yaml", "router.yaml")


def setup(folder, *options, koukan=RELEASE or BINARY):
    return subprocess.run(
        [os.path.join(EXAMPLES, "setup.sh"), *options, "--etc", f"{folder}/etc", "--state",
         f"{folder}/state"], check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=dict(os.environ, KOUKAN=koukan))


def check(*paths):
    return subprocess.run([BINARY, "config", "check", *paths], check=False,
                          stdout=subprocess.PIPE).stdout.decode()


def files_of(folder):
    found = {}
    for path in glob.glob(f"{folder}/etc/**", recursive=True):
        if os.path.isfile(path):
            with open(path, "rb") as file:
                found[os.path.relpath(path, folder)] = file.read()
    return found


SITE = ("--domain", "example.com.au", "--host", "mx1.example.com.au", "--ipv4", "203.0.113.7",
        "--ipv6", "2001:db8::7", "--users", "carol dave-2 e_f", "--partner", "friend.example",
        "--resolver", "203.0.113.8")


def test_setup_makes_a_site(tmp_path):
    done = setup(tmp_path, *SITE)
    assert done.returncode == 0, done.stdout.decode()
    etc = tmp_path / "etc"
    assert check(etc / "gateway.yaml", etc / "router.yaml") == "2 files: 0 errors, 0 warnings\n"
    made = files_of(tmp_path)
    texts = {name: made[f"etc/{name}"].decode() for name in YAMLS}
    for text in texts.values():
        assert not re.search(r"mail\.example|example\.com(?!\.au)|partner\.|0{20}|/etc/koukan"
                             r"|/var/lib/koukan|@[A-Z]+@", text)
        assert "dns_forward: ['203.0.113.8']" in text
        assert "hostname: mx1.example.com.au" in text
    assert "{host: friend.example, port: 25}" in texts["router.yaml"]
    assert "mailer-daemon, carol, dave-2, e_f]" in texts["router.yaml"]
    records = made["etc/dns-records.txt"].decode()
    for line in ("example.com.au. 3600 IN MX 10 mx1.example.com.au.",
                 "mx1.example.com.au. 3600 IN AAAA 2001:db8::7",
                 "7.113.0.203.in-addr.arpa. 3600 IN PTR mx1.example.com.au."):
        assert line in records.splitlines()
    assert records.count("._domainkey.example.com.au. 3600 IN TXT ( \"v=DKIM1;") == 2
    for name in made:  # secrets are nobody else's
        assert stat.S_IMODE(os.stat(tmp_path / name).st_mode) & 0o077 == 0, name
    # Again: nothing that somebody may have changed or published is replaced.
    assert setup(tmp_path, *SITE, "--domain", "other.example").returncode == 0
    again = files_of(tmp_path)
    assert again.pop("etc/dns-records.txt") != made.pop("etc/dns-records.txt")
    assert again == made


@pytest.mark.parametrize("options", [
    (), ("--domain", "a.example"), (*SITE, "--what"), (*SITE, "--ipv6"), (*SITE, "--x", "y"),
    (*SITE, "--partner", "a|b"), (*SITE, "--users", "a; rm"), (*SITE, "--domain", "")])
def test_setup_refuses(tmp_path, options):
    assert setup(tmp_path, *options).returncode == 2
    assert not os.path.exists(tmp_path / "etc")


def test_setup_ends_where_something_fails(tmp_path):
    assert setup(tmp_path, *SITE, koukan="/bin/false").returncode != 0
    assert files_of(tmp_path) == {"etc/new.key": b""}
    assert setup(tmp_path, *SITE).returncode == 0  # what is half there is made anew
    assert "etc/new.key" not in files_of(tmp_path)


def test_only_keys_are_missing_from_the_examples():
    lines = check(*(os.path.join(EXAMPLES, name) for name in YAMLS)).splitlines()
    assert lines[-1].endswith(" 0 warnings")
    for line in lines[:-1]:
        assert re.search(r"/etc/koukan/\S+( cannot be read|: No such file or directory)$", line)


def test_units_fit_the_configuration():
    def unit(path):
        parser = configparser.RawConfigParser(strict=False)
        parser.read(path)
        return parser
    given = {}
    for path in glob.glob(os.path.join(EXAMPLES, "*.socket")):
        section = unit(path)["Socket"]
        assert section["Service"] == "koukan-gateway.service"
        given[section["FileDescriptorName"]] = int(section["ListenStream"])
    with open(os.path.join(EXAMPLES, "gateway.yaml"), encoding="utf-8") as file:
        services = yaml.safe_load(file)["smtp_listener"]["services"]
    assert given == {service["socket"]: service["addr"][1] for service in services}
    assert given == {"smtp": 25, "submission": 587, "submissions": 465}
    for verb in ("gateway", "router"):
        service = unit(os.path.join(EXAMPLES, f"koukan-{verb}.service"))["Service"]
        assert service["ExecStart"].endswith(f"/koukan {verb} /etc/koukan/{verb}.yaml")
        assert service["Type"] == "notify" and service["User"] == f"koukan-{verb}"


def test_both_halves_in_one_process(world, tmp_path):
    """`koukan serve` with the same files, on ports of this machine's choice."""
    done = setup(tmp_path, *SITE)
    assert done.returncode == 0, done.stdout.decode()
    hop = world.hop()
    ports = {"8000": str(world.values["router_port"]), "8001": str(world.values["gateway_port"]),
             "port: 24": f"port: {hop.port}", "['', 25]": "['127.0.0.1', 0]",
             "['', 587]": "['127.0.0.1', 0]", "['', 465]": "['127.0.0.1', 0]"}
    tls = tmp_path / "etc" / "tls"
    make_ca(tls)
    for made, wanted in (("server.pem", "cert.pem"), ("server.key", "key.pem")):
        os.rename(tls / made, tls / wanted)
    paths = []
    for name in YAMLS:
        path = tmp_path / "etc" / name
        path.write_text(re.sub("|".join(map(re.escape, ports)), lambda found: ports[found.group()],
                               path.read_text()))
        paths.append(str(path))
    server = world.start_server("serve", "serve", *paths)
    passwords = dict(line.split(": ") for line in
                     (tmp_path / "etc" / "passwords.txt").read_text().splitlines())
    mark = token()
    context = ssl.create_default_context(cafile=str(tls / "ca.pem"))
    with smtplib.SMTP("127.0.0.1", server.smtp_ports()[1], timeout=20) as client:
        client.starttls(context=context)
        client.login("carol", passwords["carol"])
        client.sendmail("carol@example.com.au", ["e_f+x@example.com.au"],
                        message(mark, sender="carol@example.com.au", rcpt="e_f+x@example.com.au"))
    got = hop.wait_for(mark)
    assert got.text.count("DKIM-Signature:") == 2 and "with ESMTPSA" in got.text
