/* SPDX-License-Identifier: Apache-2.0 */
/* The table of functions that plug-ins get.  A call is a PluginView (plugin/view.h). */
#include <string.h>

#include "base/json.h"
#include "plugin/config.h"
#include "plugin/library.h"

_Static_assert(KOUKAN_FIELDS_MAX == PLUGIN_FIELDS_MAX, "as the public header says");
_Static_assert(KOUKAN_FIELD_VALUE_MAX == PLUGIN_FIELD_VALUE_MAX, "as the public header says");
_Static_assert(KOUKAN_HOSTS_MAX == PLUGIN_HOSTS_MAX, "as the public header says");

static const PluginView *
view_of(const KoukanCall *call)
{
	return (const PluginView *)call;
}

static PluginView *
own_view(KoukanCall *call)
{
	return (PluginView *)call;
}

/* ---- looking ---- */

static const char *
host_text(const KoukanCall *call, KoukanText which)
{
	const PluginView *view = view_of(call);
	const Tx *tx = view->tx;
	switch (which) {
	case KOUKAN_REMOTE_HOST:
		return tx->remote_host != NULL ? tx->remote_host->host : NULL;
	case KOUKAN_LOCAL_HOST:
		return tx->local_host != NULL ? tx->local_host->host : NULL;
	case KOUKAN_EHLO:
		return plugin_view_meta(view, "ehlo_host");
	case KOUKAN_AUTH_USER:
		return plugin_view_meta(view, SMTP_META_AUTH_USER);
	case KOUKAN_TLS_VERSION:
		return plugin_view_meta(view, SMTP_META_TLS_VERSION);
	case KOUKAN_TLS_CIPHER:
		return plugin_view_meta(view, SMTP_META_TLS_CIPHER);
	case KOUKAN_TLS_PEER:
		return plugin_view_meta(view, SMTP_META_TLS_PEER);
	case KOUKAN_MAIL_FROM:
		return tx->mail_from != NULL ? tx->mail_from->addr : NULL;
	case KOUKAN_RCPT:
		return view->rcpt;
	case KOUKAN_SENDER:
		return tx->sender_name;
	case KOUKAN_TAG:
		return tx->sender_tag;
	}
	return NULL; /* of a later version */
}

static int64_t
host_number(const KoukanCall *call, KoukanNumber which)
{
	const PluginView *view = view_of(call);
	switch (which) {
	case KOUKAN_REMOTE_PORT:
		return view->tx->remote_host != NULL ? view->tx->remote_host->port
						     : KOUKAN_E_UNAVAILABLE;
	case KOUKAN_TLS:
		return view->tx->smtp_meta != NULL ? plugin_view_meta_true(view, "tls")
						   : KOUKAN_E_UNAVAILABLE;
	case KOUKAN_AUTH:
		return view->tx->smtp_meta != NULL ? plugin_view_meta_true(view, "auth")
						   : KOUKAN_E_UNAVAILABLE;
	case KOUKAN_RCPT_COUNT:
		return (int64_t)tx_rcpt_count(view->tx);
	case KOUKAN_SIZE:
		return view->message != NULL ? (int64_t)blob_len(view->message)
					     : KOUKAN_E_UNAVAILABLE;
	case KOUKAN_FIELD_COUNT:
		/* the header is a cache */
		return view->message != NULL ? (int64_t)plugin_view_field_count((PluginView *)view)
					     : KOUKAN_E_UNAVAILABLE;
	}
	return KOUKAN_E_UNAVAILABLE;
}

static const char *
host_rcpt(const KoukanCall *call, size_t index)
{
	const Tx *tx = view_of(call)->tx;
	return index < tx_rcpt_count(tx) ? tx_rcpt(tx, index)->to->addr : NULL;
}

static const char *
host_header(KoukanCall *call, const char *name, size_t index)
{
	return name != NULL ? plugin_view_header(own_view(call), name, index) : NULL;
}

static int
host_field(KoukanCall *call, size_t index, const char **ret_name, const char **ret_value)
{
	PluginView *view = own_view(call);
	const MimeField *field = plugin_view_field(view, index);
	if (field == NULL)
		return KOUKAN_E_UNAVAILABLE;
	*ret_name = plugin_view_lend(view, g_strndup(field->name, field->name_len));
	*ret_value = plugin_view_lend(view, mime_field_unfold(field));
	return 0;
}

static int64_t
host_read(KoukanCall *call, uint64_t offset, void *buf, size_t len)
{
	const PluginView *view = view_of(call);
	size_t got = 0;
	if (view->message == NULL)
		return KOUKAN_E_UNAVAILABLE;
	if (offset >= blob_len(view->message))
		return 0;
	return blob_read(view->message, offset, buf, len, &got, NULL) ? (int64_t)got : KOUKAN_ERROR;
}

static const char *
host_signal(KoukanCall *call, const char *name)
{
	PluginView *view = own_view(call);
	const json_t *signal = name != NULL ? json_object_get(view->signals, name) : NULL;
	return signal != NULL ? plugin_view_lend(view, json_print(signal)) : NULL;
}

/* ---- doing ---- */

static void
host_log(const KoukanCall *call, KoukanLevel level, const char *text)
{
	static const LogLevel levels[] = {LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR};
	const PluginView *view = view_of(call);
	unsigned index = (unsigned)level;
	log_at(levels[MIN(index, G_N_ELEMENTS(levels) - 1)], view != NULL ? view->log : NULL,
	       "plugin.says", LOG_S("plugin", view != NULL ? view->name : NULL),
	       LOG_S("message", text));
}

/* Told apart for the log alone: a plug-in sees KOUKAN_E_INVALID. */
static int
done(const PluginView *view, bool good, const char *why)
{
	if (good)
		return 0;
	log_warn(view->log, "plugin.misuse", LOG_S("plugin", view->name), LOG_S("error", why));
	return KOUKAN_E_INVALID;
}

static int
host_answer(KoukanCall *call, int code, const char *text)
{
	const char *why = NULL;
	bool good = plugin_view_answer(own_view(call), code, text, &why);
	return done(view_of(call), good, why);
}

static int
host_add_header(KoukanCall *call, const char *name, const char *value)
{
	const char *why = NULL;
	PluginView *view = own_view(call);
	if (view->fields == NULL)
		return KOUKAN_E_UNAVAILABLE;
	if (*view->n_fields >= PLUGIN_FIELDS_MAX)
		return KOUKAN_E_LIMIT;
	bool good = plugin_view_add_header(view, name, value, &why);
	return done(view, good, why);
}

static int
host_route_endpoint(KoukanCall *call, const char *name)
{
	PluginView *view = own_view(call);
	if (view->event != PLUGIN_ROUTE)
		return KOUKAN_E_UNAVAILABLE;
	if (name == NULL || *name == '\0')
		return KOUKAN_E_INVALID;
	g_free(view->endpoint);
	view->endpoint = g_strdup(name);
	return 0;
}

static int
host_route_host(KoukanCall *call, const char *host, uint16_t port)
{
	const char *why = NULL;
	PluginView *view = own_view(call);
	if (view->event != PLUGIN_ROUTE)
		return KOUKAN_E_UNAVAILABLE;
	if (view->hosts != NULL && view->hosts->len >= PLUGIN_HOSTS_MAX)
		return KOUKAN_E_LIMIT;
	bool good = plugin_view_add_host(view, host, port, &why);
	return done(view, good, why);
}

const KoukanHost plugin_host = {
	.size = sizeof(KoukanHost),
	.abi = KOUKAN_PLUGIN_ABI,
	.version = KOUKAN_VERSION,
	.config_json = plugin_config_json,
	.config_text = plugin_config_text,
	.config_number = plugin_config_number,
	.config_bool = plugin_config_bool,
	.config_error = plugin_config_error,
	.config_known = plugin_config_known,
	.text = host_text,
	.number = host_number,
	.rcpt = host_rcpt,
	.header = host_header,
	.field = host_field,
	.read = host_read,
	.signal = host_signal,
	.log = host_log,
	.answer = host_answer,
	.add_header = host_add_header,
	.route_endpoint = host_route_endpoint,
	.route_host = host_route_host,
};
