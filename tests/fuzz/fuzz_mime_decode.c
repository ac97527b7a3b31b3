/* SPDX-License-Identifier: Apache-2.0 */
/* Transfer encodings, charsets, encoded words and parameters: decoding in pieces is decoding at
 * once, within a bound; what we encode decodes to what it was. */
#include "fuzz.h"

#include <string.h>

#include "mime/base64.h"
#include "mime/decode.h"
#include "mime/fold.h"
#include "mime/header.h"
#include "mime/mime.h"
#include "mime/value.h"

#define DECODED_MAX   (1024 * 1024)
#define TEXT_LINE_MAX 998
/* Bytes of UTF-8 for one byte of a charset, at most: ISO-2022-JP-2 and the like shift, a byte of
 * rubbish becomes U+FFFD, and some tables have one byte for several characters. */
#define GROWTH 8

static const char *const charsets[] = {NULL,        "utf-8",     "us-ascii",    "iso-8859-1",
				       "utf-16",    "utf-7",     "iso-2022-jp", "gb18030",
				       "x-unknown", "shift_jis", "koi8-r"};

static char *
decode(const Blob *raw, MimeEncoding encoding, const char *charset, size_t *ret_len)
{
	MimeNode leaf = {.encoding = encoding, .body_len = blob_len(raw)};
	g_autoptr(Blob) out = mime_decode_leaf(raw, &leaf, charset, NULL);
	k_assert(out != NULL && blob_is_final(out));
	return blob_to_string(out, DECODED_MAX, ret_len, NULL);
}

static void
check_leaf(const uint8_t *data, size_t size, unsigned choice, size_t cut)
{
	MimeEncoding encoding = (MimeEncoding)(choice % 3);
	const char *charset = charsets[choice / 3 % G_N_ELEMENTS(charsets)];
	g_autoptr(Blob) whole = blob_new_bytes(data, size);
	g_autoptr(Blob) rest = blob_new_bytes(data + cut, size - cut);
	g_autoptr(Blob) split = blob_new_prefixed(data, cut, rest);
	size_t len = 0, again = 0;
	g_autofree char *one = decode(whole, encoding, charset, &len);
	g_autofree char *two = decode(split, encoding, charset, &again);
	k_assert(len == again && memcmp(one, two, len) == 0);
	k_assert(len <= GROWTH * size + GROWTH);
	if (charset != NULL)
		k_assert(g_utf8_validate_len(one, len, NULL) || memchr(one, '\0', len) != NULL);
}

static void
check_base64(const uint8_t *data, size_t size)
{
	g_autoptr(GString) digits = g_string_new(NULL);
	MimeBase64Check check = {0};
	char line[80];
	for (size_t at = 0; at < size; at += MIME_BASE64_LINE) {
		size_t n = mime_base64_line(data + at, MIN(size - at, (size_t)MIME_BASE64_LINE),
					    line);
		k_assert(n <= 76 && mime_base64_check(&check, line, n));
		g_string_append_len(digits, line, (gssize)n);
		g_string_append(digits, "\r\n");
	}
	k_assert(mime_base64_check_end(&check));
	MimeBase64Decode state = {0};
	g_autofree char *out = g_malloc(digits->len / 4 * 3 + 3);
	size_t len = mime_base64_decode(&state, digits->str, digits->len, out);
	k_assert(len == size && (size == 0 || memcmp(out, data, size) == 0));
}

/* The value of the one field that was written, after looking at its lines. */
static char *
read_field(const GString *text)
{
	for (const char *p = text->str; *p != '\0'; p += strcspn(p, "\n") + 1)
		k_assert(strcspn(p, "\r\n") <= TEXT_LINE_MAX);
	g_autofree char *block = g_strconcat(text->str, "\r\n", NULL);
	MimeHeader header;
	k_assert(mime_header_scan(block, strlen(block), &header) == MIME_HEADER_OK);
	k_assert(header.n_fields == 1 && !header.eight_bit && !header.controls);
	char *value = mime_field_unfold(&header.fields[0]);
	mime_header_clear(&header);
	return value;
}

static void
check_text(const char *text)
{
	g_autofree char *decoded = mime_decode_text(text);
	g_autofree char *name = mime_decode_phrase(text);
	k_assert(g_utf8_validate(decoded, -1, NULL) && g_utf8_validate(name, -1, NULL));
	k_assert(strlen(decoded) <= GROWTH * strlen(text) + GROWTH);
	/* What looks like an encoded word is written as it is. */
	if (mime_has_controls(text, true) || strstr(text, "=?") != NULL || strlen(text) > 20000)
		return;
	g_autoptr(GString) out = g_string_new(NULL);
	MimeFold fold;
	mime_fold_start(&fold, out, "X");
	mime_fold_text(&fold, text);
	mime_fold_end(&fold);
	g_autofree char *value = read_field(out);
	g_autofree char *back = mime_decode_text(value);
	g_autofree char *asked = g_strdup(text);
	k_assert(strcmp(g_strstrip(back), g_strstrip(asked)) == 0);
}

static void
check_param(const char *text)
{
	MimeValue value;
	mime_value_parse(text, true, &value);
	k_assert(value.params->len <= MIME_PARAMS_MAX);
	for (guint i = 0; i < value.params->len; i++) {
		const MimeParam *param = g_ptr_array_index(value.params, i);
		k_assert(g_utf8_validate(param->value, -1, NULL));
	}
	mime_value_clear(&value);
	if (mime_has_controls(text, false) || strlen(text) > 2000 || *text == '\0')
		return;
	g_autoptr(GString) out = g_string_new(NULL);
	MimeFold fold;
	mime_fold_start(&fold, out, "Content-Type");
	mime_fold_word(&fold, "a/b;", 4);
	mime_fold_param(&fold, "name", text);
	mime_fold_end(&fold);
	g_autofree char *line = read_field(out);
	mime_value_parse(line, true, &value);
	k_assert(value.fault == NULL && value.params->len == 1);
	k_assert(g_strcmp0(mime_value_param(&value, "name"), text) == 0);
	mime_value_clear(&value);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	mime_init();
	unsigned choice = fuzz_take_byte(&data, &size);
	size_t cut = size * fuzz_take_byte(&data, &size) / 256;
	cut = MIN(cut, size);
	check_leaf(data, size, choice, cut);
	check_base64(data, size);
	g_autofree char *text = fuzz_string(data, size);
	check_text(text);
	check_param(text);
	return 0;
}
