/* SPDX-License-Identifier: Apache-2.0 */
/* The message (behaviour spec 5.5, 5.7): one blob for most; for a receiver that wants it parsed
 * the spec, its parts and then the message, each in one request. */
#include <string.h>

#include "base/json.h"
#include "http/route.h"
#include "rest/handover.h"
#include "rest/range.h"
#include "rest/remote_int.h"

#define COPY_MAX                                                                                   \
	(64 * 1024) /* pieces up to this are copied, larger ones are read by the client            \
		     */
#define STUCK_MAX 3
#define PUT_ERR   "RestEndpoint._put_blob_chunk PUT err"

void
remote_upload_free(void *data)
{
	RemoteUpload *upload = data;
	blob_unref(upload->blob);
	g_free(upload->url);
	g_free(upload);
}

static void
fail_put(Remote *remote, const char *text)
{
	remote_fail(remote, response_newf(450, "%s", text));
}

/* ---- where to ---- */

static const char *
get_uri(const json_t *status)
{
	return json_get_str(status, "uri");
}

/* Receivers, and only they, take a parsed message. */
static const char *
builder_uri(const Remote *remote)
{
	return get_uri(json_object_get(remote->body, "message_builder"));
}

static bool
is_receiver(const Remote *remote)
{
	return builder_uri(remote) != NULL || remote->spec_sent;
}

static char *
absolute(const Remote *remote, const char *uri)
{
	return strstr(uri, "://") != NULL ? g_strdup(uri) : http_join(remote->tx_url, uri);
}

static void
add_upload(Remote *remote, Blob *blob, const char *uri)
{
	RemoteUpload *upload = g_new0(RemoteUpload, 1);
	upload->blob = blob_ref(blob);
	upload->url = uri != NULL ? absolute(remote, uri)
				  : g_strconcat(remote->tx_url, "/body", NULL);
	/* Receivers refuse ranges, whatever the chunk size. */
	upload->whole = is_receiver(remote) || remote->options.chunk_size == 0;
	g_ptr_array_add(remote->uploads, upload);
}

/* False: failed. */
static bool
plan(Remote *remote)
{
	const TxBody *body = remote->tx->body;
	remote->uploads = g_ptr_array_new_with_free_func(remote_upload_free);
	const json_t *slots = json_object_get(json_object_get(remote->body, "message_builder"),
					      "blob_status");
	for (guint i = 0; remote->spec_sent && i < body->parts->len; i++) {
		const TxPart *part = g_ptr_array_index(body->parts, i);
		const char *uri = get_uri(json_object_get(slots, part->id));
		if (uri == NULL) {
			fail_put(remote, "RestEndpoint receiver offers no place for a part");
			return false;
		}
		add_upload(remote, part->blob, uri);
	}
	if (body->raw != NULL)
		add_upload(remote, body->raw,
			   get_uri(json_object_get(remote->body, "blob_status")));
	if (remote->uploads->len == 0) {
		fail_put(remote, "RestEndpoint the message has not been built");
		return false;
	}
	return true;
}

/* ---- the spec ---- */

static void
on_spec_posted(void *arg, const HttpResult *result)
{
	Remote *remote = arg;
	remote->call = NULL;
	if (result->status != 200) {
		remote_fail(remote,
			    response_new(400, "RestEndpoint update_message_builder http err"));
		return;
	}
	const char *etag = http_result_header(result, "etag");
	if (etag != NULL)
		remote_set_etag(remote, etag);
	remote->spec_sent = true;
	if (remote_take(remote, result, "upstream invalid resp/delta get",
			"upstream invalid resp/delta get"))
		remote_step(remote);
}

static void
post_spec(Remote *remote)
{
	g_autofree char *url = absolute(remote, builder_uri(remote));
	remote_send(remote, "POST", url, "if-match", json_print(remote->tx->body->builder),
		    remote->options.data_timeout, on_spec_posted);
}

/* ---- pieces ---- */

/* A blob from `offset` on, as the client reads it. */
typedef struct Slice {
	Blob *blob;
	uint64_t offset;
} Slice;

static ssize_t
slice_read(void *arg, uint64_t offset, char *buf, size_t len)
{
	const Slice *slice = arg;
	size_t got = 0;
	if (!blob_read(slice->blob, slice->offset + offset, buf, len, &got, NULL))
		return -1;
	return (ssize_t)got;
}

static void
slice_free(void *arg)
{
	Slice *slice = arg;
	blob_unref(slice->blob);
	g_free(slice);
}

static void on_put(void *arg, const HttpResult *result);

static void
put(Remote *remote, RemoteUpload *upload, const HttpHeader *range)
{
	HttpHeader headers[REMOTE_HEADERS_MAX];
	size_t n = 0;
	if (range != NULL)
		headers[n++] = *range;
	/* Lets a server of ours tell us the version that this upload makes. */
	if (remote->etag != NULL && !is_receiver(remote))
		headers[n++] = (HttpHeader){REST_VERSION_HEADER, remote->etag};
	HttpCallSpec spec = {.method = "PUT",
			     .url = upload->url,
			     .headers = headers,
			     .n_headers = n,
			     .timeout = remote->options.data_timeout};
	remote_identify(remote, &spec);
	HttpSource source = {slice_read, slice_free, NULL, upload->piece};
	if (upload->piece <= COPY_MAX) {
		spec.body = g_malloc((size_t)upload->piece + 1);
		spec.body_len = (size_t)upload->piece;
		size_t got = 0;
		if (!blob_read(upload->blob, upload->offset, spec.body, spec.body_len, &got,
			       NULL) ||
		    got != spec.body_len) {
			g_free(spec.body);
			fail_put(remote, "RestEndpoint blob upload error");
			return;
		}
	} else {
		Slice *slice = g_new0(Slice, 1);
		*slice = (Slice){blob_ref(upload->blob), upload->offset};
		source.arg = slice;
		spec.source = &source;
	}
	remote->call = http_call_start(remote->client, &spec, on_put, remote);
}

static void
put_range(Remote *remote, RemoteUpload *upload, bool last)
{
	char text[96], total[32] = "*";
	if (last)
		g_snprintf(total, sizeof(total), "%" G_GUINT64_FORMAT, blob_len(upload->blob));
	g_snprintf(text, sizeof(text), "bytes %" G_GUINT64_FORMAT "-%" G_GUINT64_FORMAT "/%s",
		   upload->offset, upload->offset + upload->piece - 1, total);
	const HttpHeader range = {"content-range", text};
	put(remote, upload, &range);
}

static void
put_end(Remote *remote, RemoteUpload *upload)
{
	char text[32];
	g_snprintf(text, sizeof(text), "%" G_GUINT64_FORMAT, blob_len(upload->blob));
	const HttpHeader finalize = {"x-finalize-blob-length", text};
	put(remote, upload, &finalize);
}

/* The next piece, if it is time for it. */
static void
put_next(Remote *remote, RemoteUpload *upload)
{
	bool final = blob_is_final(upload->blob);
	uint64_t ready = blob_len(upload->blob) - upload->offset;
	uint64_t chunk = upload->whole ? UINT64_MAX : remote->options.chunk_size;
	upload->piece = MIN(ready, chunk);
	bool last = final && upload->piece == ready;
	if (!final && ready < chunk)
		return; /* more is to come, and fills a piece */
	upload->announced = last;
	if (last && upload->offset == 0)
		put(remote, upload, NULL);
	else if (upload->piece > 0)
		put_range(remote, upload, last);
	else
		put_end(remote, upload);
}

/* What the other side says it holds, in *ret_held.  Fails, and is false, when that cannot be. */
static bool
read_held(Remote *remote, const RemoteUpload *upload, const HttpResult *result, uint64_t *ret_held)
{
	uint64_t sent = upload->offset + upload->piece;
	const char *range = http_result_header(result, "content-range");
	if (range == NULL && result->status == 200) {
		*ret_held = sent;
		return true;
	}
	if (range == NULL) {
		fail_put(remote, PUT_ERR);
		return false;
	}
	if (!rest_range_parse_held(range, ret_held)) {
		fail_put(remote, "RestEndpoint._put_blob_chunk bad range");
		return false;
	}
	if (*ret_held > sent) {
		fail_put(remote, "invalid resp content-range");
		return false;
	}
	return true;
}

static void
upload_done(Remote *remote)
{
	remote->current++;
	if (remote->current < remote->uploads->len)
		return;
	remote->uploaded = true;
	/* The next hop's own answer to the message may take its time; giving up early would send
	 * the message twice. */
	remote->deadline = clock_after(
		MAX(remote->options.rcpt_timeout, remote->options.data_timeout));
	remote->polls = 0;
	remote->pace = 0;
}

static void
on_put(void *arg, const HttpResult *result)
{
	Remote *remote = arg;
	RemoteUpload *upload = g_ptr_array_index(remote->uploads, remote->current);
	remote->call = NULL;
	if (result->status == 0) {
		fail_put(remote, "RestEndpoint blob upload error");
		return;
	}
	if (result->status == 413) {
		remote_fail(remote, response_new(552, "5.3.4 message too large for the next hop"));
		return;
	}
	if (result->status != 200 && result->status != 416) {
		fail_put(remote, PUT_ERR);
		return;
	}
	uint64_t held = 0;
	if (!read_held(remote, upload, result, &held))
		return;
	bool complete = blob_is_final(upload->blob) &&
			upload->offset + upload->piece == blob_len(upload->blob);
	if (result->status == 416 || held != upload->offset + upload->piece) {
		upload->stuck++;
		complete = false;
		if (upload->stuck > STUCK_MAX) {
			fail_put(remote, PUT_ERR);
			return;
		}
	} else {
		upload->stuck = 0;
	}
	upload->offset = held;
	const char *etag = http_result_header(result, "etag");
	if (etag != NULL && !is_receiver(remote))
		remote_set_etag(remote, etag);
	if (complete && upload->announced)
		upload_done(remote);
	remote_step(remote);
}

bool
remote_upload_step(Remote *remote)
{
	const Tx *tx = remote->tx;
	if (tx->body == NULL || tx_rcpts_accepted(tx) == 0 || remote->uploaded)
		return false;
	remote->phase = REMOTE_DATA;
	bool parsed = tx->body->builder != NULL && remote->options.receive_parsing;
	if (parsed && !remote->spec_sent && builder_uri(remote) != NULL) {
		if (!tx_body_is_final(tx->body))
			return true;
		post_spec(remote);
		return true;
	}
	if (remote->uploads == NULL && !plan(remote))
		return true;
	put_next(remote, g_ptr_array_index(remote->uploads, remote->current));
	return true;
}
