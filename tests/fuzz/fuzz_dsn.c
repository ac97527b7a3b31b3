/* SPDX-License-Identifier: Apache-2.0 */
/* Notifications about whatever peers said and were called: always a multipart/report of three parts
 * with legal fields, each field once, no line over 998 octets, ASCII unless it goes to an address
 * outside ASCII. */
#include "fuzz.h"

#include <string.h>

#include "mime/dsn.h"
#include "mime/header.h"
#include "mime/mime.h"
#include "mime/tree.h"

#define PIECES        6
#define TEXT_LINE_MAX 998

static void
check_lines(const char *text, size_t len, bool utf8)
{
	k_assert(memchr(text, '\0', len) == NULL);
	k_assert(!utf8 || g_utf8_validate(text, (gssize)len, NULL));
	size_t start = 0;
	for (size_t i = 0; i < len; i++) {
		k_assert(utf8 || (unsigned char)text[i] < 0x80);
		k_assert(text[i] != '\n');
		if (text[i] != '\r')
			continue;
		k_assert(i + 1 < len && text[i + 1] == '\n' && i - start <= TEXT_LINE_MAX);
		start = ++i + 1;
	}
	k_assert(start == len);
}

/* Every field is one of those that are known here, and there once. */
static void
check_fields(const MimeHeader *header, const char *const *known)
{
	g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	for (size_t i = 0; i < header->n_fields; i++) {
		char *name = mime_field_name(&header->fields[i]);
		k_assert(g_strv_contains(known, name));
		k_assert(g_hash_table_add(seen, name));
	}
}

static void
check_block(const char *text, size_t len, bool utf8)
{
	static const char *const known[] = {"original-envelope-id",
					    "reporting-mta",
					    "arrival-date",
					    "original-recipient",
					    "final-recipient",
					    "action",
					    "status",
					    "diagnostic-code",
					    "last-attempt-date",
					    "will-retry-until",
					    NULL};
	MimeHeader header;
	k_assert(mime_header_scan(text, len, &header) == MIME_HEADER_OK);
	k_assert(utf8 || !header.eight_bit);
	check_fields(&header, known);
	mime_header_clear(&header);
}

static void
check_message(const char *text, size_t len, bool utf8)
{
	static const char *const known[] = {"from",
					    "to",
					    "date",
					    "message-id",
					    "subject",
					    "in-reply-to",
					    "references",
					    "auto-submitted",
					    "mime-version",
					    "content-type",
					    "content-transfer-encoding",
					    NULL};
	g_autoptr(Blob) blob = blob_new_bytes(text, len);
	g_autoptr(MimeTree) tree = mime_tree_new(blob, 1, NULL);
	k_assert(tree != NULL && strcmp(tree->root->type.value, "multipart/report") == 0);
	k_assert(tree->root->defects == 0 && tree->root->children->len == 3);
	check_fields(&tree->root->header, known);
	const MimeNode *status = g_ptr_array_index(tree->root->children, 1);
	k_assert(strcmp(status->type.value,
			utf8 ? "message/global-delivery-status" : "message/delivery-status") == 0);
	const char *block = text + status->body_at;
	size_t first = mime_header_end(block, status->body_len);
	k_assert(first > 0 && first < status->body_len);
	check_block(block, first, utf8);
	/* The line end in front of the boundary is not the part's. */
	g_autofree char *rest = g_strdup_printf("%.*s\r\n", (int)(status->body_len - first),
						block + first);
	check_block(rest, strlen(rest), utf8);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	mime_init();
	unsigned choice = fuzz_take_byte(&data, &size);
	int code = 200 + (int)fuzz_take_byte(&data, &size) * 2;
	char *pieces[PIECES];
	for (int i = 0; i < PIECES; i++) { /* lines end with 0xff, which is no text */
		const uint8_t *end = size > 0 && i < PIECES - 1 ? memchr(data, 0xff, size) : NULL;
		size_t len = end != NULL ? (size_t)(end - data) : size;
		pieces[i] = g_strndup((const char *)data, len);
		len = MIN(len + 1, size);
		data += len;
		size -= len;
	}
	const DsnInput input = {
		.mailer_daemon = "mailer-daemon@example.com",
		.to = pieces[0],
		.rcpt = pieces[1],
		.text = pieces[2],
		.orcpt = (choice & 4) != 0 ? pieces[3] : NULL,
		.envid = (choice & 8) != 0 ? pieces[4] : NULL,
		.header = (choice & 16) != 0 ? pieces[5] : NULL,
		.header_len = (choice & 16) != 0 ? strlen(pieces[5]) : 0,
		.action = (DsnAction)(choice % DSN_ACTIONS),
		.code = code,
		.unique = "0123456789abcdefghijklmnopqrstuv",
		.now = 1700000000,
		.arrival = 1600000000,
		.retry_until = (choice & 32) != 0 ? 1800000000 : 0,
	};
	GString *made = dsn_build(&input);
	bool utf8 = !g_str_is_ascii(input.to);
	check_lines(made->str, made->len, utf8);
	check_message(made->str, made->len, utf8);
	g_string_free(made, TRUE);
	for (int i = 0; i < PIECES; i++)
		g_free(pieces[i]);
	return 0;
}
