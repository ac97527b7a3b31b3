/* SPDX-License-Identifier: Apache-2.0 */
/*
 *            mail, rcpt                     body
 * (nothing) ----POST----> created --PATCH-> ... --PUT...--> uploaded
 *                           GET until nothing is in flight   GET until data is answered
 *
 * One request at a time: what is asked meanwhile goes into the next PATCH.  remote_step looks at
 * the transaction and does whatever is next; it is called whenever something changed. */
#include "rest/remote.h"

#include <string.h>

#include "base/json.h"
#include "base/text.h"
#include "http/route.h"
#include "rest/handover.h"
#include "rest/remote_int.h"
#include "tx/codec.h"

#define RCPT_TIMEOUT   (30 * USEC_PER_SEC)
#define DATA_TIMEOUT   (60 * USEC_PER_SEC)
#define PACE_MIN       (20 * USEC_PER_MS)
#define PACE_MAX       USEC_PER_SEC
#define QUICK          USEC_PER_SEC /* a poll that brings nothing and took less did not wait */
#define POLLS_FREE     100          /* polls of one update that are not slowed down */
#define CONFLICTS_MAX  10
#define CANCEL_TIMEOUT (10 * USEC_PER_SEC)

/* ---- failure ---- */

static void cancel_upstream(Remote *remote);

void
remote_fail(Remote *remote, Response *response)
{
	if (remote->failure != NULL) {
		response_unref(response);
		return;
	}
	remote->failure = response;
	timer_cancel(&remote->timer);
	if (!remote->creating)
		http_call_cancel(g_steal_pointer(&remote->call));
	cancel_upstream(remote);
	tx_fill_in_flight(remote->tx, response);
}

void
remote_fail_reason(Remote *remote, const char *reason)
{
	static const char *const PREFIX[] = {
		[REMOTE_START] = "RestEndpoint._start_upstream_tx",
		[REMOTE_UPDATE] = "RestEndpoint._maybe_update",
		[REMOTE_DATA] = "RestEndpoint",
	};
	remote_fail(remote, response_newf(450, "%s %s", PREFIX[remote->phase], reason));
}

/* The reason for the phase. */
static void
fail_by_phase(Remote *remote, const char *start, const char *update, const char *data)
{
	remote_fail_reason(remote, remote->phase == REMOTE_START    ? start
				   : remote->phase == REMOTE_UPDATE ? update
								    : data);
}

/* ---- requests ---- */

/* request-timeout: whole seconds of what is left, less one; "" when that is too short to say. */
static const char *
format_timeout(Usec left, char out[24])
{
	out[0] = '\0';
	if (left >= 2 * USEC_PER_SEC)
		g_snprintf(out, 24, "%" G_GINT64_FORMAT,
			   MIN(left, INT64_C(86400) * USEC_PER_SEC) / USEC_PER_SEC - 1);
	return out;
}

void
remote_identify(const Remote *remote, HttpCallSpec *spec)
{
	spec->verify = remote->verify;
	spec->api_key = remote->api_key;
	spec->client_cert = remote->client_cert;
	spec->client_key = remote->client_key;
}

void
remote_send(Remote *remote, const char *method, const char *url, const char *etag_header,
	    char *json, Usec timeout, HttpCallFn *done)
{
	k_assert(remote->call == NULL);
	HttpHeader headers[REMOTE_HEADERS_MAX];
	char seconds[24];
	size_t n = 0;
	if (json != NULL)
		headers[n++] = (HttpHeader){"content-type", "application/json"};
	if (etag_header != NULL && remote->etag != NULL)
		headers[n++] = (HttpHeader){etag_header, remote->etag};
	if (format_timeout(timeout, seconds)[0] != '\0')
		headers[n++] = (HttpHeader){"request-timeout", seconds};
	const HostPort *host = remote->creating && remote->tx != NULL ? remote->tx->remote_host
								      : NULL;
	if (host != NULL && host->name != NULL)
		headers[n++] = (HttpHeader){REST_HOST_NAME_HEADER, host->name};
	HttpCallSpec spec = {.method = method,
			     .url = url,
			     .headers = headers,
			     .n_headers = n,
			     .body = json,
			     .body_len = json != NULL ? strlen(json) : 0,
			     .timeout = MAX(timeout, USEC_PER_MS)};
	remote_identify(remote, &spec);
	remote->asked = clock_mono();
	remote->call = http_call_start(remote->client, &spec, done, remote);
}

void
remote_set_etag(Remote *remote, const char *etag)
{
	g_free(remote->etag);
	remote->etag = g_strdup(etag);
}

static Usec
left(const Remote *remote)
{
	return clock_left(remote->deadline);
}

static void
begin_update(Remote *remote)
{
	remote->deadline = clock_after(remote->options.rcpt_timeout);
	remote->polls = 0;
	remote->pace = 0;
}

bool
remote_take(Remote *remote, const HttpResult *result, const char *bad_json, const char *bad_delta)
{
	const char *type = http_result_header(result, "content-type");
	g_autoptr(json_t) json = NULL;
	/* Parameters behind the type are not ours to send, but do no harm. */
	if (type != NULL && text_has_prefix_nocase(type, "application/json"))
		json = json_parse("answer", result->body, result->body_len, NULL);
	if (json == NULL) {
		remote_fail_reason(remote, bad_json);
		return false;
	}
	const char *handover = http_result_header(result, REST_HANDOVER_HEADER);
	tx_set_handover(remote->tx, rest_handover_from_name(handover));
	if (http_result_header(result, REST_REFUSED_HEADER) != NULL)
		tx_set_host_refused(remote->tx);
	if (!tx_merge_read(remote->tx, json, NULL)) {
		remote_fail_reason(remote, bad_delta);
		return false;
	}
	json_t *body = json_object_get(json, "body");
	if (body != NULL) {
		json_decref(remote->body);
		remote->body = json_incref(body);
	}
	tx_check_preconditions(remote->tx);
	if (tx_in_flight(remote->tx) && json_object_get(json, "final_attempt_reason") != NULL) {
		remote_fail_reason(remote, "upstream gave up");
		return false;
	}
	return true;
}

/* ---- cancellation ---- */

static void
cancel_upstream(Remote *remote)
{
	if (remote->cancelled || remote->tx_url == NULL)
		return;
	bool done = remote->tx != NULL && remote->tx->data_response != NULL && remote->uploaded;
	if (done && remote->failure == NULL)
		return; /* the other side has answered for the message */
	remote->cancelled = true;
	g_autofree char *url = g_strconcat(remote->tx_url, "/cancel", NULL);
	HttpCallSpec spec = {.method = "POST", .url = url, .timeout = CANCEL_TIMEOUT};
	remote_identify(remote, &spec);
	(void)http_call_start(remote->client, &spec, NULL, NULL);
}

static void
remote_free(Remote *remote)
{
	if (remote->uploads != NULL)
		g_ptr_array_unref(remote->uploads);
	timer_clear(&remote->timer);
	response_unref(remote->failure);
	json_decref(remote->body);
	g_free(remote->verify);
	g_free(remote->api_key);
	g_free(remote->client_cert);
	g_free(remote->client_key);
	g_free(remote->create_url);
	g_free(remote->tx_url);
	g_free(remote->etag);
	g_free(remote);
}

static void
remote_stop(TxPort *port)
{
	Remote *remote = (Remote *)port;
	k_assert_on(remote->worker);
	cancel_upstream(remote);
	tx_unwatch(&remote->watch);
	g_clear_pointer(&remote->tx, tx_unref);
	if (remote->creating) {
		timer_cancel(&remote->timer);
		return; /* its answer says what to cancel; on_created frees */
	}
	http_call_cancel(remote->call);
	remote_free(remote);
}

/* ---- POST ---- */

static void
on_created(void *arg, const HttpResult *result)
{
	Remote *remote = arg;
	remote->call = NULL;
	remote->creating = false;
	const char *location = http_result_header(result, "location");
	if (result->status == 201 && location != NULL)
		remote->tx_url = strstr(location, "://") != NULL
					 ? g_strdup(location)
					 : http_join(remote->create_url, location);
	if (remote->tx == NULL || remote->failure != NULL) {
		cancel_upstream(remote);
		if (remote->tx == NULL)
			remote_free(remote);
		return;
	}
	const char *etag = http_result_header(result, "etag");
	if (result->status == 0) {
		remote_fail_reason(remote, "http exception");
	} else if (result->status != 201 || location == NULL) {
		g_autofree char *text = g_strdup_printf("http error %d", result->status);
		remote_fail_reason(remote, text);
	} else if (etag == NULL) {
		remote_fail_reason(remote, "bad response no etag");
	} else {
		remote_set_etag(remote, etag);
		remote->sent = remote->sending;
		if (remote_take(remote, result, "bad resp json", "bad upstream delta"))
			remote_step(remote);
	}
}

static void
create(Remote *remote)
{
	Tx *tx = remote->tx;
	g_autoptr(json_t) json = tx_to_json(tx, TX_JSON_CREATE, NULL, NULL);
	if (!remote->options.send_filter_output)
		(void)json_object_del(json, "filter_output");
	begin_update(remote);
	tx_mark(tx, &remote->sending);
	remote->creating = true;
	remote_send(remote, "POST", remote->create_url, NULL, json_print(json), left(remote),
		    on_created);
}

/* ---- PATCH ---- */

static void on_patched(void *arg, const HttpResult *result);

static bool
has_news(const Remote *remote)
{
	unsigned mask = TX_NEW_MAIL_FROM | TX_NEW_RCPT | TX_NEW_HEARTBEAT;
	if (remote->options.send_filter_output)
		mask |= TX_NEW_FILTER_OUTPUT;
	return (tx_since(remote->tx, &remote->sent) & mask) != 0;
}

static void
send_patch(Remote *remote)
{
	g_autoptr(json_t) json = tx_to_json(remote->tx, TX_JSON_UPDATE, &remote->sent, NULL);
	if (!remote->options.send_filter_output)
		(void)json_object_del(json, "filter_output");
	tx_mark(remote->tx, &remote->sending);
	bool empty = json_object_size(json) == 0; /* a heartbeat */
	remote_send(remote, "PATCH", remote->tx_url, "if-match", empty ? NULL : json_print(json),
		    left(remote), on_patched);
}

static void
patch(Remote *remote)
{
	if (remote->phase == REMOTE_START)
		remote->phase = REMOTE_UPDATE;
	if (!remote->uploaded) /* a sign of life does not prolong the wait for the last answer */
		begin_update(remote);
	send_patch(remote);
}

/* Somebody, mostly the other side itself, changed it: look, then try again. */
static void
on_reread(void *arg, const HttpResult *result)
{
	Remote *remote = arg;
	remote->call = NULL;
	const char *etag = http_result_header(result, "etag");
	if (result->status != 200 || etag == NULL) {
		remote_fail_reason(remote, "http err 412");
		return;
	}
	remote_set_etag(remote, etag);
	if (remote_take(remote, result, "bad resp json", "bad resp GET after POST/PUT"))
		send_patch(remote);
}

static void
on_patched(void *arg, const HttpResult *result)
{
	Remote *remote = arg;
	remote->call = NULL;
	const char *etag = http_result_header(result, "etag");
	if (result->status == 0) {
		remote_fail_reason(remote, "timeout");
	} else if (result->status == 412 && remote->conflicts < CONFLICTS_MAX) {
		remote->conflicts++;
		remote_send(remote, "GET", remote->tx_url, NULL, NULL, left(remote), on_reread);
	} else if (result->status != 200) {
		g_autofree char *text = g_strdup_printf("http err %d", result->status);
		remote_fail_reason(remote, text);
	} else if (etag == NULL) {
		remote_fail_reason(remote, "bad resp no etag");
	} else {
		remote->conflicts = 0;
		remote->sent = remote->sending;
		remote_set_etag(remote, etag);
		if (remote_take(remote, result, "bad resp json", "bad resp json"))
			remote_step(remote);
	}
}

/* ---- GET ---- */

/* Nothing came: when the other side did not even wait, the next poll does. */
static void
slow_down(Remote *remote)
{
	if (clock_mono() - remote->asked >= QUICK && remote->polls < POLLS_FREE)
		return;
	remote->pace = CLAMP(remote->pace * 2, PACE_MIN, PACE_MAX);
	timer_set(&remote->timer, remote->pace);
}

static void
on_polled(void *arg, const HttpResult *result)
{
	Remote *remote = arg;
	remote->call = NULL;
	const char *etag = http_result_header(result, "etag");
	bool same = etag != NULL && strcmp(etag, remote->etag) == 0;
	bool unchanged = result->status == 304 && same;
	if ((result->status != 200 && !unchanged) || etag == NULL) {
		bool late = result->status == 0 && left(remote) < USEC_PER_SEC;
		if (late)
			fail_by_phase(remote, "GET mail_response timeout", "upstream timeout",
				      "upstream timeout");
		else
			fail_by_phase(remote, "GET err", "bad resp GET after POST/PUT",
				      "upstream invalid resp/delta get");
		return;
	}
	if (result->status == 200) {
		remote_set_etag(remote, etag);
		if (!remote_take(remote, result,
				 remote->phase == REMOTE_DATA ? "upstream invalid resp/delta get"
							      : "bad resp json",
				 remote->phase == REMOTE_DATA ? "upstream invalid resp/delta get"
							      : "bad upstream delta"))
			return;
	}
	remote->polls++;
	if (!tx_in_flight(remote->tx) || (!same && remote->polls < POLLS_FREE))
		remote->pace = 0;
	else
		slow_down(remote);
	remote_step(remote);
}

static void
poll_upstream(Remote *remote)
{
	if (timer_is_set(&remote->timer))
		return;
	if (left(remote) < USEC_PER_SEC)
		fail_by_phase(remote, "GET mail_response timeout", "upstream timeout",
			      "upstream timeout");
	else
		remote_send(remote, "GET", remote->tx_url, "if-none-match", NULL, left(remote),
			    on_polled);
}

/* ---- what is next ---- */

/* An answer to the envelope is owed. */
static bool
envelope_in_flight(const Tx *tx)
{
	if (tx->mail_from != NULL && tx->mail_response == NULL)
		return true;
	return !response_err(tx->mail_response) && tx->rcpt_answers < tx_rcpt_count(tx);
}

void
remote_step(Remote *remote)
{
	Tx *tx = remote->tx;
	if (remote->failure != NULL) {
		tx_fill_in_flight(tx, remote->failure);
		return;
	}
	if (tx->cancelled && tx->data_response == NULL) {
		remote_fail(remote, response_new(550, "cancelled"));
		return;
	}
	if (remote->call != NULL || tx->data_response != NULL)
		return;
	if (response_err(tx->mail_response)) {
		tx_check_preconditions(tx);
		return;
	}
	if (remote->tx_url == NULL) {
		if (tx->mail_from != NULL || tx_rcpt_count(tx) > 0 || tx->body != NULL)
			create(remote);
	} else if (has_news(remote)) {
		patch(remote);
	} else if (envelope_in_flight(tx)) {
		poll_upstream(remote);
	} else if (!remote_upload_step(remote) && remote->uploaded) {
		poll_upstream(remote);
	}
}

static void
on_change(void *arg, Tx *tx)
{
	(void)tx;
	remote_step(arg);
}

static void
on_timer(void *arg)
{
	remote_step(arg);
}

TxPort *
remote_port_start(HttpClient *client, Worker *worker, const char *url, Tx *tx,
		  const TxPortOptions *options)
{
	static const TxPortOps OPS = {.name = "remote", .stop = remote_stop};
	k_assert_on(worker);
	Remote *remote = g_new0(Remote, 1);
	remote->port.ops = &OPS;
	remote->client = client;
	remote->worker = worker;
	remote->create_url = g_strdup(url);
	if (options != NULL)
		remote->options = *options;
	remote->verify = g_strdup(remote->options.verify);
	remote->api_key = g_strdup(remote->options.api_key);
	remote->client_cert = g_strdup(remote->options.client_cert);
	remote->client_key = g_strdup(remote->options.client_key);
	remote->options.verify = remote->options.api_key = NULL; /* the caller's */
	remote->options.client_cert = remote->options.client_key = NULL;
	if (remote->options.rcpt_timeout == 0)
		remote->options.rcpt_timeout = RCPT_TIMEOUT;
	if (remote->options.data_timeout == 0)
		remote->options.data_timeout = DATA_TIMEOUT;
	timer_init(&remote->timer, worker, on_timer, remote);
	remote->tx = tx_ref(tx);
	tx_watch(tx, &remote->watch, on_change, remote);
	if (tx->cancelled)
		timer_set(&remote->timer, 0); /* nothing is answered in here */
	else
		remote_step(remote);
	return &remote->port;
}
