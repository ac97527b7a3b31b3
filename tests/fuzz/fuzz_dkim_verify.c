/* SPDX-License-Identifier: Apache-2.0 */
/* DKIM verification.  The first byte chooses: 0..127, bytes of a message that was signed here are
 * replaced (pairs of position and value) and only the signature itself may differ in a pass;
 * 128..255, header, body and key record come from the input, separated by a line "--", and nothing
 * of them passes, since nobody has the key. */
#include "fuzz.h"

#include "mailauth/dkim_sign.h"
#include "mailauth/dkim_verify.h"

#define NOW     1700000000
#define MESSAGE "From: a@p.test\r\nSubject: one\r\n two\r\nX: y\r\n\r\nbody text\r\n more\r\n\r\n"

static DkimKey *key;
static char *key_record, *good;
static size_t b_start, b_end; /* of the value of b= in `good`, with the field's line end: white
				 space in front of that belongs to the value */

static void
set_up(void)
{
	static const char *const oversign[] = {"From", NULL};
	if (good != NULL)
		return;
	/* a fixed seed, so that an input does the same in each run */
	key = dkim_private_parse("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=", "key", NULL);
	k_assert(key != NULL);
	key_record = dkim_key_record(key);
	const DkimSigner signer = {
		.key = key, .domain = "p.test", .selector = "s", .oversign = oversign};
	Blob *blob = blob_new_bytes(MESSAGE, strlen(MESSAGE));
	char *fields = dkim_sign(&signer, 1, blob, NOW, NULL);
	k_assert(fields != NULL);
	blob_unref(blob);
	good = g_strconcat(fields, MESSAGE, NULL);
	b_start = (size_t)(strstr(good, " b=") - good) + 3;
	b_end = strlen(fields);
	g_free(fields);
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
mutate(const uint8_t *data, size_t size, size_t piece)
{
	size_t len = strlen(good);
	g_autofree char *text = g_memdup2(good, len + 1);
	for (size_t i = 0; i + 2 < size; i += 3)
		text[((size_t)data[i] << 8 | data[i + 1]) % len] = (char)data[i + 2];
	bool same = memcmp(text, good, b_start) == 0 &&
		    memcmp(text + b_end, good + b_end, len - b_end) == 0;
	unsigned passes = verify(text, len, key_record, piece);
	k_assert(passes == 0 || same);
	if (memcmp(text, good, len) == 0)
		k_assert(passes == 1);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned mode = fuzz_take_byte(&data, &size);
	size_t piece = mode % 16 + 1;
	set_up();
	if (mode < 128) {
		mutate(data, size, piece);
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
