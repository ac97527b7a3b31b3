/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/send_http.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"

struct SendHttp {
	Workers *workers;
	HttpClient *client; /* on worker 0 */
	int done_fd;        /* readable when the answer is there */
	HttpCallSpec spec;
	char *api_key;
	const char *client_cert, *client_key;
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
	http->done_fd = eventfd(0, EFD_CLOEXEC);
	k_assert(http->done_fd >= 0);
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
	close(http->done_fd);
	g_free(http->api_key);
	g_free(http);
}

bool
send_http_identify(SendHttp *http, const char *api_key_file, const char *client_cert,
		   const char *client_key, GError **ret_error)
{
	http->client_cert = client_cert;
	http->client_key = client_key;
	if (api_key_file == NULL)
		return true;
	g_autofree char *text = NULL;
	if (!g_file_get_contents(api_key_file, &text, NULL, ret_error))
		return false;
	http->api_key = g_strndup(text, strcspn(text, "\r\n"));
	return http->api_key[0] != '\0' ||
	       error_set(ret_error, K_ERROR_INPUT, "%s: no API key in its first line",
			 api_key_file);
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
	uint64_t one = 1;
	ssize_t rc;
	do
		rc = write(http->done_fd, &one, sizeof(one));
	while (rc < 0 && errno == EINTR);
	k_assert(rc == (ssize_t)sizeof(one));
}

static void
start(void *arg)
{
	SendHttp *http = arg;
	(void)http_call_start(http->client, &http->spec, on_answer, http);
}

void
send_http_ask(SendHttp *http, const HttpCallSpec *spec, SendReply *ret_reply)
{
	send_reply_clear(ret_reply);
	http->spec = *spec;
	http->spec.api_key = http->api_key;
	http->spec.client_cert = http->client_cert;
	http->spec.client_key = http->client_key;
	http->reply = ret_reply;
	worker_post(workers_get(http->workers, 0), start, http);
	uint64_t count = 0;
	ssize_t rc;
	do
		rc = read(http->done_fd, &count, sizeof(count));
	while (rc < 0 && errno == EINTR);
	k_assert(rc == (ssize_t)sizeof(count));
}
