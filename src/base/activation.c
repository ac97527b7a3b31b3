/* SPDX-License-Identifier: Apache-2.0 */
#include "base/activation.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"

/* ---- sockets that were handed over ---- */

/* False: absent, or no number. */
static bool
env_number(const char *name, guint64 max, guint64 *ret_number)
{
	const char *text = g_getenv(name);
	return text != NULL && g_ascii_string_to_unsigned(text, 10, 0, max, ret_number, NULL);
}

static bool
socket_option(int fd, int option, int *ret_value)
{
	socklen_t len = sizeof(*ret_value);
	return getsockopt(fd, SOL_SOCKET, option, ret_value, &len) == 0;
}

static bool
is_listening_tcp(int fd)
{
	int family, type, listening;
	return socket_option(fd, SO_DOMAIN, &family) && socket_option(fd, SO_TYPE, &type) &&
	       socket_option(fd, SO_ACCEPTCONN, &listening) &&
	       (family == AF_INET || family == AF_INET6) && type == SOCK_STREAM && listening != 0;
}

/* Workers share it, so an accept that comes too late must not wait. */
static bool
prepare(const ActivationSocket *socket, GError **ret_error)
{
	int flags = fcntl(socket->fd, F_GETFL);
	if (!is_listening_tcp(socket->fd))
		return error_set(ret_error, K_ERROR_IO,
				 "socket activation: descriptor %d, '%s', is no listening TCP "
				 "socket",
				 socket->fd, socket->name);
	if (flags < 0 || fcntl(socket->fd, F_SETFL, flags | O_NONBLOCK) != 0 ||
	    fcntl(socket->fd, F_SETFD, FD_CLOEXEC) != 0)
		return error_set_errno(ret_error, K_ERROR_IO, errno,
				       "socket activation: descriptor %d", socket->fd);
	return true;
}

static void
forget_environment(void)
{
	g_unsetenv("LISTEN_PID");
	g_unsetenv("LISTEN_FDS");
	g_unsetenv("LISTEN_FDNAMES");
}

static bool
take_all(Activation *activation, guint count, const char *names, GError **ret_error)
{
	g_auto(GStrv) list = names != NULL ? g_strsplit(names, ":", -1) : NULL;
	if (list != NULL && g_strv_length(list) != count)
		return error_set(ret_error, K_ERROR_IO,
				 "socket activation: LISTEN_FDS is %u, but LISTEN_FDNAMES has %u "
				 "names: '%s'",
				 count, g_strv_length(list), names);
	for (guint i = 0; i < count; i++) {
		const ActivationSocket socket = {
			.fd = ACTIVATION_FIRST_FD + (int)i,
			.name = g_strdup(list != NULL ? list[i] : "unknown")};
		(void)g_array_append_val(activation->sockets, socket);
		if (!prepare(&socket, ret_error))
			return false;
	}
	return true;
}

static void
socket_clear(void *data)
{
	ActivationSocket *socket = data;
	if (socket->fd >= 0)
		(void)close(socket->fd);
	g_free(socket->name);
}

Activation *
activation_take(GError **ret_error)
{
	g_autoptr(Activation) activation = g_new0(Activation, 1);
	activation->sockets = g_array_new(FALSE, FALSE, sizeof(ActivationSocket));
	g_array_set_clear_func(activation->sockets, socket_clear);
	guint64 pid, count = 0;
	/* The variables are inherited: they are for the process of that id alone. */
	bool ours = env_number("LISTEN_PID", G_MAXINT32, &pid) && pid == (guint64)getpid();
	if (!ours || g_getenv("LISTEN_FDS") == NULL)
		return g_steal_pointer(&activation);
	bool fine = env_number("LISTEN_FDS", ACTIVATION_MAX, &count) ||
		    error_set(ret_error, K_ERROR_IO,
			      "socket activation: LISTEN_FDS is '%s', at most %d are taken",
			      g_getenv("LISTEN_FDS"), ACTIVATION_MAX);
	fine = fine && take_all(activation, (guint)count, g_getenv("LISTEN_FDNAMES"), ret_error);
	forget_environment();
	return fine ? g_steal_pointer(&activation) : NULL;
}

void
activation_free(Activation *activation)
{
	if (activation == NULL)
		return;
	g_array_unref(activation->sockets);
	g_free(activation);
}

/* "'smtp', 'submission'" */
static char *
names_of(const Activation *activation)
{
	GString *out = g_string_new(NULL);
	for (guint i = 0; i < activation->sockets->len; i++)
		g_string_append_printf(
			out, "%s'%s'", i > 0 ? ", " : "",
			g_array_index(activation->sockets, ActivationSocket, i).name);
	return g_string_free(out, FALSE);
}

GArray *
activation_fds(Activation *activation, const char *name, GError **ret_error)
{
	g_autoptr(GArray) fds = g_array_new(FALSE, FALSE, sizeof(int));
	for (guint i = 0; i < activation->sockets->len; i++) {
		ActivationSocket *socket = &g_array_index(activation->sockets, ActivationSocket, i);
		if (socket->fd < 0 || strcmp(socket->name, name) != 0)
			continue;
		(void)g_array_append_val(fds, socket->fd);
		socket->fd = -1;
	}
	if (fds->len == 0 && activation->sockets->len > 0) {
		g_autofree char *names = names_of(activation);
		error_set(ret_error, K_ERROR_NOT_FOUND,
			  "socket activation hands over no socket named '%s', only %s "
			  "(FileDescriptorName= of the .socket unit)",
			  name, names);
		return NULL;
	}
	return g_steal_pointer(&fds);
}

bool
activation_all_taken(const Activation *activation, GError **ret_error)
{
	for (guint i = 0; i < activation->sockets->len; i++) {
		const ActivationSocket *socket = &g_array_index(activation->sockets,
								ActivationSocket, i);
		if (socket->fd >= 0)
			return error_set(ret_error, K_ERROR_NOT_FOUND,
					 "socket activation hands over a socket named '%s', which "
					 "no SMTP service asks for by its key 'socket'",
					 socket->name);
	}
	return true;
}

/* ---- what we tell ---- */

bool
activation_notify(const char *state, GError **ret_error)
{
	const char *path = g_getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	if (path == NULL || path[0] == '\0')
		return true;
	size_t len = strlen(path);
	if ((path[0] != '/' && path[0] != '@') || len >= sizeof(to.sun_path))
		return error_set(ret_error, K_ERROR_IO, "NOTIFY_SOCKET: '%s' is no address", path);
	memcpy(to.sun_path, path, len);
	if (path[0] == '@')
		to.sun_path[0] = '\0'; /* Linux's abstract names have no end but their length */
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	socklen_t to_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	bool sent = fd >= 0 && sendto(fd, state, strlen(state), MSG_NOSIGNAL,
				      (const struct sockaddr *)&to, to_len) >= 0;
	int errnum = errno;
	if (fd >= 0)
		(void)close(fd);
	return sent || error_set_errno(ret_error, K_ERROR_IO, errnum, "NOTIFY_SOCKET %s", path);
}
