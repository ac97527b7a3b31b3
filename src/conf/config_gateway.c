/* SPDX-License-Identifier: Apache-2.0 */
/* gateway.yaml. */
#include <string.h>

#include "conf/config_int.h"

static const ConfKey root_keys[] = {
	{.name = "global", .type = CONF_SECTION, .doc = "The process."},
	{.name = "rest_listener",
	 .type = CONF_SECTION,
	 .doc = "Where the REST API of the SMTP outputs listens."},
	{.name = "smtp_output", .type = CONF_SECTION, .doc = "How mail is sent by SMTP."},
	{.name = "smtp_listener", .type = CONF_SECTION, .doc = "Where mail is received by SMTP."},
	{.name = "rest_output",
	 .type = CONF_SECTION,
	 .doc = "Where received mail is handed on, a list."},
	{.name = "logging",
	 .type = CONF_SECTION,
	 .doc = "A Python dictConfig, of which the levels of `root` and `koukan` matter."},
	{.name = "koukan", .type = CONF_SECTION, .doc = "Settings of this implementation."},
	{0},
};

static const ConfKey global_keys[] = {
	{.name = "executor", .type = CONF_SECTION, .doc = "See below."},
	{0},
};

#define INFLIGHT_MIN 1000
#define AT(member)   .offset = CONF_KEY(GatewayConfig, member)
static const ConfKey executor_keys[] = {
	{.name = "max_inflight",
	 .type = CONF_INT,
	 AT(max_inflight),
	 .def = "1000",
	 .min = 1,
	 .max = 10000000,
	 .doc = "Transactions from REST to SMTP at the same time. The original counts threads "
		"here, so values under 1000 count as 1000."},
	{.name = "watchdog_timeout", .type = CONF_IGNORED},
	{0},
};
#undef AT

#define AT(member) .offset = CONF_KEY(RestListenerConf, member)
static const ConfKey listener_keys[] = {
	{.name = "addr",
	 .type = CONF_ADDR,
	 AT(addr),
	 .def = "localhost:8001",
	 .doc = "Listen address; port 0: the kernel chooses."},
	{.name = "cert", .type = CONF_STRING, AT(cert), .doc = "PEM file; with `key`: HTTPS."},
	{.name = "key", .type = CONF_STRING, AT(key), .doc = "PEM file."},
	{.name = "session_uri",
	 .type = CONF_STRING,
	 AT(session_uri),
	 .doc = "Base URL of this process in answers; without it made of the real address."},
	{.name = "gc_interval",
	 .type = CONF_SECONDS,
	 AT(gc_interval),
	 .def = "5",
	 .doc = "Seconds between looks for idle transactions."},
	{.name = "gc_tx_ttl",
	 .type = CONF_SECONDS,
	 AT(gc_tx_ttl),
	 .def = "600",
	 .doc = "Idle seconds after which an unfinished transaction is cancelled and forgotten."},
	{.name = "gc_done_ttl",
	 .type = CONF_SECONDS,
	 AT(gc_done_ttl),
	 .def = "10",
	 .doc = "Idle seconds after which a finished transaction is forgotten."},
	{.name = "rest_id_entropy",
	 .type = CONF_INT,
	 AT(rest_id_entropy),
	 .def = "16",
	 .min = 1,
	 .max = 64,
	 .doc = "Random bytes in transaction ids; values under 16 count as 16."},
	{.name = "chunk_size",
	 .type = CONF_SIZE,
	 AT(chunk_size),
	 .def = "1M",
	 .min = 1,
	 .max = 1024.0 * 1024 * 1024,
	 .doc = "Bytes per write of an upload."},
	{0},
};
#undef AT

static const ConfKey smtp_output_keys[] = {
	{.name = "hosts",
	 .type = CONF_SECTION,
	 .doc = "Map of `sender.tag` to the settings for it; see below."},
	{.name = "use_system_smtplib", .type = CONF_IGNORED},
	{0},
};

static const char *const protocol_names[] = {"smtp", "lmtp", NULL};
static const char *const tls_names[] = {"none",     "opportunistic", "required",
					"verified", "implicit",      NULL};

#define AT(member) .offset = CONF_KEY(SmtpHostConf, member)
static const ConfKey host_keys[] = {
	{.name = "ehlo_host",
	 .type = CONF_STRING,
	 AT(ehlo_host),
	 .flags = CONF_REQUIRED,
	 .doc = "Our name in EHLO or LHLO."},
	{.name = "protocol",
	 .type = CONF_ENUM,
	 AT(protocol),
	 .def = "smtp",
	 .names = protocol_names,
	 .doc = "What the next hop speaks."},
	{.name = "timeout",
	 .type = CONF_SECONDS,
	 AT(timeout),
	 .def = "3300",
	 .min = 0.01,
	 .max = 86400,
	 .doc = "Most seconds that any answer of the next hop may take."},
	{.name = "enable_bdat",
	 .type = CONF_BOOL,
	 AT(enable_bdat),
	 .flags = CONF_NULL_OK,
	 .doc = "Use BDAT where the next hop offers CHUNKING (RFC 3030)."},
	{.name = "chunk_size",
	 .type = CONF_SIZE,
	 AT(chunk_size),
	 .def = "64k",
	 .min = 1,
	 .max = 1024.0 * 1024 * 1024,
	 .doc = "Bytes of one BDAT chunk; from 4k to 1M."},
	{.name = "tls",
	 .type = CONF_ENUM,
	 AT(tls),
	 .def = "opportunistic",
	 .names = tls_names,
	 .doc = "TLS to the next hop: never; if it is offered and works; always; always and with a "
		"certificate for `tls_name`; from the first byte (verified with `tls_ca` or "
		"`tls_name`)."},
	{.name = "tls_ca",
	 .type = CONF_STRING,
	 AT(tls_ca),
	 .doc = "PEM file or folder of authorities, read at start; without it the system's."},
	{.name = "tls_name",
	 .type = CONF_STRING,
	 AT(tls_name),
	 .doc = "Host name that the next hop's certificate must carry; without it the address."},
	{.name = "tls_mx_name",
	 .type = CONF_BOOL,
	 AT(tls_mx_name),
	 .doc = "Ask for, and verify, the name of the mail host (MX) that the router connects to; "
		"`tls_name` where it has none."},
	{.name = "auth_user",
	 .type = CONF_STRING,
	 AT(auth_user),
	 .doc = "Log in to the next hop as this user, by AUTH PLAIN or LOGIN, under TLS or over "
		"loopback only; needs `auth_secret_file`."},
	{.name = "auth_secret_file",
	 .type = CONF_STRING,
	 AT(auth_secret_file),
	 .doc = "File whose first line is the password, read at start."},
	{.name = "source",
	 .type = CONF_STRING,
	 AT(source),
	 .doc = "Local address to connect from; hosts of the other address family then fail for "
		"now, so that the next one is tried."},
	{.name = "connections",
	 .type = CONF_INT,
	 AT(connections),
	 .def = "20",
	 .min = 1,
	 .max = 10000,
	 .doc = "Connections to one address at the same time, per worker; who comes later waits."},
	{.name = "reuse_max",
	 .type = CONF_INT,
	 AT(reuse_max),
	 .def = "100",
	 .min = 1,
	 .max = 1000000,
	 .doc = "Messages over one connection; 1: a new one for each."},
	{.name = "reuse_idle",
	 .type = CONF_SECONDS,
	 AT(reuse_idle),
	 .def = "2",
	 .max = 3600,
	 .doc = "Seconds for which an idle connection is kept."},
	{0},
};
#undef AT

static const ConfKey smtp_listener_keys[] = {
	{.name = "services", .type = CONF_SECTION, .doc = "The ports, a list; see below."},
	{0},
};

static const char *const bare_newline_names[] = {"reject", "normalize", NULL};

#define AT(member) .offset = CONF_KEY(SmtpCertYaml, member)
static const ConfKey cert_keys[] = {
	{.name = "cert",
	 .type = CONF_STRING,
	 AT(cert),
	 .flags = CONF_REQUIRED,
	 .doc = "PEM file with the certificate and its chain."},
	{.name = "key", .type = CONF_STRING, AT(key), .flags = CONF_REQUIRED, .doc = "PEM file."},
	{0},
};
#undef AT

static void
cert_free(void *data)
{
	conf_clear(data, cert_keys);
	g_free(data);
}

#define AT(member) .offset = CONF_KEY(SmtpServiceYaml, member)
static const ConfKey service_keys[] = {
	{.name = "addr",
	 .type = CONF_ADDR,
	 AT(addr),
	 .flags = CONF_REQUIRED,
	 .doc = "Listen address; port 0: the kernel chooses."},
	{.name = "socket",
	 .type = CONF_STRING,
	 AT(socket),
	 .doc = "Socket activation: when the process is started with sockets (systemd), the one of "
		"this FileDescriptorName is used instead of `addr`."},
	{.name = "endpoint",
	 .type = CONF_STRING,
	 AT(endpoint),
	 .flags = CONF_REQUIRED,
	 .doc = "Name of the `rest_output` that takes the mail."},
	{.name = "sender",
	 .type = CONF_STRING,
	 AT(sender),
	 .flags = CONF_REQUIRED,
	 .doc = "`sender.name` in the JSON; must be the one in the output's URL."},
	{.name = "tag", .type = CONF_STRING, AT(tag), .doc = "`sender.tag` in the JSON."},
	{.name = "cert",
	 .type = CONF_STRING,
	 AT(cert),
	 .doc = "PEM file; with `key`: STARTTLS, or TLS at once with `smtps`."},
	{.name = "key", .type = CONF_STRING, AT(key), .doc = "PEM file."},
	{.name = "protocol",
	 .type = CONF_ENUM,
	 AT(protocol),
	 .def = "smtp",
	 .names = protocol_names,
	 .doc = "What clients speak here; LMTP not on port 25."},
	{.name = "certificates",
	 .type = CONF_SECTION,
	 .doc = "More certificates, a list; a client that names one of their hosts (SNI) gets it, "
		"others get `cert`."},
	{.name = "client_ca",
	 .type = CONF_STRING,
	 AT(client_ca),
	 .doc = "PEM file or folder of authorities: clients are asked for a certificate, and the name "
		"in a good one is told to policies and to the log.  Nobody needs one."},
	{.name = "smtps",
	 .type = CONF_BOOL,
	 AT(smtps),
	 .flags = CONF_NULL_OK,
	 .doc = "TLS from the first byte."},
	{.name = "auth_secrets",
	 .type = CONF_STRING,
	 AT(auth_secrets),
	 .doc = "JSON file of users and hashes of their passwords (`koukan secret`); offers AUTH "
		"under TLS.  Read again on SIGHUP, as `cert` and `key` are."},
	{.name = "proxy_protocol_timeout",
	 .type = CONF_SECONDS,
	 AT(proxy_protocol_timeout),
	 .max = 3600,
	 .doc = "When set, a PROXY header is demanded within these seconds."},
	{.name = "rcpt_timeout",
	 .type = CONF_SECONDS,
	 AT(rcpt_timeout),
	 .def = "40",
	 .min = 0.01,
	 .max = 86400,
	 .doc = "Seconds to wait for the answer to RCPT."},
	{.name = "data_timeout",
	 .type = CONF_SECONDS,
	 AT(data_timeout),
	 .def = "310",
	 .min = 0.01,
	 .max = 86400,
	 .doc = "Seconds to wait for the answer to the message."},
	{.name = "enable_bdat",
	 .type = CONF_BOOL,
	 AT(enable_bdat),
	 .flags = CONF_NULL_OK,
	 .doc = "Offer CHUNKING (RFC 3030)."},
	{.name = "chunk_size",
	 .type = CONF_SIZE,
	 AT(chunk_size),
	 .max = 1024.0 * 1024 * 1024,
	 .doc = "Bytes handed on at a time; 0: as they come."},
	{.name = "require_auth",
	 .type = CONF_BOOL,
	 AT(require_auth),
	 .doc = "Refuse MAIL before AUTH (530 5.7.0)."},
	{.name = "auth_clear_loopback",
	 .type = CONF_BOOL,
	 AT(auth_clear_loopback),
	 .doc = "Clients on this machine may use AUTH without TLS."},
	{.name = "auth_failures_per_hour",
	 .type = CONF_INT,
	 AT(auth_failures_per_hour),
	 .def = "100",
	 .max = 1000000,
	 .doc = "Wrong passwords an hour from one client address before AUTH is refused; 0: any."},
	{.name = "proxy_protocol_from",
	 .type = CONF_STRINGS,
	 AT(proxy_protocol_from),
	 .doc = "Networks whose PROXY header is believed; others are cut off.  Default: loopback."},
	{.name = "xclient_from",
	 .type = CONF_STRINGS,
	 AT(xclient_from),
	 .doc = "Networks that may use XCLIENT.  Default: nobody."},
	{.name = "bare_newline",
	 .type = CONF_ENUM,
	 AT(bare_newline),
	 .def = "reject",
	 .names = bare_newline_names,
	 .doc = "What happens to a message with a CR or LF that is not part of a CRLF: 550, or each "
		"becomes CRLF."},
	{.name = "binarymime",
	 .type = CONF_BOOL,
	 AT(binarymime),
	 .doc = "Offer BINARYMIME (RFC 3030) beside CHUNKING.  Only where the next hop takes it, "
		"too."},
	{.name = "dsn",
	 .type = CONF_BOOL,
	 AT(dsn),
	 .doc = "Offer DSN (RFC 3461); the parameters go on with the mail."},
	{.name = "announce_limits",
	 .type = CONF_BOOL,
	 AT(announce_limits),
	 .doc = "Offer LIMITS (RFC 9422)."},
	{.name = "connections_max",
	 .type = CONF_INT,
	 AT(connections_max),
	 .max = 1000000,
	 .doc = "Connections to this port at the same time; 0: no limit."},
	{.name = "connections_per_client",
	 .type = CONF_INT,
	 AT(connections_per_client),
	 .max = 1000000,
	 .doc = "The same from one address (IPv6: one /64)."},
	{.name = "connections_per_minute",
	 .type = CONF_INT,
	 AT(connections_per_minute),
	 .max = 1000000,
	 .doc = "New connections a minute from one address; 0: no limit."},
	{.name = "messages_per_minute",
	 .type = CONF_INT,
	 AT(messages_per_minute),
	 .max = 1000000,
	 .doc = "MAIL commands a minute from one address; 0: no limit."},
	{.name = "recipients_per_minute",
	 .type = CONF_INT,
	 AT(recipients_per_minute),
	 .max = 1000000,
	 .doc = "RCPT commands a minute from one address; 0: no limit."},
	{0},
};
#undef AT

#define AT(member) .offset = CONF_KEY(RestOutputConf, member)
static const ConfKey output_keys[] = {
	{.name = "name",
	 .type = CONF_STRING,
	 AT(name),
	 .flags = CONF_REQUIRED,
	 .doc = "What a service's `endpoint` refers to."},
	{.name = "endpoint",
	 .type = CONF_STRING,
	 AT(endpoint),
	 .flags = CONF_REQUIRED,
	 .doc = "Creation URL of the router, as in http://HOST:8000/senders/NAME/transactions."},
	{.name = "verify",
	 .type = CONF_VERIFY,
	 AT(verify),
	 .def = "yes",
	 .doc = "For https: check the certificate against the system's CAs (yes), not at all (no), "
		"or against this file, which is opened only when it is needed."},
	{.name = "api_key_file",
	 .type = CONF_SECRET,
	 AT(api_key),
	 .doc = "File whose first line is the API key that the router is shown."},
	{.name = "client_cert",
	 .type = CONF_STRING,
	 AT(client_cert),
	 .doc = "PEM file with the certificate (and chain) that the router is shown, over https."},
	{.name = "client_key",
	 .type = CONF_STRING,
	 AT(client_key),
	 .doc = "PEM file with its key."},
	{.name = "rcpt_timeout",
	 .type = CONF_SECONDS,
	 AT(rcpt_timeout),
	 .def = "30",
	 .min = 0.01,
	 .max = 86400,
	 .doc = "Seconds for one update."},
	{.name = "data_timeout",
	 .type = CONF_SECONDS,
	 AT(data_timeout),
	 .def = "60",
	 .min = 0.01,
	 .max = 86400,
	 .doc = "Seconds for one upload."},
	{.name = "chunk_size",
	 .type = CONF_SIZE,
	 AT(chunk_size),
	 .def = "1M",
	 .max = 1024.0 * 1024 * 1024,
	 .doc = "Bytes of one upload request; 0: all in one."},
	{.name = "refresh_interval",
	 .type = CONF_SECONDS,
	 AT(refresh_interval),
	 .def = "30",
	 .min = 0.01,
	 .max = 86400,
	 .doc = "Seconds between pushes of what has come of a long message."},
	{0},
};
#undef AT

const ConfSection config_gateway_sections[] = {
	{"Gateway", "Top level of the file that `koukan gateway` reads.", root_keys},
	{"global.executor (gateway)", NULL, executor_keys},
	{"rest_listener (gateway)", NULL, listener_keys},
	{"smtp_output", NULL, smtp_output_keys},
	{"smtp_output.hosts.TAG", NULL, host_keys},
	{"smtp_listener.services[]", NULL, service_keys},
	{"smtp_listener.services[].certificates[]", NULL, cert_keys},
	{"rest_output[]", NULL, output_keys},
	{0},
};

/* ---- reading ---- */

typedef struct GatewayLoader {
	GatewayConfig *config;
	const YamlNode *root;
	ConfReport *report;
	GHashTable *addrs; /* char* "host:port" -> YamlNode* */
} GatewayLoader;

static void
note_addr(GatewayLoader *loader, const HostPort *addr, const YamlNode *place)
{
	if (addr == NULL || addr->port == 0)
		return;
	g_autofree char *text = g_strdup_printf("%s:%u", addr->host, addr->port);
	config_note_name(loader->addrs, "listen address", text, place, loader->report);
}

static bool
is_verified(const SmtpHostConf *host)
{
	const char *tls = tls_names[host->tls];
	return strcmp(tls, "verified") == 0 ||
	       (strcmp(tls, "implicit") == 0 &&
		(host->tls_ca != NULL || host->tls_name != NULL || host->tls_mx_name));
}

static void
check_host(const SmtpHostConf *host, const YamlNode *map, ConfReport *report)
{
	bool verified = is_verified(host);
	if (strcmp(tls_names[host->tls], "verified") == 0 && host->tls_name == NULL &&
	    !host->tls_mx_name)
		conf_warning(report, config_place(map, "tls"),
			     "'tls: verified' without 'tls_name': the certificate must carry the "
			     "address that is connected to");
	if (!verified && (host->tls_ca != NULL || host->tls_name != NULL))
		conf_warning(report,
			     config_place(map, host->tls_ca != NULL ? "tls_ca" : "tls_name"),
			     "certificates are checked only with 'tls: verified' or 'implicit'");
	if ((host->auth_user == NULL) != (host->auth_secret_file == NULL))
		conf_error(report,
			   config_place(map,
					host->auth_user != NULL ? "auth_user" : "auth_secret_file"),
			   "'auth_user' and 'auth_secret_file' belong together");
	else if (host->auth_user != NULL && !verified)
		conf_warning(report, config_place(map, "auth_user"),
			     "the password goes to whoever answers: use 'tls: verified'");
	if (host->source != NULL && !net_is_literal(host->source))
		conf_error(report, config_place(map, "source"),
			   "'source' must be an address, not '%s'", host->source);
}

static void
read_hosts(GatewayLoader *loader)
{
	const YamlNode *section = yaml_get(loader->root, "smtp_output");
	const YamlNode *hosts = yaml_get(section, "hosts");
	int none;
	conf_fill(&none, smtp_output_keys, section, NULL, loader->report);
	if (yaml_kind(hosts) != YAML_MAP && yaml_kind(hosts) != YAML_NULL) {
		g_autofree char *got = yaml_describe(hosts);
		conf_error(loader->report, hosts, "'hosts' must be a map of tags, not %s", got);
		return;
	}
	for (unsigned i = 0; i < yaml_count(hosts); i++) {
		SmtpHostConf *host = g_new0(SmtpHostConf, 1);
		g_ptr_array_add(loader->config->hosts, host);
		host->tag = g_strdup(yaml_text(yaml_key(hosts, i)));
		if (conf_fill(host, host_keys, yaml_value(hosts, i), NULL, loader->report))
			check_host(host, yaml_value(hosts, i), loader->report);
	}
}

static void
read_outputs(GatewayLoader *loader)
{
	const YamlNode *list = yaml_get(loader->root, "rest_output");
	g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	unsigned count = config_count(list, "rest_output", loader->report);
	for (unsigned i = 0; i < count; i++) {
		const YamlNode *map = yaml_item(list, i);
		RestOutputConf *output = g_new0(RestOutputConf, 1);
		g_ptr_array_add(loader->config->outputs, output);
		conf_fill(output, output_keys, map, NULL, loader->report);
		config_note_name(seen, "rest_output", output->name, config_place(map, "name"),
				 loader->report);
		if (output->endpoint != NULL && !g_str_has_prefix(output->endpoint, "http://") &&
		    !g_str_has_prefix(output->endpoint, "https://"))
			conf_error(loader->report, yaml_get(map, "endpoint"),
				   "'endpoint' must be an http:// or https:// URL, not '%s'",
				   output->endpoint);
	}
}

static void
check_service_output(GatewayLoader *loader, const SmtpServiceYaml *service, const YamlNode *map)
{
	const GatewayConfig *config = loader->config;
	if (service->endpoint == NULL || gateway_config_output(config, service->endpoint) != NULL)
		return;
	g_autoptr(GPtrArray) names = g_ptr_array_new();
	for (unsigned i = 0; i < config->outputs->len; i++) {
		const RestOutputConf *output = config->outputs->pdata[i];
		if (output->name != NULL)
			g_ptr_array_add(names, output->name);
	}
	g_autofree char *hint = config_hint(service->endpoint, names);
	conf_error(loader->report, yaml_get(map, "endpoint"), "there is no rest_output '%s'%s",
		   service->endpoint, hint);
}

static void
check_service_tls(GatewayLoader *loader, const SmtpServiceYaml *service, const YamlNode *map)
{
	bool tls = service->cert != NULL && service->key != NULL;
	unsigned port = service->addr != NULL ? service->addr->port : 0;
	config_check_tls(map, service->cert, service->key, loader->report);
	if (service->smtps && !tls)
		conf_warning(loader->report, config_place(map, "smtps"),
			     "'smtps' without 'cert' and 'key': port %u speaks plain SMTP", port);
	if (service->auth_secrets != NULL && !tls && !service->auth_clear_loopback)
		conf_warning(loader->report, config_place(map, "auth_secrets"),
			     "'auth_secrets' without 'cert' and 'key': AUTH is offered only under "
			     "TLS, so never on port %u",
			     port);
}

static void
read_certificates(GatewayLoader *loader, SmtpServiceYaml *service, const YamlNode *map)
{
	const YamlNode *list = yaml_get(map, "certificates");
	unsigned count = config_count(list, "certificates", loader->report);
	service->certificates = g_ptr_array_new_with_free_func(cert_free);
	for (unsigned i = 0; i < count; i++) {
		SmtpCertYaml *more = g_new0(SmtpCertYaml, 1);
		g_ptr_array_add(service->certificates, more);
		conf_fill(more, cert_keys, yaml_item(list, i), NULL, loader->report);
	}
	bool tls = service->cert != NULL && service->key != NULL;
	if (count > 0 && !tls)
		conf_error(loader->report, list, "'certificates' without 'cert' and 'key'");
	if (service->client_ca != NULL && !tls)
		conf_error(loader->report, config_place(map, "client_ca"),
			   "'client_ca' without 'cert' and 'key'");
}

static void
check_networks(GatewayLoader *loader, const GPtrArray *list, const YamlNode *map, const char *key)
{
	for (guint i = 0; list != NULL && i < list->len; i++) {
		NetCidr cidr;
		const char *text = g_ptr_array_index(list, i);
		if (!net_cidr_parse(text, &cidr))
			conf_error(loader->report, config_place(map, key),
				   "'%s': '%s' is no network", key, text);
	}
}

/* A socket has one owner; the service itself is the last of the list. */
static void
check_service_socket(GatewayLoader *loader, const SmtpServiceYaml *service, const YamlNode *map)
{
	const GPtrArray *all = loader->config->services;
	for (guint i = 0; service->socket != NULL && i + 1 < all->len; i++) {
		const SmtpServiceYaml *other = g_ptr_array_index(all, i);
		if (other->socket != NULL && g_str_equal(other->socket, service->socket))
			conf_error(loader->report, config_place(map, "socket"),
				   "'socket': '%s' is another service's already", service->socket);
	}
}

static void
check_service_own(GatewayLoader *loader, const SmtpServiceYaml *service, const YamlNode *map)
{
	check_service_socket(loader, service, map);
	check_networks(loader, service->proxy_protocol_from, map, "proxy_protocol_from");
	check_networks(loader, service->xclient_from, map, "xclient_from");
	if (service->require_auth && service->auth_secrets == NULL)
		conf_error(loader->report, config_place(map, "require_auth"),
			   "'require_auth' without 'auth_secrets': nobody could send");
	if (service->binarymime && !service->enable_bdat)
		conf_error(loader->report, config_place(map, "binarymime"),
			   "'binarymime' needs 'enable_bdat'");
}

static void
read_services(GatewayLoader *loader)
{
	const YamlNode *section = yaml_get(loader->root, "smtp_listener");
	int none;
	conf_fill(&none, smtp_listener_keys, section, NULL, loader->report);
	const YamlNode *list = yaml_get(section, "services");
	unsigned count = config_count(list, "services", loader->report);
	for (unsigned i = 0; i < count; i++) {
		const YamlNode *map = yaml_item(list, i);
		SmtpServiceYaml *service = g_new0(SmtpServiceYaml, 1);
		g_ptr_array_add(loader->config->services, service);
		conf_fill(service, service_keys, map, NULL, loader->report);
		note_addr(loader, service->addr, config_place(map, "addr"));
		check_service_output(loader, service, map);
		check_service_tls(loader, service, map);
		read_certificates(loader, service, map);
		check_service_own(loader, service, map);
	}
}

static void
read_all(GatewayLoader *loader)
{
	GatewayConfig *config = loader->config;
	const YamlNode *global = yaml_get(loader->root, "global");
	const YamlNode *listener = yaml_get(loader->root, "rest_listener");
	int none;
	config_read_koukan(&config->koukan, loader->root, loader->report);
	conf_fill(&none, global_keys, global, NULL, loader->report);
	conf_fill(config, executor_keys, yaml_get(global, "executor"), NULL, loader->report);
	config->max_inflight = MAX(config->max_inflight, INFLIGHT_MIN);
	conf_fill(&config->rest, listener_keys, listener, NULL, loader->report);
	config_check_tls(listener, config->rest.cert, config->rest.key, loader->report);
	config_check_rest(&config->koukan, &config->rest, loader->root, loader->report);
	if (listener != NULL)
		note_addr(loader, config->rest.addr, config_place(listener, "addr"));
	read_hosts(loader);
	read_outputs(loader);
	read_services(loader);
}

/* ---- the configuration object ---- */

static void
host_free(void *data)
{
	SmtpHostConf *host = data;
	conf_clear(host, host_keys);
	g_free(host->tag);
	g_free(host);
}

static void
service_free(void *data)
{
	SmtpServiceYaml *service = data;
	conf_clear(service, service_keys);
	if (service->certificates != NULL)
		g_ptr_array_unref(service->certificates);
	g_free(service);
}

static void
output_free(void *data)
{
	conf_clear(data, output_keys);
	g_free(data);
}

static void
gateway_config_free(GatewayConfig *config)
{
	g_ptr_array_unref(config->hosts);
	g_ptr_array_unref(config->services);
	g_ptr_array_unref(config->outputs);
	config_clear_koukan(&config->koukan);
	conf_clear(&config->rest, listener_keys);
	g_free(config->path);
	yaml_doc_free(config->doc);
	g_free(config);
}

/* Takes the document. */
static GatewayConfig *
gateway_config_new(const char *path, YamlDoc *doc, ConfReport *report)
{
	unsigned before = report->errors;
	GatewayConfig *config = g_new0(GatewayConfig, 1);
	config->refs = 1;
	config->path = g_strdup(path);
	config->doc = doc;
	config->hosts = g_ptr_array_new_with_free_func(host_free);
	config->services = g_ptr_array_new_with_free_func(service_free);
	config->outputs = g_ptr_array_new_with_free_func(output_free);
	GatewayLoader loader = {
		.config = config,
		.root = yaml_root(doc),
		.report = report,
		.addrs = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL),
	};
	if (config_check_root(loader.root, CONFIG_GATEWAY, root_keys, report))
		read_all(&loader);
	g_hash_table_unref(loader.addrs);
	conf_report_sort(report);
	if (report->errors == before)
		return config;
	gateway_config_free(config);
	return NULL;
}

GatewayConfig *
gateway_config_load(const char *path, ConfReport *report)
{
	YamlDoc *doc = config_open(path, NULL, report);
	return doc == NULL ? NULL : gateway_config_new(path, doc, report);
}

GatewayConfig *
gateway_config_load_text(const char *name, const char *text, ConfReport *report)
{
	YamlDoc *doc = config_open(name, text, report);
	return doc == NULL ? NULL : gateway_config_new(name, doc, report);
}

GatewayConfig *
gateway_config_ref(GatewayConfig *config)
{
	__atomic_add_fetch(&config->refs, 1, __ATOMIC_RELAXED);
	return config;
}

void
gateway_config_unref(GatewayConfig *config)
{
	if (config != NULL && __atomic_sub_fetch(&config->refs, 1, __ATOMIC_ACQ_REL) == 0)
		gateway_config_free(config);
}

const RestOutputConf *
gateway_config_output(const GatewayConfig *config, const char *name)
{
	for (unsigned i = 0; i < config->outputs->len; i++) {
		const RestOutputConf *output = config->outputs->pdata[i];
		if (g_strcmp0(output->name, name) == 0)
			return output;
	}
	return NULL;
}

const SmtpHostConf *
gateway_config_host(const GatewayConfig *config, const char *tag)
{
	for (unsigned i = 0; i < config->hosts->len; i++) {
		const SmtpHostConf *host = config->hosts->pdata[i];
		if (g_strcmp0(host->tag, tag) == 0)
			return host;
	}
	return NULL;
}
