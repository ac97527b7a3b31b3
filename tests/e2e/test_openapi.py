# SPDX-License-Identifier: Apache-2.0
"""docs/openapi.yaml against a running server: requests are made from the file, and each answer must
be one that it tells of - status, header fields, content type, shape."""
import json
import os
import random
import re
import urllib.parse

import pytest

yaml = pytest.importorskip("yaml")

import queue_tool as tool  # noqa: E402
from mail import ALICE, BOB, Rest, token  # noqa: E402
from world import ROOT, World  # noqa: E402

with open(os.path.join(ROOT, "docs", "openapi.yaml"), encoding="utf-8") as opened:
    SPEC = yaml.safe_load(opened)
METHODS = ("get", "post", "put", "patch", "delete")
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}


def follow(node):
    while "$ref" in node:
        target = SPEC
        for step in node["$ref"][2:].split("/"):
            target = target[step]
        node = target
    return node


def validate(value, schema, where="$"):
    """The part of JSON Schema that the file uses."""
    schema = follow(schema)
    known = {"type", "nullable", "properties", "required", "additionalProperties", "items",
             "minItems", "maxItems", "enum", "pattern", "minimum", "maximum", "minLength",
             "maxLength", "allOf", "description", "example", "format"}
    assert set(schema) <= known, set(schema) - known
    for each in schema.get("allOf", ()):
        validate(value, each, where)
    if value is None:
        assert schema.get("nullable"), f"{where}: null"
        return
    kind = schema.get("type")
    if kind:
        assert isinstance(value, TYPES[kind]), f"{where}: {value!r} is no {kind}"
        assert kind != "integer" or not isinstance(value, bool), where
    assert "enum" not in schema or value in schema["enum"], f"{where}: {value!r}"
    if isinstance(value, str):
        assert "pattern" not in schema or re.search(schema["pattern"], value), (where, value)
        assert schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 1 << 30), where
    elif isinstance(value, dict):
        for key in schema.get("required", ()):
            assert key in value, f"{where}: no {key}"
        others = schema.get("additionalProperties", True)
        for key, each in value.items():
            if key in schema.get("properties", {}):
                validate(each, schema["properties"][key], f"{where}.{key}")
            elif isinstance(others, dict):
                validate(each, others, f"{where}.{key}")
            else:
                assert others, f"{where}: unknown key {key}"
    elif isinstance(value, list):
        assert schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 1 << 30), where
        for i, each in enumerate(value):
            validate(each, schema.get("items", {}), f"{where}[{i}]")
    elif isinstance(value, int):
        assert schema.get("minimum", value) <= value <= schema.get("maximum", value), where


def sample(schema, rng):
    """A value that the schema allows."""
    schema = follow(schema)
    if "example" in schema:
        return schema["example"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    kind = schema.get("type")
    if kind == "object":
        return {key: sample(each, rng) for key, each in schema.get("properties", {}).items()
                if key in schema.get("required", ()) or rng.random() < 0.6}
    if kind == "array":
        count = rng.randint(max(schema.get("minItems", 0), 1), schema.get("maxItems", 2))
        return [sample(schema.get("items", {}), rng) for _ in range(count)]
    if kind == "integer":
        return rng.randint(schema.get("minimum", 0), schema.get("maximum", 9))
    if kind == "boolean":
        return rng.random() < 0.5
    return rng.choice(["x", "a@example.com", "x" * 40, "ü"])[:schema.get("maxLength", 99)]


def spoil(value, rng):
    """Something near it that is mostly wrong."""
    value = json.loads(json.dumps(value))
    at = value
    while isinstance(at, dict) and at and rng.random() < 0.5:
        nested = [each for each in at.values() if isinstance(each, (dict, list)) and each]
        if not nested:
            break
        at = rng.choice(nested)
    wrong = rng.choice([None, [], {}, 0, -1, 1e308, 1 << 62, "", "\u0000", "\r\n", [[]], True])
    if isinstance(at, dict):
        at[rng.choice([*at, "nonsense"])] = wrong
    elif isinstance(at, list):
        at[rng.randrange(len(at))] = wrong
    return value


def operations():
    for path, item in SPEC["paths"].items():
        for method in METHODS:
            if method in item:
                yield pytest.param(path, method, id=item[method]["operationId"])


def parameters(path, method):
    item = SPEC["paths"][path]
    return [follow(each) for each in item.get("parameters", []) + item[method].get("parameters",
                                                                                    [])]


def judge(path, method, answer):
    """The answer is one that the file tells of."""
    known = SPEC["paths"][path][method]["responses"]
    what = f"{method} {path}: {answer.status} {answer.body[:200]!r}"
    assert str(answer.status) in known, what
    response = follow(known[str(answer.status)])
    for name, header in response.get("headers", {}).items():
        if header["required"] or name in answer.headers:
            assert name in answer.headers, f"{what}: no {name}"
            validate(answer.headers[name], header["schema"], name)
    content = response.get("content", {})
    kind = answer.headers.get("content-type")
    if kind is None:
        assert answer.body == b"", what
        assert answer.status != 200 or not content, what
        return
    assert kind in content, f"{what}: {kind}"
    body = answer.body.decode()
    validate(json.loads(body) if kind == "application/json" else body, content[kind]["schema"])


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A router whose next hop wants some recipients later."""
    it = World(tmp_path_factory.mktemp("told"))
    it.hop(on_rcpt=lambda rcpt: "450 later" if "later" in rcpt else None)
    it.start("serve", edit_router=tool.slow_retries)
    yield it
    it.close()


class Maker:
    """Makes requests of one operation, for transactions in all states."""

    def __init__(self, world, rest, rng):
        self.rng, self.rest = rng, rest
        done = rest.submit(token())
        rest.final(done.headers["location"])
        builder = {"message_builder": {"headers": [["subject", "x"]], "text_body": [
            {"content_type": "text/plain", "content": {"create_id": "part/1"}}]}}
        open_ones = [rest.create(mail_from={"m": ALICE}, rcpt_to=[{"m": BOB}]),
                     rest.create(mail_from={"m": ALICE}, rcpt_to=[{"m": BOB}], body=builder),
                     rest.create("ingress", mail_from={"m": ALICE}, sender={"tag": "smtp-mx"})]
        self.ids = [answer.headers["location"].rsplit("/", 1)[1] for answer in [done, *open_ones]]
        later = tool.submit(world, token(), "x@later.example")
        tool.wait_state(world, later, "queued")
        self.ids += [tool.name_of(later), tool.name_of(later), "A" * 24]

    def value(self, parameter, identity):
        name = parameter["name"]
        if name == "id":
            return identity
        if name == "sender":
            return self.rng.choice(["submission", "submission", "oneshot", "ingress", "nobody"])
        if name == "blob":
            return self.rng.choice(["part/1", "x"])
        if name in ("if-match", "if-none-match") and self.rng.random() < 0.7:
            return self.rest.get("/transactions/" + identity).etag or "1"
        if name == "request-timeout":
            return self.rng.choice(["0", "0", "0", "1"])
        if name == "after":
            return self.rng.choice(self.ids)
        if name == "content-range":
            return self.rng.choice(["bytes 0-9/10", "bytes 0-9/*", "bytes 5-14/20", "bytes 3-1/2"])
        return str(sample(parameter["schema"], self.rng))

    def request(self, path, method, good):
        operation = SPEC["paths"][path][method]
        identity = self.rng.choice(self.ids)
        query, headers = {}, {}
        for each in parameters(path, method):
            if not each["required"] and self.rng.random() < 0.6:
                continue
            value = self.value(each, identity)
            if each["in"] == "path":
                path = path.replace("{" + each["name"] + "}", urllib.parse.quote(value))
            elif each["in"] == "query":
                query[each["name"]] = value
            else:
                headers[each["name"].replace("-", "_")] = value
        if "if_none_match" in headers:  # or it waits for half a minute
            headers.setdefault("request_timeout", "0")
        if query:
            path += "?" + urllib.parse.urlencode(query)
        return path, headers, self.body(operation, good)

    def body(self, operation, good):
        content = follow(operation.get("requestBody", {})).get("content", {})
        if "application/json" in content:
            value = sample(content["application/json"]["schema"], self.rng)
            if not good:
                value = spoil(value, self.rng)
            return value if isinstance(value, (dict, list)) else json.dumps(value).encode()
        return b"0123456789" if content else None


@pytest.mark.parametrize("path,method", operations())
def test_requests_made_from_the_file(told, path, method):
    rng = random.Random(f"{path} {method}")
    with Rest(told.router_url) as rest:
        maker = Maker(told, rest, rng)
        seen = set()
        for i in range(30):
            target, headers, body = maker.request(path, method, i % 3 != 2)
            if body is None and method != "get":
                body = b""
            answer = rest.call(method.upper(), target, body, **headers)
            judge(path, method, answer)
            assert answer.status < 500, (target, headers, body, answer.body)
            seen.add(answer.status)
        assert seen & {200, 201}, f"only {seen}: the requests say nothing"


@pytest.mark.parametrize("path", SPEC["paths"])
def test_methods(told, path):
    """What is not in the file is not there: 405, and `allow` names what is."""
    target = path.replace("{sender}", "submission").replace("{id}", "A" * 24).replace("{blob}", "b")
    there = {method.upper() for method in METHODS if method in SPEC["paths"][path]}
    with Rest(told.router_url) as rest:
        for method in METHODS:
            if method.upper() in there:
                continue
            answer = rest.call(method.upper(), target, b"" if method != "get" else None)
            if path == "/metrics":
                assert answer.status in (404, 405)
                continue
            assert answer.status == 405, (method, answer.status)
            assert set(answer.headers["allow"].split(", ")) == there


def test_the_file_itself():
    """References lead somewhere, and examples are what their schemas say."""
    def walk(node):
        if isinstance(node, dict):
            if "$ref" in node:
                follow(node)
            if "example" in node and "type" in node:
                validate(node["example"], node)
            for each in node.values():
                walk(each)
        elif isinstance(node, list):
            for each in node:
                walk(each)
    walk(SPEC)
    names = [item[method]["operationId"] for item in SPEC["paths"].values() for method in METHODS
             if method in item]
    assert len(names) == len(set(names)) == 17
