/* SPDX-License-Identifier: Apache-2.0 */
/* koukan queue: what is in a router's queue, and what an operator can do about it, through the
 * administration routes (service/admin.h). */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "cmd/cmd.h"
#include "cmd/queue_table.h"
#include "cmd/send_http.h"
#include "cmd/why_text.h"

#define DEFAULT_URL "http://localhost:8000"
#define LIST_LIMIT  100
#define PAGE        1000 /* rows of one request */

static const char help[] =
	"usage: koukan queue list [FILTERS] [--limit N]\n"
	"       koukan queue show [--why] ID...\n"
	"       koukan queue retry|cancel|hold|release {ID... | FILTERS | --all} [--reason TEXT]\n"
	"       koukan queue stats\n"
	"\n"
	"Looks into the queue of a running router and acts on it.\n"
	"\n"
	"list     transactions in the order of their creation; without --state those not final:\n"
	"         first the held ones, then those being tried, then the others\n"
	"show     all about single ones, with the answers of the newest attempt; --why: what the\n"
	"         chain did with it and why, also for refused ones that never were in the queue\n"
	"retry    the next attempt is due now; takes a held one back\n"
	"cancel   gives up without a bounce\n"
	"hold     nothing is tried until it is released\n"
	"release  the opposite\n"
	"stats    how many there are, by destination\n"
	"\n"
	"  --state S          queued, leased (being tried), held, final or any\n"
	"  --from A, --to A   an address, or @domain\n"
	"  --destination D    domain of the recipient\n"
	"  --older-than AGE   created before: seconds, or 90s, 15m, 2h, 3d\n"
	"  --limit N          list: at most N, default 100\n"
	"  --all              the whole queue, where a filter would be wanted\n"
	"  --reason TEXT      hold: shown with the transaction\n"
	"  --url URL          the router's REST listener, default " DEFAULT_URL "\n"
	"  --json             JSON instead of a table\n"
	"  --ca FILE          authorities for https; default: the system's\n"
	"  --insecure         do not verify the server's certificate\n"
	"  --api-key-file FILE, --client-cert FILE, --client-key FILE\n"
	"                     who we are, as for koukan send\n"
	"\n"
	"Exit code 0: done; 1: refused, or no answer; 2: wrong usage.\n";

typedef struct Queue {
	const char *url, *verify;
	const char *api_key_file, *client_cert, *client_key;
	const char *state, *reason;
	GString *filters; /* "&key=value..." */
	bool as_json, all, why;
	uint64_t limit; /* 0: not given */
	char **ids;
	int n_ids;
	SendHttp *http;
} Queue;

/* What a verb does, and to which states it goes without --state. */
typedef struct Verb {
	const char *name;
	int (*run)(Queue *queue, const struct Verb *verb);
	const char *states[4];
	bool wants_ids, takes_ids, takes_filters;
} Verb;

static int
usage_error(const char *what, const char *why)
{
	fprintf(stderr, "koukan queue: %s: %s\n`koukan queue --help` tells more\n", what, why);
	return 2;
}

/* ---- requests ---- */

/* `path` with an optional query; false after a message on standard error. */
static bool
ask(Queue *queue, const char *method, const char *path, SendReply *ret_reply)
{
	g_autofree char *url = g_strconcat(queue->url, path, NULL);
	const HttpCallSpec spec = {.method = method,
				   .url = url,
				   .verify = queue->verify,
				   .response_max = 64 * 1024 * 1024};
	send_http_ask(queue->http, &spec, ret_reply);
	if (ret_reply->status == 200 && ret_reply->json != NULL)
		return true;
	const char *said = ret_reply->text != NULL ? ret_reply->text : "";
	g_autofree char *text = text_escape(said, strcspn(said, "\n"), 300);
	if (ret_reply->status == 0)
		fprintf(stderr, "koukan queue: no answer from %s: %s\n", queue->url, text);
	else if (ret_reply->status == 404 && strstr(text, "detail") != NULL)
		fprintf(stderr,
			"koukan queue: %s serves no administration routes: not a router, or not on "
			"loopback (`koukan: admin: true`)\n",
			queue->url);
	else
		fprintf(stderr, "koukan queue: %s%sHTTP %d: %s\n",
			strcmp(method, "POST") == 0 ? path : "", /* which of many */
			strcmp(method, "POST") == 0 ? ": " : "", ret_reply->status, text);
	return false;
}

typedef bool RowFn(Queue *queue, const json_t *row, void *arg);

/* Calls fn for each row of a state; false when something failed.  `fn` returns false to stop. */
static bool
each_of_state(Queue *queue, const char *state, RowFn *fn, void *arg)
{
	g_autofree char *after = NULL;
	do {
		g_autofree char *path = g_strdup_printf(
			"/admin/v1/transactions?state=%s&limit=%d%s%s%s", state, PAGE,
			queue->filters->str, after != NULL ? "&after=" : "",
			after != NULL ? after : "");
		g_auto(SendReply) reply = {0};
		if (!ask(queue, "GET", path, &reply))
			return false;
		const json_t *rows = json_object_get(reply.json, "transactions");
		for (size_t i = 0; i < json_array_size(rows); i++) {
			if (!fn(queue, json_array_get(rows, i), arg))
				return true;
		}
		g_free(after);
		after = g_strdup(json_get_str(reply.json, "after"));
	} while (after != NULL);
	return true;
}

static bool
each_row(Queue *queue, const Verb *verb, RowFn *fn, void *arg)
{
	if (queue->state != NULL)
		return each_of_state(queue, queue->state, fn, arg);
	for (size_t i = 0; i < G_N_ELEMENTS(verb->states) && verb->states[i] != NULL; i++) {
		if (!each_of_state(queue, verb->states[i], fn, arg))
			return false;
	}
	return true;
}

static void
print_json(json_t *json)
{
	g_autofree char *text = json_print(json);
	puts(text);
}

/* ---- list, show, stats ---- */

typedef struct Listing {
	json_t *rows;
	bool more;
} Listing;

static bool
take_row(Queue *queue, const json_t *row, void *arg)
{
	Listing *listing = arg;
	if (json_array_size(listing->rows) >= queue->limit) {
		listing->more = true;
		return false;
	}
	json_array_append(listing->rows, (json_t *)row);
	return true;
}

static int
run_list(Queue *queue, const Verb *verb)
{
	g_autoptr(json_t) out = json_object();
	Listing listing = {.rows = json_array()};
	json_object_set_new(out, "transactions", listing.rows);
	if (queue->limit == 0)
		queue->limit = LIST_LIMIT;
	if (!each_row(queue, verb, take_row, &listing))
		return 1;
	if (queue->as_json) {
		json_object_set_new(out, "more", json_boolean(listing.more));
		print_json(out);
		return 0;
	}
	queue_table_rows(stdout, listing.rows);
	if (listing.more)
		printf("... and more: --limit %" PRIu64 " was reached\n", queue->limit);
	return 0;
}

static int
run_show(Queue *queue, const Verb *verb)
{
	(void)verb;
	int code = 0;
	for (int i = 0; i < queue->n_ids; i++) {
		g_autofree char *id = g_uri_escape_string(queue->ids[i], NULL, FALSE);
		g_autofree char *path = g_strconcat("/admin/v1/transactions/", id,
						    queue->why ? "/why" : NULL, NULL);
		g_auto(SendReply) reply = {0};
		if (!ask(queue, "GET", path, &reply)) {
			code = 1;
			continue;
		}
		if (queue->as_json)
			print_json(reply.json);
		else if (queue->why)
			why_text(stdout, reply.json);
		else
			queue_table_row(stdout, reply.json);
	}
	return code;
}

static int
run_stats(Queue *queue, const Verb *verb)
{
	(void)verb;
	g_auto(SendReply) reply = {0};
	if (!ask(queue, "GET", "/admin/v1/queue?limit=100", &reply))
		return 1;
	if (queue->as_json)
		print_json(reply.json);
	else
		queue_table_stats(stdout, reply.json);
	return 0;
}

/* ---- acting ---- */

typedef struct Acting {
	const char *action;
	unsigned done, failed;
	json_t *ids; /* of those done */
} Acting;

static void
act(Queue *queue, Acting *acting, const char *id)
{
	g_autofree char *escaped = g_uri_escape_string(id, NULL, FALSE);
	g_autofree char *reason = queue->reason != NULL
					  ? g_uri_escape_string(queue->reason, NULL, FALSE)
					  : NULL;
	g_autofree char *path = g_strconcat("/admin/v1/transactions/", escaped, "/", acting->action,
					    reason != NULL ? "?reason=" : NULL, reason, NULL);
	g_auto(SendReply) reply = {0};
	if (!ask(queue, "POST", path, &reply)) {
		acting->failed++;
		return;
	}
	acting->done++;
	json_array_append_new(acting->ids, json_string(id));
}

static bool
act_on_row(Queue *queue, const json_t *row, void *arg)
{
	const char *id = json_get_str(row, "id");
	if (id != NULL)
		act(queue, arg, id);
	return true;
}

static int
run_action(Queue *queue, const Verb *verb)
{
	g_autoptr(json_t) ids = json_array();
	Acting acting = {.action = verb->name, .ids = ids};
	bool ok = true;
	for (int i = 0; i < queue->n_ids; i++)
		act(queue, &acting, queue->ids[i]);
	if (queue->n_ids == 0)
		ok = each_row(queue, verb, act_on_row, &acting);
	if (queue->as_json) {
		g_autoptr(json_t) out = json_pack("{s:s, s:O, s:i}", "action", verb->name, "done",
						  ids, "failed", (int)acting.failed);
		print_json(out);
	} else {
		printf("%s: %u done, %u failed\n", verb->name, acting.done, acting.failed);
	}
	return ok && acting.failed == 0 ? 0 : 1;
}

static const Verb verbs[] = {
	/* name, does, states without --state, wants ids, takes ids, takes filters */
	{"list", run_list, {"held", "leased", "queued"}, false, false, true},
	{"show", run_show, {NULL}, true, true, false},
	{"stats", run_stats, {NULL}, false, false, false},
	{"retry", run_action, {"queued", "held"}, false, true, true},
	{"cancel", run_action, {"queued", "held", "leased"}, false, true, true},
	{"hold", run_action, {"queued"}, false, true, true},
	{"release", run_action, {"held"}, false, true, true},
};

/* ---- arguments ---- */

static void
add_filter(Queue *queue, const char *key, const char *value)
{
	g_autofree char *escaped = g_uri_escape_string(value, NULL, FALSE);
	g_string_append_printf(queue->filters, "&%s=%s", key, escaped);
}

enum {
	OPT_STATE = 256,
	OPT_FROM,
	OPT_TO,
	OPT_DESTINATION,
	OPT_OLDER,
	OPT_LIMIT,
	OPT_ALL,
	OPT_WHY,
	OPT_REASON,
	OPT_URL,
	OPT_JSON,
	OPT_CA,
	OPT_INSECURE,
	OPT_API_KEY,
	OPT_CERT,
	OPT_KEY
};

static const struct option options[] = {{"help", no_argument, NULL, 'h'},
					{"state", required_argument, NULL, OPT_STATE},
					{"from", required_argument, NULL, OPT_FROM},
					{"to", required_argument, NULL, OPT_TO},
					{"destination", required_argument, NULL, OPT_DESTINATION},
					{"older-than", required_argument, NULL, OPT_OLDER},
					{"limit", required_argument, NULL, OPT_LIMIT},
					{"all", no_argument, NULL, OPT_ALL},
					{"why", no_argument, NULL, OPT_WHY},
					{"reason", required_argument, NULL, OPT_REASON},
					{"url", required_argument, NULL, OPT_URL},
					{"json", no_argument, NULL, OPT_JSON},
					{"ca", required_argument, NULL, OPT_CA},
					{"insecure", no_argument, NULL, OPT_INSECURE},
					{"api-key-file", required_argument, NULL, OPT_API_KEY},
					{"client-cert", required_argument, NULL, OPT_CERT},
					{"client-key", required_argument, NULL, OPT_KEY},
					{NULL, 0, NULL, 0}};

static bool
is_state(const char *text)
{
	static const char *const states[] = {"any", "queued", "leased", "held", "final", NULL};
	return g_strv_contains(states, text);
}

/* False after a message. */
static bool
take_number(Queue *queue, int option, const char *text)
{
	if (option == OPT_LIMIT) {
		if (text_parse_u64(text, strlen(text), 1000000000, &queue->limit) &&
		    queue->limit > 0)
			return true;
		(void)usage_error("--limit", "a number from 1 is wanted");
		return false;
	}
	int64_t seconds = 0;
	if (!queue_parse_age(text, &seconds)) {
		(void)usage_error("--older-than", "an age is wanted: 90s, 15m, 2h, 3d");
		return false;
	}
	g_autofree char *value = g_strdup_printf("%" PRId64, seconds);
	add_filter(queue, "older_than", value);
	return true;
}

/* -1: go on; else the exit code. */
static int
take_option(Queue *queue, int option)
{
	switch (option) {
	case 'h':
		fputs(help, stdout);
		return 0;
	case OPT_STATE:
		queue->state = optarg;
		return is_state(optarg)
			       ? -1
			       : usage_error("--state", "queued, leased, held, final or any");
	case OPT_FROM:
		add_filter(queue, "from", optarg);
		return -1;
	case OPT_TO:
		add_filter(queue, "to", optarg);
		return -1;
	case OPT_DESTINATION:
		add_filter(queue, "destination", optarg);
		return -1;
	case OPT_OLDER:
	case OPT_LIMIT:
		return take_number(queue, option, optarg) ? -1 : 2;
	case OPT_ALL:
		queue->all = true;
		return -1;
	case OPT_WHY:
		queue->why = true;
		return -1;
	case OPT_REASON:
		queue->reason = optarg;
		return -1;
	case OPT_URL:
		queue->url = optarg;
		return -1;
	case OPT_JSON:
		queue->as_json = true;
		return -1;
	case OPT_CA:
		queue->verify = optarg;
		return -1;
	case OPT_API_KEY:
		queue->api_key_file = optarg;
		return -1;
	case OPT_CERT:
		queue->client_cert = optarg;
		return -1;
	case OPT_KEY:
		queue->client_key = optarg;
		return -1;
	case OPT_INSECURE:
		queue->verify = "";
		return -1;
	default:
		fputs("`koukan queue --help` tells more\n", stderr);
		return 2;
	}
}

static int
check_usage(const Queue *queue, const Verb *verb)
{
	bool filtered = queue->filters->len > 0 || queue->state != NULL;
	if (queue->n_ids > 0 && !verb->takes_ids)
		return usage_error(verb->name, "takes no ids");
	if (queue->n_ids == 0 && verb->wants_ids)
		return usage_error(verb->name, "which transaction?");
	if ((filtered || queue->all) && !verb->takes_filters)
		return usage_error(verb->name, "takes no filters");
	if (queue->n_ids > 0 && (filtered || queue->all))
		return usage_error(verb->name, "either ids or filters");
	if (verb->run == run_action && queue->n_ids == 0 && !filtered && !queue->all)
		return usage_error(verb->name, "ids, a filter or --all is wanted");
	if (queue->why && strcmp(verb->name, "show") != 0)
		return usage_error(verb->name, "--why belongs to show");
	if (queue->reason != NULL && strcmp(verb->name, "hold") != 0)
		return usage_error(verb->name, "--reason belongs to hold");
	return -1;
}

static int
run(Queue *queue, const Verb *verb)
{
	g_autoptr(GError) error = NULL;
	queue->http = send_http_new(&error);
	if (queue->http == NULL ||
	    !send_http_identify(queue->http, queue->api_key_file, queue->client_cert,
				queue->client_key, &error)) {
		fprintf(stderr, "koukan queue: %s\n", error->message);
		send_http_free(queue->http);
		return 1;
	}
	int code = verb->run(queue, verb);
	send_http_free(queue->http);
	return code;
}

int
cmd_queue(int argc, char **argv)
{
	g_autoptr(GString) filters = g_string_new(NULL);
	Queue queue = {.url = DEFAULT_URL, .filters = filters};
	optind = 1;
	for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
		int code = take_option(&queue, c);
		if (code >= 0)
			return code;
	}
	const char *name = optind < argc ? argv[optind] : "";
	queue.ids = argv + optind + 1;
	queue.n_ids = MAX(argc - optind - 1, 0);
	for (size_t i = 0; i < G_N_ELEMENTS(verbs); i++) {
		if (strcmp(verbs[i].name, name) != 0)
			continue;
		int code = check_usage(&queue, &verbs[i]);
		return code >= 0 ? code : run(&queue, &verbs[i]);
	}
	if (*name != '\0')
		return usage_error(name, "no such command");
	fputs(help, stderr);
	return 2;
}
