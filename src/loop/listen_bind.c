/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/text.h"
#include "loop/listen_int.h"

/* How often a port that the kernel chose for one address may be taken on another. */
#define PORT_TRIES 50

/* SO_REUSEPORT lets any process of the same user bind the port as well, and the kernel would
 * then give it a share of our connections without a word.  So the first socket of an address is
 * bound without it, which fails when anybody else has the port, and gets the option afterwards;
 * the others of this process follow with it. */

static void
set_port(NetAddr *addr, uint16_t port)
{
	if (addr->storage.ss_family == AF_INET)
		((struct sockaddr_in *)&addr->storage)->sin_port = htons(port);
	else
		((struct sockaddr_in6 *)&addr->storage)->sin6_port = htons(port);
}

static void
set_option(int fd, int level, int option)
{
	int on = 1;
	(void)setsockopt(fd, level, option, &on, sizeof(on));
}

void
listen_no_delay(int fd)
{
	set_option(fd, IPPROTO_TCP, TCP_NODELAY); /* accepted sockets inherit it */
}

/* Returns the listening descriptor or -1 and errno.  `exclusive`: the first of this process. */
static int
bind_one(const NetAddr *addr, bool exclusive)
{
	int fd = socket(addr->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	set_option(fd, SOL_SOCKET, SO_REUSEADDR);
	listen_no_delay(fd);
	if (addr->storage.ss_family == AF_INET6)
		set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY);
	if (!exclusive)
		set_option(fd, SOL_SOCKET, SO_REUSEPORT);
	if (bind(fd, (const struct sockaddr *)&addr->storage, addr->len) != 0)
		goto failed;
	if (exclusive)
		set_option(fd, SOL_SOCKET, SO_REUSEPORT);
	if (listen(fd, SOMAXCONN) != 0)
		goto failed;
	return fd;
failed:;
	int saved = errno;
	(void)close(fd);
	errno = saved;
	return -1;
}

uint16_t
listen_port_of(int fd)
{
	struct sockaddr_storage local;
	socklen_t len = sizeof(local);
	NetAddr addr;
	k_assert(getsockname(fd, (struct sockaddr *)&local, &len) == 0);
	net_addr_from_sockaddr((const struct sockaddr *)&local, len, &addr);
	return net_addr_port(&addr);
}

/* ---- the addresses of a host ---- */

static void
add_addr(GArray *addrs, const NetAddr *addr)
{
	for (guint i = 0; i < addrs->len; i++) {
		const NetAddr *known = &g_array_index(addrs, NetAddr, i);
		if (known->len == addr->len &&
		    memcmp(&known->storage, &addr->storage, addr->len) == 0)
			return;
	}
	(void)g_array_append_vals(addrs, addr, 1);
}

static void
add_literal(GArray *addrs, const char *literal)
{
	NetAddr addr;
	k_assert(net_addr_parse(literal, 0, &addr));
	add_addr(addrs, &addr);
}

static bool
look_up(GArray *addrs, const char *host, GError **ret_error)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	int rc = getaddrinfo(host, NULL, &hints, &list);
	if (rc != 0)
		return error_set(ret_error, K_ERROR_DNS, "cannot listen on %s: %s", host,
				 gai_strerror(rc));
	for (const struct addrinfo *at = list; at != NULL; at = at->ai_next) {
		NetAddr addr;
		net_addr_from_sockaddr(at->ai_addr, at->ai_addrlen, &addr);
		add_addr(addrs, &addr);
	}
	freeaddrinfo(list);
	return true;
}

/* `*ret_literal`: the host is an address, so each failure counts. */
static GArray *
host_addrs(const char *host, bool *ret_literal, GError **ret_error)
{
	g_autoptr(GArray) addrs = g_array_new(FALSE, FALSE, sizeof(NetAddr));
	*ret_literal = false;
	if (host[0] == '\0' || strcmp(host, "*") == 0) {
		add_literal(addrs, "0.0.0.0");
		add_literal(addrs, "::");
	} else if (net_is_literal(host)) {
		add_literal(addrs, host);
		*ret_literal = true;
	} else if (text_equal_nocase(host, "localhost")) {
		/* Not what /etc/hosts says, which often knows only one of them (RFC 6761 6.3). */
		add_literal(addrs, "127.0.0.1");
		add_literal(addrs, "::1");
	} else if (!look_up(addrs, host, ret_error)) {
		return NULL;
	}
	return g_steal_pointer(&addrs);
}

/* ---- all addresses of a host ---- */

static void
close_fds(GArray *fds)
{
	for (guint i = 0; i < fds->len; i++)
		(void)close(g_array_index(fds, int, i));
	(void)g_array_set_size(fds, 0);
}

/* The machine has no such address or no such protocol. */
static bool
is_missing(int errnum)
{
	return errnum == EADDRNOTAVAIL || errnum == EAFNOSUPPORT || errnum == EPROTONOSUPPORT;
}

/* Binds each address once.  Returns 0 or an errno value, with the address in *ret_at. */
static int
bind_addrs(GArray *addrs, bool literal, bool exclusive, uint16_t *port, GArray *fds, guint *ret_at)
{
	int missing = 0;
	for (guint i = 0; i < addrs->len; i++) {
		NetAddr *addr = &g_array_index(addrs, NetAddr, i);
		set_port(addr, *port);
		int fd = bind_one(addr, exclusive);
		if (fd < 0) {
			missing = errno;
			*ret_at = i;
			if (!literal && is_missing(missing))
				continue;
			return missing;
		}
		(void)g_array_append_val(fds, fd);
		if (*port == 0)
			*port = listen_port_of(fd);
	}
	return fds->len > 0 ? 0 : missing;
}

bool
listen_bind(const char *host, uint16_t *port, bool exclusive, GArray **ret_fds, GError **ret_error)
{
	bool literal;
	g_autoptr(GArray) addrs = host_addrs(host, &literal, ret_error);
	if (addrs == NULL)
		return false;
	g_autoptr(GArray) fds = g_array_new(FALSE, FALSE, sizeof(int));
	uint16_t chosen = *port;
	int errnum = 0;
	guint at = 0;
	for (int i = 0; i < PORT_TRIES; i++) {
		chosen = *port;
		errnum = bind_addrs(addrs, literal, exclusive, &chosen, fds, &at);
		if (errnum == 0)
			break;
		close_fds(fds);
		if (errnum != EADDRINUSE || *port != 0)
			break;
	}
	if (errnum != 0) {
		char text[NET_ADDR_TEXT_MAX];
		net_addr_format(&g_array_index(addrs, NetAddr, at), text);
		return error_set_errno(ret_error, K_ERROR_IO, errnum,
				       strchr(text, ':') != NULL ? "cannot listen on [%s]:%u"
								 : "cannot listen on %s:%u",
				       text, (unsigned)chosen);
	}
	*port = chosen;
	*ret_fds = g_steal_pointer(&fds);
	return true;
}

/* ---- for servers with their own accept loop ---- */

/* What listener_bind_all gave out first for a host and port, so that its next call for the same
 * is known to be ours.  The descriptor is the caller's and may be closed (and its number used
 * again) at any time: the inode tells whether it is still the same socket. */
typedef struct Given {
	char *host;
	uint16_t port;
	int fd;
	ino_t inode;
} Given;

static pthread_mutex_t given_lock = PTHREAD_MUTEX_INITIALIZER;
static GSList *given; /* Given*, under given_lock; as many as there are servers */

static bool
is_alive(const Given *entry)
{
	struct stat info;
	return fstat(entry->fd, &info) == 0 && S_ISSOCK(info.st_mode) &&
	       info.st_ino == entry->inode;
}

static void
drop_dead(void)
{
	for (GSList **at = &given; *at != NULL;) {
		Given *entry = (*at)->data;
		if (is_alive(entry)) {
			at = &(*at)->next;
			continue;
		}
		g_free(entry->host);
		g_free(entry);
		*at = g_slist_delete_link(*at, *at);
	}
}

static bool
is_given(const char *host, uint16_t port)
{
	for (const GSList *at = given; at != NULL; at = at->next) {
		const Given *entry = at->data;
		if (entry->port == port && text_equal_nocase(entry->host, host))
			return true;
	}
	return false;
}

static void
note_given(const char *host, uint16_t port, int fd)
{
	struct stat info;
	k_assert(fstat(fd, &info) == 0);
	Given *entry = g_new0(Given, 1);
	*entry = (Given){.host = g_strdup(host), .port = port, .fd = fd, .inode = info.st_ino};
	given = g_slist_prepend(given, entry);
}

bool
listener_bind_all(const char *host, uint16_t *port, GArray **ret_fds, GError **ret_error)
{
	(void)pthread_mutex_lock(&given_lock);
	drop_dead();
	bool first = !is_given(host, *port);
	bool fine = listen_bind(host, port, first, ret_fds, ret_error);
	if (fine && first)
		note_given(host, *port, g_array_index(*ret_fds, int, 0));
	(void)pthread_mutex_unlock(&given_lock);
	return fine;
}
