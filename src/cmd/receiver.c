/* SPDX-License-Identifier: Apache-2.0 */
/* koukan receiver: an application that takes mail by REST, as an example of one and for tests
 * (behaviour spec 20).  Transactions live in memory, messages in files. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/ids.h"
#include "base/json.h"
#include "base/net.h"
#include "base/text.h"
#include "cmd/cmd.h"
#include "cmd/receiver_int.h"
#include "http/route.h"
#include "http/server.h"

#define JSON_MAX  (64 * 1024 * 1024)
#define BODY_MAX  (UINT64_C(1) << 30)
#define SWEEP     (30 * USEC_PER_SEC)
#define TXS_MAX   100000
#define LINE_TEXT 200 /* bytes of an address on the printed line */

static const char help[] =
	"usage: koukan receiver [--listen HOST:PORT] [--dir DIR] [--cert FILE --key FILE]\n"
	"\n"
	"An example of an application that takes mail by REST.  Each message becomes files in DIR:\n"
	"ID.msg the message, ID.PART its parts, ID.msg.json its parsed form, ID.tx.json envelope and\n"
	"answers; and a line on standard output.  GET / is a page that lists the last of them.  Runs\n"
	"until SIGTERM or SIGINT.\n"
	"\n"
	"  --listen HOST:PORT  default localhost:8002; port 0: any free one, which is printed\n"
	"  --dir DIR           default /tmp\n"
	"  --cert, --key FILE  PEM; serve https\n";

typedef struct Receiver {
	const char *dir;
	bool tls;
	GHashTable *txs; /* id -> ReceiverTx * */
	GQueue rows;     /* of the page */
	Timer sweep;
} Receiver;

enum { PAGE, CREATE, READ, UPDATE, CANCEL, SPEC, PUT_BODY, PUT_BLOB };

static const HttpRoute ROUTES[] = {
	{"GET", "/", PAGE},
	{"POST", "/senders/*/transactions", CREATE},
	{"GET", "/transactions/*", READ},
	{"PATCH", "/transactions/*", UPDATE},
	{"POST", "/transactions/*/cancel", CANCEL},
	{"POST", "/transactions/*/message_builder", SPEC},
	{"PUT", "/transactions/*/body", PUT_BODY},
	{"PUT", "/transactions/*/blob/**", PUT_BLOB},
};

/* One request on its way. */
typedef struct Visit {
	Receiver *receiver;
	int route;
	char *id, *blob;
	char *base; /* "http://host:port" as the client knows us */
	bool is_json, has_type, has_range;
	ReceiverFile *file; /* an upload that was begun */
	ReceiverTx *tx;     /* ...of this one */
	char *error;        /* ...and failed */
} Visit;

static void
visit_free(Visit *visit)
{
	if (visit->tx != NULL)
		visit->tx->uploads--;
	g_free(visit->id);
	g_free(visit->blob);
	g_free(visit->base);
	g_free(visit->error);
	g_free(visit);
}

static void
answer_text(Visit *visit, HttpRequest *request, int status, const char *text)
{
	visit_free(visit);
	http_respond_text(request, status, text);
}

static void
answer_tx(Visit *visit, HttpRequest *request, int status, const ReceiverTx *tx)
{
	g_autoptr(json_t) json = receiver_tx_show(tx, visit->base);
	g_autofree char *location = g_strdup_printf("%s/transactions/%s", visit->base, tx->id);
	char etag[16];
	g_snprintf(etag, sizeof(etag), "%u", tx->version);
	const HttpHeader headers[] = {{"etag", etag}, {"location", location}};
	visit_free(visit);
	http_respond_json(request, status, headers, status == 201 ? 2 : 1, json_print(json));
}

static ReceiverTx *
find_tx(const Visit *visit)
{
	ReceiverTx *tx = g_hash_table_lookup(visit->receiver->txs, visit->id);
	if (tx != NULL)
		tx->touched = clock_mono();
	return tx;
}

/* ---- JSON requests ---- */

static void
create(Visit *visit, HttpRequest *request, json_t *json)
{
	Receiver *receiver = visit->receiver;
	if (!visit->is_json) {
		answer_text(visit, request, 415, "bad content-type");
	} else if (!json_is_object(json)) {
		answer_text(visit, request, 400, "bad json");
	} else if (g_hash_table_size(receiver->txs) >= TXS_MAX) {
		answer_text(visit, request, 503, "too many transactions");
	} else {
		ReceiverTx *tx = receiver_tx_new(receiver->dir, json);
		g_hash_table_insert(receiver->txs, tx->id, tx);
		answer_tx(visit, request, 201, tx);
	}
}

static void
update(Visit *visit, HttpRequest *request, ReceiverTx *tx, json_t *json, bool empty)
{
	if (!visit->has_type && empty) {
		tx->version++;
		answer_tx(visit, request, 200, tx);
		return;
	}
	const json_t *output = json_object_get(json, "filter_output");
	if (!visit->is_json) {
		answer_text(visit, request, 415, "bad content-type");
	} else if (!json_is_object(output) || json_object_size(json) != 1) {
		answer_text(visit, request, 400,
			    json == NULL ? "bad json" : "only accept update filter_output");
	} else {
		if (tx->output == NULL)
			tx->output = json_object();
		(void)json_object_update(tx->output, (json_t *)(uintptr_t)output);
		tx->version++;
		answer_tx(visit, request, 200, tx);
	}
}

static void
set_spec(Visit *visit, HttpRequest *request, ReceiverTx *tx, json_t *json)
{
	g_autoptr(GError) error = NULL;
	if (!visit->is_json)
		answer_text(visit, request, 415, "bad content-type");
	else if (!json_is_object(json))
		answer_text(visit, request, 400, "bad json");
	else if (tx->parts != NULL)
		answer_text(visit, request, 400, "message_builder already exists");
	else if (tx->cancelled)
		answer_text(visit, request, 400, "transaction cancelled");
	else if (!receiver_tx_set_spec(tx, visit->receiver->dir, json, &error))
		answer_text(visit, request,
			    g_error_matches(error, K_ERROR, K_ERROR_INPUT) ? 400 : 500,
			    error->message);
	else {
		tx->version++;
		answer_tx(visit, request, 200, tx);
	}
}

static void
on_json(void *arg, HttpRequest *request, HttpBodyEvent event, const char *data, size_t len)
{
	Visit *visit = arg;
	if (event != HTTP_BODY_END) {
		answer_text(visit, request, event == HTTP_BODY_TOO_BIG ? 413 : 400, NULL);
		return;
	}
	g_autoptr(json_t) json = len > 0 ? json_parse("request", data, len, NULL) : NULL;
	ReceiverTx *tx = visit->route != CREATE ? find_tx(visit) : NULL;
	if (visit->route == CREATE) {
		create(visit, request, json);
	} else if (tx == NULL) {
		answer_text(visit, request, 404, "transaction not found");
	} else if (visit->route == READ) {
		answer_tx(visit, request, 200, tx);
	} else if (visit->route == UPDATE) {
		update(visit, request, tx, json, len == 0);
	} else if (visit->route == SPEC) {
		set_spec(visit, request, tx, json);
	} else {
		tx->version += tx->cancelled ? 0 : 1;
		tx->cancelled = true;
		answer_text(visit, request, 200, NULL);
	}
}

/* ---- uploads ---- */

static char *
address_text(const json_t *mailbox)
{
	const char *addr = json_get_str(mailbox, "m");
	return addr != NULL ? text_escape(addr, strlen(addr), LINE_TEXT) : g_strdup("?");
}

static void
print_line(const ReceiverTx *tx)
{
	g_autofree char *from = address_text(json_object_get(tx->request, "mail_from"));
	g_autofree char *to = address_text(
		json_array_get(json_object_get(tx->request, "rcpt_to"), 0));
	size_t rcpts = json_array_size(json_object_get(tx->request, "rcpt_to"));
	printf("received from=<%s> to=<%s>", from, to);
	if (rcpts > 1)
		printf(" and %zu more", rcpts - 1);
	printf(" size=%" G_GUINT64_FORMAT " parts=%zu file=%s\n", tx->message.size,
	       json_object_size(tx->parts), tx->message.path);
	(void)fflush(stdout);
}

/* NULL: it may be uploaded now, to *ret_file; else the text of the refusal. */
static const char *
check_upload(const Visit *visit, ReceiverTx *tx, ReceiverFile **ret_file, int *ret_status)
{
	bool body = visit->route == PUT_BODY;
	ReceiverFile *file = body ? &tx->message
				  : (ReceiverFile *)g_hash_table_lookup(tx->files, visit->blob);
	*ret_status = 400;
	if (visit->has_range)
		return "receiver does not accept chunked PUT";
	if (file == NULL) {
		*ret_status = 404;
		return "blob not found";
	}
	if (tx->cancelled)
		return "transaction cancelled";
	if (file->final || file->fd >= 0)
		return body ? "body already exists" : "blob already exists";
	*ret_file = file;
	return NULL;
}

static void
finish_upload(Visit *visit, HttpRequest *request)
{
	ReceiverTx *tx = visit->tx;
	g_autoptr(GError) error = NULL;
	bool ok = receiver_file_finish(visit->file, &error);
	if (ok) {
		tx->version++;
		if (visit->file == &tx->message)
			ok = receiver_tx_save(tx, visit->receiver->dir, &error);
	}
	if (!ok) {
		answer_text(visit, request, 500, error->message);
		return;
	}
	if (visit->file == &tx->message) {
		print_line(tx);
		receiver_page_add(&visit->receiver->rows, tx);
	}
	visit_free(visit);
	http_respond_json(request, 200, NULL, 0, g_strdup("{}"));
}

static void
on_upload(void *arg, HttpRequest *request, HttpBodyEvent event, const char *data, size_t len)
{
	Visit *visit = arg;
	g_autoptr(GError) error = NULL;
	if (event == HTTP_BODY_DATA) {
		if (visit->error == NULL && !receiver_file_write(visit->file, data, len, &error))
			visit->error = g_strdup(error->message);
		return;
	}
	visit->tx->touched = clock_mono();
	if (event == HTTP_BODY_END && visit->error == NULL) {
		finish_upload(visit, request);
		return;
	}
	receiver_file_abort(visit->file);
	int status = event == HTTP_BODY_TOO_BIG ? 413 : event == HTTP_BODY_GONE ? 400 : 500;
	g_autofree char *text = g_strdup(visit->error);
	answer_text(visit, request, status, text);
}

static void
upload(Visit *visit, HttpRequest *request)
{
	g_autoptr(GError) error = NULL;
	int status = 404;
	ReceiverTx *tx = find_tx(visit);
	const char *refusal = tx == NULL ? "transaction not found"
					 : check_upload(visit, tx, &visit->file, &status);
	if (refusal != NULL) {
		answer_text(visit, request, status, refusal);
	} else if (!receiver_file_open(visit->file, &error)) {
		answer_text(visit, request, 500, error->message);
	} else {
		visit->tx = tx;
		tx->uploads++;
		http_stream_body(request, BODY_MAX, on_upload, visit);
	}
}

/* ---- routes ---- */

static void
show_page(const Receiver *receiver, HttpRequest *request)
{
	const HttpHeader headers[] = {{"content-security-policy", "default-src 'none'"},
				      {"x-content-type-options", "nosniff"}};
	char *html = receiver_page_html(&receiver->rows);
	http_respond(request, 200, headers, G_N_ELEMENTS(headers), "text/html; charset=utf-8", html,
		     strlen(html));
}

static void
handle(void *arg, HttpRequest *request)
{
	Receiver *receiver = arg;
	HttpMatch match;
	HttpRouteResult found = http_route_find(ROUTES, G_N_ELEMENTS(ROUTES), http_method(request),
						http_path(request), &match);
	if (found != HTTP_ROUTE_FOUND) {
		bool path = found == HTTP_ROUTE_NO_METHOD;
		const HttpHeader allow = {"allow", match.allow};
		http_respond_json(request, path ? 405 : 404, &allow, path ? 1 : 0,
				  g_strdup(path ? "{\"detail\":\"Method Not Allowed\"}"
						: "{\"detail\":\"Not Found\"}"));
		return;
	}
	if (match.id == PAGE) {
		show_page(receiver, request);
		return;
	}
	Visit *visit = g_new0(Visit, 1);
	visit->receiver = receiver;
	visit->route = match.id;
	visit->id = g_strndup(match.parts[0].text, match.parts[0].len);
	if (match.n_parts > 1)
		visit->blob = g_strndup(match.parts[1].text, match.parts[1].len);
	const char *host = http_header(request, "host");
	visit->base = g_strconcat(receiver->tls ? "https://" : "http://",
				  host != NULL ? host : "localhost", NULL);
	const char *type = http_header(request, "content-type");
	visit->has_type = type != NULL;
	visit->is_json = text_equal_nocase(type, "application/json");
	visit->has_range = http_header(request, "content-range") != NULL;
	if (visit->route == PUT_BODY || visit->route == PUT_BLOB)
		upload(visit, request);
	else
		http_read_body(request, JSON_MAX, on_json, visit);
}

static gboolean
is_idle(gpointer key, gpointer value, gpointer arg)
{
	(void)key;
	const ReceiverTx *tx = value;
	return tx->uploads == 0 && *(const Deadline *)arg - tx->touched > RECEIVER_IDLE;
}

static void
sweep(void *arg)
{
	Receiver *receiver = arg;
	Deadline now = clock_mono();
	g_hash_table_foreach_remove(receiver->txs, is_idle, &now);
	timer_set(&receiver->sweep, SWEEP);
}

/* ---- the verb ---- */

typedef struct Args {
	HostPort *listen;
	const char *dir, *cert, *key;
} Args;

static void
print_address(const HttpServer *server, const char *host)
{
	bool any = *host == '\0' || strcmp(host, "*") == 0 || text_equal_nocase(host, "localhost");
	bool v6 = strchr(host, ':') != NULL;
	printf("listening on %s://%s%s%s:%u\n", http_server_is_tls(server) ? "https" : "http",
	       v6 ? "[" : "", any ? "127.0.0.1" : host, v6 ? "]" : "", http_server_port(server));
	(void)fflush(stdout);
}

static int
serve(Receiver *receiver, Workers *workers, const Args *args)
{
	g_autoptr(GError) error = NULL;
	const HttpServerOptions options = {.host = args->listen->host,
					   .port = args->listen->port,
					   .cert_path = args->cert,
					   .key_path = args->key};
	HttpServer *server = http_server_open(workers, &options, handle, receiver, &error);
	if (server != NULL)
		receiver->tls = http_server_is_tls(server);
	if (server == NULL || !workers_start(workers, &error)) {
		fprintf(stderr, "koukan receiver: %s\n", error->message);
		http_server_free(server);
		return 1;
	}
	print_address(server, args->listen->host);
	sigset_t stop;
	int number = 0;
	sigemptyset(&stop);
	sigaddset(&stop, SIGTERM);
	sigaddset(&stop, SIGINT);
	while (sigwait(&stop, &number) != 0)
		;
	http_server_free(server);
	workers_stop(workers);
	return 0;
}

static int
run(const Args *args)
{
	struct stat st;
	if (stat(args->dir, &st) != 0 || !S_ISDIR(st.st_mode)) {
		fprintf(stderr, "koukan receiver: %s is no directory\n", args->dir);
		return 1;
	}
	/* Before any thread: they inherit it, and sigwait gets them. */
	sigset_t block;
	sigemptyset(&block);
	sigaddset(&block, SIGTERM);
	sigaddset(&block, SIGINT);
	sigaddset(&block, SIGPIPE);
	(void)pthread_sigmask(SIG_BLOCK, &block, NULL);
	g_autoptr(GError) error = NULL;
	Workers *workers = workers_new(1, &error);
	if (workers == NULL) {
		fprintf(stderr, "koukan receiver: %s\n", error->message);
		return 1;
	}
	Receiver receiver = {
		.dir = args->dir,
		.txs = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, receiver_tx_free)};
	g_queue_init(&receiver.rows);
	timer_init(&receiver.sweep, workers_get(workers, 0), sweep, &receiver);
	timer_set(&receiver.sweep, SWEEP);
	int code = serve(&receiver, workers, args);
	timer_clear(&receiver.sweep);
	g_hash_table_destroy(receiver.txs);
	g_queue_clear_full(&receiver.rows, g_free);
	workers_free(workers);
	return code;
}

int
cmd_receiver(int argc, char **argv)
{
	static const struct option options[] = {
		{"help", no_argument, NULL, 'h'},      {"listen", required_argument, NULL, 'l'},
		{"dir", required_argument, NULL, 'd'}, {"cert", required_argument, NULL, 'c'},
		{"key", required_argument, NULL, 'k'}, {NULL, 0, NULL, 0}};
	const char *listen = "localhost:8002";
	Args args = {.dir = "/tmp"};
	optind = 1;
	for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
		switch (c) {
		case 'h':
			fputs(help, stdout);
			return 0;
		case 'l':
			listen = optarg;
			break;
		case 'd':
			args.dir = optarg;
			break;
		case 'c':
			args.cert = optarg;
			break;
		case 'k':
			args.key = optarg;
			break;
		default:
			fputs(help, stderr);
			return 2;
		}
	}
	if (optind != argc || !host_port_parse(listen, &args.listen)) {
		fputs(help, stderr);
		return 2;
	}
	int code = run(&args);
	host_port_free(args.listen);
	return code;
}
