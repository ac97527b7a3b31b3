/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <stdarg.h>
#include <string.h>

static const char *const names[] = {
	"config", "io", "full", "store", "dns", "tls", "input", "conflict", "not_found",
};
_Static_assert(G_N_ELEMENTS(names) == K_ERROR_CODES, "one name a code");

GQuark
error_quark(void)
{
	return g_quark_from_static_string("koukan-error");
}

const char *
error_code_name(KErrorCode code)
{
	return (unsigned)code < K_ERROR_CODES ? names[code] : "unknown";
}

bool
error_set(GError **ret_error, KErrorCode code, const char *format, ...)
{
	if (ret_error == NULL)
		return false;
	va_list args;
	va_start(args, format);
	g_propagate_error(ret_error, g_error_new_valist(K_ERROR, (gint)code, format, args));
	va_end(args);
	return false;
}

bool
error_set_errno(GError **ret_error, KErrorCode code, int errnum, const char *format, ...)
{
	if (ret_error == NULL)
		return false;
	va_list args;
	va_start(args, format);
	g_autofree char *what = g_strdup_vprintf(format, args);
	va_end(args);
	char text[128];
	/* strerror_r and not g_strerror: the latter takes a lock of GLib's. */
	g_set_error(ret_error, K_ERROR, (gint)code, "%s: %s", what,
		    strerror_r(errnum, text, sizeof(text)));
	return false;
}
