/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies in JSON: blob URIs (spec 3.5, 4.10) and the message builder's spec (15.1). */
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "tx/codec_int.h"

#define TX_PREFIX   "/transactions/"
#define BODY_SUFFIX "body"
#define BLOB_INFIX  "blob/"

/* Beside letters, digits and "-._~": what RFC 3986 3.3 lets stand in a path, and '/'. */
#define URI_KEEP "/@:!$&'()*+,;="

/* ---- URIs ---- */

/* "scheme://authority" of `base`, whose path is replaced (RFC 3986 5.2.2); "" when it has none. */
static char *
uri_origin(const char *base)
{
	const char *authority = base != NULL ? strstr(base, "://") : NULL;
	if (authority == NULL)
		return g_strdup("");
	authority += strlen("://");
	size_t len = (size_t)(authority - base) + strcspn(authority, "/?#");
	return g_strndup(base, len);
}

/* `blob` NULL: the body. */
static char *
blob_uri(const char *base, const char *id, const char *blob)
{
	g_autofree char *origin = uri_origin(base);
	if (blob == NULL)
		return g_strconcat(origin, TX_PREFIX, id, "/" BODY_SUFFIX, NULL);
	g_autofree char *name = g_uri_escape_string(blob, URI_KEEP, false);
	return g_strconcat(origin, TX_PREFIX, id, "/" BLOB_INFIX, name, NULL);
}

/* The path begins behind scheme and authority and ends before query and fragment. */
static char *
uri_path(const char *uri)
{
	const char *path = uri;
	if (uri[0] != '/') {
		const char *authority = strstr(uri, "://");
		path = authority != NULL ? strpbrk(authority + strlen("://"), "/?#") : NULL;
	}
	if (path == NULL || path[0] != '/')
		return NULL;
	return g_strndup(path, strcspn(path, "?#"));
}

bool
tx_parse_blob_uri(const char *uri, char **ret_id, char **ret_blob)
{
	g_autofree char *path = uri_path(uri);
	if (path == NULL || !g_str_has_prefix(path, TX_PREFIX))
		return false;
	const char *id = path + strlen(TX_PREFIX);
	const char *slash = strchr(id, '/');
	if (slash == NULL || slash == id)
		return false;
	const char *what = slash + 1;
	g_autofree char *blob = NULL;
	if (strcmp(what, BODY_SUFFIX) != 0) {
		if (!g_str_has_prefix(what, BLOB_INFIX) || what[strlen(BLOB_INFIX)] == '\0')
			return false;
		blob = g_uri_unescape_string(what + strlen(BLOB_INFIX), NULL);
		if (blob == NULL)
			return false;
	}
	*ret_id = g_strndup(id, (size_t)(slash - id));
	*ret_blob = g_steal_pointer(&blob);
	return true;
}

/* ---- the read form ---- */

static json_t *
blob_status(const Tx *tx, const TxUris *uris, const char *name, const Blob *blob)
{
	bool final = blob == NULL || blob_is_final(blob);
	json_t *status = json_object();
	if (blob != NULL && final)
		codec_put(status, "finalized", json_true());
	g_autofree char *uri = blob_uri(final ? uris->service_uri : uris->session_uri, tx->id,
					name);
	codec_put(status, "uri", codec_text(uri));
	return status;
}

json_t *
codec_body_status(const Tx *tx, const TxUris *uris)
{
	if (tx->id == NULL)
		return NULL;
	json_t *json = json_object();
	const TxBody *body = tx->body;
	if (body == NULL || body->raw != NULL)
		codec_put(json, "blob_status",
			  blob_status(tx, uris, NULL, body != NULL ? body->raw : NULL));
	if (body != NULL && body->builder != NULL) {
		json_t *parts = json_object();
		for (guint i = 0; i < body->parts->len; i++) {
			const TxPart *part = g_ptr_array_index(body->parts, i);
			codec_put(parts, part->id, blob_status(tx, uris, part->id, part->blob));
		}
		json_t *builder = json_object();
		codec_put(builder, "blob_status", parts);
		codec_put(json, "message_builder", builder);
	}
	return json;
}

/* ---- message-builder specs ---- */

static const char *const PART_LISTS[] = {"text_body", "related_attachments", "file_attachments"};

typedef struct Builder {
	TxBody *body;
	TxReuseFn *reuse;
	void *arg;
	const BlobLimits *limits;
	unsigned position; /* of the part, over all lists */
} Builder;

static bool
add_part(Builder *b, const char *id, Blob *blob, GError **ret_error)
{
	if (id[0] == '\0')
		return error_set(ret_error, K_ERROR_INPUT, "message_builder: empty blob id");
	if (tx_body_part(b->body, id) != NULL)
		return error_set(ret_error, K_ERROR_INPUT,
				 "message_builder: blob id %.64s occurs twice", id);
	tx_body_add_part(b->body, id, blob);
	return true;
}

static bool
add_reused(Builder *b, const char *uri, char **ret_id, GError **ret_error)
{
	g_autofree char *tx_id = NULL, *blob_id = NULL;
	if (!tx_parse_blob_uri(uri, &tx_id, &blob_id) || blob_id == NULL)
		return error_set(ret_error, K_ERROR_INPUT,
				 "message_builder: reuse_uri names no blob: %.128s", uri);
	g_autoptr(Blob) blob = b->reuse != NULL ? b->reuse(b->arg, tx_id, blob_id) : NULL;
	if (blob == NULL || !blob_is_final(blob))
		return error_set(ret_error, K_ERROR_NOT_FOUND,
				 "message_builder: reuse_uri unknown or not finished: %.128s", uri);
	if (!add_part(b, blob_id, blob, ret_error))
		return false;
	*ret_id = g_steal_pointer(&blob_id);
	return true;
}

static bool
add_inline(Builder *b, const json_t *text, char **ret_id, GError **ret_error)
{
	g_autofree char *id = g_strdup_printf("inline%u", b->position);
	g_autoptr(Blob) blob = blob_new_bytes(json_string_value(text), json_string_length(text));
	if (!add_part(b, id, blob, ret_error))
		return false;
	*ret_id = g_steal_pointer(&id);
	return true;
}

static bool
add_created(Builder *b, const char *name, char **ret_id, GError **ret_error)
{
	g_autoptr(Blob) blob = blob_new(b->limits);
	if (!add_part(b, name, blob, ret_error))
		return false;
	*ret_id = g_strdup(name);
	return true;
}

/* Turns the part's content into {"create_id": id}. */
static bool
build_part(Builder *b, json_t *part, GError **ret_error)
{
	const json_t *content = json_object_get(part, "content");
	const json_t *reuse = json_object_get(content, "reuse_uri");
	const json_t *create = json_object_get(content, "create_id");
	const json_t *text = json_object_get(content, "inline");
	g_autofree char *id = NULL;
	bool ok;
	if (json_is_string(reuse))
		ok = add_reused(b, json_string_value(reuse), &id, ret_error);
	else if (reuse == NULL && json_is_string(create))
		ok = add_created(b, json_string_value(create), &id, ret_error);
	else if (reuse == NULL && create == NULL && json_is_string(text))
		ok = add_inline(b, text, &id, ret_error);
	else
		ok = error_set(ret_error, K_ERROR_INPUT,
			       "message_builder: part %u has no valid content", b->position);
	if (!ok)
		return false;
	json_t *normal = json_object();
	codec_put(normal, "create_id", codec_text(id));
	codec_put(part, "content", normal);
	b->position++;
	return true;
}

TxBody *
tx_body_from_builder(const json_t *spec, TxReuseFn *reuse, void *arg, const BlobLimits *limits,
		     GError **ret_error)
{
	if (!json_is_object(spec)) {
		error_set(ret_error, K_ERROR_INPUT, "message_builder: no object");
		return NULL;
	}
	g_autoptr(json_t) copy = json_deep_copy(spec);
	g_autoptr(TxBody) body = tx_body_new_builder(copy, NULL);
	Builder b = {.body = body, .reuse = reuse, .arg = arg, .limits = limits};
	for (size_t i = 0; i < G_N_ELEMENTS(PART_LISTS); i++) {
		json_t *list = json_object_get(copy, PART_LISTS[i]);
		if (list != NULL && !json_is_array(list)) {
			error_set(ret_error, K_ERROR_INPUT, "message_builder: %s: no array",
				  PART_LISTS[i]);
			return NULL;
		}
		for (size_t k = 0; k < json_array_size(list); k++) {
			if (!build_part(&b, json_array_get(list, k), ret_error))
				return NULL;
		}
	}
	return g_steal_pointer(&body);
}

GPtrArray *
tx_builder_reuse_uris(const json_t *spec)
{
	GPtrArray *uris = g_ptr_array_new();
	for (size_t i = 0; i < G_N_ELEMENTS(PART_LISTS); i++) {
		const json_t *list = json_object_get(spec, PART_LISTS[i]);
		for (size_t k = 0; k < json_array_size(list); k++) {
			const json_t *content = json_object_get(json_array_get(list, k), "content");
			const char *uri = json_get_str(content, "reuse_uri");
			if (uri != NULL)
				g_ptr_array_add(uris, (void *)(uintptr_t)uri);
		}
	}
	return uris;
}
