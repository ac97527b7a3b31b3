/* SPDX-License-Identifier: Apache-2.0 */
#include "filter/body_prefix.h"

#include <string.h>

void
body_pass_raw(Filter *filter, const TxBody *body, Blob *raw)
{
	g_autoptr(TxBody) made = body->builder != NULL ? tx_body_new_builder(body->builder, raw)
						       : tx_body_new_raw(raw);
	for (guint i = 0; i < body->parts->len; i++) {
		const TxPart *part = g_ptr_array_index(body->parts, i);
		tx_body_add_part(made, part->id, part->blob);
	}
	tx_set_body(filter->up, made);
}

void
body_pass_prefixed(Filter *filter, const TxBody *body, const char *fields)
{
	filter_note_fields(filter, fields);
	g_autoptr(Blob) view = blob_new_prefixed(fields, strlen(fields), body->raw);
	body_pass_raw(filter, body, view);
}
