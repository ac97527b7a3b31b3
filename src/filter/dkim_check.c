/* SPDX-License-Identifier: Apache-2.0 */
/* DKIM verification (RFC 6376).  Signatures are found but not verified yet: each gets the status
 * temp_err, never a pass. */
#include <string.h>

#include "filter/kinds.h"
#include "mime/header.h"

#define SIGNATURES_MAX 10 /* results of one message (RFC 6376 6.1 allows a limit) */

enum { STATUS_TEMP_ERR = 0, ALIGNMENT_OTHER = 2 };

/* The value of tag d= of a signature, or NULL.  Caller frees. */
static char *
signing_domain(const MimeField *field)
{
	g_autofree char *value = mime_field_unfold(field);
	g_auto(GStrv) tags = g_strsplit(value, ";", 100);
	for (char **tag = tags; *tag != NULL; tag++) {
		char *name = g_strstrip(*tag);
		char *equals = strchr(name, '=');
		if (equals == NULL)
			continue;
		*equals = '\0';
		if (strcmp(g_strstrip(name), "d") == 0)
			return g_strdup(g_strstrip(equals + 1));
	}
	return NULL;
}

static json_t *
result_of(const MimeField *field)
{
	json_t *result = json_object();
	json_object_set_new(result, "status", json_integer(STATUS_TEMP_ERR));
	json_object_set_new(result, "alignment", json_integer(ALIGNMENT_OTHER));
	g_autofree char *domain = signing_domain(field);
	json_t *text = domain != NULL ? json_string(domain) : NULL; /* NULL: not UTF-8 */
	if (text != NULL)
		json_object_set_new(result, "domain", text);
	return result;
}

static void
add_results(json_t *results, const char *data, size_t len)
{
	MimeHeader header;
	size_t end = mime_header_end(data, len);
	/* A fault ends the scan; what stands before it is there all the same. */
	MimeHeaderFault fault = mime_header_scan_lenient(data, end > 0 ? end : len, &header);
	(void)fault;
	for (size_t i = 0; i < header.n_fields; i++) {
		if (json_array_size(results) < SIGNATURES_MAX &&
		    mime_field_is(&header.fields[i], "DKIM-Signature"))
			json_array_append_new(results, result_of(&header.fields[i]));
	}
	mime_header_clear(&header);
}

static FilterResult
dkim_check_update(Filter *filter, unsigned news)
{
	const TxBody *body = filter->down->body;
	if ((news & TX_NEW_BODY_FINAL) == 0 || body->raw == NULL)
		return FILTER_CONTINUE;
	json_t *results = json_array();
	size_t len = MIN((size_t)blob_len(body->raw), (size_t)MIME_HEADER_BLOCK_MAX);
	g_autofree char *data = g_malloc(len + 1);
	g_autoptr(GError) error = NULL;
	size_t got = 0;
	if (!blob_read(body->raw, 0, data, len, &got, &error)) {
		json_decref(results);
		filter_fail(filter, error->message);
		return FILTER_STOP;
	}
	add_results(results, data, got);
	json_t *output = json_object();
	json_object_set_new(output, "results", results);
	filter_set_output(filter, output);
	return FILTER_CONTINUE;
}

const FilterKind filter_dkim_check_kind = {
	.name = "dkim_check",
	.output_name = "koukan.dkim_check_filter.DkimCheckFilter",
	.doc = "DKIM signatures of the message.  Not verified in this version: each one is reported as "
	       "temp_err.",
	.flags = FILTER_WHOLE_BODY,
	.update = dkim_check_update,
};
