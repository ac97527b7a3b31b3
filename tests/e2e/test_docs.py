# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/api.md, run as they stand there."""
import os
import re
import subprocess

from world import BINARY, ROOT

BLOCK = re.compile(r"^```sh\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", re.M | re.S)


def test_api_examples(shared, tmp_path):
    """One shell for all, in their order; what is shown under one comes out of it, in that order."""
    with open(os.path.join(ROOT, "docs", "api.md"), encoding="utf-8") as file:
        blocks = BLOCK.findall(file.read())
    assert len(blocks) >= 6
    os.symlink(BINARY, tmp_path / "koukan")
    script = ["set -eu"]
    for number, (commands, _) in enumerate(blocks):
        script.append(f"exec > out{number} 2>&1")
        script.append(commands.replace("http://localhost:8000", shared.router_url))
    done = subprocess.run(["bash", "-c", "\n".join(script)], cwd=tmp_path, check=False, timeout=60,
                          env=dict(os.environ, PATH=f"{tmp_path}:{os.environ['PATH']}"))
    outputs = []
    for number in range(len(blocks)):
        path = tmp_path / f"out{number}"
        outputs.append(path.read_text(encoding="utf-8") if path.exists() else "(not reached)")
    assert done.returncode == 0, outputs
    for (commands, wanted), output in zip(blocks, outputs):
        at = 0
        for line in wanted.splitlines():
            found = output.find(line, at)
            assert found >= 0, f"{commands}\nno {line!r} in\n{output}"
            at = found + len(line)
