/* SPDX-License-Identifier: Apache-2.0 */
#include "service/gateway.h"

#include "base/error.h"
#include "base/text.h"
#include "service/gateway_int.h"

/* ---- SMTP in: listening ---- */

static void
on_accept(void *arg, Worker *worker, int fd, const NetAddr *peer)
{
	GatewayService *service = arg;
	(void)peer;
	smtp_sessions_accept(service->sessions[worker_index(worker)], fd);
}

/* On the sockets that were handed over under the service's name, else on its address. */
static Listener *
open_listener(Gateway *gateway, GatewayService *service, GError **ret_error)
{
	const SmtpServiceYaml *yaml = service->yaml;
	g_autoptr(GArray) fds = NULL;
	if (yaml->socket != NULL) {
		fds = activation_fds(gateway->activation, yaml->socket, ret_error);
		if (fds == NULL)
			return NULL;
	}
	if (fds != NULL && fds->len > 0)
		return listener_open_fds(gateway->workers, fds, on_accept, service);
	return listener_open(gateway->workers, yaml->addr->host, yaml->addr->port, on_accept,
			     service, ret_error);
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
		if (gateway_service_load(service, ret_error))
			service->listener = open_listener(gateway, service, ret_error);
		/* where the client reads plain text first */
		if (service->listener != NULL && !service->conf.tls_implicit)
			listener_set_farewell(service->listener,
					      "421 4.3.2 Error: too many connections\r\n");
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
	gateway->pool = options->pool;
	gateway->activation = options->activation;
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
		gateway_service_init(gateway, &gateway->services[i],
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

void
gateway_free(Gateway *gateway)
{
	if (gateway == NULL)
		return;
	for (unsigned i = 0; i < gateway_services(gateway); i++)
		gateway_service_clear(&gateway->services[i]);
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
