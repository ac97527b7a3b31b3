/* SPDX-License-Identifier: Apache-2.0 */
/* `koukan.rest`: who may use the REST API and how much of it. */
#include <string.h>

#include "conf/config_int.h"

#define HASH_PREFIX "sha256:"
#define HASH_DIGITS 64

#define AT(member) .offset = CONF_KEY(RestOwnConf, member)
const ConfKey config_rest_keys[] = {
	{.name = "access",
	 .type = CONF_SECTION,
	 .doc = "Who may use the API. Without entries everybody may, which is possible on loopback "
		"only."},
	{.name = "allow_unauthenticated",
	 .type = CONF_BOOL,
	 AT(allow_unauthenticated),
	 .def = "no",
	 .doc = "Let everybody who can reach the listener use it, although it is not on loopback "
		"and `access` has no entries."},
	{.name = "client_ca",
	 .type = CONF_STRING,
	 AT(client_ca),
	 .doc = "PEM file of authorities (or single certificates) that vouch for the clients of "
		"`certificates`."},
	{.name = "requests_per_minute",
	 .type = CONF_INT,
	 AT(requests_per_minute),
	 .def = "0",
	 .min = 0,
	 .max = 100000000,
	 .doc = "Requests of one client, which is an entry of `access` or, without, an address; "
		"beyond it 429. Probes are not counted. 0: no limit."},
	{.name = "uploads_max",
	 .type = CONF_INT,
	 AT(uploads_max),
	 .def = "1000",
	 .min = 0,
	 .max = 1000000,
	 .doc = "POST, PATCH and PUT of one client that are under way at a time; beyond it 429. 0: "
		"no limit."},
	{.name = "connections_max",
	 .type = CONF_INT,
	 AT(connections_max),
	 .def = "4096",
	 .min = 1,
	 .max = 1000000,
	 .doc = "Connections of one worker to this listener; beyond it 503."},
	{.name = "uri_max",
	 .type = CONF_SIZE,
	 AT(uri_max),
	 .def = "8k",
	 .min = 128,
	 .max = 65536,
	 .doc = "Bytes of a request target; beyond it 414."},
	{.name = "head_max",
	 .type = CONF_SIZE,
	 AT(head_max),
	 .def = "32k",
	 .min = 1024,
	 .max = 1024 * 1024,
	 .doc = "Bytes of a request's header fields; beyond it 431."},
	{.name = "head_timeout",
	 .type = CONF_SECONDS,
	 AT(head_timeout),
	 .def = "30",
	 .min = 0.05,
	 .max = 3600,
	 .doc = "Seconds for a request's head to be complete; then the connection ends."},
	{.name = "body_timeout",
	 .type = CONF_SECONDS,
	 AT(body_timeout),
	 .def = "60",
	 .min = 0.05,
	 .max = 3600,
	 .doc = "Seconds for a request's body, and one more for each KiB that came; then 408."},
	{.name = "idempotency_ttl",
	 .type = CONF_SECONDS,
	 AT(idempotency_ttl),
	 .def = "86400",
	 .min = 1,
	 .max = 86400.0 * 366,
	 .doc = "Seconds for which an `Idempotency-Key` is remembered."},
	{0},
};
#undef AT

#define AT(member) .offset = CONF_KEY(RestAccessConf, member)
const ConfKey config_access_keys[] = {
	{.name = "name",
	 .type = CONF_STRING,
	 AT(name),
	 .flags = CONF_REQUIRED,
	 .doc = "Name in logs; each only once."},
	{.name = "api_keys",
	 .type = CONF_STRINGS,
	 AT(api_keys),
	 .doc = "Hashes of its keys, `sha256:` and 64 hexadecimal digits (`koukan secret "
		"--api-key` makes both). Several, while one replaces another."},
	{.name = "certificates",
	 .type = CONF_STRINGS,
	 AT(certificates),
	 .doc = "Client certificates: a DNS name in one (the common name, when it has none), or "
		"`sha256:` and the fingerprint."},
	{.name = "senders",
	 .type = CONF_STRINGS,
	 AT(senders),
	 .doc = "Senders whose transactions it may create, read and change; `\"*\"`: all."},
	{.name = "admin",
	 .type = CONF_BOOL,
	 AT(admin),
	 .def = "no",
	 .doc = "It may use the administration routes `/admin/v1`."},
	{.name = "metrics",
	 .type = CONF_BOOL,
	 AT(metrics),
	 .def = "no",
	 .doc = "It may read `/metrics`."},
	{0},
};
#undef AT

static void
access_free(void *data)
{
	conf_clear(data, config_access_keys);
	g_free(data);
}

static bool
is_hash(const char *text)
{
	if (!g_str_has_prefix(text, HASH_PREFIX))
		return false;
	text += strlen(HASH_PREFIX);
	return strlen(text) == HASH_DIGITS && strspn(text, "0123456789abcdefABCDEF") == HASH_DIGITS;
}

/* A key in clear text would be refused by nobody, and work for nobody. */
static void
check_hashes(const YamlNode *map, const char *key, GPtrArray *values, bool names, GHashTable *seen,
	     ConfReport *report)
{
	for (guint i = 0; i < values->len; i++) {
		char *value = values->pdata[i];
		const YamlNode *place = config_place(map, key);
		if (yaml_kind(place) == YAML_LIST)
			place = yaml_item(place, i);
		bool hash = is_hash(value);
		if (!hash && (!names || g_str_has_prefix(value, HASH_PREFIX)))
			conf_error(report, place, "'%s' takes sha256: and 64 hexadecimal digits%s",
				   key,
				   names ? " or a name" : "; koukan secret --api-key makes them");
		if (hash) { /* as we print them */
			g_autofree char *low = g_ascii_strdown(value, -1);
			memcpy(value, low, strlen(low));
		}
		if (g_hash_table_contains(seen, value))
			conf_error(report, place, "'%s': the same stands twice", key);
		g_hash_table_add(seen, value);
	}
}

static void
read_access(RestOwnConf *rest, const YamlNode *map, GHashTable *names, GHashTable *seen,
	    ConfReport *report)
{
	RestAccessConf *access = g_new0(RestAccessConf, 1);
	g_ptr_array_add(rest->access, access);
	conf_fill(access, config_access_keys, map, NULL, report);
	config_note_name(names, "access", access->name, config_place(map, "name"), report);
	if (yaml_kind(map) != YAML_MAP)
		return;
	check_hashes(map, "api_keys", access->api_keys, false, seen, report);
	check_hashes(map, "certificates", access->certificates, true, seen, report);
	if (access->api_keys->len + access->certificates->len == 0)
		conf_error(report, map, "an entry of 'access' needs 'api_keys' or 'certificates'");
	if (access->senders->len == 0 && !access->admin && !access->metrics)
		conf_error(report, map,
			   "an entry of 'access' needs 'senders' (\"*\" for all), 'admin' or "
			   "'metrics'");
}

void
config_read_rest(RestOwnConf *rest, const YamlNode *koukan, ConfReport *report)
{
	const YamlNode *map = yaml_get(koukan, "rest");
	const YamlNode *list = yaml_get(map, "access");
	rest->access = g_ptr_array_new_with_free_func(access_free);
	conf_fill(rest, config_rest_keys, map, NULL, report);
	g_autoptr(GHashTable) names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
	unsigned count = config_count(list, "access", report);
	for (unsigned i = 0; i < count; i++)
		read_access(rest, yaml_item(list, i), names, seen, report);
}

void
config_clear_rest(RestOwnConf *rest)
{
	conf_clear(rest, config_rest_keys);
	g_clear_pointer(&rest->access, g_ptr_array_unref);
}

static bool
wants_certificates(const RestOwnConf *rest)
{
	for (guint i = 0; i < rest->access->len; i++) {
		if (((const RestAccessConf *)rest->access->pdata[i])->certificates->len > 0)
			return true;
	}
	return false;
}

void
config_check_rest(const KoukanConf *koukan, const RestListenerConf *listener, const YamlNode *root,
		  ConfReport *report)
{
	const RestOwnConf *rest = &koukan->rest;
	const YamlNode *map = yaml_get(root, "rest_listener");
	const YamlNode *own = yaml_get(yaml_get(root, "koukan"), "rest");
	const YamlNode *addr = map != NULL ? config_place(map, "addr") : root;
	if (listener->addr == NULL)
		return; /* reported already */
	const char *host = listener->addr->host;
	bool local = g_str_equal(host, "localhost") || net_is_loopback(host);
	if (!local && rest->access->len == 0 && !rest->allow_unauthenticated)
		conf_error(report, addr,
			   "anybody who reaches %s could send mail: the REST listener is not on "
			   "loopback and has no authentication; give 'koukan.rest.access' entries, "
			   "or set 'koukan.rest.allow_unauthenticated: true'",
			   *host != '\0' ? host : "any address");
	bool tls = listener->cert != NULL && listener->key != NULL;
	if (rest->client_ca == NULL && wants_certificates(rest))
		conf_error(report, config_place(own, "access"),
			   "'certificates' needs 'client_ca' beside 'access'");
	else if (rest->client_ca != NULL && !tls)
		conf_error(report, config_place(own, "client_ca"),
			   "'client_ca' needs 'cert' and 'key' of 'rest_listener'");
	if (!local && rest->access->len > 0 && !tls)
		conf_warning(report, addr,
			     "API keys travel in clear text: 'cert' and 'key' are not set");
}
