# SPDX-License-Identifier: Apache-2.0
"""Keys, certificates and the configuration for them."""
import os
import re
import subprocess

from world import BINARY


def make_key():
    """(key, the line for the configuration), as `koukan secret --api-key` makes them."""
    done = subprocess.run([BINARY, "secret", "--api-key"], capture_output=True, text=True,
                          timeout=30, check=True)
    return re.search(r"^key: (\S+)$", done.stderr, re.M).group(1), done.stdout.strip()


def rest_section(*entries, **keys):
    """An edit of router.yaml or gateway.yaml, whose last section is `koukan`."""
    lines = ["  rest:"] + [f"    {key}: {value}" for key, value in keys.items()]
    if entries:
        lines.append("    access:")
        for entry in entries:
            lines += ["    - " + entry[0]] + ["      " + line for line in entry[1:]]
    return lambda text: text + "\n".join(lines) + "\n"


def bearer(key):
    return {"authorization": f"Bearer {key}"}


def make_ca(folder):
    """ca.pem and, signed by it, server (for 127.0.0.1), good and stranger: .pem and .key each; and
    other.pem, which nobody has signed."""
    def run(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True,
                       timeout=60)
    new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    run(*new, "-x509", "-days", "2", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out",
        "ca.pem")
    for name, names in (("server", "IP:127.0.0.1,DNS:localhost"), ("good", "DNS:app.example.com"),
                        ("stranger", "DNS:stranger.example.com")):
        with open(os.path.join(folder, name + ".ext"), "w", encoding="utf-8") as file:
            file.write(f"subjectAltName={names}\n")
        run(*new, "-subj", f"/CN={name}", "-keyout", name + ".key", "-out", name + ".csr")
        run("x509", "-req", "-in", name + ".csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "2", "-extfile", name + ".ext", "-out", name + ".pem")
    run(*new, "-x509", "-days", "2", "-subj", "/CN=app.example.com", "-keyout", "other.key",
        "-out", "other.pem")
    return folder


def fingerprint(path):
    done = subprocess.run(["openssl", "x509", "-in", path, "-noout", "-fingerprint", "-sha256"],
                          capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.strip().split("=")[1].replace(":", "")
