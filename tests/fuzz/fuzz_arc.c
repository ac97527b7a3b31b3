/* SPDX-License-Identifier: Apache-2.0 */
/* ARC.  The first byte chooses: 0..127, bytes of a message with two sets made here are replaced
 * (pairs of position and value), and what passes differs from it in white space and case at most;
 * 128..255, the input is a message: its sets are read without harm, at most 51 keys are asked for,
 * nothing passes, since nobody has the key, and where there is no set and we can add one, that
 * verifies. */
#include "fuzz.h"

#include "mailauth/arc.h"

#define NOW 1700000000
#define ID  "mx.us.test"
#define MESSAGE                                                                                    \
	"From: a@p.test\r\nSubject: one\r\n two\r\n"                                               \
	"Authentication-Results: " ID "; spf=pass\r\n\r\nbody text\r\n more\r\n\r\n"

static DkimKey *key;
static char *key_record, *good;
static size_t b_start, b_end; /* of the value of b= in the newest seal, with the line end */

static char *
seal(const char *message, size_t len, ArcStatus status)
{
	const ArcSealer sealer = {
		.key = key, .domain = "p.test", .selector = "s", .authserv_id = ID};
	g_autoptr(Blob) blob = blob_new_bytes(message, len);
	g_autoptr(GError) error = NULL;
	unsigned instance = 0;
	g_autofree char *set = arc_seal(&sealer, blob, status, NOW, &instance, &error);
	k_assert((set == NULL) == (error != NULL));
	if (set == NULL)
		return NULL;
	k_assert((instance == 0) == (*set == '\0') && instance <= ARC_SETS_MAX);
	return g_steal_pointer(&set);
}

static void
set_up(void)
{
	if (good != NULL)
		return;
	/* a fixed seed, so that an input does the same in each run */
	key = dkim_private_parse("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=", "key", NULL);
	k_assert(key != NULL);
	key_record = dkim_key_record(key);
	g_autofree char *first = seal(MESSAGE, strlen(MESSAGE), ARC_NONE);
	g_autofree char *one = g_strconcat(first, MESSAGE, NULL);
	g_autofree char *second = seal(one, strlen(one), ARC_PASS);
	good = g_strconcat(second, one, NULL);
	b_start = (size_t)(strstr(good, " b=") - good) + 3;
	b_end = (size_t)(strstr(good, "ARC-Message-Signature") - good);
}

static ArcStatus
verify(const char *message, size_t len, const char *record)
{
	g_autoptr(Blob) blob = blob_new_bytes(message, len);
	ArcVerify *v = arc_verify_message(blob, NOW, NULL);
	k_assert(v != NULL);
	DnsRecord row = {.text = (char *)record};
	DnsAnswer answer = {.status = DNS_OK, .records = g_ptr_array_new()};
	g_ptr_array_add(answer.records, &row);
	const ArcResult *result = arc_verify_result(v);
	char *name;
	for (unsigned asked = 0; (name = arc_verify_key_name(v)) != NULL; asked++) {
		k_assert(asked <= ARC_SETS_MAX && !result->decided);
		g_free(name);
		arc_verify_key(v, &answer);
	}
	ArcStatus status = result->status;
	k_assert(result->decided && result->count <= ARC_SETS_MAX);
	k_assert((result->reason == NULL) == (status == ARC_PASS || status == ARC_NONE));
	g_ptr_array_unref(answer.records);
	arc_verify_free(v);
	return status;
}

/* Without what the relaxed form takes out. */
static char *
squeezed(const char *text, size_t len)
{
	GString *out = g_string_new(NULL);
	for (size_t i = 0; i < len; i++)
		if (memchr(" \t\r\n", text[i], 4) == NULL)
			g_string_append_c(out, g_ascii_tolower(text[i]));
	return g_string_free(out, FALSE);
}

static bool
is_same(const char *a, const char *b, size_t len)
{
	g_autofree char *left = squeezed(a, len), *right = squeezed(b, len);
	return strcmp(left, right) == 0;
}

static void
mutate(const uint8_t *data, size_t size)
{
	size_t len = strlen(good);
	/* our own results are nobody's to cover */
	size_t from = (size_t)(strstr(good, "\r\nAuthentication-Results") - good);
	g_autofree char *text = g_memdup2(good, len + 1);
	for (size_t i = 0; i + 2 < size; i += 3) {
		size_t at = ((size_t)data[i] << 8 | data[i + 1]) % len;
		if (data[i + 2] != '\0' && (at < from || at > from + 50))
			text[at] = (char)data[i + 2];
	}
	ArcStatus status = verify(text, len, key_record);
	if (status == ARC_PASS)
		k_assert(is_same(text, good, b_start) &&
			 is_same(text + b_end, good + b_end, len - b_end));
	if (memcmp(text, good, len) == 0)
		k_assert(status == ARC_PASS);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned mode = fuzz_take_byte(&data, &size);
	set_up();
	if (mode < 128) {
		mutate(data, size);
		return 0;
	}
	const char *message = size > 0 ? (const char *)data : "";
	ArcStatus status = verify(message, size, key_record);
	k_assert(status != ARC_PASS && status != ARC_TEMPERROR);
	g_autofree char *set = seal(message, size, status);
	if (set == NULL || *set == '\0' || size > 4000)
		return 0;
	g_autoptr(GString) sealed = g_string_new(set);
	g_string_append_len(sealed, message, (gssize)size);
	k_assert(verify(sealed->str, sealed->len, key_record) ==
		 (status == ARC_NONE ? ARC_PASS : ARC_FAIL));
	return 0;
}
