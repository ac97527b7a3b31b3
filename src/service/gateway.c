/* SPDX-License-Identifier: Apache-2.0 */
#include "service/gateway.h"

#include "base/error.h"
#include "base/text.h"
#include "service/gateway_int.h"

/* ---- SMTP in ---- */

static TxPort *
take(void *arg, Worker *worker, Tx *tx)
{
	GatewayService *service = arg;
	TxPorts *ports = service->gateway->ports[worker_index(worker)];
	const RestOutputConf *output = service->output;
	const TxPortOptions options = {.rcpt_timeout = output->rcpt_timeout,
				       .data_timeout = output->data_timeout,
				       .chunk_size = (size_t)output->chunk_size,
				       .verify = output->verify};
	TxPort *port = ports->open_url(ports, output->endpoint, tx, &options);
	if (!text_equal_nocase(port->ops->name, "remote"))
		return port;
	return keepalive_start(worker, tx, port, output->refresh_interval);
}

static void
on_accept(void *arg, Worker *worker, int fd, const NetAddr *peer)
{
	GatewayService *service = arg;
	(void)peer;
	smtp_sessions_accept(service->sessions[worker_index(worker)], fd);
}

/* A line for each mail transaction and each session. */
static void
on_event(void *arg, const SmtpServerEvent *event)
{
	const GatewayService *service = arg;
	const LogCtx ctx = {.session = event->session,
			    .tx = event->tx != NULL ? event->tx->id : NULL};
	if (event->kind == SMTP_SERVER_SESSION) {
		log_info(&ctx, "smtp.session", LOG_S("peer", event->peer),
			 LOG_S("helo", event->helo), LOG_S("reason", event->reason),
			 LOG_I("accepted", event->accepted),
			 LOG_I("transactions", event->transactions), LOG_I("errors", event->errors),
			 LOG_T("took", event->duration));
		return;
	}
	const Tx *tx = event->tx;
	log_info(&ctx, "smtp.message", LOG_S("peer", event->peer), LOG_S("helo", event->helo),
		 LOG_S("tag", service->yaml->tag),
		 LOG_S("from", tx->mail_from != NULL ? tx->mail_from->addr : NULL),
		 LOG_S("to", tx_rcpt_count(tx) > 0 ? tx_rcpt(tx, 0)->to->addr : NULL),
		 LOG_I("rcpts", tx_rcpt_count(tx)), LOG_I("bytes", event->bytes),
		 LOG_S("reason", event->reason), LOG_I("code", event->code),
		 LOG_S("text", event->text), LOG_T("took", event->duration));
}

static void
service_init(Gateway *gateway, GatewayService *service, const SmtpServiceYaml *yaml)
{
	const KoukanConf *own = &gateway->config->koukan;
	service->gateway = gateway;
	service->yaml = yaml;
	service->output = gateway_config_output(gateway->config, yaml->endpoint);
	k_assert_for(service->output != NULL, yaml->endpoint); /* checked at load */
	SmtpServiceConf *conf = &service->conf;
	smtp_service_conf_init(conf);
	conf->hostname = gateway->hostname;
	conf->sender = yaml->sender;
	conf->tag = yaml->tag;
	conf->rcpt_timeout = yaml->rcpt_timeout;
	conf->data_timeout = yaml->data_timeout;
	conf->limits.message_max = (uint64_t)own->message_max;
	conf->limits.rcpt_max = (unsigned)own->rcpt_max;
	conf->body = gateway->host.blobs;
	conf->body.size_max = 0; /* counted by the session, which answers 552 */
	conf->take = take;
	conf->on_event = on_event;
	conf->arg = service;
	unsigned workers = workers_count(gateway->workers);
	service->sessions = g_new0(SmtpSessions *, workers);
	for (unsigned i = 0; i < workers; i++)
		service->sessions[i] = smtp_sessions_new(workers_get(gateway->workers, i),
							 &service->conf);
}

bool
gateway_listen(Gateway *gateway, GError **ret_error)
{
	if (gateway->outputs_error != NULL) {
		g_propagate_error(ret_error, g_steal_pointer(&gateway->outputs_error));
		return false;
	}
	for (unsigned i = 0; i < gateway_services(gateway); i++) {
		GatewayService *service = &gateway->services[i];
		const HostPort *addr = service->yaml->addr;
		service->listener = listener_open(gateway->workers, addr->host, addr->port,
						  on_accept, service, ret_error);
		if (service->listener == NULL) {
			g_prefix_error(ret_error, "smtp_listener %s/%s: ", service->yaml->endpoint,
				       service->yaml->tag);
			return false;
		}
	}
	return true;
}

/* ---- drain ---- */

static void
drain_home(void *arg)
{
	GatewayHome *home = arg;
	Gateway *gateway = home->gateway;
	for (unsigned i = 0; i < gateway_services(gateway); i++)
		smtp_sessions_drain(gateway->services[i].sessions[worker_index(home->worker)]);
}

void
gateway_drain(Gateway *gateway)
{
	atomic_store(&gateway->draining, true);
	for (unsigned i = 0; i < gateway_services(gateway); i++) {
		listener_free(gateway->services[i].listener);
		gateway->services[i].listener = NULL;
	}
	for (unsigned i = 0; i < workers_count(gateway->workers); i++)
		worker_post(gateway->homes[i].worker, drain_home, &gateway->homes[i]);
}

static void
count_sessions(void *arg)
{
	GatewayHome *home = arg;
	Gateway *gateway = home->gateway;
	unsigned count = 0;
	for (unsigned i = 0; i < gateway_services(gateway); i++)
		count += smtp_sessions_count(
			gateway->services[i].sessions[worker_index(home->worker)]);
	atomic_store(&home->sessions, count);
}

unsigned
gateway_active(Gateway *gateway)
{
	unsigned active = 0;
	for (unsigned i = 0; i < workers_count(gateway->workers); i++) {
		GatewayHome *home = &gateway->homes[i];
		worker_post(home->worker, count_sessions, home); /* for the next call */
		active += atomic_load(&home->sessions) + atomic_load(&home->active);
	}
	return active;
}

/* ---- life ---- */

Gateway *
gateway_new(const GatewayOptions *options)
{
	Gateway *gateway = g_new0(Gateway, 1);
	gateway->config = gateway_config_ref(options->config);
	gateway->workers = options->workers;
	gateway->ports = options->ports;
	gateway->hostname = g_strdup(options->hostname);
	gateway->host.blobs = options->blobs;
	gateway->host.entropy = (unsigned)gateway->config->rest.rest_id_entropy;
	gateway_rest_init(gateway);
	gateway_set_uris(gateway, options->uris.session_uri);
	gateway_outputs_init(gateway);
	unsigned workers = workers_count(gateway->workers);
	gateway->homes = g_new0(GatewayHome, workers);
	for (unsigned i = 0; i < workers; i++) {
		GatewayHome *home = &gateway->homes[i];
		home->gateway = gateway;
		home->worker = workers_get(gateway->workers, i);
		home->pool = smtp_client_pool_new(home->worker);
		home->deliveries = g_hash_table_new(NULL, NULL);
	}
	gateway->services = g_new0(GatewayService, gateway->config->services->len + 1);
	for (guint i = 0; i < gateway->config->services->len; i++)
		service_init(gateway, &gateway->services[i],
			     g_ptr_array_index(gateway->config->services, i));
	return gateway;
}

void
gateway_set_uris(Gateway *gateway, const char *session_uri)
{
	g_free(gateway->session_uri);
	gateway->session_uri = g_strdup(session_uri);
	gateway->host.uris = (TxUris){gateway->session_uri, gateway->session_uri};
}

static void
service_clear(Gateway *gateway, GatewayService *service)
{
	listener_free(service->listener);
	for (unsigned i = 0; i < workers_count(gateway->workers); i++)
		smtp_sessions_free(service->sessions[i]);
	g_free(service->sessions);
}

void
gateway_free(Gateway *gateway)
{
	if (gateway == NULL)
		return;
	for (unsigned i = 0; i < gateway_services(gateway); i++)
		service_clear(gateway, &gateway->services[i]);
	for (unsigned i = 0; i < workers_count(gateway->workers); i++) {
		gateway_rest_clear(&gateway->homes[i]);
		smtp_client_pool_free(gateway->homes[i].pool);
	}
	g_free(gateway->services);
	g_free(gateway->homes);
	gateway_outputs_clear(gateway);
	gateway_config_unref(gateway->config);
	g_free(gateway->hostname);
	g_free(gateway->session_uri);
	g_free(gateway);
}

unsigned
gateway_services(const Gateway *gateway)
{
	return gateway->config->services->len;
}

uint16_t
gateway_service_port(const Gateway *gateway, unsigned index)
{
	return listener_port(gateway->services[index].listener);
}

const SmtpServiceYaml *
gateway_service_conf(const Gateway *gateway, unsigned index)
{
	return gateway->services[index].yaml;
}

RestHost *
gateway_rest_host(Gateway *gateway)
{
	return &gateway->host;
}
