/* SPDX-License-Identifier: Apache-2.0 */
/* Key records that this thread has read before.  To read an RSA key takes OpenSSL 3 more than to
 * verify a signature with it, and a server sees the same keys again and again.  What a record says
 * depends on its text alone, so nothing here can be out of date. */
#include <pthread.h>
#include <string.h>

#include "mailauth/dkim_key.h"

#define SLOTS 64 /* a thread; each record has one place */

typedef struct Slot {
	char *record; /* NULL: empty */
	DkimPublic pub;
} Slot;

static pthread_key_t cache_key;
static pthread_once_t cache_once = PTHREAD_ONCE_INIT;

static void
slot_clear(Slot *slot)
{
	g_clear_pointer(&slot->record, g_free);
	dkim_public_clear(&slot->pub);
}

/* The end of a thread. */
static void
cache_free(void *data)
{
	Slot *slots = data;
	for (size_t i = 0; i < SLOTS; i++)
		slot_clear(&slots[i]);
	g_free(slots);
}

static void
cache_init(void)
{
	k_assert(pthread_key_create(&cache_key, cache_free) == 0);
}

static Slot *
slot_of(const char *record)
{
	k_assert(pthread_once(&cache_once, cache_init) == 0);
	Slot *slots = pthread_getspecific(cache_key);
	if (slots == NULL) {
		slots = g_new0(Slot, SLOTS);
		k_assert(pthread_setspecific(cache_key, slots) == 0);
	}
	return &slots[g_str_hash(record) % SLOTS];
}

bool
dkim_public_get(const char *record, DkimPublic *ret_public)
{
	if (strlen(record) > DKIM_RECORD_KEPT_MAX)
		return dkim_public_parse(record, ret_public);
	Slot *slot = slot_of(record);
	if (slot->record == NULL || strcmp(slot->record, record) != 0) {
		DkimPublic pub;
		if (!dkim_public_parse(record, &pub))
			return false;
		slot_clear(slot);
		*slot = (Slot){.record = g_strdup(record), .pub = pub};
	}
	*ret_public = slot->pub;
	if (slot->pub.key != NULL)
		(void)dkim_key_ref(slot->pub.key);
	return true;
}
