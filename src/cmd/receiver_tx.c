/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/ids.h"
#include "base/json.h"
#include "cmd/receiver_int.h"

#define ID_BYTES   32
#define DEPTH_MAX  64 /* of a parsed message */
#define BLOB_LIMIT 10000

/* ---- files ---- */

bool
receiver_file_open(ReceiverFile *file, GError **ret_error)
{
	g_free(file->temp);
	file->temp = g_strdup_printf("%s.upload", file->path);
	file->size = 0;
	file->fd = open(file->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (file->fd < 0)
		return error_set_errno(ret_error, K_ERROR_IO, errno, "%s", file->temp);
	return true;
}

bool
receiver_file_write(ReceiverFile *file, const char *data, size_t len, GError **ret_error)
{
	while (len > 0) {
		ssize_t done = write(file->fd, data, len);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return error_set_errno(ret_error, K_ERROR_IO, errno, "%s", file->temp);
		data += done;
		len -= (size_t)done;
		file->size += (uint64_t)done;
	}
	return true;
}

bool
receiver_file_finish(ReceiverFile *file, GError **ret_error)
{
	int rc = close(file->fd);
	file->fd = -1;
	if (rc != 0)
		return error_set_errno(ret_error, K_ERROR_IO, errno, "%s", file->temp);
	if (link(file->temp, file->path) != 0) /* never over something that is there */
		return error_set_errno(ret_error, K_ERROR_IO, errno, "%s", file->path);
	(void)unlink(file->temp);
	g_clear_pointer(&file->temp, g_free);
	file->final = true;
	return true;
}

void
receiver_file_abort(ReceiverFile *file)
{
	if (file->fd >= 0)
		close(file->fd);
	file->fd = -1;
	if (file->temp != NULL)
		(void)unlink(file->temp);
	g_clear_pointer(&file->temp, g_free);
}

static void
file_clear(ReceiverFile *file)
{
	receiver_file_abort(file);
	g_free(file->path);
}

static void
file_free(void *data)
{
	file_clear(data);
	g_free(data);
}

/* A whole file at once. */
static bool
write_file(const char *path, const char *data, size_t len, GError **ret_error)
{
	ReceiverFile file = {.path = g_strdup(path), .fd = -1};
	bool ok = receiver_file_open(&file, ret_error) &&
		  receiver_file_write(&file, data, len, ret_error) &&
		  receiver_file_finish(&file, ret_error);
	file_clear(&file);
	return ok;
}

/* ---- transactions ---- */

ReceiverTx *
receiver_tx_new(const char *dir, json_t *request)
{
	ReceiverTx *tx = g_new0(ReceiverTx, 1);
	tx->id = ids_tx_new(0, ID_BYTES);
	tx->version = 1;
	tx->touched = clock_mono();
	tx->request = json_incref(request);
	tx->output = json_incref(json_object_get(request, "filter_output"));
	tx->files = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, file_free);
	tx->message = (ReceiverFile){.path = g_strdup_printf("%s/%s.msg", dir, tx->id), .fd = -1};
	return tx;
}

void
receiver_tx_free(void *arg)
{
	ReceiverTx *tx = arg;
	g_hash_table_destroy(tx->files);
	file_clear(&tx->message);
	json_decref(tx->request);
	json_decref(tx->output);
	json_decref(tx->parts);
	g_free(tx->spec_path);
	g_free(tx->id);
	g_free(tx);
}

static json_t *
ok_response(void)
{
	return json_pack("{s:i, s:s}", "code", 250, "message", "ok");
}

/* The answers, under the names that a transaction has for them. */
static void
add_answers(const ReceiverTx *tx, json_t *json)
{
	if (json_object_get(tx->request, "mail_from") != NULL)
		json_object_set_new(json, "mail_response", ok_response());
	size_t rcpts = json_array_size(json_object_get(tx->request, "rcpt_to"));
	if (rcpts > 0) {
		json_t *list = json_array();
		for (size_t i = 0; i < rcpts; i++)
			json_array_append_new(list, ok_response());
		json_object_set_new(json, "rcpt_response", list);
	}
	if (tx->message.final)
		json_object_set_new(json, "data_response", ok_response());
}

static json_t *
show_blob(const ReceiverTx *tx, const char *base, const char *tail, const char *name, bool final)
{
	g_autofree char *escaped = g_uri_escape_string(name, NULL, FALSE);
	g_autofree char *uri = g_strconcat(base, "/transactions/", tx->id, tail, escaped, NULL);
	return json_pack("{s:s, s:b}", "uri", uri, "finalized", final);
}

static json_t *
show_body(const ReceiverTx *tx, const char *base)
{
	json_t *body = json_object();
	json_object_set_new(body, "blob_status",
			    show_blob(tx, base, "/body", "", tx->message.final));
	if (tx->parts == NULL) {
		g_autofree char *uri = g_strconcat(base, "/transactions/", tx->id,
						   "/message_builder", NULL);
		json_object_set_new(body, "message_builder", json_pack("{s:s}", "uri", uri));
		return body;
	}
	json_t *status = json_object();
	const char *name;
	json_t *value;
	json_object_foreach(tx->parts, name, value)
	{
		const ReceiverFile *file = g_hash_table_lookup(tx->files, name);
		json_object_set_new(status, name, show_blob(tx, base, "/blob/", name, file->final));
	}
	json_object_set_new(body, "message_builder", json_pack("{s:o}", "blob_status", status));
	return body;
}

json_t *
receiver_tx_show(const ReceiverTx *tx, const char *base)
{
	static const char *const PLACEHOLDERS[] = {"mail_from", "sender", "filter_output"};
	json_t *json = json_copy(tx->request);
	(void)json_object_del(json, "smtp_meta");
	for (size_t i = 0; i < G_N_ELEMENTS(PLACEHOLDERS); i++) {
		if (json_object_get(json, PLACEHOLDERS[i]) != NULL)
			json_object_set_new(json, PLACEHOLDERS[i], json_object());
	}
	if (tx->output != NULL)
		json_object_set_new(json, "filter_output", json_object());
	size_t rcpts = json_array_size(json_object_get(json, "rcpt_to"));
	if (rcpts > 0) {
		json_t *list = json_array();
		for (size_t i = 0; i < rcpts; i++)
			json_array_append_new(list, json_object());
		json_object_set_new(json, "rcpt_to", list);
	}
	if (tx->cancelled)
		json_object_set_new(json, "cancelled", json_true());
	add_answers(tx, json);
	json_object_set_new(json, "body", show_body(tx, base));
	return json;
}

bool
receiver_tx_save(const ReceiverTx *tx, const char *dir, GError **ret_error)
{
	g_autoptr(json_t) json = json_copy(tx->request);
	add_answers(tx, json);
	if (tx->output != NULL)
		json_object_set(json, "filter_output", tx->output);
	if (tx->spec_path != NULL)
		json_object_set_new(json, "message_builder_json_path", json_string(tx->spec_path));
	json_object_set_new(json, "body_path", json_string(tx->message.path));
	g_autofree char *text = json_print(json);
	g_autofree char *path = g_strdup_printf("%s/%s.tx.json", dir, tx->id);
	return write_file(path, text, strlen(text), ret_error);
}

/* ---- the parsed message ---- */

typedef struct SpecWalk {
	ReceiverTx *tx;
	const char *dir;
	unsigned inlines;
	unsigned depth;
} SpecWalk;

/* Part names come from the sender; only harmless ones become part of a file name. */
static char *
part_path(const SpecWalk *walk, const char *name)
{
	bool plain = *name != '\0' && *name != '.' && strlen(name) <= 64;
	for (const char *c = name; *c != '\0'; c++)
		plain = plain && (g_ascii_isalnum(*c) || strchr("._-", *c) != NULL);
	if (plain)
		return g_strdup_printf("%s/%s.%s", walk->dir, walk->tx->id, name);
	return g_strdup_printf("%s/%s.part%zu", walk->dir, walk->tx->id,
			       json_object_size(walk->tx->parts));
}

static bool
take_content(SpecWalk *walk, json_t *part, json_t *content, GError **ret_error)
{
	ReceiverTx *tx = walk->tx;
	const char *text = json_get_str(content, "inline");
	const char *name = json_get_str(content, "create_id");
	if (json_object_get(content, "reuse_uri") != NULL || (text == NULL && name == NULL))
		return error_set(ret_error, K_ERROR_INPUT, "bad blob in message builder json");
	if (text != NULL) {
		g_autofree char *path = g_strdup_printf("%s/%s.inline%u", walk->dir, tx->id,
							walk->inlines++);
		size_t len = json_string_length(json_object_get(content, "inline"));
		if (!write_file(path, text, len, ret_error))
			return false;
		json_object_set_new(part, "content", json_pack("{s:s}", "filename", path));
		return true;
	}
	ReceiverFile *file = g_hash_table_lookup(tx->files, name);
	if (file == NULL) { /* the same part may stand in the tree and in a list */
		if (json_object_size(tx->parts) >= BLOB_LIMIT)
			return error_set(ret_error, K_ERROR_INPUT, "too many parts");
		file = g_new0(ReceiverFile, 1);
		*file = (ReceiverFile){.path = part_path(walk, name), .fd = -1};
		g_hash_table_insert(tx->files, g_strdup(name), file);
		json_object_set_new(tx->parts, name, json_true());
	}
	json_object_set_new(part, "content",
			    json_pack("{s:s, s:s}", "create_id", name, "filename", file->path));
	return true;
}

static bool
walk_part(SpecWalk *walk, json_t *part, GError **ret_error)
{
	json_t *content = json_object_get(part, "content");
	if (content != NULL && !take_content(walk, part, content, ret_error))
		return false;
	json_t *children = json_object_get(part, "parts");
	if (++walk->depth > DEPTH_MAX)
		return error_set(ret_error, K_ERROR_INPUT, "message parts too deep");
	for (size_t i = 0; i < json_array_size(children); i++) {
		if (!walk_part(walk, json_array_get(children, i), ret_error))
			return false;
	}
	walk->depth--;
	return true;
}

bool
receiver_tx_set_spec(ReceiverTx *tx, const char *dir, json_t *spec, GError **ret_error)
{
	static const char *const LISTS[] = {"text_body", "related_attachments", "file_attachments"};
	SpecWalk walk = {.tx = tx, .dir = dir};
	tx->parts = json_object();
	json_t *tree = json_object_get(spec, "parts");
	if (tree != NULL && !walk_part(&walk, tree, ret_error))
		return false;
	for (size_t i = 0; i < G_N_ELEMENTS(LISTS); i++) {
		json_t *list = json_object_get(spec, LISTS[i]);
		for (size_t k = 0; k < json_array_size(list); k++) {
			if (!walk_part(&walk, json_array_get(list, k), ret_error))
				return false;
		}
	}
	g_autofree char *path = g_strdup_printf("%s/%s.msg.json", dir, tx->id);
	g_autofree char *text = json_print(spec);
	if (!write_file(path, text, strlen(text), ret_error))
		return false;
	tx->spec_path = g_steal_pointer(&path);
	return true;
}
