/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/ids.h"
#include "base/json.h"
#include "base/text.h"
#include "cmd/send_int.h"

#define STDIN_MAX  (256 * 1024 * 1024)
#define LF_LOOK    65536 /* bytes at the start that tell the line ends */
#define LF_MAX     (256 * 1024 * 1024)
#define INLINE_MAX (16 * 1024 * 1024)
#define TEXT_MAX   65536 /* bytes of a text part that go inline */

static void
upload_free(void *data)
{
	SendUpload *upload = data;
	if (upload->fd >= 0)
		(void)close(upload->fd);
	g_free(upload->id);
	g_free(upload->name);
	g_free(upload->uri);
	g_free(upload);
}

/* ---- bytes ---- */

/* A descriptor of bytes in memory. */
static int
memory_fd(const char *data, size_t len, GError **ret_error)
{
	int fd = memfd_create("koukan-send", MFD_CLOEXEC);
	for (size_t at = 0; fd >= 0 && at < len;) {
		ssize_t done = write(fd, data + at, len - at);
		if (done < 0 && errno != EINTR) {
			(void)close(fd);
			fd = -1;
		}
		at += done > 0 ? (size_t)done : 0;
	}
	if (fd < 0)
		error_set_errno(ret_error, K_ERROR_IO, errno, "memory for a message");
	return fd;
}

static int
stdin_fd(GError **ret_error)
{
	g_autoptr(GString) text = g_string_new(NULL);
	char buf[65536];
	ssize_t got;
	while ((got = read(STDIN_FILENO, buf, sizeof(buf))) != 0) {
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 || text->len + (size_t)got > STDIN_MAX) {
			error_set(ret_error, K_ERROR_INPUT,
				  "standard input cannot be read, or is too long");
			return -1;
		}
		g_string_append_len(text, buf, got);
	}
	return memory_fd(text->str, text->len, ret_error);
}

/* -1: it is no file that can be read. */
static int
path_fd(const char *path, GError **ret_error)
{
	struct stat st;
	if (strcmp(path, "-") == 0)
		return stdin_fd(ret_error);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		error_set_errno(ret_error, K_ERROR_INPUT, errno, "%s", path);
		return -1;
	}
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		return fd;
	(void)close(fd);
	error_set(ret_error, K_ERROR_INPUT, "%s: no file", path);
	return -1;
}

static uint64_t
fd_len(int fd)
{
	struct stat st;
	return fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* Everything as a string; NULL when it is longer than `max` or cannot be read. */
static char *
fd_text(int fd, size_t max, size_t *ret_len)
{
	size_t len = (size_t)fd_len(fd), at = 0;
	if (len > max)
		return NULL;
	g_autofree char *text = g_malloc(len + 1);
	while (at < len) {
		ssize_t got = pread(fd, text + at, len - at, (off_t)at);
		if (got <= 0)
			return NULL;
		at += (size_t)got;
	}
	text[len] = '\0';
	*ret_len = len;
	return g_steal_pointer(&text);
}

/* The same with CRLF line ends, when it has none of them. */
static int
with_crlf(int fd, GError **ret_error)
{
	size_t len = 0;
	g_autofree char *text = fd_text(fd, LF_MAX, &len);
	if (text == NULL || memchr(text, '\n', len) == NULL ||
	    g_strstr_len(text, (gssize)MIN(len, (size_t)LF_LOOK), "\r\n") != NULL)
		return fd;
	g_autoptr(GString) out = g_string_sized_new(len + len / 32);
	for (size_t i = 0; i < len; i++) {
		if (text[i] == '\n' && (i == 0 || text[i - 1] != '\r'))
			g_string_append_c(out, '\r');
		g_string_append_c(out, text[i]);
	}
	(void)close(fd);
	return memory_fd(out->str, out->len, ret_error);
}

/* `fd` is moved; -1 is passed on. */
static bool
add_upload(Send *send, const char *id, const char *name, int fd)
{
	if (fd < 0)
		return false;
	SendUpload *upload = g_new0(SendUpload, 1);
	*upload = (SendUpload){.id = g_strdup(id), .name = g_strdup(name), .fd = fd};
	upload->len = fd_len(fd);
	g_ptr_array_add(send->uploads, upload);
	return true;
}

/* ---- a description ---- */

static const char *const LISTS[] = {"text_body", "related_attachments", "file_attachments"};

/* A path as written, or beside the file that names it. */
static char *
beside(const char *file, const char *name)
{
	if (g_path_is_absolute(name))
		return g_strdup(name);
	g_autofree char *dir = g_path_get_dirname(file);
	return g_build_filename(dir, name, NULL);
}

/* "filename" beside "create_id" is for us, not for the server. */
static bool
collect_file(Send *send, json_t *content, GError **ret_error)
{
	const char *id = json_get_str(content, "create_id");
	const char *name = json_get_str(content, "filename");
	if (id == NULL)
		return true;
	if (name == NULL)
		return error_set(ret_error, K_ERROR_INPUT,
				 "%s: create_id \"%s\" without a filename", send->builder_file, id);
	g_autofree char *path = beside(send->builder_file, name);
	if (!add_upload(send, id, path, path_fd(path, ret_error)))
		return false;
	(void)json_object_del(content, "filename");
	return true;
}

static bool
load_builder(Send *send, GError **ret_error)
{
	send->builder = json_parse_file(send->builder_file, ret_error);
	if (send->builder == NULL)
		return false;
	if (!json_is_object(send->builder))
		return error_set(ret_error, K_ERROR_INPUT, "%s: no JSON object",
				 send->builder_file);
	for (size_t i = 0; i < G_N_ELEMENTS(LISTS); i++) {
		json_t *list = json_object_get(send->builder, LISTS[i]);
		for (size_t k = 0; k < json_array_size(list); k++)
			if (!collect_file(send, json_object_get(json_array_get(list, k), "content"),
					  ret_error))
				return false;
	}
	return true;
}

static bool
has_header(const json_t *headers, const char *name)
{
	for (size_t i = 0; i < json_array_size(headers); i++) {
		const json_t *pair = json_array_get(headers, i);
		const char *got = json_string_value(json_array_get(pair, 0));
		if (got != NULL && text_equal_nocase(got, name))
			return true;
	}
	return false;
}

static void
add_headers(Send *send)
{
	json_t *headers = json_object_get(send->builder, "headers");
	if (!json_is_array(headers)) {
		headers = json_array();
		json_object_set_new(send->builder, "headers", headers);
	}
	if (!has_header(headers, "date")) {
		time_t now = clock_wall_sec();
		struct tm local;
		localtime_r(&now, &local);
		json_array_append_new(headers, json_pack("[s, {s:I, s:I}]", "date", "unix_secs",
							 (json_int_t)now, "tz_offset",
							 (json_int_t)local.tm_gmtoff));
	}
	if (!has_header(headers, "message-id")) {
		uint8_t random[16];
		ids_random(random, sizeof(random));
		g_autofree char *unique = text_base64url(random, sizeof(random));
		const char *at = strrchr(send->mail_from, '@');
		g_autofree char *id = g_strdup_printf(
			"%s@%s", unique, at != NULL && at[1] != '\0' ? at + 1 : "localhost");
		json_array_append_new(headers, json_pack("[s, [s]]", "message-id", id));
	}
}

/* ---- composed of options ---- */

static const char *
type_of(const char *path)
{
	static const struct {
		const char *suffix, *type;
	} types[] = {
		{".txt", "text/plain"},        {".html", "text/html"},
		{".csv", "text/csv"},          {".ics", "text/calendar"},
		{".pdf", "application/pdf"},   {".png", "image/png"},
		{".jpg", "image/jpeg"},        {".jpeg", "image/jpeg"},
		{".gif", "image/gif"},         {".zip", "application/zip"},
		{".json", "application/json"}, {".gz", "application/gzip"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(types); i++) {
		size_t len = strlen(path), end = strlen(types[i].suffix);
		if (len > end && text_equal_nocase(path + len - end, types[i].suffix))
			return types[i].type;
	}
	return "application/octet-stream";
}

/* A part of the bytes of `path`, inline when it is short text. */
static bool
add_part(Send *send, const char *list, const char *type, const char *path, GError **ret_error)
{
	bool attached = strcmp(list, "file_attachments") == 0;
	g_autofree char *id = g_strdup_printf("part%u", send->uploads->len);
	int fd = path_fd(path, ret_error);
	if (fd < 0)
		return false;
	size_t len = 0;
	g_autofree char *text = attached ? NULL : fd_text(fd, TEXT_MAX, &len);
	g_autoptr(json_t) part = json_pack("{s:s}", "content_type", type);
	if (text != NULL && memchr(text, '\0', len) == NULL && g_utf8_validate(text, -1, NULL)) {
		(void)close(fd);
		json_object_set_new(part, "content", json_pack("{s:s}", "inline", text));
	} else {
		(void)!add_upload(send, id, path, fd);
		json_object_set_new(part, "content", json_pack("{s:s}", "create_id", id));
	}
	g_autofree char *base = g_path_get_basename(path);
	if (attached)
		json_object_set_new(part, "filename", json_string(base));
	json_t *items = json_object_get(send->builder, list);
	if (items == NULL) {
		items = json_array();
		json_object_set_new(send->builder, list, items);
	}
	json_array_append(items, part);
	return true;
}

static bool
compose(Send *send, GError **ret_error)
{
	json_t *to = json_array();
	for (int i = 0; i < send->n_to; i++)
		json_array_append_new(to, json_pack("{s:s}", "address", send->to[i]));
	send->builder = json_pack("{s:[[s,[{s:s}]],[s,o],[s,s]]}", "headers", "from", "address",
				  send->mail_from, "to", to, "subject",
				  send->subject != NULL ? send->subject : "");
	if (send->text != NULL && !add_part(send, "text_body", "text/plain", send->text, ret_error))
		return false;
	if (send->html != NULL && !add_part(send, "text_body", "text/html", send->html, ret_error))
		return false;
	for (guint i = 0; i < send->attach->len; i++) {
		const char *path = g_ptr_array_index(send->attach, i);
		if (!add_part(send, "file_attachments", type_of(path), path, ret_error))
			return false;
	}
	return true;
}

/* ---- all ---- */

static bool
load_raw(Send *send, GError **ret_error)
{
	int fd = path_fd(send->rfc822, ret_error);
	if (fd >= 0)
		fd = with_crlf(fd, ret_error);
	if (!add_upload(send, NULL, send->rfc822, fd))
		return false;
	if (!send->is_inline)
		return true;
	size_t len = 0;
	send->inline_text = fd_text(fd, INLINE_MAX, &len);
	if (send->inline_text == NULL)
		return error_set(ret_error, K_ERROR_INPUT, "%s: too long for --inline",
				 send->rfc822);
	return (memchr(send->inline_text, '\0', len) == NULL &&
		g_utf8_validate(send->inline_text, -1, NULL)) ||
	       error_set(ret_error, K_ERROR_INPUT, "%s: --inline wants UTF-8", send->rfc822);
}

bool
send_message_load(Send *send, GError **ret_error)
{
	send->uploads = g_ptr_array_new_with_free_func(upload_free);
	if (send->rfc822 != NULL)
		return load_raw(send, ret_error);
	bool ok = send->builder_file != NULL ? load_builder(send, ret_error)
					     : compose(send, ret_error);
	if (ok)
		add_headers(send);
	return ok;
}

void
send_message_clear(Send *send)
{
	g_clear_pointer(&send->uploads, g_ptr_array_unref);
	g_clear_pointer(&send->inline_text, g_free);
	g_clear_pointer(&send->builder, json_decref);
}

static const SendUpload *
find_upload(const Send *send, const char *id)
{
	for (guint i = 0; i < send->uploads->len; i++) {
		const SendUpload *upload = g_ptr_array_index(send->uploads, i);
		if (g_strcmp0(upload->id, id) == 0)
			return upload;
	}
	return NULL;
}

/* What was uploaded for an earlier recipient is referred to. */
static json_t *
make_builder(const Send *send)
{
	json_t *spec = json_deep_copy(send->builder);
	for (size_t i = 0; i < G_N_ELEMENTS(LISTS); i++) {
		json_t *list = json_object_get(spec, LISTS[i]);
		for (size_t k = 0; k < json_array_size(list); k++) {
			json_t *content = json_object_get(json_array_get(list, k), "content");
			const char *id = json_get_str(content, "create_id");
			const SendUpload *upload = id != NULL ? find_upload(send, id) : NULL;
			if (upload != NULL && upload->uri != NULL)
				json_object_set_new(content, "reuse_uri", json_string(upload->uri));
		}
	}
	return spec;
}

json_t *
send_message_body(const Send *send)
{
	if (send->builder != NULL)
		return json_pack("{s:o}", "message_builder", make_builder(send));
	const SendUpload *upload = find_upload(send, NULL);
	if (upload->uri != NULL)
		return json_pack("{s:s}", "reuse_uri", upload->uri);
	if (send->inline_text != NULL)
		return json_pack("{s:s}", "inline", send->inline_text);
	return NULL;
}
