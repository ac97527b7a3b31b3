# SPDX-License-Identifier: Apache-2.0
"""Our readers beside others, over public test data that is no part of this repository: the messages
of $KOUKAN_CORPUS (or ../shared/testdata), skipped when it is away.  What is compared is Python's
email package, and the expected trees and values where a set has them.  Every difference stands in a
table here with its reason; one that is gone must leave the table."""
import base64
import email
import email.policy
import glob
import json
import os
import re
import subprocess
import xml.etree.ElementTree

import pytest

from world import BINARY, ROOT

CORPUS = os.environ.get("KOUKAN_CORPUS", os.path.join(os.path.dirname(ROOT), "shared", "testdata"))
TOOL = os.path.join(os.path.dirname(BINARY or ""), "tests", "conformance", "conformance-mime")
DEPTH_MAX = 10


def corpus(*patterns):
    found = sorted(path for pattern in patterns
                   for path in glob.glob(os.path.join(CORPUS, pattern), recursive=True)
                   if os.path.isfile(path))
    if not found:
        pytest.skip(f"no {patterns[0]} in {CORPUS} (KOUKAN_CORPUS)")
    if not os.path.exists(TOOL):
        pytest.skip("no conformance-mime beside the binary")
    return found


def ask(*arguments, stdin=None):
    """The tool's answers; a sanitizer's report is a failure."""
    done = subprocess.run([TOOL, *arguments], input=stdin, capture_output=True, timeout=300,
                          check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-5000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def name_of(path):
    return os.path.relpath(path, CORPUS)


@pytest.fixture(scope="module")
def messages():
    """{name: what the tool says} of all messages; the program runs with sanitizers."""
    paths = corpus("mime-cpython/*.txt", "mime-dovecot/**/*.eml", "mime-rubymail/emails/**/*.eml",
                   "mime-tools-perl/**/*.msg", "mime-postfix/global/mime_*.in*", "koukan/**/*.msg")
    return {name_of(answer["file"]): answer for answer in ask("messages", *paths)}


# ---- Python's email package ----

def with_crlf(data):
    return re.sub(rb"(?<!\r)\n", b"\r\n", data)


def their_text(part):
    data = part.get_payload(decode=True) or b""
    charset = part.get_content_charset() or "us-ascii"
    try:
        text = data.decode("ascii" if charset.startswith("unknown") else charset)
    except (UnicodeDecodeError, LookupError):
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            return None  # which charset it is taken for is anybody's guess
    return text.replace("\r\n", "\n")


def compare(ours, theirs, blobs, where, problems):
    """Types, structure, contents."""
    kind = theirs.get_content_type()
    if ours["content_type"] != kind:
        problems.append(f"{where}: {ours['content_type']} for {kind}")
        return
    if theirs.is_multipart():
        parts = theirs.get_payload()
        if "parts" not in ours:
            problems.append(f"{where}: a leaf, they have {len(parts)} parts")
        elif len(ours["parts"]) != len(parts):
            problems.append(f"{where}: {len(ours['parts'])} parts, they have {len(parts)}")
        else:
            for number, (mine, other) in enumerate(zip(ours["parts"], parts)):
                if kind == "message/delivery-status":
                    if len(mine["headers"]) != len(other.keys()):
                        problems.append(f"{where}.{number}: fields of a status block")
                else:
                    compare(mine, other, blobs, f"{where}.{number}", problems)
        return
    if "content" not in ours:
        if kind != "text/rfc822-headers":
            problems.append(f"{where}: no leaf")
        return
    if kind.startswith("text/"):
        text, other = ours["content"].get("inline"), their_text(theirs)
        if text is None:
            text = base64.b64decode(blobs[ours["content"]["create_id"]]).decode()
        if other is not None and text.rstrip("\n") != other.rstrip("\n"):
            problems.append(f"{where}: text {text[:60]!r} for {other[:60]!r}")
    else:
        data = base64.b64decode(blobs[ours["content"]["create_id"]])
        other = theirs.get_payload(decode=True) or b""
        if data.rstrip(b"\r\n") != other.rstrip(b"\r\n"):
            problems.append(f"{where}: {len(data)} bytes {data[:40]!r}, they have {len(other)} "
                            f"{other[:40]!r}")


SAME_BOUNDARY = "a boundary inside another multipart of the same one: we take the innermost, they the "\
                "outermost"
FOLDED = "a fold inside the quoted boundary: they keep the line break in it and find no part"
ENCODED = "message/rfc822 must not be encoded (RFC 2046 5.2.1): we keep it as it is, opaque"
# {message: why Python's email package reads it in another way}
DIFFERENCES = {
    "mime-cpython/msg_15.txt": SAME_BOUNDARY,
    "mime-cpython/msg_42.txt": "a multipart that ends before it begins: we keep its bytes as a leaf",
    "mime-dovecot/malformed/003.eml": SAME_BOUNDARY,
    "mime-dovecot/malformed/005.eml": "a delimiter that is the end of one and the start of another "
                                      "multipart: we take the innermost",
    "mime-dovecot/malformed/013.eml": SAME_BOUNDARY,
    "mime-dovecot/thirdparty/003.eml": "blanks behind a transfer encoding: we cut them",
    "mime-dovecot/thirdparty/005.eml": "UTF-16 as binary, whose line ends the making of CRLF has "
                                       "changed: both guess",
    "mime-dovecot/thirdparty/012.eml": FOLDED,
    "mime-postfix/global/mime_dom.in": ENCODED,
    "mime-postfix/global/mime_garb1.in": ENCODED,
    "mime-postfix/global/mime_garb3.in": ENCODED,
    "mime-postfix/global/mime_garb4.in": ENCODED,
    "mime-postfix/global/mime_nest.in": SAME_BOUNDARY,
    "mime-tools-perl/mimetools-testmsgs/multi-digest.msg": FOLDED,
    "mime-tools-perl/mimetools-testmsgs/multi-simple.msg": FOLDED,
    "mime-tools-perl/mimetools-testmsgs/twopart.msg": "blanks behind a transfer encoding: we cut "
                                                      "them",
}


def settle(found, table, messages):
    """Every difference is in the table, and what is in the table is a difference."""
    unexplained = {name: problems for name, problems in found.items() if name not in table}
    assert not unexplained, json.dumps(unexplained, indent=1)
    gone = [name for name in table if name in messages and name not in found]
    assert not gone, f"no difference any more: {gone}"


def test_trees_and_contents_beside_python(messages):
    found = {}
    for name, answer in messages.items():
        with open(os.path.join(CORPUS, name), "rb") as file:
            theirs = email.message_from_bytes(with_crlf(file.read()), policy=email.policy.compat32)
        problems = []
        compare(answer["parsed"]["parts"], theirs, answer["blobs"], "$", problems)
        if problems:
            found[name] = problems
    settle(found, DIFFERENCES, messages)


# ---- the trees that come with the sets ----

def our_shape(node):
    """A leaf is a name, everything else a list of what is in it."""
    if "parts" in node and node["content_type"] not in ("message/delivery-status",
                                                        "text/rfc822-headers"):
        return [our_shape(each) for each in node["parts"]]
    return "leaf"


def dovecot_shape(tree, number=0):
    body = tree["parts"][number]["body"]
    if isinstance(body, dict) and "Multipart" in body:
        return [dovecot_shape(tree, each) for each in body["Multipart"]]
    if isinstance(body, dict) and "Message" in body:
        return [dovecot_shape(body["Message"])]
    return "leaf"


# {message: why the tree is another one than that of its set}
EXPECTED_DOVECOT = {
    "mime-dovecot/malformed/007.eml": "a delimiter line ends a header without an empty line before "
                                      "it: we take the inner multipart apart",
    "mime-dovecot/malformed/012.eml": "the delimiter of the outer multipart ends all that is inside",
    "mime-dovecot/malformed/013.eml": SAME_BOUNDARY,
    "mime-dovecot/malformed/019.eml": "the first line is no header line: everything is the body",
    "mime-dovecot/malformed/020.eml": "the first of two Content-Type fields counts, for us and for "
                                      "Python",
}


def test_expected_trees_of_dovecots_messages(messages):
    found = {}
    for name, answer in messages.items():
        path = os.path.join(CORPUS, name[:-4] + ".json")
        if not name.startswith("mime-dovecot/") or not os.path.exists(path):
            continue
        with open(path, encoding="utf-8") as file:
            want = dovecot_shape(json.load(file))
        got = our_shape(answer["parsed"]["parts"])
        if got != want:
            found[name] = [f"{got} for {want}"]
    settle(found, EXPECTED_DOVECOT, messages)


def perl_shape(element):
    for child in element:
        if child.tag == "multipart":
            return [perl_shape(each) for each in child if each.tag == "body-part"]
        if child.tag == "message":
            return [perl_shape(child)]
    return "leaf"


TWICE = "a delimiter line twice in a row: they see an empty part between, we and Python none"
EXPECTED_PERL = {
    "mime-tools-perl/mimetools-testmsgs/2002_06_12_doublebound.msg": TWICE,
    "mime-tools-perl/mimetools-testmsgs/double-bound.msg": TWICE,
}


def test_expected_trees_of_mime_tools(messages):
    found, compared = {}, 0
    for name, answer in messages.items():
        path = os.path.join(CORPUS, name[:-4] + "_decoded.xml")
        if not name.startswith("mime-tools-perl/") or not os.path.exists(path):
            continue
        try:
            want = perl_shape(xml.etree.ElementTree.parse(path).getroot())
        except xml.etree.ElementTree.ParseError:
            continue
        got = our_shape(answer["parsed"]["parts"])
        compared += 1
        if got != want:
            found[name] = [f"{got} for {want}"]
    assert compared > 20 or not any(name.startswith("mime-tools") for name in messages)
    settle(found, EXPECTED_PERL, messages)


# ---- builder and parser ----

def contents(parsed, blobs, key):
    """What a list holds, whether inline or as a blob."""
    out = []
    for item in parsed.get(key, []):
        content = item.get("content")
        if content is None:
            continue  # a container
        data = content["inline"].encode() if "inline" in content else base64.b64decode(
            blobs[content["create_id"]])
        if item["content_type"].startswith("text/"):
            data = data.replace(b"\r\n", b"\n")
        out.append((item["content_type"], item.get("filename"), item.get("content_id"), data))
    return out


CUT = {"mime-postfix/global/mime_trunc.in": "a field of 100 kB: the reader takes no more, and a fold "
                                            "counts"}
LISTS = ("text_body", "related_attachments", "file_attachments")
EMPTY_TEXT = [("text/plain", None, None, b"")]
# {what the builder says: why it need not build this}
BAD_ADDRESS = "bad address (needs local@domain, ASCII left of the @)"
REFUSALS = {
    "headers[1]: control character or line break in the value": "a field with control characters",
    **{f"headers[{number}]: {BAD_ADDRESS}": "a bare local part, or one outside ASCII: refused as in "
                                            "the original" for number in (0, 1, 2, 5)},
}


def test_builder_round_trips(messages):
    """What was parsed is built into a message, which parses to the same: fields, types, names,
    contents."""
    built, refused, problems = 0, {}, {}
    for name, answer in messages.items():
        if "refused" in answer:
            refused.setdefault(answer["refused"], []).append(name)
            continue
        built += 1
        # an empty list of addresses makes no field
        want = [json.dumps(pair) for pair in answer["asked"]["headers"] if pair[1] != []]
        fields = [pair for pair in answer["again"]["parts"]["headers"]
                  if not pair[0].startswith("content-") and pair[0] != "mime-version"]
        got = [json.dumps([key, [value] if key == "message-id" else value])
               for key, value in fields]
        for mine, asked in zip(got, want):
            if mine != asked:
                problems.setdefault(name, []).append(f"{mine} for {asked}")
        if len(got) != len(want):
            problems.setdefault(name, []).append(f"{len(got)} fields for {len(want)}")
        for key in LISTS:
            before = contents(answer["parsed"], answer["blobs"], key)
            after = contents(answer["again"], answer["again_blobs"], key)
            if after == EMPTY_TEXT and not any(map(answer["asked"].get, LISTS)):
                continue  # nothing was asked for: an empty text
            if before != after:
                problems.setdefault(name, []).append(f"{key}: {str(after)[:150]} for "
                                                     f"{str(before)[:150]}")
    settle(refused, REFUSALS, {})
    settle(problems, CUT, messages)
    assert built >= 60


# ---- fields ----

COMMENT = "comments are no part of our names"
OBSOLETE = "the obsolete grammar (RFC 5322 4.4): reported as a fault"
URL = "a URL is no address: reported as a fault"
# {number of the case: why we see it in another way}
ADDRESS_DIFFERENCES = {
    8: COMMENT, 9: OBSOLETE, 10: COMMENT, 11: COMMENT, 13: OBSOLETE, 14: OBSOLETE, 22: COMMENT,
    **dict.fromkeys((37, 38, 39, 40, 41, 43, 44, 45, 46, 47), URL),
    42: "a bare word is no address: reported as a fault",
    51: "two addresses without a comma: reported as a fault",
    55: "text behind the brackets: reported as a fault", 56: COMMENT,
}


def field_cases(name):
    with open(corpus(f"header-fields-stalwart/{name}.json")[0], encoding="utf-8") as file:
        return json.load(file)


def unfold(text):
    """A field value as the header reader hands it on."""
    return re.sub(r"\r?\n(?=[ \t])", "", text).strip("\r\n")


def flat(expected):
    if expected is None:
        return []
    if "List" in expected:
        return [(each["name"] or "", each["address"]) for each in expected["List"]]
    return [(each["name"] or "", each["address"]) for group in expected["Group"]
            for each in group["addresses"]]


def test_address_lists():
    cases = field_cases("address")
    lines = "".join(json.dumps({"kind": "addresses", "text": unfold(case["header"])}) + "\n"
                    for case in cases)
    found = {}
    for number, answer in enumerate(ask("fields", stdin=lines.encode())):
        got, want = [tuple(each) for each in answer["list"]], flat(cases[number]["expected"])
        if got != want:
            found[number] = [f"{got} ({answer['fault']}) for {want}"]
    settle(found, ADDRESS_DIFFERENCES, dict(enumerate(cases)))


BROKEN = "not well formed: reported as a fault, and what is readable is kept"
SEMICOLON = "a semicolon is missing between parameters: reported as a fault"
WORDS = "encoded words must not stand here; between two the blanks are no part of the text"
# {number of the case: why we see it in another way}
TYPE_DIFFERENCES = {
    **dict.fromkeys((23, 30, 31), SEMICOLON), 29: "the language of a parameter is not shown",
    34: WORDS, 35: WORDS,
    **dict.fromkeys((39, 43, 47, 48, 49, 54, 58, 60, 61, 62, 64, 65, 66, 67, 68, 70, 71, 75, 76, 77,
                     97, 98, 99), BROKEN),
}


def test_content_types():
    cases = [case for case in field_cases("content_type") if "\0" not in case["header"]]
    lines = "".join(json.dumps({
        "kind": "type" if "/" in case["header"].partition(";")[0] else "disposition",
        "text": unfold(case["header"])}) + "\n" for case in cases)
    found = {}
    for number, answer in enumerate(ask("fields", stdin=lines.encode())):
        want = cases[number]["expected"] or {"c_type": "", "c_subtype": None}
        kind = want["c_type"] + ("/" + want["c_subtype"] if want["c_subtype"] else "")
        params = dict(want.get("attributes") or [])
        if (answer["value"], answer["params"]) != (kind.lower(), params):
            found[number] = [f"{answer} for {kind} {params}"]
    settle(found, TYPE_DIFFERENCES, dict(enumerate(cases)))


# ---- addresses ----

CONTROL = "a control character inside quotes: callers look for those, in the whole value"
HYPHEN = "for RFC 5322 a domain is atoms, which may begin and end with a hyphen"
# {number of the case: why we see it in another way}
ISEMAIL_DIFFERENCES = {
    "30": HYPHEN, "102": HYPHEN, "124": CONTROL, "134": CONTROL, "138": CONTROL,
    "40": "lengths beyond those that RFC 5321 4.5.3.1 wants at least are taken",
    "116": "blanks and obsolete characters in a domain literal", "120": "the same",
    "160": "RFC 6532 3.2 allows UTF-8 behind a backslash in quotes",
}


def test_isemail():
    """An address of a header is what RFC 5322 allows, without what may stand around it; one of an
    envelope what RFC 5321 allows."""
    tree = xml.etree.ElementTree.parse(corpus("address-isemail/tests*.xml")[0])
    cases = []
    for test in tree.getroot().iter("test"):
        text = "".join(chr(ord(c) - 0x2400) if 0x2400 <= ord(c) <= 0x2421 else c
                       for c in test.findtext("address") or "")
        if "\0" not in text:
            cases.append((test.get("id"), text, test.findtext("category"),
                          test.findtext("diagnosis")))
    lines = "".join(json.dumps({"kind": "address", "text": case[1]}) + "\n" for case in cases)
    found = {}
    for case, answer in zip(cases, ask("fields", stdin=lines.encode())):
        number, text, category, diagnosis = case
        envelope = category in ("ISEMAIL_VALID_CATEGORY", "ISEMAIL_DNSWARN", "ISEMAIL_RFC5321")
        header = envelope or category == "ISEMAIL_RFC5322"
        if answer["envelope"] != envelope or answer["header"] != header:
            found[number] = [f"{text!r} {answer}: {category} {diagnosis}"]
    settle(found, ISEMAIL_DIFFERENCES, dict.fromkeys(case[0] for case in cases))
