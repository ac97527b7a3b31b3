/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/text.h"
#include "http/route.h"
#include "http/server_int.h"

#define SHORT_BODY  (1024 * 1024)      /* read and dropped, so that the connection stays usable */
#define DISCARD_MAX (16 * 1024 * 1024) /* dropped at most, so that the answer can be sent */

/* ---- life ---- */

HttpRequest *
http_request_new(HttpConn *conn, const char *target)
{
	HttpRequest *request = g_new0(HttpRequest, 1);
	request->refs = 1;
	request->conn = conn;
	request->worker = conn->site->worker;
	request->target = g_strdup(target);
	limbuf_init(&request->buf, 0);
	return request;
}

static void
request_unref(HttpRequest *request)
{
	if (--request->refs > 0)
		return;
	if (request->response != NULL)
		MHD_destroy_response(request->response);
	limbuf_clear(&request->buf);
	g_free(request->target);
	g_free(request->method);
	g_free(request->path);
	g_free(request);
}

/* The last event of the body. */
static void
body_done(HttpRequest *request, HttpBodyEvent event, const char *data, size_t len)
{
	HttpBodyFn *fn = request->body_fn;
	request->body_fn = NULL;
	if (fn != NULL)
		fn(request->body_arg, request, event, data, len);
}

void
http_request_detach(HttpRequest *request)
{
	request->conn = NULL;
	request->mhd = NULL;
	if (request->begun && !request->answered) {
		if (request->body_fn != NULL)
			body_done(request, HTTP_BODY_GONE, NULL, 0);
		else
			http_request_gone(request);
	}
	request_unref(request);
}

void
http_request_gone(HttpRequest *request)
{
	HttpGoneFn *fn = request->gone_fn;
	request->gone_fn = NULL;
	if (fn != NULL && !request->answered)
		fn(request->gone_arg, request);
}

/* ---- from the daemon ---- */

static enum MHD_Result
queue_response(HttpRequest *request)
{
	k_assert(!request->queued);
	request->queued = true;
	http_conn_phase(request->conn, HTTP_PHASE_REPLY);
	return MHD_queue_response(request->mhd, (unsigned)request->status, request->response);
}

static void
make_response(HttpRequest *request, int status, const char *content_type, char *body, size_t len)
{
	request->status = status;
	request->response_len = len;
	request->response = MHD_create_response_from_buffer_with_free_callback(
		len, body != NULL ? body : g_strdup(""), &g_free);
	k_assert(request->response != NULL);
	if (content_type != NULL)
		(void)MHD_add_response_header(request->response, "content-type", content_type);
}

/* An answer of our own, before any handler: closes the connection. */
static enum MHD_Result
refuse(HttpRequest *request, int status, const char *text)
{
	request->answered = true;
	make_response(request, status, "text/plain; charset=utf-8", g_strdup(text), strlen(text));
	(void)MHD_add_response_header(request->response, "connection", "close");
	request->conn->linger = true;
	return queue_response(request);
}

typedef struct Fields {
	HttpFraming *framing;
	HttpLayout layout;
	bool look; /* at the layout */
} Fields;

static enum MHD_Result
on_header(void *cls, enum MHD_ValueKind kind, const char *key, size_t key_size, const char *value,
	  size_t value_size)
{
	(void)kind;
	Fields *fields = cls;
	http_framing_add(fields->framing, key, key_size, value != NULL ? value : "", value_size);
	if (fields->look && value != NULL)
		http_layout_add(&fields->layout, key, value, value_size);
	return MHD_YES;
}

/* NULL, or what is wrong with the head. */
static const char *
judge_head(HttpRequest *request, const char *version)
{
	Fields fields = {.framing = &request->framing, .look = request->conn->site->server->layout};
	http_framing_init(&request->framing);
	http_layout_begin(&fields.layout, version);
	(void)MHD_get_connection_values_n(request->mhd, MHD_HEADER_KIND, on_header, &fields);
	const char *bad = http_framing_end(&request->framing, version);
	if (bad == NULL && fields.look && !http_layout_end(&fields.layout))
		bad = "bad line end in head";
	return bad;
}

/* origin-form or absolute-form (RFC 9112 3.2) into path and query. */
static bool
read_target(HttpRequest *request)
{
	const char *target = request->target;
	size_t all = strlen(target);
	if (!text_is_printable_ascii(target, all) || strchr(target, ' ') != NULL ||
	    strchr(target, '#') != NULL)
		return false;
	if (text_has_prefix_nocase(target, "http://") ||
	    text_has_prefix_nocase(target, "https://")) {
		target = strstr(target, "://") + 3;
		target += strcspn(target, "/?");
	}
	size_t len = strcspn(target, "?");
	if (target[len] == '?')
		request->query = target + len + 1;
	if (len == 0 || *target != '/')
		return false;
	return http_percent_decode(target, len, &request->path);
}

/* What is to come of the body can be read and dropped cheaply. */
static bool
body_is_short(const HttpRequest *request)
{
	if (http_header(request, "expect") != NULL)
		return false;
	return request->framing.encodings > 0 || request->framing.length <= SHORT_BODY;
}

enum MHD_Result
http_request_begin(HttpRequest *request, struct MHD_Connection *mhd, const char *method,
		   const char *version)
{
	request->mhd = mhd;
	request->method = g_strdup(method);
	http_conn_phase(request->conn, HTTP_PHASE_BODY);
	const char *bad = judge_head(request, version);
	const HttpServerOptions *limits = &request->conn->site->server->options;
	if (strlen(request->target) > limits->uri_max)
		return refuse(request, MHD_HTTP_URI_TOO_LONG, "request target too long");
	if (request->framing.bytes > limits->head_max)
		return refuse(request, MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE,
			      "header fields too large");
	if (bad != NULL)
		return refuse(request, MHD_HTTP_BAD_REQUEST, bad);
	if (!read_target(request))
		return refuse(request, MHD_HTTP_BAD_REQUEST, "bad request target");
	request->begun = true;
	request->refs++;
	const HttpServer *server = request->conn->site->server;
	server->handler(server->arg, request);
	if (request->answered && !body_is_short(request)) {
		request->conn->linger = true; /* the daemon closes after it */
		return queue_response(request);
	}
	return MHD_YES;
}

static void
collect(HttpRequest *request, const char *data, size_t len)
{
	if (limbuf_append(&request->buf, data, len))
		return;
	request->reader = HTTP_READER_NONE;
	request->received = 0; /* from here on counted as discarded */
	body_done(request, HTTP_BODY_TOO_BIG, NULL, 0);
}

static void
stream(HttpRequest *request, const char *data, size_t len)
{
	if (request->received > request->cap) {
		request->reader = HTTP_READER_NONE;
		request->received = 0;
		body_done(request, HTTP_BODY_TOO_BIG, NULL, 0);
		return;
	}
	request->body_fn(request->body_arg, request, HTTP_BODY_DATA, data, len);
}

static void
suspend(HttpRequest *request)
{
	k_assert(!request->suspended);
	request->suspended = true;
	MHD_suspend_connection(request->mhd);
}

enum MHD_Result
http_request_data(HttpRequest *request, const char *data, size_t *size)
{
	size_t len = *size;
	*size = 0;
	request->received += len;
	if (request->queued)
		return MHD_YES;
	if (request->answered || request->reader == HTTP_READER_NONE)
		return request->received <= DISCARD_MAX ? MHD_YES : MHD_NO;
	if (request->reader == HTTP_READER_COLLECT)
		collect(request, data, len);
	else
		stream(request, data, len);
	if (request->paused && !request->answered)
		suspend(request);
	return MHD_YES;
}

enum MHD_Result
http_request_end(HttpRequest *request)
{
	if (request->queued)
		return MHD_YES;
	if (!request->ended) {
		request->ended = true;
		http_conn_phase(request->conn, HTTP_PHASE_WAIT);
		bool collected = request->reader == HTTP_READER_COLLECT;
		body_done(request, HTTP_BODY_END, collected ? request->buf.data : NULL,
			  collected ? request->buf.len : 0);
	}
	if (request->answered)
		return queue_response(request);
	suspend(request);
	return MHD_YES;
}

static void
resume(HttpRequest *request)
{
	request->suspended = false;
	MHD_resume_connection(request->mhd);
	http_site_kick(request->conn->site);
}

void
http_request_abandon(HttpRequest *request)
{
	if (request->queued)
		return;
	/* From now on the handler's answer is dropped: the request it holds is cut off, and the
	 * connection ends with a stand-in that the daemon frees. */
	HttpConn *conn = request->conn;
	struct MHD_Connection *mhd = request->mhd;
	bool suspended = request->suspended, ended = request->ended;
	if (!suspended)
		return;
	if (ended) {
		static char busy[] = "shutting down";
		struct MHD_Response *response = MHD_create_response_from_buffer(
			strlen(busy), busy, MHD_RESPMEM_PERSISTENT);
		(void)MHD_add_response_header(response, "connection", "close");
		(void)MHD_queue_response(mhd, MHD_HTTP_SERVICE_UNAVAILABLE, response);
		MHD_destroy_response(response);
	}
	request->suspended = false;
	request->queued = true;
	MHD_resume_connection(mhd);
	http_conn_phase(conn, HTTP_PHASE_REPLY);
}

/* ---- for the handler ---- */

const char *
http_method(const HttpRequest *request)
{
	return request->method;
}

const char *
http_path(const HttpRequest *request)
{
	return request->path;
}

const char *
http_query(const HttpRequest *request)
{
	return request->query;
}

const char *
http_header(const HttpRequest *request, const char *name)
{
	if (request->mhd == NULL)
		return NULL;
	return MHD_lookup_connection_value(request->mhd, MHD_HEADER_KIND, name);
}

int64_t
http_content_length(const HttpRequest *request)
{
	return request->framing.length;
}

Worker *
http_worker(const HttpRequest *request)
{
	return request->worker;
}

void
http_read_body(HttpRequest *request, size_t cap, HttpBodyFn *fn, void *arg)
{
	k_assert(request->reader == HTTP_READER_NONE && !request->ended);
	request->reader = HTTP_READER_COLLECT;
	request->body_fn = fn;
	request->body_arg = arg;
	limbuf_clear(&request->buf);
	limbuf_init(&request->buf, cap);
}

void
http_stream_body(HttpRequest *request, uint64_t cap, HttpBodyFn *fn, void *arg)
{
	k_assert(request->reader == HTTP_READER_NONE && !request->ended);
	request->reader = HTTP_READER_STREAM;
	request->body_fn = fn;
	request->body_arg = arg;
	request->cap = cap;
}

void
http_pause(HttpRequest *request)
{
	if (request->paused || request->ended)
		return;
	request->paused = true;
	request->paused_at = clock_mono();
}

void
http_resume(HttpRequest *request)
{
	if (!request->paused)
		return;
	request->paused = false;
	request->paused_for += clock_mono() - request->paused_at;
	if (request->mhd != NULL && request->suspended)
		resume(request);
}

void
http_on_end(HttpRequest *request, HttpEndFn *fn, void *arg)
{
	k_assert(request->end_fn == NULL && !request->answered);
	request->end_fn = fn;
	request->end_arg = arg;
}

void
http_on_gone(HttpRequest *request, HttpGoneFn *fn, void *arg)
{
	request->gone_fn = fn;
	request->gone_arg = arg;
}

void
http_respond(HttpRequest *request, int status, const HttpHeader *headers, size_t n_headers,
	     const char *content_type, char *body, size_t len)
{
	k_assert_for(!request->answered, request->target);
	k_assert_on(request->worker);
	request->answered = true;
	request->gone_fn = NULL;
	request->body_fn = NULL;
	if (request->end_fn != NULL)
		request->end_fn(request->end_arg, status);
	if (request->mhd != NULL && !request->queued) {
		make_response(request, status, content_type, body, len);
		for (size_t i = 0; i < n_headers; i++)
			(void)MHD_add_response_header(request->response, headers[i].name,
						      headers[i].value);
		if (request->suspended) {
			if (request->ended)
				(void)queue_response(request);
			request->paused = false;
			resume(request);
		}
	} else {
		g_free(body);
	}
	request_unref(request);
}

void
http_respond_text(HttpRequest *request, int status, const char *text)
{
	bool empty = text == NULL || *text == '\0';
	http_respond(request, status, NULL, 0, empty ? NULL : "text/plain; charset=utf-8",
		     empty ? NULL : g_strdup(text), empty ? 0 : strlen(text));
}

void
http_respond_json(HttpRequest *request, int status, const HttpHeader *headers, size_t n_headers,
		  char *json)
{
	http_respond(request, status, headers, n_headers, "application/json", json, strlen(json));
}
