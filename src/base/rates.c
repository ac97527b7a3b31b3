/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rates.h"

#include <glib.h>
#include <pthread.h>
#include <string.h>

#include "base/check.h"
#include "base/ids.h"

#define WAYS    8 /* places that a key may have */
#define STRIPES 64

typedef struct Entry {
	uint64_t key;   /* 0: free */
	int64_t window; /* which one `now` counts for, in windows since the clock's start */
	Deadline touched;
	uint32_t now, before; /* events of this window and of the one before it */
} Entry;

struct Rates {
	uint64_t secret[2];
	unsigned sets; /* of WAYS entries; a power of two */
	Entry *entries;
	pthread_mutex_t stripes[STRIPES]; /* of the sets, by their number modulo STRIPES */
};

/* ---- SipHash-2-4 (Aumasson, Bernstein) ---- */

typedef struct Sip {
	uint64_t v[4];
	uint64_t tail; /* bytes that do not fill a word yet */
	uint64_t len;
} Sip;

static uint64_t
rotl(uint64_t x, unsigned by)
{
	return x << by | x >> (64 - by);
}

static void
sip_rounds(uint64_t v[4], int rounds)
{
	for (; rounds > 0; rounds--) {
		v[0] += v[1];
		v[2] += v[3];
		v[1] = rotl(v[1], 13) ^ v[0];
		v[3] = rotl(v[3], 16) ^ v[2];
		v[0] = rotl(v[0], 32);
		v[2] += v[1];
		v[0] += v[3];
		v[1] = rotl(v[1], 17) ^ v[2];
		v[3] = rotl(v[3], 21) ^ v[0];
		v[2] = rotl(v[2], 32);
	}
}

static void
sip_word(Sip *sip, uint64_t word)
{
	sip->v[3] ^= word;
	sip_rounds(sip->v, 2);
	sip->v[0] ^= word;
}

static void
sip_init(Sip *sip, const uint64_t secret[2])
{
	*sip = (Sip){.v = {secret[0] ^ UINT64_C(0x736f6d6570736575),
			   secret[1] ^ UINT64_C(0x646f72616e646f6d),
			   secret[0] ^ UINT64_C(0x6c7967656e657261),
			   secret[1] ^ UINT64_C(0x7465646279746573)}};
}

static void
sip_add(Sip *sip, const void *data, size_t len)
{
	const uint8_t *bytes = data;
	for (size_t i = 0; i < len; i++) {
		sip->tail |= (uint64_t)bytes[i] << (sip->len % 8 * 8);
		if (++sip->len % 8 == 0) {
			sip_word(sip, sip->tail);
			sip->tail = 0;
		}
	}
}

static uint64_t
sip_end(Sip *sip)
{
	sip_word(sip, sip->tail | sip->len << 56);
	sip->v[2] ^= 0xff;
	sip_rounds(sip->v, 4);
	return sip->v[0] ^ sip->v[1] ^ sip->v[2] ^ sip->v[3];
}

static uint64_t
hash_of(const Rates *rates, const char *limit, const char *key, Usec window)
{
	Sip sip;
	sip_init(&sip, rates->secret);
	sip_add(&sip, &window, sizeof(window));
	sip_add(&sip, limit, strlen(limit) + 1);
	sip_add(&sip, key, strlen(key));
	uint64_t hash = sip_end(&sip);
	return hash != 0 ? hash : 1;
}

/* ---- the table ---- */

Rates *
rates_new(unsigned keys)
{
	Rates *rates = g_new0(Rates, 1);
	rates->sets = 1;
	while (rates->sets * WAYS < keys && rates->sets < 1u << 24)
		rates->sets *= 2;
	rates->entries = g_new0(Entry, (size_t)rates->sets * WAYS);
	ids_random(rates->secret, sizeof(rates->secret));
	for (unsigned i = 0; i < STRIPES; i++)
		k_assert(pthread_mutex_init(&rates->stripes[i], NULL) == 0);
	return rates;
}

void
rates_free(Rates *rates)
{
	if (rates == NULL)
		return;
	for (unsigned i = 0; i < STRIPES; i++)
		pthread_mutex_destroy(&rates->stripes[i]);
	g_free(rates->entries);
	g_free(rates);
}

/* The key's entry; a new one takes a free place, or that of the key which was quiet for longest. */
static Entry *
find(Entry *set, uint64_t key)
{
	Entry *victim = &set[0];
	for (unsigned i = 0; i < WAYS; i++) {
		if (set[i].key == key)
			return &set[i];
		if (victim->key != 0 && (set[i].key == 0 || set[i].touched < victim->touched))
			victim = &set[i];
	}
	*victim = (Entry){.key = key};
	return victim;
}

static void
slide(Entry *entry, int64_t window)
{
	if (window == entry->window)
		return;
	entry->before = window == entry->window + 1 ? entry->now : 0;
	entry->now = 0;
	entry->window = window;
}

/* Counted within the last window: all of this one, and of the one before the part in reach. */
static double
lately(const Entry *entry, Usec window, Deadline now)
{
	double gone = (double)(now % window) / (double)window;
	return (double)entry->now + (double)entry->before * (1 - gone);
}

bool
rates_over(Rates *rates, const char *limit, const char *key, Usec window, uint32_t max,
	   Deadline now)
{
	k_assert(window > 0 && now >= 0);
	uint64_t hash = hash_of(rates, limit, key, window);
	unsigned set = (unsigned)(hash >> 32) & (rates->sets - 1);
	pthread_mutex_t *mutex = &rates->stripes[set % STRIPES];
	pthread_mutex_lock(mutex);
	Entry *entry = find(&rates->entries[(size_t)set * WAYS], hash);
	slide(entry, now / window);
	entry->touched = now;
	/* One more must fit: the tiny allowance is for what `lately` loses in rounding. */
	bool over = lately(entry, window, now) + 1 > (double)max + 1e-6;
	if (!over)
		entry->now++;
	pthread_mutex_unlock(mutex);
	return over;
}
