/* SPDX-License-Identifier: Apache-2.0 */
#include "mime/validate.h"

#include <string.h>

#include "mime/addr.h"
#include "mime/base64.h"
#include "mime/date.h"
#include "mime/header.h"
#include "mime/reader.h"
#include "mime/tree.h"
#include "mime/value.h"

void
mime_verdict_clear(MimeVerdict *verdict)
{
	g_free(verdict->err);
	g_free(verdict->from);
	*verdict = (MimeVerdict){0};
}

/* The first bytes of the blob: borrowed when they lie in memory in one piece, else in *ret_own. */
static bool
read_head(const Blob *blob, const char **ret_data, size_t *ret_len, char **ret_own,
	  GError **ret_error)
{
	uint64_t total = blob_len(blob);
	size_t want = (size_t)MIN(total, (uint64_t)MIME_HEADER_BLOCK_MAX);
	size_t got = 0;
	*ret_own = NULL;
	*ret_data = blob_peek(blob, 0, &got);
	*ret_len = got;
	if (want == 0 || (*ret_data != NULL && got >= want))
		return true;
	if (*ret_data != NULL && mime_header_end(*ret_data, got) != 0)
		return true;
	/* Most headers are short: the first piece usually holds the end. */
	size_t first = MIN(want, (size_t)(64 * 1024));
	char *own = g_malloc(want);
	if (!blob_read(blob, 0, own, first, &got, ret_error)) {
		g_free(own);
		return false;
	}
	if (first < want && mime_header_end(own, got) == 0 &&
	    !blob_read(blob, 0, own, want, &got, ret_error)) {
		g_free(own);
		return false;
	}
	*ret_own = own;
	*ret_data = own;
	*ret_len = got;
	return true;
}

/* ---- the header ---- */

static const char *
none_text(MimeHeaderFault fault)
{
	switch (fault) {
	case MIME_HEADER_TOO_MANY:
		return "too many header fields";
	case MIME_HEADER_FIELD_TOO_LONG:
		return "header field too long";
	default:
		return "MissingHeaderBodySeparatorDefect";
	}
}

static const char *
from_fault(const char *text, MimeVerdict *v)
{
	MimeAddrs addrs;
	mime_addrs_parse(text, &addrs);
	const char *fault = addrs.fault;
	if (addrs.list->len == 1) {
		const MimeAddr *a = (const MimeAddr *)g_ptr_array_index(addrs.list, 0);
		v->from = g_strdup(a->addr);
	}
	mime_addrs_clear(&addrs);
	return fault;
}

static const char *
date_fault(const char *text, MimeVerdict *v)
{
	MimeDate date;
	(void)v;
	return mime_date_parse(text, &date) ? NULL : "not a date";
}

static const char *
id_fault(const char *text, MimeVerdict *v)
{
	(void)v;
	return mime_msg_id_fault(text);
}

/* From, Date and Message-ID: once each, and well formed.  False: the verdict is given. */
static bool
check_required(const MimeHeader *h, MimeVerdict *v)
{
	static const struct {
		const char *name;
		const char *(*fault)(const char *text, MimeVerdict *v);
	} rows[] = {{"from", from_fault}, {"date", date_fault}, {"message-id", id_fault}};
	const MimeField *fields[G_N_ELEMENTS(rows)];
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		unsigned count;
		fields[i] = mime_header_find(h, rows[i].name, &count);
		if (count != 1) {
			v->err = g_strdup_printf("missing/multiple %s", rows[i].name);
			return false;
		}
	}
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		g_autofree char *text = mime_field_unfold(fields[i]);
		const char *fault = rows[i].fault(text, v);
		if (fault != NULL) {
			v->err = g_strdup_printf("invalid %s(%s)", rows[i].name, fault);
			return false;
		}
	}
	return true;
}

/* ---- defects ---- */

static bool
addrs_ok(const char *text)
{
	MimeAddrs addrs;
	mime_addrs_parse(text, &addrs);
	bool ok = addrs.fault == NULL;
	mime_addrs_clear(&addrs);
	return ok;
}

static bool
date_ok(const char *text)
{
	MimeDate date;
	return mime_date_parse(text, &date);
}

static bool
disposition_ok(const char *text)
{
	MimeValue value;
	mime_value_parse(text, false, &value);
	bool ok = value.fault == NULL;
	mime_value_clear(&value);
	return ok;
}

/* One token and nothing but comments behind it. */
static bool
encoding_ok(const char *text)
{
	const char *p = text;
	if (!mime_skip_cfws(&p))
		return false;
	size_t len = strcspn(p, " \t(");
	if (!mime_is_token(p, len))
		return false;
	p += len;
	return mime_skip_cfws(&p) && *p == '\0';
}

/* digits "." digits */
static bool
version_ok(const char *text)
{
	const char *p = text;
	for (int part = 0; part < 2; part++) {
		if (!mime_skip_cfws(&p) || !g_ascii_isdigit(*p))
			return false;
		while (g_ascii_isdigit(*p))
			p++;
		if (!mime_skip_cfws(&p) || *p != (part == 0 ? '.' : '\0'))
			return false;
		p += part == 0;
	}
	return true;
}

/* The structured fields that have a grammar to break; Content-Type is the tree's. */
static bool
fields_ok(const MimeHeader *h)
{
	static const struct {
		const char *name;
		bool (*ok)(const char *text);
	} rows[] = {{"to", addrs_ok},
		    {"cc", addrs_ok},
		    {"bcc", addrs_ok},
		    {"from", addrs_ok},
		    {"sender", addrs_ok},
		    {"reply-to", addrs_ok},
		    {"resent-to", addrs_ok},
		    {"resent-cc", addrs_ok},
		    {"resent-bcc", addrs_ok},
		    {"resent-from", addrs_ok},
		    {"resent-sender", addrs_ok},
		    {"date", date_ok},
		    {"resent-date", date_ok},
		    {"content-disposition", disposition_ok},
		    {"content-transfer-encoding", encoding_ok},
		    {"mime-version", version_ok}};
	for (size_t i = 0; i < h->n_fields; i++) {
		const MimeField *f = &h->fields[i];
		for (size_t r = 0; r < G_N_ELEMENTS(rows); r++) {
			if (!mime_field_is(f, rows[r].name))
				continue;
			g_autofree char *text = mime_field_unfold(f);
			if (!rows[r].ok(text))
				return false;
		}
	}
	return true;
}

static bool
base64_ok(const Blob *blob, uint64_t at, uint64_t len, GError **ret_error)
{
	MimeBase64Check check = {0};
	MimeReader reader;
	const char *data;
	size_t n;
	bool good = true;
	mime_reader_init(&reader, blob, at, at + len);
	while (good && mime_reader_piece(&reader, &data, &n))
		good = mime_base64_check(&check, data, n);
	good = good && mime_base64_check_end(&check);
	if (reader.error != NULL)
		g_propagate_error(ret_error, g_steal_pointer(&reader.error));
	mime_reader_clear(&reader);
	return good;
}

/* Fields and bodies below the root; depth is capped by the tree, and so is the recursion. */
static bool
nodes_ok(const Blob *blob, const MimeNode *node, GError **ret_error)
{
	if (!fields_ok(&node->header))
		return false;
	if (node->kind == MIME_LEAF)
		return node->encoding != MIME_BASE64 ||
		       base64_ok(blob, node->body_at, node->body_len, ret_error);
	for (unsigned i = 0; i < node->children->len; i++)
		if (!nodes_ok(blob, (const MimeNode *)g_ptr_array_index(node->children, i),
			      ret_error))
			return false;
	return true;
}

/* A message without structure needs no look at its body. */
static bool
is_simple(const MimeHeader *h)
{
	const MimeField *type = mime_header_find(h, "content-type", NULL);
	if (mime_encoding_of(h) == MIME_BASE64)
		return false;
	if (type == NULL)
		return true;
	g_autofree char *text = mime_field_unfold(type);
	const char *p = text;
	if (!mime_skip_cfws(&p))
		return true;
	return g_ascii_strncasecmp(p, "multipart/", 10) != 0 &&
	       g_ascii_strncasecmp(p, "message/", 8) != 0;
}

static bool
type_ok(const MimeHeader *h)
{
	const MimeField *type = mime_header_find(h, "content-type", NULL);
	if (type == NULL)
		return true;
	g_autofree char *text = mime_field_unfold(type);
	MimeValue value;
	mime_value_parse(text, true, &value);
	bool ok = value.fault == NULL;
	mime_value_clear(&value);
	return ok;
}

static bool
tree_ok(const Blob *blob, const MimeHeader *h, unsigned nesting_max, GError **ret_error)
{
	if (h->misplaced || !fields_ok(h) || !type_ok(h))
		return false;
	if (is_simple(h))
		return true;
	g_autoptr(MimeTree) tree = mime_tree_new(blob, nesting_max, ret_error);
	return tree != NULL && tree->defects == 0 && nodes_ok(blob, tree->root, ret_error);
}

/* ---- the verdict ---- */

static bool
text_ok(const char *data, const MimeHeader *h, bool smtputf8)
{
	if (h->controls)
		return false;
	return !h->eight_bit || (smtputf8 && g_utf8_validate_len(data, h->len, NULL));
}

static bool
judge(const Blob *blob, const char *data, size_t len, const MimeValidateOptions *options,
      MimeVerdict *v, MimeHeader *h, GError **ret_error)
{
	size_t end = mime_header_end(data, len);
	if (end == 0) {
		v->err = g_strdup_printf("couldn't find end of rfc822 headers in %d",
					 MIME_HEADER_BLOCK_MAX);
		return true;
	}
	MimeHeaderFault fault = mime_header_scan(data, end, h);
	if (fault != MIME_HEADER_OK) {
		v->err = g_strdup(none_text(fault));
		return true;
	}
	v->counted = true;
	v->received = h->received;
	v->status = MIME_VALID_BASIC;
	if (!text_ok(data, h, options->smtputf8)) {
		v->err = g_strdup("invalid text encoding in headers");
		return true;
	}
	if (!check_required(h, v))
		return true;
	unsigned nesting = options->nesting_max != 0 ? options->nesting_max : MIME_NESTING_MAX;
	GError *error = NULL;
	if (tree_ok(blob, h, nesting, &error)) {
		v->status = MIME_VALID_HIGH;
		return true;
	}
	v->status = MIME_VALID_MEDIUM;
	v->err = g_strdup("mime tree");
	if (error == NULL)
		return true;
	g_propagate_error(ret_error, error);
	return false;
}

bool
mime_validate(const Blob *blob, const MimeValidateOptions *options, MimeVerdict *ret_verdict,
	      GError **ret_error)
{
	MimeVerdict v = {0};
	const char *data;
	size_t len;
	g_autofree char *own = NULL;
	if (!read_head(blob, &data, &len, &own, ret_error))
		return false;
	MimeHeader h = {0};
	bool done = judge(blob, data, len, options, &v, &h, ret_error);
	mime_header_clear(&h);
	if (done)
		*ret_verdict = v;
	else
		mime_verdict_clear(&v);
	return done;
}

char *
mime_from_address(const Blob *blob)
{
	const char *data;
	size_t len;
	g_autofree char *own = NULL;
	if (!read_head(blob, &data, &len, &own, NULL))
		return NULL;
	size_t end = mime_header_end(data, len);
	MimeHeader h = {0};
	MimeVerdict v = {0};
	if (end != 0 && mime_header_scan(data, end, &h) == MIME_HEADER_OK) {
		unsigned count;
		const MimeField *f = mime_header_find(&h, "from", &count);
		g_autofree char *text = count == 1 ? mime_field_unfold(f) : NULL;
		if (count == 1)
			(void)from_fault(text, &v);
	}
	mime_header_clear(&h);
	return g_steal_pointer(&v.from);
}
