/* SPDX-License-Identifier: Apache-2.0 */
#include "service/access.h"

#include <string.h>

#include "base/text.h"

#define KEY_MAX 1000

/* Keys are random and long (koukan secret --api-key), so a fast hash of them tells nothing; and
 * looking up a hash tells who measures the time nothing about the key. */
struct Access {
	RestPrincipal *principals;
	GHashTable *keys;         /* "sha256:HEX" -> RestPrincipal*; all borrowed */
	GHashTable *certificates; /* the same, or a name in lower case (owned) */
};

static void
add_all(GHashTable *table, const GPtrArray *values, RestPrincipal *who)
{
	for (guint i = 0; i < values->len; i++)
		g_hash_table_insert(table, g_ascii_strdown(values->pdata[i], -1), who);
}

static void
principal_init(RestPrincipal *who, const RestAccessConf *conf)
{
	const char **senders = g_new0(const char *, conf->senders->len + 1);
	for (guint i = 0; i < conf->senders->len; i++) {
		senders[i] = conf->senders->pdata[i];
		who->all_senders |= strcmp(senders[i], "*") == 0;
	}
	who->name = conf->name;
	who->senders = senders;
	who->admin = conf->admin;
	who->metrics = conf->metrics;
}

Access *
access_new(const RestOwnConf *conf)
{
	guint count = conf->access->len;
	if (count == 0)
		return NULL;
	Access *access = g_new0(Access, 1);
	access->principals = g_new0(RestPrincipal, count + 1); /* the last has no name */
	access->keys = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	access->certificates = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	for (guint i = 0; i < count; i++) {
		const RestAccessConf *entry = conf->access->pdata[i];
		principal_init(&access->principals[i], entry);
		add_all(access->keys, entry->api_keys, &access->principals[i]);
		add_all(access->certificates, entry->certificates, &access->principals[i]);
	}
	return access;
}

void
access_free(Access *access)
{
	if (access == NULL)
		return;
	for (RestPrincipal *who = access->principals; who->name != NULL; who++)
		g_free((void *)(uintptr_t)who->senders);
	g_hash_table_unref(access->keys);
	g_hash_table_unref(access->certificates);
	g_free(access->principals);
	g_free(access);
}

char *
access_hash(const char *key)
{
	g_autofree char *hex = g_compute_checksum_for_string(G_CHECKSUM_SHA256, key, -1);
	return g_strconcat("sha256:", hex, NULL);
}

static const RestPrincipal *
match_key(const Access *access, const char *authorization)
{
	if (!text_has_prefix_nocase(authorization, "Bearer "))
		return NULL;
	const char *key = authorization + strlen("Bearer ");
	key += strspn(key, " ");
	size_t len = strcspn(key, " ");
	if (len == 0 || len > KEY_MAX || key[len] != '\0')
		return NULL;
	g_autofree char *hash = access_hash(key);
	return g_hash_table_lookup(access->keys, hash);
}

static const RestPrincipal *
match_certificate(const Access *access, const HttpPeer *peer)
{
	if (peer->fingerprint[0] == '\0')
		return NULL;
	g_autofree char *print = g_strconcat("sha256:", peer->fingerprint, NULL);
	const RestPrincipal *who = g_hash_table_lookup(access->certificates, print);
	for (const char *const *name = peer->names; who == NULL && *name != NULL; name++)
		who = g_hash_table_lookup(access->certificates, *name);
	return who;
}

const RestPrincipal *
access_match(const Access *access, const char *authorization, const HttpPeer *peer)
{
	return authorization != NULL ? match_key(access, authorization)
				     : match_certificate(access, peer);
}

const RestPrincipal *
access_find(const Access *access, HttpRequest *request)
{
	const char *authorization = http_header(request, "authorization");
	return access_match(access, authorization, http_peer(request));
}
