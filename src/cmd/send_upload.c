/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "cmd/send_int.h"
#include "http/route.h"

#define UPLOAD_TIMEOUT (600 * USEC_PER_SEC)
#define PROGRESS_MIN   (1024 * 1024) /* bytes; less is not worth a line */
#define PROGRESS_EVERY (USEC_PER_SEC / 4)
#define MEGA           1e6

/* One upload under way.  The HTTP client's thread reads, and tells how far it is; the main thread
 * waits meanwhile. */
typedef struct Source {
	const SendUpload *upload;
	bool progress;
	Deadline told;
} Source;

static void
tell(const SendUpload *upload, uint64_t at, const char *end)
{
	(void)fprintf(stderr, "\ruploading %s: %.1f of %.1f MB (%d %%)%s", upload->name,
		      (double)at / MEGA, (double)upload->len / MEGA,
		      (int)(at * 100 / MAX(upload->len, 1)), end);
	(void)fflush(stderr);
}

static ssize_t
source_read(void *arg, uint64_t offset, char *buf, size_t len)
{
	Source *source = arg;
	if (source->progress && clock_mono() - source->told >= PROGRESS_EVERY) {
		source->told = clock_mono();
		tell(source->upload, offset, "");
	}
	return pread(source->upload->fd, buf, len, (off_t)offset);
}

static bool
put(Send *send, SendUpload *upload, const char *uri, SendOutcome *outcome)
{
	g_auto(SendReply) reply = {0};
	Source source = {upload, send->progress && upload->len >= PROGRESS_MIN, 0};
	HttpSource bytes = {source_read, NULL, &source, upload->len};
	HttpCallSpec spec = {.method = "PUT",
			     .url = uri,
			     .timeout = UPLOAD_TIMEOUT,
			     .verify = send->verify,
			     .source = &bytes};
	send_http_ask(send->http, &spec, &reply);
	if (source.progress)
		tell(upload, reply.status == 200 ? upload->len : 0,
		     reply.status == 200 ? "\n" : ", failed\n");
	if (reply.status != 200)
		return send_fail(outcome, "upload", &reply);
	upload->uri = g_strdup(uri);
	return true;
}

static const json_t *
status_of(const json_t *body, const SendUpload *upload)
{
	if (upload->id == NULL)
		return json_object_get(body, "blob_status");
	return json_object_get(
		json_object_get(json_object_get(body, "message_builder"), "blob_status"),
		upload->id);
}

bool
send_upload_all(Send *send, SendOutcome *outcome)
{
	const json_t *body = json_object_get(outcome->tx, "body");
	for (guint i = 0; i < send->uploads->len; i++) {
		SendUpload *upload = g_ptr_array_index(send->uploads, i);
		const json_t *status = status_of(body, upload);
		const char *uri = json_get_str(status, "uri");
		if (upload->uri != NULL)
			continue; /* reused */
		if (uri == NULL) {
			outcome->error = g_strdup_printf("the server offers no place for %s",
							 upload->name);
			return false;
		}
		g_autofree char *absolute = strstr(uri, "://") != NULL ? g_strdup(uri)
								       : http_join(send->url, uri);
		if (json_is_true(json_object_get(status, "finalized"))) /* it went inline */
			upload->uri = g_steal_pointer(&absolute);
		else if (!put(send, upload, absolute, outcome))
			return false;
	}
	return true;
}
