/* SPDX-License-Identifier: Apache-2.0 */
#include "http/client.h"

#include <curl/curl.h>
#include <event2/event.h>
#include <string.h>

#include "base/limbuf.h"
#include "base/text.h"

#define IDLE_HANDLES_MAX 64
#define HEADERS_MAX      (16 * 1024) /* bytes of an answer's head that are kept */
#define RESPONSE_MAX     (1024 * 1024)
/* Shorter than a server keeps idle connections, so that none dies under a request. */
#define IDLE_SECONDS 30L

struct HttpClient {
	Worker *worker;
	CURLM *multi;
	struct event *timer;
	GPtrArray *idle; /* CURL *, ready for reuse */
	HttpCall *calls; /* all that are open */
	Defer completions;
	HttpCall *failed; /* could not be started; answered when the turn ends */
	bool closing;
};

struct HttpCall {
	HttpClient *client;
	HttpCall *next, *prev;
	HttpCall *next_failed;
	CURL *easy;
	HttpCallFn *done;
	void *arg;

	char *method, *url, *verify;
	char *client_cert, *client_key;
	bool has_key; /* the headers hold a secret */
	struct curl_slist *headers;
	char *body;
	size_t body_len;
	HttpSource source; /* read NULL: from `body` */
	uint64_t offset;
	Deadline deadline;
	Usec connect_timeout;
	size_t response_max;
	int redirects;

	LimBuf head; /* "name: value" lines of the newest answer, CRLF cut, '\n' between */
	LimBuf reply;
	const char *error; /* ours; NULL: curl's */
	char detail[CURL_ERROR_SIZE];
};

/* One descriptor that curl wants to have watched. */
typedef struct Watched {
	HttpClient *client;
	struct event *event;
} Watched;

void
http_client_global_init(void)
{
	k_assert(curl_global_init(CURL_GLOBAL_DEFAULT) == 0);
}

/* ---- curl's callbacks ---- */

static size_t
on_head_line(char *data, size_t size, size_t n, void *arg)
{
	HttpCall *call = arg;
	size_t len = size * n, text = len;
	while (text > 0 && (data[text - 1] == '\n' || data[text - 1] == '\r'))
		text--;
	if (len >= 5 && memcmp(data, "HTTP/", 5) == 0)
		limbuf_reset(&call->head); /* 100, or another answer on the way */
	else if (text > 0 &&
		 (!limbuf_append(&call->head, data, text) || !limbuf_append(&call->head, "\n", 1)))
		return 0;
	return len;
}

static size_t
on_reply(char *data, size_t size, size_t n, void *arg)
{
	HttpCall *call = arg;
	if (!limbuf_append(&call->reply, data, size * n)) {
		call->error = "response too large";
		return 0;
	}
	return size * n;
}

static size_t
on_read(char *buf, size_t size, size_t n, void *arg)
{
	HttpCall *call = arg;
	uint64_t left = call->source.len - call->offset;
	size_t room = (size_t)MIN((uint64_t)(size * n), left);
	if (room == 0)
		return 0;
	ssize_t got = call->source.read(call->source.arg, call->offset, buf, room);
	if (got <= 0) {
		call->error = "cannot read the request body";
		return CURL_READFUNC_ABORT;
	}
	call->offset += (uint64_t)got;
	return (size_t)got;
}

static int
on_seek(void *arg, curl_off_t offset, int origin)
{
	HttpCall *call = arg;
	if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > call->source.len)
		return CURL_SEEKFUNC_FAIL;
	call->offset = (uint64_t)offset;
	return CURL_SEEKFUNC_OK;
}

/* ---- calls ---- */

static void
call_unlink(HttpCall *call)
{
	if (call->next != NULL)
		call->next->prev = call->prev;
	if (call->prev != NULL)
		call->prev->next = call->next;
	else
		call->client->calls = call->next;
}

static void
call_free(HttpCall *call)
{
	if (call->source.free != NULL)
		call->source.free(call->source.arg);
	curl_slist_free_all(call->headers);
	limbuf_clear(&call->head);
	limbuf_clear(&call->reply);
	g_free(call->method);
	g_free(call->url);
	g_free(call->verify);
	g_free(call->client_cert);
	g_free(call->client_key);
	g_free(call->body);
	g_free(call);
}

/* Takes the easy handle off the call; it keeps its settings for the next one. */
static void
call_release(HttpCall *call)
{
	HttpClient *client = call->client;
	if (call->easy == NULL)
		return;
	(void)curl_multi_remove_handle(client->multi, call->easy);
	/* Files cannot be taken back from a handle, so those with some are not used again. */
	bool plain = (call->verify == NULL || *call->verify == '\0') && call->client_cert == NULL;
	if (plain && client->idle->len < IDLE_HANDLES_MAX && !client->closing)
		g_ptr_array_add(client->idle, call->easy);
	else
		curl_easy_cleanup(call->easy);
	call->easy = NULL;
}

/* Ends the call: unlinked, answered, freed. */
static void
call_finish(HttpCall *call, int status, const char *error)
{
	call_release(call);
	call_unlink(call);
	HttpResult result = {
		.status = status,
		.error = error,
		.body = call->reply.data,
		.body_len = call->reply.len,
		.call = call,
	};
	if (call->done != NULL)
		call->done(call->arg, &result);
	call_free(call);
}

static CURL *
easy_new(void)
{
	CURL *easy = curl_easy_init();
	k_assert(easy != NULL);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
	curl_easy_setopt(easy, CURLOPT_PROXY, ""); /* the environment has no say */
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, IDLE_SECONDS);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_head_line);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_reply);
	curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
	curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
	return easy;
}

static void
set_verify(CURL *easy, const char *verify)
{
	bool check = verify == NULL || *verify != '\0';
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, check ? 1L : 0L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, check ? 2L : 0L);
	if (check && verify != NULL)
		curl_easy_setopt(easy, CURLOPT_CAINFO, verify);
}

static void
set_certificate(const HttpCall *call, CURL *easy)
{
	if (call->client_cert == NULL)
		return;
	curl_easy_setopt(easy, CURLOPT_SSLCERT, call->client_cert);
	if (call->client_key != NULL)
		curl_easy_setopt(easy, CURLOPT_SSLKEY, call->client_key);
}

static bool
is_https(const char *url)
{
	return text_has_prefix_nocase(url, "https:");
}

/* POST mode of curl sends what it is given under whatever method is asked for. */
static void
set_body(HttpCall *call, CURL *easy)
{
	bool streamed = call->source.read != NULL;
	if (!streamed && call->body == NULL && strcmp(call->method, "GET") == 0) {
		curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
		return;
	}
	curl_easy_setopt(easy, CURLOPT_POST, 1L);
	const char *fields = call->body != NULL ? call->body : "";
	curl_easy_setopt(easy, CURLOPT_POSTFIELDS, streamed ? NULL : fields);
	curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
			 (curl_off_t)(streamed ? call->source.len : call->body_len));
	call->offset = 0;
}

/* Hands the call, as it stands, to curl; NULL or what is wrong. */
static const char *
call_submit(HttpCall *call)
{
	HttpClient *client = call->client;
	if (client->idle->len > 0)
		call->easy = g_ptr_array_steal_index_fast(client->idle, client->idle->len - 1);
	else
		call->easy = easy_new();
	CURL *easy = call->easy;
	Usec left = MAX(clock_left(call->deadline), USEC_PER_MS);
	if (curl_easy_setopt(easy, CURLOPT_URL, call->url) != CURLE_OK)
		return "bad url";
	curl_easy_setopt(easy, CURLOPT_PRIVATE, call);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, call->headers);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, call);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, call);
	curl_easy_setopt(easy, CURLOPT_READDATA, call);
	curl_easy_setopt(easy, CURLOPT_SEEKDATA, call);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->detail);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)(left / USEC_PER_MS));
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
			 (long)(call->connect_timeout / USEC_PER_MS));
	if (is_https(call->url)) {
		set_verify(easy, call->verify);
		set_certificate(call, easy);
	}
	set_body(call, easy);
	curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, call->method);
	CURLMcode code = curl_multi_add_handle(client->multi, easy);
	return code == CURLM_OK ? NULL : curl_multi_strerror(code);
}

/* 307 and 308: the same request elsewhere.  True when it is on its way. */
static bool
call_redirect(HttpCall *call)
{
	char *target = NULL;
	if (call->redirects >= HTTP_REDIRECTS_MAX ||
	    curl_easy_getinfo(call->easy, CURLINFO_REDIRECT_URL, &target) != CURLE_OK ||
	    target == NULL || (call->has_key && is_https(call->url) && !is_https(target)))
		return false;
	call->redirects++;
	g_free(call->url);
	call->url = g_strdup(target);
	call_release(call);
	limbuf_reset(&call->head);
	limbuf_reset(&call->reply);
	return call_submit(call) == NULL;
}

static const char *
failure_text(const HttpCall *call, CURLcode code)
{
	if (call->error != NULL)
		return call->error;
	if (code == CURLE_OPERATION_TIMEDOUT)
		return "timeout";
	return call->detail[0] != '\0' ? call->detail : curl_easy_strerror(code);
}

static void
call_complete(HttpCall *call, CURLcode code)
{
	if (code != CURLE_OK) {
		call_finish(call, 0, failure_text(call, code));
		return;
	}
	long status = 0;
	(void)curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
	if ((status == 307 || status == 308) && call_redirect(call))
		return;
	call_finish(call, (int)status, "");
}

static void
client_collect(HttpClient *client)
{
	int left = 0;
	CURLMsg *message;
	while ((message = curl_multi_info_read(client->multi, &left)) != NULL) {
		if (message->msg != CURLMSG_DONE)
			continue;
		HttpCall *call = NULL;
		CURLcode code = message->data.result;
		(void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&call);
		call_complete(call, code);
	}
}

/* ---- the event loop ---- */

static void
on_socket(evutil_socket_t fd, short what, void *arg)
{
	const Watched *watched = arg;
	HttpClient *client = watched->client; /* `watched` may go inside the next call */
	int flags = ((what & EV_READ) != 0 ? CURL_CSELECT_IN : 0) |
		    ((what & EV_WRITE) != 0 ? CURL_CSELECT_OUT : 0);
	int running = 0;
	(void)curl_multi_socket_action(client->multi, fd, flags, &running);
	client_collect(client);
}

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	HttpClient *client = arg;
	int running = 0;
	(void)curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	client_collect(client);
}

static int
on_want_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	(void)easy;
	HttpClient *client = arg;
	Watched *watched = socket_arg;
	if (what == CURL_POLL_REMOVE) {
		if (watched != NULL)
			event_free(watched->event);
		g_free(watched);
		(void)curl_multi_assign(client->multi, fd, NULL);
		return 0;
	}
	short events = EV_PERSIST;
	events |= (what & CURL_POLL_IN) != 0 ? EV_READ : 0;
	events |= (what & CURL_POLL_OUT) != 0 ? EV_WRITE : 0;
	struct event_base *base = worker_base(client->worker);
	if (watched == NULL) {
		watched = g_new0(Watched, 1);
		watched->client = client;
		watched->event = event_new(base, fd, events, on_socket, watched);
		k_assert(watched->event != NULL);
		(void)curl_multi_assign(client->multi, fd, watched);
	} else {
		event_del(watched->event);
		(void)event_assign(watched->event, base, fd, events, on_socket, watched);
	}
	event_add(watched->event, NULL);
	return 0;
}

static int
on_want_timer(CURLM *multi, long ms, void *arg)
{
	(void)multi;
	HttpClient *client = arg;
	if (ms < 0) {
		event_del(client->timer);
		return 0;
	}
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
	event_add(client->timer, &tv);
	return 0;
}

/* ---- the client ---- */

static void
answer_failed(void *arg)
{
	HttpClient *client = arg;
	HttpCall *call;
	while ((call = client->failed) != NULL) {
		client->failed = call->next_failed;
		call_finish(call, 0, call->error);
	}
}

HttpClient *
http_client_new(Worker *worker, unsigned connections_max)
{
	HttpClient *client = g_new0(HttpClient, 1);
	client->worker = worker;
	client->idle = g_ptr_array_new();
	defer_init(&client->completions, answer_failed, client);
	client->timer = event_new(worker_base(worker), -1, 0, on_timer, client);
	client->multi = curl_multi_init();
	k_assert(client->timer != NULL && client->multi != NULL);
	curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, on_want_socket);
	curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client);
	curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, on_want_timer);
	curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client);
	curl_multi_setopt(client->multi, CURLMOPT_MAXCONNECTS,
			  (long)(connections_max != 0 ? connections_max : 256));
	return client;
}

void
http_client_free(HttpClient *client)
{
	if (client == NULL)
		return;
	client->closing = true;
	while (client->calls != NULL)
		call_finish(client->calls, 0, "client stopped");
	client->failed = NULL;
	defer_cancel(&client->completions);
	for (guint i = 0; i < client->idle->len; i++)
		curl_easy_cleanup(g_ptr_array_index(client->idle, i));
	g_ptr_array_free(client->idle, TRUE);
	(void)curl_multi_cleanup(client->multi);
	event_free(client->timer);
	g_free(client);
}

static struct curl_slist *
make_headers(const HttpCallSpec *spec)
{
	struct curl_slist *list = curl_slist_append(NULL, "Expect:");
	bool typed = false;
	for (size_t i = 0; i < spec->n_headers; i++) {
		g_autofree char *line = g_strdup_printf("%s: %s", spec->headers[i].name,
							spec->headers[i].value);
		typed |= text_equal_nocase(spec->headers[i].name, "content-type");
		list = curl_slist_append(list, line);
	}
	if (!typed)
		list = curl_slist_append(list, "Content-Type:");
	if (spec->api_key != NULL) {
		g_autofree char *line = g_strdup_printf("authorization: Bearer %s", spec->api_key);
		list = curl_slist_append(list, line);
	}
	k_assert(list != NULL);
	return list;
}

HttpCall *
http_call_start(HttpClient *client, const HttpCallSpec *spec, HttpCallFn *done, void *arg)
{
	k_assert_on(client->worker);
	HttpCall *call = g_new0(HttpCall, 1);
	call->client = client;
	call->done = done;
	call->arg = arg;
	call->method = g_strdup(spec->method);
	call->url = g_strdup(spec->url);
	call->verify = g_strdup(spec->verify);
	call->client_cert = g_strdup(spec->client_cert);
	call->client_key = g_strdup(spec->client_key);
	call->has_key = spec->api_key != NULL;
	call->headers = make_headers(spec);
	call->body = spec->body;
	call->body_len = spec->body_len;
	if (spec->source != NULL)
		call->source = *spec->source;
	call->deadline = clock_after(spec->timeout != 0 ? spec->timeout : 60 * USEC_PER_SEC);
	call->connect_timeout = spec->connect_timeout != 0 ? spec->connect_timeout
							   : 10 * USEC_PER_SEC;
	limbuf_init(&call->head, HEADERS_MAX);
	limbuf_init(&call->reply, spec->response_max != 0 ? spec->response_max : RESPONSE_MAX);
	call->next = client->calls;
	if (call->next != NULL)
		call->next->prev = call;
	client->calls = call;
	call->error = client->closing ? "client stopped" : call_submit(call);
	if (call->error != NULL && !client->closing) {
		call->next_failed = client->failed;
		client->failed = call;
		defer_queue(worker_defers(client->worker), &client->completions);
	}
	return call;
}

void
http_call_cancel(HttpCall *call)
{
	if (call == NULL)
		return;
	HttpCall **failed = &call->client->failed;
	while (*failed != NULL && *failed != call)
		failed = &(*failed)->next_failed;
	if (*failed == call)
		*failed = call->next_failed;
	call_release(call);
	call_unlink(call);
	call_free(call);
}

const char *
http_result_header(const HttpResult *result, const char *name)
{
	/* The values are cut out of the kept head in place: each line is looked at once by name,
	 * so a terminator in the place of its line end does no harm. */
	LimBuf *head = (LimBuf *)&result->call->head;
	size_t name_len = strlen(name);
	char *found = NULL;
	for (char *line = head->data, *end = head->data + head->len; line < end;) {
		char *stop = line;
		while (stop < end && *stop != '\n' && *stop != '\0')
			stop++;
		if ((size_t)(stop - line) > name_len && line[name_len] == ':' &&
		    g_ascii_strncasecmp(line, name, name_len) == 0) {
			*stop = '\0';
			found = line + name_len + 1;
		}
		line = stop + 1;
	}
	while (found != NULL && (*found == ' ' || *found == '\t'))
		found++;
	return found;
}
