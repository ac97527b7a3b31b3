/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/message_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

static GString *
with_crlf(const char *data, size_t len)
{
	GString *out = g_string_sized_new(len + len / 32);
	for (size_t i = 0; i < len; i++) {
		if (data[i] == '\n' && (i == 0 || data[i - 1] != '\r'))
			g_string_append_c(out, '\r');
		g_string_append_c(out, data[i]);
	}
	return out;
}

Blob *
message_file_read(const char *path, GError **ret_error)
{
	g_autoptr(GString) data = g_string_new(NULL);
	bool own = strcmp(path, "-") != 0;
	int fd = own ? open(path, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
	char piece[65536];
	ssize_t got = -1;
	if (fd >= 0) {
		while ((got = read(fd, piece, sizeof(piece))) > 0)
			g_string_append_len(data, piece, got);
	}
	int errnum = errno;
	if (own && fd >= 0)
		(void)close(fd);
	if (got < 0) {
		error_set_errno(ret_error, K_ERROR_IO, errnum, "%s", path);
		return NULL;
	}
	bool crlf = strstr(data->str, "\r\n") != NULL;
	g_autoptr(GString) message = crlf ? NULL : with_crlf(data->str, data->len);
	const GString *bytes = crlf ? data : message;
	return blob_new_bytes(bytes->str, bytes->len);
}
