/* SPDX-License-Identifier: Apache-2.0 */
/* SMTP in: what a service's keys make of its sessions, and the certificates that SIGHUP replaces.
 */
#include <sys/resource.h>

#include "base/error.h"
#include "base/metrics.h"
#include "base/text.h"
#include "service/gateway_int.h"

#define DESCRIPTORS_KEPT 64 /* not for sessions, and an eighth of all */

static TxPort *
take(void *arg, Worker *worker, Tx *tx)
{
	GatewayService *service = arg;
	TxPorts *ports = service->gateway->ports[worker_index(worker)];
	const RestOutputConf *output = service->output;
	const TxPortOptions options = {.rcpt_timeout = output->rcpt_timeout,
				       .data_timeout = output->data_timeout,
				       .chunk_size = (size_t)output->chunk_size,
				       .verify = output->verify,
				       .api_key = output->api_key,
				       .client_cert = output->client_cert,
				       .client_key = output->client_key};
	TxPort *port = ports->open_url(ports, output->endpoint, tx, &options);
	if (!text_equal_nocase(port->ops->name, "remote"))
		return port;
	return keepalive_start(worker, tx, port, output->refresh_interval);
}

static const char *
tls_version(const SmtpServerEvent *event)
{
	return event->tls != NULL ? event->tls->version : NULL;
}

static void
log_session(const LogCtx *ctx, const SmtpServerEvent *event)
{
	log_info(ctx, "smtp.session", LOG_S("peer", event->peer), LOG_S("helo", event->helo),
		 LOG_S("reason", event->reason), LOG_I("accepted", event->accepted),
		 LOG_I("transactions", event->transactions), LOG_I("errors", event->errors),
		 LOG_S("user", event->auth_user), LOG_S("tls", tls_version(event)),
		 LOG_S("cipher", event->tls != NULL ? event->tls->cipher : NULL),
		 LOG_S("certificate", event->tls != NULL ? event->tls->peer : NULL),
		 LOG_T("took", event->duration));
}

static void
count_event(const SmtpServerEvent *event)
{
	if (event->kind != SMTP_SERVER_TRANSACTION) {
		metric_add(event->kind == SMTP_SERVER_SESSION ? METRIC_SMTP_SESSIONS
							      : METRIC_SMTP_AUTH_FAILED,
			   1);
		return;
	}
	int class = event->code / 100;
	metric_add(class == 2   ? METRIC_SMTP_ACCEPTED
		   : class == 4 ? METRIC_SMTP_TEMPORARY
		   : class == 5 ? METRIC_SMTP_REJECTED
				: METRIC_SMTP_OTHER,
		   1);
	metric_observe(HISTOGRAM_SMTP_MESSAGE, event->duration);
}

/* A line for each mail transaction and each session. */
static void
on_event(void *arg, const SmtpServerEvent *event)
{
	const GatewayService *service = arg;
	const LogCtx ctx = {.session = event->session,
			    .tx = event->tx != NULL ? event->tx->id : NULL};
	count_event(event);
	if (event->kind == SMTP_SERVER_AUTH_FAILED) {
		log_warn(&ctx, "smtp.auth_failed", LOG_S("peer", event->peer),
			 LOG_S("user", event->auth_user), LOG_S("reason", event->reason));
		return;
	}
	if (event->kind == SMTP_SERVER_SESSION) {
		log_session(&ctx, event);
		return;
	}
	const Tx *tx = event->tx;
	log_info(&ctx, "smtp.message", LOG_S("peer", event->peer), LOG_S("helo", event->helo),
		 LOG_S("user", event->auth_user), LOG_S("tls", tls_version(event)),
		 LOG_S("tag", service->yaml->tag),
		 LOG_S("from", tx->mail_from != NULL ? tx->mail_from->addr : NULL),
		 LOG_S("to", tx_rcpt_count(tx) > 0 ? tx_rcpt(tx, 0)->to->addr : NULL),
		 LOG_I("rcpts", tx_rcpt_count(tx)), LOG_I("bytes", event->bytes),
		 LOG_S("reason", event->reason), LOG_I("code", event->code),
		 LOG_S("text", event->text), LOG_T("took", event->duration));
}

static bool
has_tls(const GatewayService *service)
{
	return service->yaml->cert != NULL && service->yaml->key != NULL;
}

static NetCidr *
read_networks(const GPtrArray *list, size_t *ret_count)
{
	guint count = list != NULL ? list->len : 0;
	NetCidr *networks = g_new0(NetCidr, count + 1);
	for (guint i = 0; i < count; i++) {
		bool ok = net_cidr_parse(g_ptr_array_index(list, i), &networks[i]);
		k_assert(ok); /* checked at load */
	}
	*ret_count = count;
	return networks;
}

static bool
admit(void *arg, SmtpGate gate, const char *address)
{
	GatewayService *service = arg;
	return gateway_limits_admit(service->limits, gate, address);
}

static void
leave(void *arg, const char *address)
{
	GatewayService *service = arg;
	gateway_limits_leave(service->limits, address);
}

static GatewayLimits *
make_limits(const SmtpServiceYaml *yaml)
{
	const Usec minute = 60 * USEC_PER_SEC;
	GatewayLimitsConf conf = {
		.connections_max = (unsigned)yaml->connections_max,
		.connections_per_client = (unsigned)yaml->connections_per_client,
		.rates = {
			[SMTP_GATE_CONNECTION] = {(unsigned)yaml->connections_per_minute, minute},
			[SMTP_GATE_MESSAGE] = {(unsigned)yaml->messages_per_minute, minute},
			[SMTP_GATE_RCPT] = {(unsigned)yaml->recipients_per_minute, minute},
		}};
	if (yaml->auth_secrets != NULL)
		conf.rates[SMTP_GATE_AUTH_FAILURE] = (GatewayRate){
			(unsigned)yaml->auth_failures_per_hour, 60 * minute};
	return gateway_limits_new(&conf);
}

/* Sessions of one worker that there are descriptors for, beside those of next hops, of large
 * messages and of the rest of the process. */
static unsigned
sessions_max(const Gateway *gateway, unsigned most)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
		return most;
	uint64_t all = limit.rlim_cur;
	uint64_t kept = all / 8 + MIN(all / 2, (uint64_t)DESCRIPTORS_KEPT);
	uint64_t share = (all - kept) / workers_count(gateway->workers);
	return (unsigned)CLAMP(share, 1, most);
}

void
gateway_service_init(Gateway *gateway, GatewayService *service, const SmtpServiceYaml *yaml)
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
	conf->limits.sessions_max = sessions_max(gateway, conf->limits.sessions_max);
	conf->body = gateway->host.blobs;
	conf->body.size_max = 0; /* counted by the session, which answers 552 */
	conf->take = take;
	conf->on_event = on_event;
	conf->arg = service;
	conf->tls_implicit = yaml->smtps && has_tls(service);
	service->proxies = read_networks(yaml->proxy_protocol_from, &conf->n_proxies);
	conf->proxies = service->proxies;
	conf->proxy_timeout = yaml->proxy_protocol_timeout;
	service->xclients = read_networks(yaml->xclient_from, &conf->n_xclients);
	conf->xclients = service->xclients;
	service->limits = make_limits(yaml);
	if (service->limits != NULL) {
		conf->admit = admit;
		conf->leave = leave;
	}
	conf->lmtp = yaml->protocol == 1;
	if (conf->lmtp)
		conf->greeting = "LMTP koukan gateway";
	conf->chunking = yaml->enable_bdat;
	conf->binarymime = yaml->binarymime;
	conf->normalize = yaml->bare_newline == 1;
	conf->dsn = yaml->dsn;
	conf->announce_limits = yaml->announce_limits;
	conf->pool = gateway->pool;
	conf->auth_clear_loopback = yaml->auth_clear_loopback;
	conf->require_auth = yaml->require_auth;
	unsigned workers = workers_count(gateway->workers);
	service->sessions = g_new0(SmtpSessions *, workers);
	for (unsigned i = 0; i < workers; i++)
		service->sessions[i] = smtp_sessions_new(workers_get(gateway->workers, i),
							 &service->conf);
}

/* ---- what is read from files ---- */

/* What goes to one worker; the references are its own. */
typedef struct Fresh {
	GatewayService *service;
	unsigned worker;
	TlsContext *tls;
	SmtpSecrets *secrets;
} Fresh;

static void
take_fresh(void *arg)
{
	Fresh *fresh = arg;
	SmtpSessions *sessions = fresh->service->sessions[fresh->worker];
	smtp_sessions_set_tls(sessions, fresh->tls);
	smtp_sessions_set_secrets(sessions, fresh->secrets);
	tls_context_unref(fresh->tls);
	smtp_secrets_unref(fresh->secrets);
	g_free(fresh);
}

static TlsContext *
load_tls(const SmtpServiceYaml *yaml, GError **ret_error)
{
	g_autoptr(TlsContext) tls = tls_server_new(yaml->cert, yaml->key, ret_error);
	if (tls == NULL)
		return NULL;
	for (guint i = 0; i < yaml->certificates->len; i++) {
		const SmtpCertYaml *more = g_ptr_array_index(yaml->certificates, i);
		if (!tls_server_add(tls, more->cert, more->key, ret_error))
			return NULL;
	}
	if (yaml->client_ca != NULL && !tls_server_ask(tls, yaml->client_ca, ret_error))
		return NULL;
	return g_steal_pointer(&tls);
}

bool
gateway_service_load(GatewayService *service, GError **ret_error)
{
	Workers *workers = service->gateway->workers;
	g_autoptr(TlsContext) tls = NULL;
	if (has_tls(service)) {
		tls = load_tls(service->yaml, ret_error);
		if (tls == NULL)
			return false;
	}
	g_autoptr(SmtpSecrets) secrets = NULL;
	if (service->yaml->auth_secrets != NULL) {
		secrets = smtp_secrets_load(service->yaml->auth_secrets, ret_error);
		if (secrets == NULL) {
			g_prefix_error(ret_error, "auth_secrets: ");
			return false;
		}
	}
	for (unsigned i = 0; i < workers_count(workers); i++) {
		Fresh *fresh = g_new0(Fresh, 1);
		fresh->service = service;
		fresh->worker = i;
		fresh->tls = tls != NULL ? tls_context_ref(tls) : NULL;
		fresh->secrets = secrets != NULL ? smtp_secrets_ref(secrets) : NULL;
		worker_post(workers_get(workers, i), take_fresh, fresh);
	}
	return true;
}

void
gateway_reload(Gateway *gateway)
{
	for (unsigned i = 0; i < gateway_services(gateway); i++) {
		GatewayService *service = &gateway->services[i];
		g_autoptr(GError) error = NULL;
		bool ok = gateway_service_load(service, &error);
		if (ok)
			log_info(NULL, "smtp.reloaded", LOG_S("endpoint", service->yaml->endpoint),
				 LOG_S("tag", service->yaml->tag));
		else
			log_error(NULL, "smtp.reload_failed",
				  LOG_S("endpoint", service->yaml->endpoint),
				  LOG_S("tag", service->yaml->tag), LOG_S("error", error->message));
	}
}

void
gateway_service_clear(GatewayService *service)
{
	listener_free(service->listener);
	for (unsigned i = 0; i < workers_count(service->gateway->workers); i++)
		smtp_sessions_free(service->sessions[i]);
	g_free(service->sessions);
	gateway_limits_free(service->limits);
	g_free(service->proxies);
	g_free(service->xclients);
}
