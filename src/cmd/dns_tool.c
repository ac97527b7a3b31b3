/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/dns_tool.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/error.h"

struct DnsTool {
	const DnsToolWork *work;
	void *arg;
	Worker *worker;
	Dns *dns;
	int told; /* eventfd: the work is done, or stopped */
};

static void
on_start(void *arg)
{
	DnsTool *tool = arg;
	tool->work->start(tool, tool->worker, tool->dns, tool->arg);
}

void
dns_tool_done(DnsTool *tool)
{
	k_assert(eventfd_write(tool->told, 1) == 0);
}

static void
on_stop(void *arg)
{
	DnsTool *tool = arg;
	tool->work->stop(tool->arg);
	dns_tool_done(tool);
}

static void
wait_for(const DnsTool *tool)
{
	eventfd_t value;
	while (eventfd_read(tool->told, &value) != 0)
		k_assert(errno == EINTR);
}

static bool
run(DnsTool *tool, Workers *workers, const DnsConfig *config, DnsSourceFn *source, void *source_arg,
    GError **ret_error)
{
	tool->worker = workers_get(workers, 0);
	tool->dns = source != NULL ? dns_new_source(tool->worker, source, source_arg)
				   : dns_new(tool->worker, config, ret_error);
	if (tool->dns == NULL || !workers_start(workers, ret_error))
		return false;
	worker_post(tool->worker, on_start, tool);
	wait_for(tool);
	worker_post(tool->worker, on_stop, tool);
	wait_for(tool);
	workers_stop(workers);
	return true;
}

bool
dns_tool_run_as(const DnsConfig *config, DnsSourceFn *source, void *source_arg,
		const DnsToolWork *work, void *arg, GError **ret_error)
{
	DnsTool tool = {.work = work, .arg = arg};
	tool.told = eventfd(0, EFD_CLOEXEC);
	if (tool.told < 0)
		return error_set_errno(ret_error, K_ERROR_IO, errno, "eventfd");
	Workers *workers = workers_new(1, ret_error);
	bool ok = workers != NULL && run(&tool, workers, config, source, source_arg, ret_error);
	dns_free(tool.dns);
	if (workers != NULL)
		workers_free(workers);
	(void)close(tool.told);
	return ok;
}

bool
dns_tool_run(const char *server, const DnsToolWork *work, void *arg, GError **ret_error)
{
	g_autoptr(GPtrArray) forward = g_ptr_array_new();
	if (server != NULL)
		g_ptr_array_add(forward, (gpointer)server);
	const DnsConfig config = {.forward = forward, .use_system = true};
	return dns_tool_run_as(&config, NULL, NULL, work, arg, ret_error);
}
