/* SPDX-License-Identifier: Apache-2.0 */
/* DKIM verification.  The first byte chooses: 0..127, bytes of a message that was signed here are
 * replaced (pairs of position and value), and in a pass only the signature itself may differ, from
 * 64 on (relaxed/relaxed) white space beside that; 128..255, header, body and key record come from
 * the input, separated by a line "--", and nothing of them passes, since nobody has the key. */
#include "fuzz.h"

#include "mailauth/canon.h"
#include "mailauth/dkim_sign.h"
#include "mailauth/dkim_verify.h"

#define NOW     1700000000
#define MESSAGE "From: a@p.test\r\nSubject: one\r\n two\r\nX: y\r\n\r\nbody text\r\n more\r\n\r\n"

/* A signed message; b_start..b_end is the value of b= with the field's line end: white space in
 * front of that belongs to the value. */
typedef struct Good {
	char *text;
	size_t b_start, b_end;
} Good;

static DkimKey *key;
static char *key_record;
static Good good[CANON_FORMS];

static void
make_good(CanonForm form)
{
	static const char *const oversign[] = {"From", NULL};
	const DkimSigner signer = {.key = key,
				   .domain = "p.test",
				   .selector = "s",
				   .header_form = form,
				   .body_form = form,
				   .oversign = oversign};
	Blob *blob = blob_new_bytes(MESSAGE, strlen(MESSAGE));
	char *fields = dkim_sign(&signer, 1, blob, NOW, NULL);
	k_assert(fields != NULL);
	blob_unref(blob);
	char *text = g_strconcat(fields, MESSAGE, NULL);
	good[form] = (Good){text, (size_t)(strstr(text, " b=") - text) + 3, strlen(fields)};
	g_free(fields);
}

static void
set_up(void)
{
	if (key != NULL)
		return;
	/* a fixed seed, so that an input does the same in each run */
	key = dkim_private_parse("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=", "key", NULL);
	k_assert(key != NULL);
	key_record = dkim_key_record(key);
	for (CanonForm form = 0; form < CANON_FORMS; form++)
		make_good(form);
}

static unsigned
verify(const char *message, size_t len, const char *record, size_t piece)
{
	const char *end = len > 0 ? memmem(message, len, "\r\n\r\n", 4) : NULL;
	size_t header = end != NULL ? (size_t)(end - message) + 4 : len;
	DkimVerify *v = dkim_verify_new(message, header, NOW);
	unsigned passes = 0;
	for (size_t at = header; at < len; at += piece)
		dkim_verify_body(v, message + at, MIN(piece, len - at));
	dkim_verify_body_end(v);
	DnsRecord row = {.text = (char *)record};
	DnsAnswer answer = {.status = DNS_OK, .records = g_ptr_array_new()};
	g_ptr_array_add(answer.records, &row);
	k_assert(dkim_verify_count(v) <= DKIM_SIGNATURES_MAX);
	for (unsigned i = 0; i < dkim_verify_count(v); i++) {
		g_autofree char *name = dkim_verify_key_name(v, i);
		const DkimResult *result = dkim_verify_result(v, i);
		k_assert((name == NULL) == result->decided);
		if (name != NULL)
			dkim_verify_key(v, i, &answer);
		k_assert(result->decided && result->status < DKIM_STATUSES);
		k_assert((result->status == DKIM_PASS) == (result->reason == NULL));
		passes += result->status == DKIM_PASS;
	}
	g_ptr_array_unref(answer.records);
	dkim_verify_free(v);
	return passes;
}

static void
collect(void *arg, const char *data, size_t len)
{
	g_string_append_len(arg, data, (gssize)len);
}

/* The whole message in relaxed form, the value of b= left out; by other code than the verifier's
 * own walk over the header. */
static GString *
relaxed(const Good *g, const char *text, size_t len)
{
	g_autoptr(GString) rest = g_string_new_len(text, (gssize)g->b_start);
	GString *out = g_string_new(NULL);
	g_string_append_len(rest, text + g->b_end, (gssize)(len - g->b_end));
	const char *end = memmem(rest->str, rest->len, "\r\n\r\n", 4);
	size_t header = end != NULL ? (size_t)(end - rest->str) + 2 : rest->len;
	for (size_t at = 0, next; at < header; at = next) {
		for (next = at + 1; next < header; next++)
			if (rest->str[next - 1] == '\n' && rest->str[next] != ' ' &&
			    rest->str[next] != '\t')
				break;
		size_t cut = next - at >= 2 && memcmp(rest->str + next - 2, "\r\n", 2) == 0 ? 2 : 0;
		canon_field(CANON_RELAXED, rest->str + at, next - at - cut, out);
	}
	CanonBody body;
	canon_body_init(&body, CANON_RELAXED, collect, out);
	if (end != NULL)
		canon_body_feed(&body, rest->str + header + 2, rest->len - header - 2);
	canon_body_end(&body);
	return out;
}

static bool
is_same(CanonForm form, const char *text, size_t len)
{
	const Good *g = &good[form];
	if (form == CANON_SIMPLE)
		return memcmp(text, g->text, g->b_start) == 0 &&
		       memcmp(text + g->b_end, g->text + g->b_end, len - g->b_end) == 0;
	g_autoptr(GString) want = relaxed(g, g->text, len);
	g_autoptr(GString) got = relaxed(g, text, len);
	return g_string_equal(want, got);
}

static void
mutate(CanonForm form, const uint8_t *data, size_t size, size_t piece)
{
	const Good *g = &good[form];
	size_t len = strlen(g->text);
	g_autofree char *text = g_memdup2(g->text, len + 1);
	for (size_t i = 0; i + 2 < size; i += 3)
		text[((size_t)data[i] << 8 | data[i + 1]) % len] = (char)data[i + 2];
	unsigned passes = verify(text, len, key_record, piece);
	k_assert(passes == 0 || is_same(form, text, len));
	if (memcmp(text, g->text, len) == 0)
		k_assert(passes == 1);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned mode = fuzz_take_byte(&data, &size);
	size_t piece = mode % 16 + 1;
	set_up();
	if (mode < 128) {
		mutate(mode < 64 ? CANON_SIMPLE : CANON_RELAXED, data, size, piece);
		return 0;
	}
	const uint8_t *cut = size > 0 ? memmem(data, size, "\n--\n", 4) : NULL;
	size_t len = cut != NULL ? (size_t)(cut - data) : size;
	g_autofree char *record = cut != NULL ? g_strndup((const char *)cut + 4, size - len - 4)
					      : g_strdup(key_record);
	unsigned passes = verify(size > 0 ? (const char *)data : "", len, record, piece);
	if (cut == NULL)
		k_assert(passes == 0);
	return 0;
}
