/* SPDX-License-Identifier: Apache-2.0 */
/* koukan send: submits a message by REST, for each recipient one transaction, and waits for the
 * outcome (behaviour spec 20). */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/ids.h"
#include "base/json.h"
#include "base/text.h"
#include "cmd/cmd.h"
#include "cmd/send_http.h"
#include "http/route.h"

#define DEFAULT_URL     "http://localhost:8000/senders/submission/transactions"
#define DEFAULT_TIMEOUT 30
#define POLL_SEC        25                 /* one long poll; servers wait 30 at most */
#define FINAL_WAIT      (2 * USEC_PER_SEC) /* from the next hop's answer to the final reason */
#define LF_LOOK         65536
#define LF_CONVERT_MAX  (256 * 1024 * 1024)

static const char help[] =
	"usage: koukan send --mail_from A {--rfc822_filename F | --message_builder_filename F}\n"
	"                   [OPTIONS] TO...\n"
	"\n"
	"Submits a message by REST and waits for the outcome; a line for each recipient.  Exit code 0\n"
	"when all were delivered, 1 otherwise.\n"
	"\n"
	"  --mail_from A                 envelope sender\n"
	"  --rfc822_filename F           the whole message; bare LF line ends become CRLF\n"
	"  --message_builder_filename F  a JSON description of which the server makes the message;\n"
	"                                \"filename\" beside a \"create_id\" names a file to upload,\n"
	"                                looked up beside F; Date and Message-ID are added if missing\n"
	"  --url URL, --base_url URL     default " DEFAULT_URL "\n"
	"  --tag T                       the sender's tag\n"
	"  --timeout SECONDS             how long to wait for each outcome, default 30\n"
	"  --ca FILE                     authorities for https; default: the system's\n"
	"  --insecure                    do not verify the server's certificate\n"
	"  --api-key-file FILE           its first line is the API key to show\n"
	"  --client-cert FILE, --client-key FILE\n"
	"                                PEM files of the certificate to show, over https\n"
	"  --json                        print a JSON object for each recipient\n";

/* A file to be uploaded; the first upload's URI serves the other recipients. */
typedef struct Upload {
	char *id; /* create_id; NULL: the whole message */
	char *path;
	char *uri; /* NULL: not uploaded yet */
} Upload;

typedef struct Send {
	const char *mail_from, *url, *tag, *verify;
	const char *rfc822, *builder_file;
	const char *api_key_file, *client_cert, *client_key;
	int64_t timeout;
	bool as_json;
	char **to;
	int n_to;

	SendHttp *http;
	json_t *builder;    /* NULL: whole message */
	GPtrArray *uploads; /* Upload * */
} Send;

/* What became of one recipient. */
typedef struct Outcome {
	char *url; /* of its transaction, or NULL */
	char *etag;
	json_t *tx;  /* newest state, or NULL */
	char *error; /* ours */
} Outcome;

static void
outcome_clear(Outcome *outcome)
{
	g_free(outcome->url);
	g_free(outcome->etag);
	g_free(outcome->error);
	json_decref(outcome->tx);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Outcome, outcome_clear)

static void
upload_free(void *data)
{
	Upload *upload = data;
	g_free(upload->id);
	g_free(upload->path);
	g_free(upload->uri);
	g_free(upload);
}

static bool
fail(Outcome *outcome, const char *what, const SendReply *reply)
{
	g_autofree char *text = text_escape(reply->text, strlen(reply->text), 300);
	if (reply->status == 0)
		outcome->error = g_strdup_printf("%s: %s", what, text);
	else
		outcome->error = g_strdup_printf("%s: HTTP %d%s%s", what, reply->status,
						 *text != '\0' ? ": " : "", text);
	return false;
}

/* ---- the message ---- */

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

static bool
check_readable(const char *path, GError **ret_error)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return error_set_errno(ret_error, K_ERROR_INPUT, errno, "%s", path);
	bool ok = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
	close(fd);
	return ok || error_set(ret_error, K_ERROR_INPUT, "%s: no file", path);
}

static bool
add_upload(Send *send, const char *id, const char *path, GError **ret_error)
{
	if (!check_readable(path, ret_error))
		return false;
	Upload *upload = g_new0(Upload, 1);
	upload->id = g_strdup(id);
	upload->path = g_strdup(path);
	g_ptr_array_add(send->uploads, upload);
	return true;
}

/* "filename" beside "create_id" is for us, not for the server. */
static bool
collect_files(Send *send, GError **ret_error)
{
	for (size_t i = 0; i < G_N_ELEMENTS(LISTS); i++) {
		json_t *list = json_object_get(send->builder, LISTS[i]);
		for (size_t k = 0; k < json_array_size(list); k++) {
			json_t *content = json_object_get(json_array_get(list, k), "content");
			const char *id = json_get_str(content, "create_id");
			const char *name = json_get_str(content, "filename");
			if (id == NULL)
				continue;
			if (name == NULL)
				return error_set(ret_error, K_ERROR_INPUT,
						 "%s: create_id \"%s\" without a filename",
						 send->builder_file, id);
			g_autofree char *path = beside(send->builder_file, name);
			if (!add_upload(send, id, path, ret_error))
				return false;
			(void)json_object_del(content, "filename");
		}
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

static bool
load_message(Send *send, GError **ret_error)
{
	if (send->rfc822 != NULL)
		return add_upload(send, NULL, send->rfc822, ret_error);
	send->builder = json_parse_file(send->builder_file, ret_error);
	if (send->builder == NULL)
		return false;
	if (!json_is_object(send->builder))
		return error_set(ret_error, K_ERROR_INPUT, "%s: no JSON object",
				 send->builder_file);
	add_headers(send);
	return collect_files(send, ret_error);
}

/* ---- uploading ---- */

static ssize_t
read_fd(void *arg, uint64_t offset, char *buf, size_t len)
{
	return pread((int)(intptr_t)arg, buf, len, (off_t)offset);
}

static void
close_fd(void *arg)
{
	close((int)(intptr_t)arg);
}

/* The message with CRLF line ends when the file has none of them; NULL: as it is. */
static char *
with_crlf(const char *path, size_t *ret_len)
{
	g_autofree char *text = NULL;
	gsize len = 0;
	struct stat st;
	if (stat(path, &st) != 0 || st.st_size > LF_CONVERT_MAX ||
	    !g_file_get_contents(path, &text, &len, NULL))
		return NULL;
	if (memchr(text, '\n', len) == NULL ||
	    g_strstr_len(text, (gssize)MIN(len, LF_LOOK), "\r\n"))
		return NULL;
	GString *out = g_string_sized_new(len + len / 32);
	for (gsize i = 0; i < len; i++) {
		if (text[i] == '\n' && (i == 0 || text[i - 1] != '\r'))
			g_string_append_c(out, '\r');
		g_string_append_c(out, text[i]);
	}
	*ret_len = out->len;
	return g_string_free(out, FALSE);
}

static bool
put_file(Send *send, Upload *upload, const char *uri, Outcome *outcome)
{
	g_auto(SendReply) reply = {0};
	HttpCallSpec spec = {
		.method = "PUT", .url = uri, .timeout = 600 * USEC_PER_SEC, .verify = send->verify};
	HttpSource source = {read_fd, close_fd, NULL, 0};
	if (upload->id == NULL)
		spec.body = with_crlf(upload->path, &spec.body_len);
	if (spec.body == NULL) {
		struct stat st;
		int fd = open(upload->path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || fstat(fd, &st) != 0) {
			outcome->error = g_strdup_printf("%s: cannot be read", upload->path);
			if (fd >= 0)
				close(fd);
			return false;
		}
		source.arg = (void *)(intptr_t)fd;
		source.len = (uint64_t)st.st_size;
		spec.source = &source;
	}
	send_http_ask(send->http, &spec, &reply);
	if (reply.status != 200)
		return fail(outcome, "upload", &reply);
	upload->uri = g_strdup(uri);
	return true;
}

static bool
upload_all(Send *send, Outcome *outcome)
{
	const json_t *body = json_object_get(outcome->tx, "body");
	const json_t *parts = json_object_get(json_object_get(body, "message_builder"),
					      "blob_status");
	for (guint i = 0; i < send->uploads->len; i++) {
		Upload *upload = g_ptr_array_index(send->uploads, i);
		if (upload->uri != NULL)
			continue; /* reused */
		const json_t *status = upload->id != NULL ? json_object_get(parts, upload->id)
							  : json_object_get(body, "blob_status");
		const char *uri = json_get_str(status, "uri");
		if (uri == NULL) {
			outcome->error = g_strdup_printf("the server offers no place for %s",
							 upload->path);
			return false;
		}
		g_autofree char *absolute = strstr(uri, "://") != NULL ? g_strdup(uri)
								       : http_join(send->url, uri);
		if (!put_file(send, upload, absolute, outcome))
			return false;
	}
	return true;
}

/* ---- the transaction ---- */

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
			for (guint u = 0; id != NULL && u < send->uploads->len; u++) {
				const Upload *upload = g_ptr_array_index(send->uploads, u);
				if (upload->uri != NULL && strcmp(upload->id, id) == 0)
					json_object_set_new(content, "reuse_uri",
							    json_string(upload->uri));
			}
		}
	}
	return spec;
}

static char *
make_request(const Send *send, const char *to)
{
	g_autoptr(json_t) json = json_object();
	json_object_set_new(json, "mail_from", json_pack("{s:s}", "m", send->mail_from));
	json_object_set_new(json, "rcpt_to", json_pack("[{s:s}]", "m", to));
	if (send->tag != NULL)
		json_object_set_new(json, "sender", json_pack("{s:s}", "tag", send->tag));
	if (send->builder != NULL) {
		json_object_set_new(json, "body",
				    json_pack("{s:o}", "message_builder", make_builder(send)));
	} else {
		const Upload *upload = g_ptr_array_index(send->uploads, 0);
		if (upload->uri != NULL)
			json_object_set_new(json, "body",
					    json_pack("{s:s}", "reuse_uri", upload->uri));
	}
	return json_print(json);
}

static bool
create(Send *send, const char *to, Outcome *outcome)
{
	g_auto(SendReply) reply = {0};
	const HttpHeader type = {"content-type", "application/json"};
	HttpCallSpec spec = {.method = "POST",
			     .url = send->url,
			     .headers = &type,
			     .n_headers = 1,
			     .body = make_request(send, to),
			     .timeout = 60 * USEC_PER_SEC,
			     .verify = send->verify};
	spec.body_len = strlen(spec.body);
	send_http_ask(send->http, &spec, &reply);
	if (reply.status != 201 || reply.location == NULL || reply.json == NULL)
		return fail(outcome, "submission", &reply);
	outcome->url = strstr(reply.location, "://") != NULL ? g_steal_pointer(&reply.location)
							     : http_join(send->url, reply.location);
	outcome->etag = g_steal_pointer(&reply.etag);
	outcome->tx = g_steal_pointer(&reply.json);
	return upload_all(send, outcome);
}

/* ---- the outcome ---- */

static int
code_of(const json_t *response)
{
	return (int)json_integer_value(json_object_get(response, "code"));
}

/* The answer that decides: the first that is no success, else the last. */
static const json_t *
deciding(const json_t *tx)
{
	const json_t *found = json_object_get(tx, "mail_response");
	if (code_of(found) >= 300)
		return found;
	const json_t *rcpt = json_array_get(json_object_get(tx, "rcpt_response"), 0);
	if (rcpt != NULL)
		found = rcpt;
	if (code_of(found) >= 300)
		return found;
	const json_t *data = json_object_get(tx, "data_response");
	return data != NULL ? data : found;
}

static bool
is_delivered(const json_t *tx)
{
	int code = code_of(json_object_get(tx, "data_response"));
	return code >= 200 && code < 300 && code_of(deciding(tx)) < 300;
}

/* The next hop has answered for good, whatever the server makes of it. */
static bool
is_decided(const json_t *tx)
{
	return is_delivered(tx) || code_of(deciding(tx)) >= 500;
}

/* One look, waiting for news for at most `wait`.  False: failed. */
static bool
look(Send *send, Outcome *outcome, Usec wait)
{
	g_auto(SendReply) reply = {0};
	char seconds[16];
	g_snprintf(seconds, sizeof(seconds), "%d", (int)CLAMP(wait / USEC_PER_SEC, 1, POLL_SEC));
	HttpHeader headers[2] = {{"request-timeout", seconds}};
	size_t n = 1;
	if (outcome->etag != NULL)
		headers[n++] = (HttpHeader){"if-none-match", outcome->etag};
	const HttpCallSpec spec = {.method = "GET",
				   .url = outcome->url,
				   .headers = headers,
				   .n_headers = n,
				   .timeout = (POLL_SEC + 10) * USEC_PER_SEC,
				   .verify = send->verify};
	Deadline begin = clock_mono();
	send_http_ask(send->http, &spec, &reply);
	if (reply.status == 304) {
		/* Some servers do not wait. */
		if (clock_mono() - begin < USEC_PER_SEC / 2)
			g_usleep(USEC_PER_SEC / 2);
		return true;
	}
	if (reply.status != 200 || reply.json == NULL)
		return fail(outcome, "reading the transaction", &reply);
	if (g_strcmp0(outcome->etag, reply.etag) == 0)
		g_usleep(USEC_PER_SEC / 10);
	g_free(outcome->etag);
	outcome->etag = g_steal_pointer(&reply.etag);
	json_decref(outcome->tx);
	outcome->tx = g_steal_pointer(&reply.json);
	return true;
}

static void
wait_for_outcome(Send *send, Outcome *outcome)
{
	Deadline until = clock_after(send->timeout * USEC_PER_SEC);
	bool decided = false;
	while (json_get_str(outcome->tx, "final_attempt_reason") == NULL) {
		if (!decided && is_decided(outcome->tx)) {
			decided = true;
			until = MIN(until, clock_after(FINAL_WAIT));
		}
		Usec left = clock_left(until);
		if (left == 0 || !look(send, outcome, left))
			return;
	}
}

static bool
print_outcome(const Send *send, const char *to, const Outcome *outcome)
{
	const char *reason = json_get_str(outcome->tx, "final_attempt_reason");
	const json_t *answer = deciding(outcome->tx);
	bool ok = outcome->error == NULL && is_delivered(outcome->tx);
	if (send->as_json) {
		g_autoptr(json_t) json = json_pack("{s:s, s:b, s:s*, s:s*, s:s*, s:O*}", "rcpt_to",
						   to, "delivered", ok, "url", outcome->url,
						   "error", outcome->error, "final_attempt_reason",
						   reason, "transaction", outcome->tx);
		g_autofree char *text = json_print(json);
		puts(text);
		return ok;
	}
	const char *message = json_get_str(answer, "message");
	g_autofree char *text = message != NULL ? text_escape(message, strlen(message), 500)
						: g_strdup("");
	printf("%s: %s", to, ok ? "delivered" : outcome->error != NULL ? "error" : "not delivered");
	if (outcome->error != NULL)
		printf(": %s", outcome->error);
	else if (reason != NULL || !is_decided(outcome->tx))
		printf(": %s", reason != NULL ? reason : "still in flight");
	if (answer != NULL)
		printf(": %d %s", code_of(answer), text);
	if (outcome->url != NULL)
		printf(" (%s)", outcome->url);
	putchar('\n');
	return ok;
}

static bool
send_all(Send *send)
{
	bool ok = true;
	Outcome *outcomes = g_new0(Outcome, (gsize)send->n_to);
	for (int i = 0; i < send->n_to; i++)
		(void)create(send, send->to[i], &outcomes[i]);
	for (int i = 0; i < send->n_to; i++) {
		if (outcomes[i].error == NULL)
			wait_for_outcome(send, &outcomes[i]);
		ok &= print_outcome(send, send->to[i], &outcomes[i]);
		(void)fflush(stdout);
		outcome_clear(&outcomes[i]);
	}
	g_free(outcomes);
	return ok;
}

/* ---- the verb ---- */

static int
run(Send *send)
{
	g_autoptr(GError) error = NULL;
	send->uploads = g_ptr_array_new_with_free_func(upload_free);
	bool ok = load_message(send, &error);
	if (ok) {
		send->http = send_http_new(&error);
		ok = send->http != NULL &&
		     send_http_identify(send->http, send->api_key_file, send->client_cert,
					send->client_key, &error);
	}
	if (!ok)
		fprintf(stderr, "koukan send: %s\n", error->message);
	else
		ok = send_all(send);
	send_http_free(send->http);
	g_ptr_array_free(send->uploads, TRUE);
	json_decref(send->builder);
	return ok ? 0 : 1;
}

enum {
	OPT_FROM = 1,
	OPT_RFC822,
	OPT_BUILDER,
	OPT_URL,
	OPT_TAG,
	OPT_TIMEOUT,
	OPT_CA,
	OPT_INSECURE,
	OPT_JSON,
	OPT_API_KEY,
	OPT_CERT,
	OPT_KEY
};

static bool
take_option(Send *send, int option, const char *value)
{
	uint64_t seconds = 0;
	switch (option) {
	case OPT_FROM:
		send->mail_from = value;
		return true;
	case OPT_RFC822:
		send->rfc822 = value;
		return true;
	case OPT_BUILDER:
		send->builder_file = value;
		return true;
	case OPT_URL:
		send->url = value;
		return true;
	case OPT_TAG:
		send->tag = value;
		return true;
	case OPT_TIMEOUT:
		if (!text_parse_u64(value, strlen(value), 1000000, &seconds))
			return false;
		send->timeout = (int64_t)seconds;
		return true;
	case OPT_CA:
		send->verify = value;
		return true;
	case OPT_INSECURE:
		send->verify = "";
		return true;
	case OPT_JSON:
		send->as_json = true;
		return true;
	case OPT_API_KEY:
		send->api_key_file = value;
		return true;
	case OPT_CERT:
		send->client_cert = value;
		return true;
	case OPT_KEY:
		send->client_key = value;
		return true;
	default:
		return false;
	}
}

int
cmd_send(int argc, char **argv)
{
	static const struct option options[] = {
		{"help", no_argument, NULL, 'h'},
		{"mail_from", required_argument, NULL, OPT_FROM},
		{"rfc822_filename", required_argument, NULL, OPT_RFC822},
		{"message_builder_filename", required_argument, NULL, OPT_BUILDER},
		{"url", required_argument, NULL, OPT_URL},
		{"base_url", required_argument, NULL, OPT_URL},
		{"tag", required_argument, NULL, OPT_TAG},
		{"timeout", required_argument, NULL, OPT_TIMEOUT},
		{"ca", required_argument, NULL, OPT_CA},
		{"insecure", no_argument, NULL, OPT_INSECURE},
		{"json", no_argument, NULL, OPT_JSON},
		{"api-key-file", required_argument, NULL, OPT_API_KEY},
		{"client-cert", required_argument, NULL, OPT_CERT},
		{"client-key", required_argument, NULL, OPT_KEY},
		{NULL, 0, NULL, 0}};
	Send send = {.url = DEFAULT_URL, .timeout = DEFAULT_TIMEOUT};
	optind = 1;
	for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
		if (c == 'h') {
			fputs(help, stdout);
			return 0;
		}
		if (!take_option(&send, c, optarg)) {
			fputs(help, stderr);
			return 2;
		}
	}
	send.to = argv + optind;
	send.n_to = argc - optind;
	if (send.mail_from == NULL || send.n_to == 0 ||
	    (send.rfc822 == NULL) == (send.builder_file == NULL)) {
		fputs(help, stderr);
		return 2;
	}
	return run(&send);
}
