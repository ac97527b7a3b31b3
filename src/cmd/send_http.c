/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/send_http.h"

#include <pthread.h>

#include "base/json.h"
#include "base/text.h"

struct SendHttp {
	Workers *workers;
	HttpClient *client; /* on worker 0 */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool done; /* under `lock` */
	const HttpCallSpec *spec;
	SendReply *reply;
};

void
send_reply_clear(SendReply *reply)
{
	g_free(reply->text);
	g_free(reply->etag);
	g_free(reply->location);
	json_decref(reply->json);
	*reply = (SendReply){0};
}

SendHttp *
send_http_new(GError **ret_error)
{
	SendHttp *http = g_new0(SendHttp, 1);
	pthread_mutex_init(&http->lock, NULL);
	pthread_cond_init(&http->changed, NULL);
	http_client_global_init();
	http->workers = workers_new(1, ret_error);
	if (http->workers == NULL) {
		send_http_free(http);
		return NULL;
	}
	http->client = http_client_new(workers_get(http->workers, 0), 0);
	if (!workers_start(http->workers, ret_error)) {
		send_http_free(http);
		return NULL;
	}
	return http;
}

void
send_http_free(SendHttp *http)
{
	if (http == NULL)
		return;
	if (http->workers != NULL)
		workers_stop(http->workers);
	http_client_free(http->client);
	workers_free(http->workers);
	pthread_cond_destroy(&http->changed);
	pthread_mutex_destroy(&http->lock);
	g_free(http);
}

static void
on_answer(void *arg, const HttpResult *result)
{
	SendHttp *http = arg;
	SendReply *reply = http->reply;
	reply->status = result->status;
	reply->text = g_strdup(result->status != 0 ? result->body : result->error);
	reply->etag = g_strdup(http_result_header(result, "etag"));
	reply->location = g_strdup(http_result_header(result, "location"));
	const char *type = http_result_header(result, "content-type");
	if (type != NULL && text_has_prefix_nocase(type, "application/json"))
		reply->json = json_parse("answer", result->body, result->body_len, NULL);
	pthread_mutex_lock(&http->lock);
	http->done = true;
	pthread_cond_signal(&http->changed);
	pthread_mutex_unlock(&http->lock);
}

static void
start(void *arg)
{
	SendHttp *http = arg;
	(void)http_call_start(http->client, http->spec, on_answer, http);
}

void
send_http_ask(SendHttp *http, const HttpCallSpec *spec, SendReply *ret_reply)
{
	send_reply_clear(ret_reply);
	http->spec = spec;
	http->reply = ret_reply;
	http->done = false;
	worker_post(workers_get(http->workers, 0), start, http);
	pthread_mutex_lock(&http->lock);
	while (!http->done)
		pthread_cond_wait(&http->changed, &http->lock);
	pthread_mutex_unlock(&http->lock);
}
