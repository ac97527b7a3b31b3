/* SPDX-License-Identifier: Apache-2.0 */
#include "service/rest_front.h"

#include <string.h>

/* A request that counts until it is answered. */
typedef struct Open {
	RestLimits *limits;
	char *client;
} Open;

static void
on_end(void *arg, int status)
{
	(void)status;
	Open *open = arg;
	rest_limits_leave(open->limits, open->client);
	g_free(open->client);
	g_free(open);
}

static void
answer_401(HttpRequest *request)
{
	static const char text[] = "authentication required";
	const HttpHeader header = {"www-authenticate", "Bearer realm=\"koukan\""};
	http_respond(request, 401, &header, 1, "text/plain; charset=utf-8", g_strdup(text),
		     strlen(text));
}

static void
answer_429(HttpRequest *request, RestLimit limit, unsigned wait)
{
	char seconds[16];
	g_snprintf(seconds, sizeof(seconds), "%u", wait);
	const HttpHeader header = {"retry-after", seconds};
	const char *text = limit == REST_LIMIT_UPLOADS ? "too many uploads at a time"
						       : "too many requests";
	http_respond(request, 429, &header, 1, "text/plain; charset=utf-8", g_strdup(text),
		     strlen(text));
}

/* Within the limits of who asks; else the request has been answered. */
static bool
admit(const RestFront *front, HttpRequest *request, const RestPrincipal *who)
{
	if (front->limits == NULL)
		return true;
	g_autofree char *client = who != NULL ? g_strdup(who->name)
					      : rest_limits_client(http_peer(request)->address);
	bool upload = strcmp(http_method(request), "GET") != 0;
	unsigned wait = 1;
	RestLimit limit = rest_limits_admit(front->limits, client, upload, clock_mono(), &wait);
	if (limit != REST_LIMIT_NONE) {
		answer_429(request, limit, wait);
		return false;
	}
	if (upload) {
		Open *open = g_new0(Open, 1);
		*open = (Open){front->limits, g_steal_pointer(&client)};
		http_on_end(request, on_end, open);
	}
	return true;
}

void
rest_front_handle(void *arg, HttpRequest *request)
{
	const RestFront *front = arg;
	if (admin_handle_probe(&front->admin, request))
		return;
	const RestPrincipal *who = NULL;
	if (front->access != NULL)
		who = access_find(front->access, request);
	if (!admit(front, request, who))
		return;
	if (front->access != NULL && who == NULL) {
		answer_401(request);
		return;
	}
	bool may_admin = who != NULL ? who->admin : front->admin.open;
	if (!admin_handle(&front->admin, request, may_admin))
		rest_api_handle_as(front->api, request, who);
}
