/* SPDX-License-Identifier: Apache-2.0 */
/* The matcher about header fields of the message. */
#include "filter/match.h"
#include "filter/pattern.h"
#include "mailauth/dkim_name.h"
#include "mime/header.h"
#include "mime/value.h"

#define FIELDS_MAX 50 /* of the name, from the top; a later one is not looked at */

#define AT_LIMIT "the pattern of a matcher 'header' came to its limits on a message"

typedef struct HeaderArgs {
	char *name, *regex;
	bool raw;
	Pattern *pattern; /* NULL: it has only to be there */
} HeaderArgs;

static const ConfKey header_keys[] = {
	{.name = "name",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(HeaderArgs, name),
	 .flags = CONF_REQUIRED,
	 .doc = "Name of the field, as in Subject."},
	{.name = "regex",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(HeaderArgs, regex),
	 .doc = "Regular expression (PCRE2) that has to match somewhere in the value of one such "
		"field; `(?i)` in front: upper and lower case are the same.  Absent: the field has "
		"only to be there."},
	{.name = "raw",
	 .type = CONF_BOOL,
	 .offset = CONF_KEY(HeaderArgs, raw),
	 .doc = "Look at the value as it stands there, with encoded words (RFC 2047) not decoded."},
	{0},
};

static void
header_check(void *data, const YamlNode *node, bool per_rcpt, ConfReport *report)
{
	(void)per_rcpt;
	HeaderArgs *args = data;
	if (args->name != NULL && !dkim_field_name_ok(args->name))
		conf_error(report, yaml_get(node, "name"), "'%s' is no field name", args->name);
	if (args->regex == NULL)
		return;
	g_autofree char *fault = NULL;
	size_t offset = 0;
	args->pattern = pattern_new(args->regex, &fault, &offset);
	if (args->pattern == NULL)
		conf_error(report, yaml_get(node, "regex"),
			   "the regular expression is wrong behind byte %zu: %s", offset, fault);
}

static void
header_clear(void *data)
{
	HeaderArgs *args = data;
	pattern_free(args->pattern);
}

static MatchResult
match_value(const HeaderArgs *args, const MimeField *field, MatchCtx *ctx)
{
	if (args->pattern == NULL)
		return MATCH_YES;
	MimeField part = *field;
	part.value_len = MIN(part.value_len, PATTERN_TEXT_MAX);
	g_autofree char *text = mime_field_unfold(&part);
	if (!args->raw) {
		char *decoded = mime_decode_text(text);
		g_free(text);
		text = decoded;
	}
	switch (pattern_match(args->pattern, text, strlen(text))) {
	case PATTERN_YES:
		return MATCH_YES;
	case PATTERN_NO:
		return MATCH_NO;
	default:
		ctx->fault = AT_LIMIT;
		return MATCH_FAULT;
	}
}

static MatchResult
match_fields(const HeaderArgs *args, const char *data, size_t len, MatchCtx *ctx)
{
	MimeHeader header;
	MatchResult result = MATCH_NO;
	size_t end = mime_header_end(data, len);
	MimeHeaderFault fault = mime_header_scan_lenient(data, end > 0 ? end : len, &header);
	(void)fault; /* what stands behind it is no field for readers either */
	unsigned looked = 0;
	for (size_t i = 0; i < header.n_fields && looked < FIELDS_MAX && result == MATCH_NO; i++) {
		if (!mime_field_is(&header.fields[i], args->name))
			continue;
		result = match_value(args, &header.fields[i], ctx);
		looked++;
	}
	mime_header_clear(&header);
	return result;
}

static MatchResult
header_eval(const void *args, MatchCtx *ctx)
{
	const TxBody *body = ctx->filter->down->body;
	if (!ctx->body_final || body->raw == NULL)
		return MATCH_UNMET;
	size_t room = (size_t)MIN(blob_len(body->raw), (uint64_t)MIME_HEADER_BLOCK_MAX), len;
	const char *data = blob_peek(body->raw, 0, &len);
	g_autofree char *own = NULL;
	if (len < room) { /* not in memory, or in pieces */
		data = own = g_malloc(room + 1);
		if (!blob_read(body->raw, 0, own, room, &len, NULL)) {
			ctx->fault = "the message cannot be read";
			return MATCH_FAULT;
		}
	}
	return match_fields(args, data != NULL ? data : "", MIN(len, room), ctx);
}

const MatcherKind matcher_header_kind = {
	.name = "header",
	.doc = "Some field of the message's header; unknown before all of the message is there.  Of "
	       "each field 16 KiB are looked at, of each name the first 50 fields.  An expression "
	       "that needs too many steps on a message makes the transaction fail for now (450).",
	.args_size = sizeof(HeaderArgs),
	.keys = header_keys,
	.check = header_check,
	.clear = header_clear,
	.eval = header_eval,
	.example = "- filter: policy_action\n"
		   "  tag: subject\n"
		   "  match: {matcher: header, name: Subject, regex: '(?i)^you have won'}\n"
		   "  action: REJECT\n",
};
