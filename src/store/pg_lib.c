/* SPDX-License-Identifier: Apache-2.0 */
#include "store/pg_lib.h"

#include <dlfcn.h>

#include "base/error.h"

#define LIBRARY "libpq.so.5"

PgLib pg_lib;

/* Here the names are members, not calls. */
#undef PQbackendPID
#undef PQclear
#undef PQcmdStatus
#undef PQconnectPoll
#undef PQconnectStartParams
#undef PQconninfoFree
#undef PQconninfoParse
#undef PQconsumeInput
#undef PQenterPipelineMode
#undef PQerrorMessage
#undef PQexecParams
#undef PQfinish
#undef PQflush
#undef PQfreemem
#undef PQgetResult
#undef PQgetisnull
#undef PQgetlength
#undef PQgetvalue
#undef PQisBusy
#undef PQnotifies
#undef PQntuples
#undef PQpipelineSync
#undef PQresultErrorField
#undef PQresultStatus
#undef PQsendFlushRequest
#undef PQsendPrepare
#undef PQsendQuery
#undef PQsendQueryPrepared
#undef PQsetNoticeReceiver
#undef PQsetnonblocking
#undef PQsocket
#undef PQstatus
#undef PQtransactionStatus

static const struct {
	const char *name;
	size_t offset;
} functions[] = {
	{"PQbackendPID", offsetof(PgLib, PQbackendPID)},
	{"PQclear", offsetof(PgLib, PQclear)},
	{"PQcmdStatus", offsetof(PgLib, PQcmdStatus)},
	{"PQconnectPoll", offsetof(PgLib, PQconnectPoll)},
	{"PQconnectStartParams", offsetof(PgLib, PQconnectStartParams)},
	{"PQconninfoFree", offsetof(PgLib, PQconninfoFree)},
	{"PQconninfoParse", offsetof(PgLib, PQconninfoParse)},
	{"PQconsumeInput", offsetof(PgLib, PQconsumeInput)},
	{"PQenterPipelineMode", offsetof(PgLib, PQenterPipelineMode)},
	{"PQerrorMessage", offsetof(PgLib, PQerrorMessage)},
	{"PQexecParams", offsetof(PgLib, PQexecParams)},
	{"PQfinish", offsetof(PgLib, PQfinish)},
	{"PQflush", offsetof(PgLib, PQflush)},
	{"PQfreemem", offsetof(PgLib, PQfreemem)},
	{"PQgetResult", offsetof(PgLib, PQgetResult)},
	{"PQgetisnull", offsetof(PgLib, PQgetisnull)},
	{"PQgetlength", offsetof(PgLib, PQgetlength)},
	{"PQgetvalue", offsetof(PgLib, PQgetvalue)},
	{"PQisBusy", offsetof(PgLib, PQisBusy)},
	{"PQnotifies", offsetof(PgLib, PQnotifies)},
	{"PQntuples", offsetof(PgLib, PQntuples)},
	{"PQpipelineSync", offsetof(PgLib, PQpipelineSync)},
	{"PQresultErrorField", offsetof(PgLib, PQresultErrorField)},
	{"PQresultStatus", offsetof(PgLib, PQresultStatus)},
	{"PQsendFlushRequest", offsetof(PgLib, PQsendFlushRequest)},
	{"PQsendPrepare", offsetof(PgLib, PQsendPrepare)},
	{"PQsendQuery", offsetof(PgLib, PQsendQuery)},
	{"PQsendQueryPrepared", offsetof(PgLib, PQsendQueryPrepared)},
	{"PQsetNoticeReceiver", offsetof(PgLib, PQsetNoticeReceiver)},
	{"PQsetnonblocking", offsetof(PgLib, PQsetnonblocking)},
	{"PQsocket", offsetof(PgLib, PQsocket)},
	{"PQstatus", offsetof(PgLib, PQstatus)},
	{"PQtransactionStatus", offsetof(PgLib, PQtransactionStatus)},
};

bool
pg_lib_load(GError **ret_error)
{
	static bool loaded;
	if (loaded)
		return true;
	void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	if (library == NULL)
		return error_set(ret_error, K_ERROR_STORE,
				 "PostgreSQL needs the library " LIBRARY " (Debian: libpq5): %s",
				 dlerror());
	for (size_t i = 0; i < G_N_ELEMENTS(functions); i++) {
		void *function = dlsym(library, functions[i].name);
		if (function == NULL) {
			error_set(ret_error, K_ERROR_STORE, LIBRARY " has no %s",
				  functions[i].name);
			dlclose(library);
			return false;
		}
		*(void **)(void *)((char *)&pg_lib + functions[i].offset) = function;
	}
	loaded = true;
	return true;
}
