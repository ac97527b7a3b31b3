/* SPDX-License-Identifier: Apache-2.0 */
#include "base/ids.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/random.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/text.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* The same digits in the order of their codes: what is greater sorts later. */
static const char sorted[] = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";

/* Two digits for the worker, those of the time, then the random part; a notification adds "-b". */
#define TIME_DIGITS 6
#define TIME_STEP   (16 * USEC_PER_MS) /* 2^36 of them are 34 years */
_Static_assert(IDS_WORKERS_MAX == 64 * 64, "two base64url digits");
_Static_assert(2 + TIME_DIGITS + (IDS_ENTROPY_MAX * 8 + 5) / 6 + 2 + 1 <= IDS_TX_MAX, "longest id");

static void
fill_random(uint8_t *at, size_t len)
{
	while (len > 0) {
		ssize_t got = getrandom(at, len, 0);
		if (got < 0 && errno == EINTR)
			continue;
		k_assert(got > 0);
		at += got;
		len -= (size_t)got;
	}
}

/* A stock, so that not every id is a system call.  What was given out is wiped: nobody finds it
 * here afterwards. */
void
ids_random(void *out, size_t len)
{
	static __thread uint8_t stock[512];
	static __thread size_t left; /* at the end of `stock` */
	if (len > sizeof(stock)) {
		fill_random(out, len);
		return;
	}
	if (left < len) {
		fill_random(stock, sizeof(stock));
		left = sizeof(stock);
	}
	uint8_t *at = stock + sizeof(stock) - left;
	memcpy(out, at, len);
	explicit_bzero(at, len);
	left -= len;
}

uint64_t
ids_random_below(uint64_t bound)
{
	k_assert(bound > 0);
	/* Values below `skip` would make the first few results likelier than the others. */
	uint64_t skip = -bound % bound;
	uint64_t value;
	do
		ids_random(&value, sizeof(value));
	while (value < skip);
	return value % bound;
}

/* base64url (RFC 4648 5) without padding. */
static char *
put_base64url(char *out, const uint8_t *bytes, size_t len)
{
	uint32_t bits = 0;
	unsigned count = 0;
	for (size_t i = 0; i < len; i++) {
		bits = bits << 8 | bytes[i];
		for (count += 8; count >= 6; count -= 6)
			*out++ = digits[bits >> (count - 6) & 63];
	}
	if (count > 0)
		*out++ = digits[bits << (6 - count) & 63];
	return out;
}

static char *
put_time(char *out)
{
	uint64_t steps = (uint64_t)(clock_wall() / TIME_STEP);
	for (int i = TIME_DIGITS - 1; i >= 0; i--, steps /= 64)
		out[i] = sorted[steps % 64];
	return out + TIME_DIGITS;
}

char *
ids_tx_new(unsigned worker, unsigned entropy)
{
	k_assert(worker < IDS_WORKERS_MAX);
	entropy = CLAMP(entropy, IDS_ENTROPY_MIN, IDS_ENTROPY_MAX);
	uint8_t bytes[IDS_ENTROPY_MAX];
	ids_random(bytes, entropy);
	char id[IDS_TX_MAX] = {digits[worker / 64], digits[worker % 64]};
	*put_base64url(put_time(id + 2), bytes, entropy) = '\0';
	return g_strdup(id);
}

static unsigned
digit_value(char c)
{
	const char *at = c != '\0' ? strchr(digits, c) : NULL;
	return at != NULL ? (unsigned)(at - digits) : 0;
}

unsigned
ids_tx_worker(const char *id, unsigned workers)
{
	k_assert(workers > 0);
	if (id == NULL || id[0] == '\0')
		return 0;
	return (digit_value(id[0]) * 64 + digit_value(id[1])) % workers;
}

bool
ids_tx_is_valid(const char *id)
{
	if (id == NULL)
		return false;
	size_t len = strspn(id, digits);
	return id[len] == '\0' && len > 2 && len < IDS_TX_MAX;
}

/* What tells the sessions of one process from those of the one before: never 0 once chosen. */
static uint32_t
process_tag(void)
{
	static _Atomic uint32_t tag;
	uint32_t value = atomic_load_explicit(&tag, memory_order_relaxed);
	if (value != 0)
		return value;
	uint32_t fresh;
	ids_random(&fresh, sizeof(fresh));
	fresh |= 1;
	return atomic_compare_exchange_strong(&tag, &value, fresh) ? fresh : value;
}

static char *
put_hex(char *out, uint64_t value, unsigned width)
{
	unsigned count = 1;
	while (count < 16 && (count < width || value >> 4 * count > 0))
		count++;
	for (unsigned i = count; i > 0; i--)
		*out++ = "0123456789abcdef"[value >> 4 * (i - 1) & 15];
	return out;
}

void
ids_session(char out[IDS_SESSION_MAX])
{
	static atomic_ullong counter;
	unsigned long long number = atomic_fetch_add_explicit(&counter, 1, memory_order_relaxed);
	/* 6 + 1 + at most 16 hex digits */
	out = put_hex(out, process_tag() >> 8, 6);
	*out++ = '-';
	*put_hex(out, number, 1) = '\0';
}
