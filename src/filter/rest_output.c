/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a chain that sends the transaction to another node (behaviour spec 5.3): over HTTP,
 * or, when the URL is one of our own listeners, directly.  It has an upstream transaction of its
 * own for each host it tries; the first one whose MAIL does not fail temporarily is adopted. */
#include "base/clock.h"
#include "base/json.h"
#include "filter/chain.h"
#include "filter/kinds.h"
#include "filter/mx.h"

#define SHORT_CIRCUIT_PORT 8000 /* of the address a sender presents (spec 5.3) */

#define DNS_OUTPUT   "koukan.mx_resolution.DnsResolutionFilter"
#define HOSTS_TEMP   "4.4.3 the recipient's domain cannot be looked up now"
#define NO_ENDPOINT  "RestEndpoint no endpoint!"
#define MAIL_TIMEOUT "RestEndpoint._start_upstream_tx GET mail_response timeout"
#define RCPT_TIMEOUT "RestEndpoint._maybe_update upstream timeout"
#define DATA_TIMEOUT "RestEndpoint upstream timeout"

/* By what is wrong with the hosts of the recipient's domain, for good. */
static const struct {
	int code;
	const char *text;
} route_faults[] = {
	[TX_ROUTE_NO_FAULT] = {550, "5.1.2 no mail host for the recipient's domain"},
	[TX_ROUTE_NULL_MX] = {556, "5.1.10 the recipient's domain takes no mail (null MX)"},
	[TX_ROUTE_LOOP] = {550, "5.4.6 mail for the recipient's domain would come back to us"},
};
_Static_assert(G_N_ELEMENTS(route_faults) == TX_ROUTE_FAULTS, "an answer for each fault");

typedef struct RestOutputKeys {
	char *static_endpoint;
	char *verify; /* as TxPortOptions.verify */
	char *api_key, *client_cert, *client_key;
	Usec rcpt_timeout, data_timeout;
	int64_t chunk_size;
} RestOutputKeys;

typedef struct RestOutput {
	Tx *up;
	TxPort *port;
	TxWatch watch;
	GArray *map;       /* guint32 by recipient of `up`: its index in down */
	size_t shown;      /* recipients of down that may go on */
	bool body_shown;   /* so may the body */
	guint host;        /* of the route, in use */
	bool adopted;      /* no other host will be tried */
	Response *failure; /* set: the answer to everything from now on */
	Deadline answer_by, data_by;
	Timer timer;
} RestOutput;

static void
on_upstream(void *arg, Tx *tx)
{
	(void)tx;
	filter_resume(arg);
}

/* ---- the upstream transaction ---- */

static void
close_upstream(RestOutput *output)
{
	tx_unwatch(&output->watch);
	tx_port_stop(g_steal_pointer(&output->port));
	g_clear_pointer(&output->up, tx_unref);
	g_array_set_size(output->map, 0);
}

/* A destination that is one of our own senders (a short circuit) may present itself by an
 * address and meta data of its own. */
static const SenderConf *
presented_sender(const Filter *filter)
{
	const TxRoute *route = filter->down->route;
	const ConfModel *model = filter_env(filter)->model;
	if (route == NULL || route->sender == NULL || model == NULL)
		return NULL;
	return conf_model_sender(model, route->sender, route->tag);
}

/* What the SMTP session has said beyond the contract is for our policies, not for others. */
static json_t *
public_meta(json_t *meta)
{
	static const char *const own[] = {SMTP_META_AUTH_USER, SMTP_META_TLS_VERSION,
					  SMTP_META_TLS_CIPHER, SMTP_META_TLS_PEER};
	json_t *copy = NULL;
	for (size_t i = 0; i < G_N_ELEMENTS(own); i++) {
		if (json_object_get(meta, own[i]) == NULL)
			continue;
		if (copy == NULL)
			copy = json_copy(meta);
		(void)json_object_del(copy, own[i]);
	}
	return copy != NULL ? copy : json_incref(meta);
}

static void
set_peers(const Filter *filter)
{
	const RestOutput *output = filter->state;
	const Tx *down = filter->down;
	const SenderConf *sender = presented_sender(filter);
	const HostPort *remote = down->remote_host;
	if (down->route != NULL && output->host < down->route->hosts->len)
		remote = g_ptr_array_index(down->route->hosts, output->host);
	g_autoptr(HostPort) own = NULL;
	if (sender != NULL && sender->remote_host != NULL)
		remote = own = host_port_new(sender->remote_host, SHORT_CIRCUIT_PORT);
	tx_set_hosts(output->up, remote, down->local_host);
	g_autoptr(json_t) meta = public_meta(down->smtp_meta);
	if (sender != NULL && sender->smtp_meta != NULL) {
		json_decref(meta);
		meta = json_loads(sender->smtp_meta, 0, NULL);
	}
	if (meta != NULL)
		tx_set_smtp_meta(output->up, meta);
}

static void
add_rcpts(const Filter *filter)
{
	const RestOutput *output = filter->state;
	const Tx *down = filter->down;
	guint32 index = 0;
	if (output->map->len > 0)
		index = g_array_index(output->map, guint32, output->map->len - 1) + 1;
	for (; index < output->shown; index++) {
		if (tx_rcpt(down, index)->response != NULL)
			continue;
		tx_add_rcpt(output->up, tx_rcpt(down, index)->to);
		g_array_append_val(output->map, index);
	}
}

static void
send_outputs(const Filter *filter)
{
	const RestOutput *output = filter->state;
	const TxRoute *route = filter->down->route;
	if (route == NULL || !route->send_filter_output)
		return;
	const char *name;
	json_t *value;
	json_object_foreach(chain_outputs(filter->chain), name, value)
	{
		if (json_object_get(output->up->filter_output, name) != value)
			tx_set_filter_output(output->up, name, json_incref(value));
	}
}

static void
open_upstream(Filter *filter, const char *url)
{
	RestOutput *output = filter->state;
	const RestOutputKeys *conf = filter->conf;
	const Tx *down = filter->down;
	const TxRoute *route = down->route;
	bool receiver = route != NULL && route->receive_parsing;
	output->up = tx_new(down->queue);
	if (route != NULL && route->sender != NULL)
		tx_set_sender(output->up, route->sender, route->tag);
	set_peers(filter);
	if (down->mail_from != NULL)
		tx_set_mail_from(output->up, down->mail_from);
	add_rcpts(filter);
	if (output->body_shown)
		tx_set_body(output->up, down->body);
	send_outputs(filter);
	const TxPortOptions options = {
		.rcpt_timeout = MAX(clock_left(output->answer_by), USEC_PER_SEC),
		.data_timeout = conf->data_timeout,
		/* Receivers take whole blobs only. */
		.chunk_size = receiver ? 0 : (size_t)conf->chunk_size,
		.verify = conf->verify,
		.api_key = conf->api_key,
		.client_cert = conf->client_cert,
		.client_key = conf->client_key,
		.send_filter_output = route != NULL && route->send_filter_output,
		.receive_parsing = receiver,
	};
	TxPorts *ports = filter_env(filter)->ports;
	tx_watch(output->up, &output->watch, on_upstream, filter);
	output->port = ports->open_url(ports, url, output->up, &options);
}

/* The route had hosts, dns_resolution found no address, and no policy has said so.  Without a host
 * the next node would take the client's address for the one to connect to.  0: not so. */
static json_int_t
failed_resolution(const Filter *filter)
{
	const TxRoute *route = filter->down->route;
	if (route == NULL || route->hosts->len > 0)
		return 0;
	const json_t *output = filter_get_output(filter, DNS_OUTPUT);
	return json_integer_value(json_object_get(output, "resolution_result"));
}

static const char *
endpoint_url(const Filter *filter)
{
	const RestOutputKeys *conf = filter->conf;
	if (conf->static_endpoint != NULL)
		return conf->static_endpoint;
	return filter->down->route != NULL ? filter->down->route->url : NULL;
}

/* ---- answers ---- */

static void
fail(Filter *filter, int code, const char *text)
{
	RestOutput *output = filter->state;
	close_upstream(output);
	output->failure = response_new(code, text);
	tx_fill_in_flight(filter->down, output->failure);
}

static bool
rcpts_pending(const RestOutput *output)
{
	return !response_err(output->up->mail_response) &&
	       output->up->rcpt_answers < tx_rcpt_count(output->up);
}

/* Whether the MAIL response sends us to the next host: it is temporary, or the host does not talk
 * to us at all, which another one may (RFC 5321 5.1). */
static bool
try_next_host(Filter *filter)
{
	RestOutput *output = filter->state;
	const TxRoute *route = filter->down->route;
	const Tx *up = output->up;
	bool elsewhere = response_temp(up->mail_response) ||
			 (up->host_refused && response_perm(up->mail_response));
	if (!elsewhere || route == NULL || output->host + 1 >= route->hosts->len ||
	    clock_passed(output->answer_by))
		return false;
	close_upstream(output);
	output->host++;
	open_upstream(filter, endpoint_url(filter));
	return true;
}

/* A recipient behind a MAIL that failed for now has failed for now, whatever the next node
 * says (some say 503); the engine answers it. */
static bool
contradicts_mail(const Tx *up, const Response *response)
{
	return response_temp(up->mail_response) && response_perm(response);
}

static void
take_answers(Filter *filter)
{
	RestOutput *output = filter->state;
	Tx *down = filter->down;
	if (!output->adopted) {
		if (output->up->mail_response == NULL || try_next_host(filter))
			return;
		output->adopted = true;
	}
	const Tx *up = output->up;
	if (down->mail_response == NULL && up->mail_response != NULL)
		tx_answer_mail(down, response_ref(up->mail_response));
	for (guint i = 0; i < output->map->len && up->rcpt_answers > 0; i++) {
		Response *response = tx_rcpt(up, i)->response;
		guint32 index = g_array_index(output->map, guint32, i);
		if (response != NULL && tx_rcpt(down, index)->response == NULL &&
		    !contradicts_mail(up, response))
			tx_answer_rcpt(down, index, response_ref(response));
	}
	if (down->data_response == NULL && up->data_response != NULL && !up->notifies)
		tx_set_handover(down, up->handover);
	if (down->data_response == NULL && up->data_response != NULL)
		tx_answer_data(down, response_ref(up->data_response));
}

static void
check_deadlines(Filter *filter)
{
	RestOutput *output = filter->state;
	const Tx *up = output->up;
	bool late = clock_passed(output->answer_by);
	if (late && up->mail_response == NULL)
		fail(filter, 450, MAIL_TIMEOUT);
	else if (late && rcpts_pending(output))
		fail(filter, 450, RCPT_TIMEOUT);
	else if (up->data_response == NULL && clock_passed(output->data_by))
		fail(filter, 450, DATA_TIMEOUT);
}

static void
arm(RestOutput *output)
{
	Deadline at = 0;
	if (output->up != NULL && !output->up->cancelled && output->up->data_response == NULL) {
		bool asking = output->up->mail_response == NULL || rcpts_pending(output);
		at = asking ? output->answer_by : output->data_by;
	}
	timer_set_at(&output->timer, at);
}

/* ---- news ---- */

/* The port keeps the same time itself and has the better text, so it gets a head start. */
static Deadline
guard(Usec span)
{
	return clock_after(span + MIN(USEC_PER_SEC, span / 10));
}

static void
start(Filter *filter)
{
	const char *url = endpoint_url(filter);
	const TxRoute *route = filter->down->route;
	json_int_t resolution = failed_resolution(filter);
	if (url == NULL)
		fail(filter, 550, NO_ENDPOINT);
	else if (resolution == MX_NX)
		fail(filter, route_faults[route->fault].code, route_faults[route->fault].text);
	else if (resolution != MX_OK)
		fail(filter, 450, HOSTS_TEMP);
	else
		open_upstream(filter, url);
}

static void
pass_news(Filter *filter, unsigned news)
{
	RestOutput *output = filter->state;
	const RestOutputKeys *conf = filter->conf;
	if ((news & (TX_NEW_MAIL_FROM | TX_NEW_RCPT)) != 0) {
		output->answer_by = guard(conf->rcpt_timeout);
		if (output->up == NULL) {
			start(filter);
			return;
		}
		add_rcpts(filter);
	}
	if (output->up == NULL)
		return;
	if ((news & (TX_NEW_BODY | TX_NEW_BODY_FINAL)) != 0) {
		if (output->up->body == NULL)
			tx_set_body(output->up, filter->down->body);
		else
			tx_note_body(output->up);
	}
	send_outputs(filter);
}

static FilterResult
rest_output_update(Filter *filter, unsigned news)
{
	RestOutput *output = filter->state;
	const RestOutputKeys *conf = filter->conf;
	if (output->up != NULL && output->up->data_response == NULL) {
		if ((news & TX_NEW_CANCEL) != 0)
			tx_cancel(output->up);
		if ((news & TX_NEW_HEARTBEAT) != 0)
			tx_heartbeat(output->up);
	}
	if (filter->down->cancelled) {
		timer_cancel(&output->timer);
		return FILTER_CONTINUE;
	}
	if ((news & TX_NEW_RCPT) != 0)
		output->shown = tx_rcpt_count(filter->down);
	output->body_shown |= (news & (TX_NEW_BODY | TX_NEW_BODY_FINAL)) != 0;
	if ((news & TX_NEW_BODY_FINAL) != 0)
		output->data_by = guard(conf->data_timeout + conf->rcpt_timeout);
	if (output->failure != NULL) {
		tx_fill_in_flight(filter->down, output->failure);
		return FILTER_CONTINUE;
	}
	pass_news(filter, news);
	if (output->up != NULL)
		take_answers(filter);
	if (output->up != NULL)
		check_deadlines(filter);
	arm(output);
	return FILTER_CONTINUE;
}

static void
on_timer(void *arg)
{
	filter_resume(arg);
}

static void
rest_output_open(Filter *filter)
{
	RestOutput *output = filter->state;
	output->map = g_array_new(FALSE, FALSE, sizeof(guint32));
	timer_init(&output->timer, filter_env(filter)->worker, on_timer, filter);
}

static void
rest_output_close(Filter *filter)
{
	RestOutput *output = filter->state;
	close_upstream(output);
	timer_clear(&output->timer);
	g_clear_pointer(&output->map, g_array_unref);
	g_clear_pointer(&output->failure, response_unref);
}

/* ---- configuration ---- */

static const ConfKey rest_output_keys[] = {
	{.name = "static_endpoint",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(RestOutputKeys, static_endpoint),
	 .doc = "Creation URL of the next node; overrides what the router chose."},
	{.name = "verify",
	 .type = CONF_VERIFY,
	 .offset = CONF_KEY(RestOutputKeys, verify),
	 .def = "yes",
	 .doc = "Check the next node's certificate: yes, no, or the path of a CA file."},
	{.name = "api_key_file",
	 .type = CONF_SECRET,
	 .offset = CONF_KEY(RestOutputKeys, api_key),
	 .doc = "File whose first line is the API key that the next node is shown."},
	{.name = "client_cert",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(RestOutputKeys, client_cert),
	 .doc = "PEM file with the certificate (and chain) that the next node is shown, over https."},
	{.name = "client_key",
	 .type = CONF_STRING,
	 .offset = CONF_KEY(RestOutputKeys, client_key),
	 .doc = "PEM file with its key."},
	{.name = "rcpt_timeout",
	 .type = CONF_SECONDS,
	 .offset = CONF_KEY(RestOutputKeys, rcpt_timeout),
	 .def = "30",
	 .min = 0.001,
	 .max = 86400,
	 .doc = "Seconds for the answers to sender and recipients, all hosts together."},
	{.name = "data_timeout",
	 .type = CONF_SECONDS,
	 .offset = CONF_KEY(RestOutputKeys, data_timeout),
	 .def = "300",
	 .min = 0.001,
	 .max = 86400,
	 .doc = "Seconds for the upload of the message."},
	{.name = "chunk_size",
	 .type = CONF_SIZE,
	 .offset = CONF_KEY(RestOutputKeys, chunk_size),
	 .doc = "Bytes of one upload request; absent: the whole body in one."},
	{.name = "static_remote_host", .type = CONF_IGNORED, .doc = "Without effect."},
	{0},
};

const FilterKind filter_rest_output_kind = {
	.name = "rest_output",
	.doc = "Ends a chain: sends the transaction to the node that the router chose, trying its hosts "
	       "in order.",
	.flags = FILTER_TERMINAL,
	.conf_size = sizeof(RestOutputKeys),
	.keys = rest_output_keys,
	.state_size = sizeof(RestOutput),
	.open = rest_output_open,
	.update = rest_output_update,
	.close = rest_output_close,
	.example = "- filter: router\n"
		   "  destination: {endpoint: gateway, host_list: [{host: 192.0.2.25, port: 25}]}\n"
		   "- filter: rest_output\n"
		   "  rcpt_timeout: 30\n"
		   "  data_timeout: 300\n",
};
