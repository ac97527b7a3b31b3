/* SPDX-License-Identifier: Apache-2.0 */
/* Answers of the DNS from a YAML file:
 *
 *   example.com:
 *     MX: ["10 mx.example.com."]
 *     TXT: v=spf1 mx -all          one record may stand without a list
 *     A: TEMP                      so may what is no record: TEMP, NODATA, NXDOMAIN
 *   www.example.com: {CNAME: example.com.}
 *   broken.example: TEMP           for all types
 */
#include <string.h>

#include "base/text.h"
#include "cmd/explain_int.h"

#define ALIASES_MAX 8

typedef struct Answer {
	DnsType type;
	DnsStatus status;
	GPtrArray *records; /* char* as written */
} Answer;

typedef struct Name {
	DnsStatus status; /* for types that are not listed */
	GPtrArray *answers;
} Name;

struct ExplainDns {
	GHashTable *names; /* char* in lower case without trailing dot -> Name* */
};

static const DnsType types[] = {DNS_A, DNS_AAAA, DNS_CNAME, DNS_MX, DNS_PTR, DNS_TXT};

static void
answer_free(void *data)
{
	Answer *answer = data;
	g_ptr_array_unref(answer->records);
	g_free(answer);
}

static void
name_free(void *data)
{
	Name *name = data;
	g_ptr_array_unref(name->answers);
	g_free(name);
}

void
explain_dns_free(ExplainDns *dns)
{
	if (dns == NULL)
		return;
	g_hash_table_unref(dns->names);
	g_free(dns);
}

static char *
plain_name(const char *name)
{
	size_t len = strlen(name);
	if (len > 0 && name[len - 1] == '.')
		len--;
	return g_ascii_strdown(name, (gssize)len);
}

/* ---- reading ---- */

static bool
is_status(const YamlNode *node, DnsStatus *ret_status)
{
	const char *text = yaml_text(node);
	for (DnsStatus status = DNS_NODATA; text != NULL && status < DNS_STATUSES; status++) {
		if (!yaml_is_quoted(node) && strcmp(text, dns_status_name(status)) == 0) {
			*ret_status = status;
			return true;
		}
	}
	return false;
}

/* "10 mx.example.com." */
static bool
parse_mx(const char *text, uint16_t *ret_preference, const char **ret_host)
{
	size_t digits = strspn(text, "0123456789");
	uint64_t preference = 0;
	if (!text_parse_u64(text, digits, UINT16_MAX, &preference) || text[digits] != ' ')
		return false;
	const char *host = text + digits + strspn(text + digits, " ");
	if (*host == '\0')
		return false;
	*ret_preference = (uint16_t)preference;
	*ret_host = host;
	return true;
}

static void
add_record(Answer *answer, const YamlNode *node, ConfReport *report)
{
	const char *text = yaml_text(node), *host = NULL;
	uint16_t preference = 0;
	NetCidr cidr;
	bool ok = text != NULL;
	if (ok && (answer->type == DNS_A || answer->type == DNS_AAAA))
		ok = net_cidr_parse(text, &cidr) && strchr(text, '/') == NULL &&
		     (strchr(text, ':') != NULL) == (answer->type == DNS_AAAA);
	else if (ok && answer->type == DNS_MX)
		ok = parse_mx(text, &preference, &host);
	else if (ok && answer->type != DNS_TXT)
		ok = *text != '\0';
	if (ok && answer->records->len < DNS_RECORDS_MAX) {
		g_ptr_array_add(answer->records, g_strdup(text));
		return;
	}
	g_autofree char *got = yaml_describe(node);
	if (ok)
		conf_error(report, node, "more than %d records", DNS_RECORDS_MAX);
	else
		conf_error(report, node, "no %s record: %s%s", dns_type_name(answer->type), got,
			   answer->type == DNS_MX ? "; \"10 host.\" is wanted" : "");
}

static void
read_answer(Name *name, DnsType type, const YamlNode *node, ConfReport *report)
{
	Answer *answer = g_new0(Answer, 1);
	answer->type = type;
	answer->records = g_ptr_array_new_with_free_func(g_free);
	g_ptr_array_add(name->answers, answer);
	if (is_status(node, &answer->status))
		return;
	if (yaml_kind(node) != YAML_LIST) {
		add_record(answer, node, report);
		return;
	}
	for (unsigned i = 0; i < yaml_count(node); i++)
		add_record(answer, yaml_item(node, i), report);
	if (yaml_count(node) == 0)
		answer->status = DNS_NODATA;
}

static void
read_type(Name *name, const YamlNode *key, const YamlNode *node, ConfReport *report)
{
	const char *text = yaml_text(key);
	for (size_t i = 0; text != NULL && i < G_N_ELEMENTS(types); i++) {
		if (text_equal_nocase(text, dns_type_name(types[i]))) {
			read_answer(name, types[i], node, report);
			return;
		}
	}
	conf_error(report, key, "a type is wanted: A, AAAA, CNAME, MX, PTR or TXT");
}

static void
read_name(ExplainDns *dns, const YamlNode *key, const YamlNode *node, ConfReport *report)
{
	const char *text = yaml_text(key);
	if (text == NULL || *text == '\0') {
		conf_error(report, key, "a domain name is wanted");
		return;
	}
	Name *name = g_new0(Name, 1);
	name->status = DNS_NODATA;
	name->answers = g_ptr_array_new_with_free_func(answer_free);
	g_hash_table_replace(dns->names, plain_name(text), name);
	if (is_status(node, &name->status))
		return;
	if (yaml_kind(node) != YAML_MAP)
		conf_error(report, node,
			   "a map of types is wanted, or TEMP, NODATA or NXDOMAIN for all");
	for (unsigned i = 0; yaml_kind(node) == YAML_MAP && i < yaml_count(node); i++)
		read_type(name, yaml_key(node, i), yaml_value(node, i), report);
}

ExplainDns *
explain_dns_load(const char *path, ConfReport *report)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(YamlDoc) doc = yaml_load_file(path, &error);
	if (doc == NULL) {
		conf_error_placed(report, path, error->message);
		return NULL;
	}
	g_autoptr(ExplainDns) dns = g_new0(ExplainDns, 1);
	dns->names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, name_free);
	const YamlNode *root = yaml_root(doc);
	if (yaml_kind(root) != YAML_MAP && yaml_kind(root) != YAML_NULL)
		conf_error(report, root, "a map of domain names is wanted");
	for (unsigned i = 0; yaml_kind(root) == YAML_MAP && i < yaml_count(root); i++)
		read_name(dns, yaml_key(root, i), yaml_value(root, i), report);
	return report->errors == 0 ? g_steal_pointer(&dns) : NULL;
}

/* ---- answering ---- */

static const Answer *
find(const Name *name, DnsType type)
{
	for (guint i = 0; i < name->answers->len; i++) {
		const Answer *answer = g_ptr_array_index(name->answers, i);
		if (answer->type == type)
			return answer;
	}
	return NULL;
}

static void
fill(const Answer *from, DnsAnswer *answer)
{
	answer->status = from->status;
	for (guint i = 0; i < from->records->len; i++) {
		const char *text = g_ptr_array_index(from->records, i);
		uint16_t preference = 0;
		if (from->type == DNS_MX)
			(void)parse_mx(text, &preference, &text);
		dns_record_add(answer, text, preference);
	}
}

void
explain_dns_answer(void *arg, const char *asked, DnsType type, DnsAnswer *answer)
{
	const ExplainDns *dns = arg;
	g_autofree char *at = plain_name(asked);
	for (unsigned i = 0; i < ALIASES_MAX; i++) {
		const Name *name = g_hash_table_lookup(dns->names, at);
		const Answer *found = name != NULL ? find(name, type) : NULL;
		const Answer *alias = name != NULL ? find(name, DNS_CNAME) : NULL;
		if (found != NULL) {
			fill(found, answer);
			return;
		}
		if (alias == NULL || alias->records->len == 0) {
			answer->status = name != NULL ? name->status : DNS_NXDOMAIN;
			return;
		}
		g_free(at);
		at = plain_name(g_ptr_array_index(alias->records, 0));
	}
	answer->status = DNS_TEMP; /* it leads nowhere */
}
