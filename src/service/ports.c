/* SPDX-License-Identifier: Apache-2.0 */
#include "service/ports.h"

#include <string.h>

#include "http/route.h"
#include "rest/remote.h"

char *
url_of_listener(bool tls, const char *host, uint16_t port)
{
	const char *scheme = tls ? "https" : "http";
	if (strchr(host, ':') != NULL)
		return g_strdup_printf("%s://[%s]:%u", scheme, host, (unsigned)port);
	return g_strdup_printf("%s://%s:%u", scheme, host, (unsigned)port);
}

void
local_urls_init(LocalUrls *urls)
{
	urls->router = g_ptr_array_new_with_free_func(g_free);
	urls->gateway = g_ptr_array_new_with_free_func(g_free);
}

void
local_urls_clear(LocalUrls *urls)
{
	g_ptr_array_unref(urls->router);
	g_ptr_array_unref(urls->gateway);
}

void
local_urls_add(GPtrArray *bases, const char *base)
{
	if (base == NULL || strstr(base, "://") == NULL)
		return;
	g_ptr_array_add(bases, http_join(base, ""));
}

static void
add_host(GPtrArray *bases, bool tls, const char *host, uint16_t port)
{
	g_ptr_array_add(bases, url_of_listener(tls, host, port));
}

void
local_urls_add_listener(GPtrArray *bases, bool tls, const char *host, uint16_t port)
{
	static const char *const loopback[] = {"localhost", "127.0.0.1", "::1"};
	bool local = false;
	for (size_t i = 0; i < G_N_ELEMENTS(loopback); i++)
		local = local || g_str_equal(host, loopback[i]);
	if (!local)
		add_host(bases, tls, host, port);
	else if (g_str_equal(host, "localhost"))
		for (size_t i = 0; i < G_N_ELEMENTS(loopback); i++)
			add_host(bases, tls, loopback[i], port);
	else
		add_host(bases, tls, host, port);
}

char *
local_urls_sender(const GPtrArray *bases, const char *url)
{
	static const char head[] = "/senders/", tail[] = "/transactions";
	for (guint i = 0; i < bases->len; i++) {
		const char *base = g_ptr_array_index(bases, i);
		size_t len = strlen(base);
		if (strncmp(url, base, len) != 0 || !g_str_has_prefix(url + len, head))
			continue;
		const char *name = url + len + strlen(head);
		const char *slash = strchr(name, '/');
		if (slash != NULL && slash > name && g_str_equal(slash, tail))
			return g_strndup(name, (size_t)(slash - name));
	}
	return NULL;
}

static TxPort *
open_url(TxPorts *base, const char *url, Tx *tx, const TxPortOptions *options)
{
	WorkerPorts *ports = (WorkerPorts *)base;
	if (ports->router != NULL) {
		g_autofree char *sender = local_urls_sender(ports->urls->router, url);
		if (sender != NULL)
			return router_port_start(ports->router, ports->worker, sender,
						 tx->sender_tag, tx);
	}
	if (ports->gateway != NULL) {
		g_autofree char *sender = local_urls_sender(ports->urls->gateway, url);
		if (sender != NULL)
			return gateway_port_start(ports->gateway, ports->worker, tx->sender_tag,
						  tx);
	}
	return remote_port_start(ports->http, ports->worker, url, tx, options);
}

static TxPort *
open_sender(TxPorts *base, const char *sender, const char *tag, Tx *tx)
{
	WorkerPorts *ports = (WorkerPorts *)base;
	k_assert(ports->router != NULL); /* only its chains ask */
	return router_port_start(ports->router, ports->worker, sender, tag, tx);
}

void
worker_ports_init(WorkerPorts *ports)
{
	ports->ports = (TxPorts){.open_url = open_url, .open_sender = open_sender};
}
