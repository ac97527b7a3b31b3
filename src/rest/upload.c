/* SPDX-License-Identifier: Apache-2.0 */
/* PUT of a body or a part (behaviour spec 4.6): whole, in ranges, or the end of ranges.
 *
 * Bytes go into the blob as they come, so that what follows can send them on.  On the owner's own
 * worker they go straight there; to another worker they travel in pieces, and the connection is
 * not read while one is under way. */
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "rest/api_int.h"

#define PIECE_MAX (256 * 1024)

/* ---- on the owner: where the bytes go ---- */

static void
answer_invalid(RestCall *call)
{
	const Blob *blob = call->target;
	call->content_range = blob != NULL ? rest_range_held(blob_len(blob), blob_total(blob))
					   : g_strdup("bytes */*");
	rest_answer_text(call, 416, "invalid range");
}

/* Reads the range headers.  Answers, and is false, when they are wrong. */
static bool
parse_headers(RestCall *call)
{
	/* Without a length of its own a range is ignored, as it always was. */
	if (call->content_range_in != NULL && call->content_length >= 0) {
		if (!rest_range_parse(call->content_range_in, &call->range)) {
			rest_answer_text(call, 400, "bad range");
			return false;
		}
		if (call->range.last - call->range.first + 1 != (uint64_t)call->content_length) {
			rest_answer_text(call, 400, "range does not match content-length");
			return false;
		}
		call->ranged = true;
		call->pos = call->range.first;
	}
	if (call->finalize_in == NULL)
		return true;
	if (!text_parse_u64(call->finalize_in, strlen(call->finalize_in), INT64_MAX - 1,
			    &call->finalize_len)) {
		rest_answer_text(call, 400, "invalid x-finalize-blob-length");
		return false;
	}
	call->finalize = true;
	return true;
}

static uint64_t
host_size_max(const RestCall *call)
{
	uint64_t size_max = rest_call_host(call)->blobs.size_max;
	return size_max != 0 ? size_max : UINT64_MAX;
}

/* The blob that is meant; NULL: not there.  The body of an incremental transaction is made by its
 * first upload. */
static Blob *
find_blob(RestCall *call, Tx *tx)
{
	const RestHost *host = rest_call_host(call);
	if (call->route == REST_PUT_BLOB) {
		TxPart *part = tx->body != NULL ? tx_body_part(tx->body, call->blob) : NULL;
		return part != NULL ? part->blob : NULL;
	}
	if (tx->body == NULL && call->pos == 0 && !call->finalize) {
		g_autoptr(Blob) blob = blob_new(&host->blobs);
		g_autoptr(TxBody) body = tx_body_new_raw(blob);
		tx_set_body(tx, body);
	}
	return tx->body != NULL ? tx->body->raw : NULL;
}

/* Answers, and is false, when nothing can be uploaded. */
static bool
begin(RestCall *call)
{
	call->begun = true;
	Tx *tx = rest_table_find(rest_call_table(call), call->id);
	if (tx == NULL) {
		call->lost = true;
		return true;
	}
	if (!rest_call_may(call, tx) || !parse_headers(call))
		return false;
	call->current = call->if_match != NULL && rest_etag_is(call->if_match, tx->version);
	Blob *blob = find_blob(call, tx);
	call->version = tx->version; /* with a body made just now */
	if (blob == NULL && (call->route == REST_PUT_BLOB || tx->body != NULL)) {
		rest_answer_text(call, 404, "unknown blob");
		return false;
	}
	if (blob == NULL) { /* it has not begun yet */
		answer_invalid(call);
		return false;
	}
	uint64_t size_max = host_size_max(call);
	if ((call->ranged && call->range.has_total && call->range.total > size_max) ||
	    (call->finalize && call->finalize_len > size_max)) {
		rest_answer_text(call, 413, "message too large");
		return false;
	}
	call->target = blob_ref(blob);
	call->tx = tx_ref(tx);
	if (!call->ranged || !call->range.has_total)
		return true;
	bool fits = blob_is_final(blob) ? blob_len(blob) == call->range.total
					: call->pos <= blob_len(blob) &&
						  blob_set_total(blob, call->range.total);
	if (!fits)
		answer_invalid(call);
	return fits;
}

/* Bytes that are there already are skipped, so that an upload may simply be repeated. */
static bool
append(RestCall *call, const char *data, size_t len)
{
	Blob *blob = call->target;
	uint64_t held = blob_len(blob);
	if (call->finalize && len > 0) {
		rest_answer_text(call, 400, "x-finalize-blob-length with non-empty PUT");
		return false;
	}
	int64_t total = blob_is_final(blob) ? (int64_t)held : blob_total(blob);
	if (call->pos > held || (total >= 0 && call->pos + len > (uint64_t)total)) {
		answer_invalid(call);
		return false;
	}
	uint64_t skip = MIN(held - call->pos, (uint64_t)len);
	call->pos += len;
	if (skip == len)
		return true;
	g_autoptr(GError) error = NULL;
	uint64_t size_max = rest_call_host(call)->blobs.size_max;
	if (!blob_append(blob, data + skip, len - (size_t)skip, &error)) {
		bool big = size_max != 0 && call->pos > size_max;
		rest_answer_text(call, big ? 413 : 507, big ? "message too large" : error->message);
		return false;
	}
	tx_note_body(call->tx);
	return true;
}

/* ---- on the owner: the end ---- */

static void
answer_done(RestCall *call)
{
	const Blob *blob = call->target;
	int64_t total = blob_is_final(blob) ? (int64_t)blob_len(blob) : blob_total(blob);
	call->content_range = rest_range_held(blob_len(blob), total);
	/* A client that said which version it knows learns the next one, when all that changed
	 * since is this upload, and so need not ask for it. */
	uint64_t expected = call->version + (call->finalized ? 1 : 0);
	if (call->current && call->tx->data_response == NULL && call->tx->version == expected)
		call->etag = g_strdup_printf("%" G_GUINT64_FORMAT, call->tx->version);
	rest_answer_json(call, 200, g_strdup("{}"));
}

static void
on_complete(void *arg, const RestVerdict *verdict)
{
	RestCall *call = arg;
	if (verdict->status == 200)
		answer_done(call);
	else
		rest_answer_verdict(call, verdict, "unknown transaction");
}

/* How long the blob is to be, as far as this request or a former one says so; else -1. */
static int64_t
asked_total(const RestCall *call)
{
	if (call->finalize)
		return (int64_t)call->finalize_len;
	if (!call->ranged)
		return (int64_t)call->sent;
	return call->range.has_total ? (int64_t)call->range.total : blob_total(call->target);
}

static void
end(RestCall *call)
{
	RestHost *host = rest_call_host(call);
	Blob *blob = call->target;
	int64_t total = asked_total(call);
	bool at_end = total >= 0 && blob_len(blob) == (uint64_t)total;
	if (total >= 0 && !call->ranged && !at_end) {
		answer_invalid(call);
		return;
	}
	if (at_end && !blob_is_final(blob)) {
		if (!blob_set_total(blob, (uint64_t)total)) {
			answer_invalid(call);
			return;
		}
		blob_finalize(blob);
		call->finalized = true;
		tx_note_body(call->tx);
	}
	if (at_end && tx_body_ready(call->tx))
		host->complete(host, call->tx, on_complete, call);
	else
		answer_done(call);
}

/* The upload of a transaction that is not live: what is stored cannot change any more, but the
 * last upload may be repeated. */
static void
on_loaded(void *arg, const RestVerdict *verdict, Tx *tx)
{
	RestCall *call = arg;
	if (!rest_call_may_see(call, verdict, tx))
		return;
	if (verdict->status != 200) {
		rest_answer_verdict(call, verdict, "unknown transaction");
		return;
	}
	const TxPart *part = NULL;
	const Blob *blob = NULL;
	if (tx->body != NULL && call->route == REST_PUT_BLOB) {
		part = tx_body_part(tx->body, call->blob);
		blob = part != NULL ? part->blob : NULL;
	} else if (tx->body != NULL) {
		blob = tx->body->raw;
	}
	if (!parse_headers(call))
		return;
	if (blob == NULL || !blob_is_final(blob)) {
		rest_answer_text(call, 404, blob == NULL ? "unknown blob" : "unknown transaction");
		return;
	}
	uint64_t held = call->finalize ? call->finalize_len : call->pos + call->sent;
	call->content_range = rest_range_held(held, (int64_t)held);
	rest_answer_json(call, 200, g_strdup("{}"));
}

/* ---- between the two ---- */

/* Takes bytes on the owner.  False when the call has been answered, or will be. */
static bool
take(RestCall *call, const char *data, size_t len, bool last)
{
	RestHost *host = rest_call_host(call);
	if (!call->begun && !begin(call))
		return false;
	call->sent += len;
	if (!call->lost && !append(call, data, len))
		return false;
	if (!last)
		return true;
	if (call->lost)
		host->load(host, call->owner, call->id, on_loaded, call);
	else
		end(call);
	return false;
}

/* At home: the owner has taken a piece. */
static void
on_taken(void *arg)
{
	RestCall *call = arg;
	g_string_truncate(call->piece, 0);
	http_resume(call->request);
}

static void
take_piece(void *arg)
{
	RestCall *call = arg;
	if (call->aborted)
		rest_answer_text(call, 400, NULL);
	else if (take(call, call->piece->str, call->piece->len, call->last))
		worker_post(call->home, on_taken, call);
}

static void
hand_over(RestCall *call)
{
	if (!call->last)
		http_pause(call->request);
	worker_post(call->owner, take_piece, call);
}

static void
on_bytes(RestCall *call, const char *data, size_t len)
{
	if (call->owner == call->home) {
		(void)take(call, data, len, false);
		return;
	}
	g_string_append_len(call->piece, data, (gssize)len);
	if (call->piece->len >= PIECE_MAX)
		hand_over(call);
}

static void
on_body(void *arg, HttpRequest *request, HttpBodyEvent event, const char *data, size_t len)
{
	(void)request;
	RestCall *call = arg;
	if (event == HTTP_BODY_DATA) {
		on_bytes(call, data, len);
		return;
	}
	call->last = true;
	call->aborted = event != HTTP_BODY_END;
	if (call->owner != call->home)
		hand_over(call);
	else if (call->aborted)
		rest_answer_text(call, 400, NULL);
	else
		(void)take(call, NULL, 0, true);
}

void
rest_upload(RestCall *call)
{
	uint64_t size_max = rest_call_host(call)->blobs.size_max;
	if (size_max != 0 && call->content_length > 0 &&
	    (uint64_t)call->content_length > size_max) {
		rest_answer_text(call, 413, "message too large"); /* before it is sent */
		return;
	}
	if (call->owner != call->home)
		call->piece = g_string_sized_new(call->content_length > 0 &&
								 call->content_length < PIECE_MAX
							 ? (size_t)call->content_length + 1
							 : 4096);
	http_stream_body(call->request, UINT64_MAX, on_body, call);
}
